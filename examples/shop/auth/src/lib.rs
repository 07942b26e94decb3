//! A private service: knows one token, and asks `billing` by URL what the order is about.

use serde::Serialize;
use tovuk::{Env, Error, Request, Response, Result, Router};

#[derive(Serialize)]
struct Checked {
    user: &'static str,
    billing: serde_json::Value,
}

#[tovuk::handler]
pub fn handle(req: Request, env: Env) -> Result<Response> {
    Router::new().get("/check", |req| check(&req, env)).run(req)
}

fn check(req: &Request, env: Env) -> Result<Response> {
    let user = match req.bearer_token() {
        Some("demo") => "ada",
        _ => return Err(Error::unauthorized("send the header authorization: Bearer demo")),
    };
    let order = req.query_param("order").ok_or_else(|| Error::bad_request("add ?order=<number>"))?;
    let billing = env.fetch(Request::get(format!("{}/customers/{user}/orders/{order}", env.require("BILLING_URL")?)))?;
    if !billing.is_success() {
        return Ok(billing);
    }
    Response::json(&Checked { user, billing: billing.body_json()? })
}

#[cfg(test)]
mod tests {
    use tovuk::testing::TestEnv;

    use super::*;

    #[test]
    fn the_token_decides_before_billing_is_asked() {
        let env = TestEnv::new().var("BILLING_URL", "http://billing").url("http://billing", |_| Ok(Response::text("{}")));
        assert_eq!(env.run(handle, Request::get("/check?order=1").with_bearer_token("wrong")).status(), 401);
        assert!(env.calls().is_empty());
        assert_eq!(env.run(handle, Request::get("/check?order=1").with_bearer_token("demo")).body(), br#"{"user":"ada","billing":{}}"#);
        assert_eq!(env.calls()[0].request.path(), "/customers/ada/orders/1");
    }
}
