//! Answers a large body at once: `GET /<n>` n MiB of `x` (default 1).

use tovuk::{Request, Response};

#[tovuk::handler]
fn handle(req: Request) -> Response {
    let mib: usize = req.path().trim_start_matches('/').parse().unwrap_or(1);
    Response::bytes(vec![b'x'; mib << 20])
}
