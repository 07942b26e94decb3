//! Traps: `/` by an `unreachable` instruction in a function with a name to look for, `/panic` by a panic.

use tovuk::{Request, Response};

#[inline(never)]
fn the_function_that_traps() -> Response {
    core::arch::wasm32::unreachable()
}

#[inline(never)]
fn the_function_that_panics() -> Response {
    panic!("this worker panics on purpose")
}

#[tovuk::handler]
fn handle(req: Request) -> Response {
    match req.path() {
        "/ok" => Response::text("ok"),
        "/panic" => the_function_that_panics(),
        _ => the_function_that_traps(),
    }
}
