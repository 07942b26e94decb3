//! A tree of binding calls: `GET /<width>/<depth>` calls the binding `SELF` `width` times at once with `/<width>/<depth-1>`; depth 0 calls
//! nobody. Each counts itself and what its calls counted.

use serde::{Deserialize, Serialize};
use tovuk::{CallError, Env, Request, Response, Result, Router};

#[derive(Default, Serialize, Deserialize)]
struct Counts {
    /// Invocations that ran, this one included.
    ok: u32,
    /// Calls that the chain limit refused.
    refused: u32,
    /// Calls that brought anything else than 200.
    failed: u32,
}

#[tovuk::handler]
fn handle(req: Request, env: Env) -> Result<Response> {
    Router::new().get("/{width}/{depth}", |req| count(&req, env)).run(req)
}

fn count(req: &Request, env: Env) -> Result<Response> {
    let (width, depth): (u32, u32) = (req.param("width")?, req.param("depth")?);
    let mut counts = Counts { ok: 1, ..Counts::default() };
    if depth > 0 {
        let path = format!("/{width}/{}", depth - 1);
        for answer in env.service("SELF").fetch_all((0..width).map(|_| Request::get(path.as_str()))) {
            match answer {
                Ok(answer) if answer.status() == 200 => {
                    let below: Counts = answer.body_json()?;
                    counts.ok += below.ok;
                    counts.refused += below.refused;
                    counts.failed += below.failed;
                }
                Err(CallError::ChainLimit(_)) => counts.refused += 1,
                Ok(_) | Err(_) => counts.failed += 1,
            }
        }
    }
    Response::json(&counts)
}
