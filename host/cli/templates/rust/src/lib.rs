//! The worker: each request goes to the first route that matches it.

use serde::{Deserialize, Serialize};
use tovuk::{Request, Response, Result, Router};

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    Router::new()
        .get("/", |_| Ok(Response::text("It works. Try /hello/you\n")))
        .get("/healthz", |_| Ok(Response::text("ok\n")))
        .get("/hello/{name}", hello)
        .post("/sum", sum)
        .run(req)
}

fn hello(req: Request) -> Result<Response> {
    let name: String = req.param("name")?;
    tovuk::log::info!("greeting {name}");
    Ok(Response::text(format!("Hello, {name}!\n")))
}

#[derive(Deserialize)]
struct Numbers {
    numbers: Vec<f64>,
}

#[derive(Serialize)]
struct Sum {
    sum: f64,
}

fn sum(req: Request) -> Result<Response> {
    let Numbers { numbers } = req.json()?;
    Response::json(&Sum {
        sum: numbers.iter().sum(),
    })
}

#[cfg(test)]
mod tests {
    use tovuk::testing::TestEnv;

    use super::*;

    #[test]
    fn greets_by_name() {
        let response = TestEnv::new().run(handle, Request::get("/hello/ada"));
        assert_eq!(response.body(), b"Hello, ada!\n");
    }

    #[test]
    fn adds_numbers_and_refuses_anything_else() {
        let post = |body: &str| TestEnv::new().run(handle, Request::post("/sum").with_body(body));
        assert_eq!(post(r#"{"numbers": [1, 2.5]}"#).body(), br#"{"sum":3.5}"#);
        assert_eq!(post("no").status(), 400);
    }
}
