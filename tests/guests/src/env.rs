//! Answers all environment variables as one JSON object.

use std::collections::BTreeMap;

use tovuk::{Request, Response, Result};

#[tovuk::handler]
fn handle(_: Request) -> Result<Response> {
    Response::json(&std::env::vars().collect::<BTreeMap<_, _>>())
}
