//! `hello` through the lean world, the way a worker's author would write it: the least that an invocation can cost with the SDK.

use tovuk::{Request, Response};

#[tovuk::handler]
fn handle(_: Request) -> Response {
    Response::text("hello")
}
