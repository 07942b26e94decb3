//! A private service that calls nobody: what an order costs.

use serde::Serialize;
use tovuk::{Error, Request, Response, Result, Router};

#[derive(Serialize)]
struct Bill {
    order: u64,
    customer: String,
    total_cents: u64,
    status: &'static str,
}

#[tovuk::handler]
pub fn handle(req: Request) -> Result<Response> {
    Router::new().get("/customers/{customer}/orders/{order}", bill).run(req)
}

fn bill(req: Request) -> Result<Response> {
    let order: u64 = req.param("order")?;
    // Stands for a lookup in a database.
    if order > 1000 {
        return Err(Error::not_found(format!("there is no order {order}")));
    }
    let status = if order.is_multiple_of(2) { "paid" } else { "open" };
    Response::json(&Bill { order, customer: req.param("customer")?, total_cents: 199 * order, status })
}

#[cfg(test)]
mod tests {
    use tovuk::testing::TestEnv;

    use super::*;

    #[test]
    fn orders_up_to_a_thousand_have_a_bill() {
        let env = TestEnv::new();
        assert_eq!(
            env.run(handle, Request::get("/customers/ada/orders/7")).body(),
            br#"{"order":7,"customer":"ada","total_cents":1393,"status":"open"}"#
        );
        assert_eq!(env.run(handle, Request::get("/customers/ada/orders/1001")).status(), 404);
    }
}
