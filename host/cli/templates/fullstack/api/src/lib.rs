//! The worker. It sees every path under `/api` and is asked for nothing else: the files in `web` are served without it.

use serde::Serialize;
use tovuk::{Request, Response, Result, Router};

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    Router::new()
        .get("/api/healthz", |_| Ok(Response::text("ok\n")))
        .get("/api/hello", hello)
        .run(req)
}

#[derive(Serialize)]
struct Hello {
    message: String,
}

fn hello(req: Request) -> Result<Response> {
    let name = req
        .query_param("name")
        .unwrap_or_else(|| "world".to_owned());
    Response::json(&Hello {
        message: format!("Hello, {name}!"),
    })
}

#[cfg(test)]
mod tests {
    use tovuk::testing::TestEnv;

    use super::*;

    #[test]
    fn greets_by_name() {
        let response = TestEnv::new().run(handle, Request::get("/api/hello?name=ada"));
        assert_eq!(response.body(), br#"{"message":"Hello, ada!"}"#);
    }
}
