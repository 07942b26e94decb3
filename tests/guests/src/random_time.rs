//! Asks for randomness and time: `/` answers `{"random", "insecure", "wall_ms", "monotonic_ns", "resolution_ns"}`, `/bytes/<n>` asks for n
//! random bytes at once and answers how many came.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use tovuk::{Request, Response, Result, Router};
use wasip2::clocks::monotonic_clock;
use wasip2::random::{insecure, random};

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    Router::new()
        .get("/", |_| {
            Response::json(&json!({
                "random": format!("{:016x}", random::get_random_u64()),
                "insecure": format!("{:016x}", insecure::get_insecure_random_u64()),
                "wall_ms": SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64,
                "monotonic_ns": monotonic_clock::now(),
                "resolution_ns": monotonic_clock::resolution(),
            }))
        })
        .get("/bytes/{n}", |req| Ok(Response::text(random::get_random_bytes(req.param("n")?).len().to_string())))
        .run(req)
}
