//! A chain of binding calls by name: `GET /<n>` calls the binding `NEXT` with `/<n-1>` until 0, which answers `hello`.

use serde_json::json;
use tovuk::{CallError, Env, Request, Response, Result};

#[tovuk::handler]
fn handle(req: Request, env: Env) -> Result<Response> {
    let left: u32 = req.path().trim_start_matches('/').parse().unwrap_or(0);
    if left == 0 {
        return Ok(Response::text("hello"));
    }
    let query = req.query_string();
    let separator = if query.is_empty() { "" } else { "?" };
    match env.service("NEXT").get(format!("/{}{separator}{query}", left - 1)) {
        Ok(answer) => Ok(Response::bytes(answer.body()).with_status(answer.status()).with_header("content-type", "text/plain")),
        Err(error) if req.query_param("unhandled").is_some() => Err(error.into()),
        Err(error) => {
            let hops = if let CallError::ChainLimit(hops) = &error { hops.as_slice() } else { &[] };
            Ok(Response::json(&json!({ "error": error.code(), "message": error.to_string(), "hops": hops }))?.with_status(502))
        }
    }
}
