//! Answers what it received, through the lean world.

use serde_json::json;
use tovuk::{Request, Response, Result};

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    let headers: Vec<_> = req.headers().iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
    Response::json(&json!({
        "method": req.method(), "uri": req.uri(), "headers": headers,
        "body_bytes": req.body().len(), "body": String::from_utf8_lossy(req.body()),
    }))
}
