//! Ends itself instead of answering: `GET /<code>` calls `std::process::exit(code)` (default 0).

use tovuk::{Request, Response};

#[tovuk::handler]
fn handle(req: Request) -> Response {
    println!("exiting");
    std::process::exit(req.path().trim_start_matches('/').parse().unwrap_or(0))
}
