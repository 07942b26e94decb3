//! Recursion without end: `/` on the engine's stack, `/frames` with a kibibyte of the worker's own stack in each call.

use std::hint::black_box;

use tovuk::{Request, Response};

// Neither is a loop in disguise: what each does after the call depends on its argument and cannot be done before.
#[inline(never)]
fn the_function_that_recurses(depth: u64) -> u64 {
    if depth == u64::MAX { 0 } else { the_function_that_recurses(depth + 1).rotate_left(7) ^ depth }
}

#[inline(never)]
fn the_function_with_frames(depth: u64) -> u64 {
    let frame = black_box([depth; 128]);
    if depth == u64::MAX { 0 } else { the_function_with_frames(depth + 1) ^ black_box(frame)[(depth % 128) as usize] }
}

#[tovuk::handler]
fn handle(req: Request) -> Response {
    let start = req.headers().len() as u64;
    let sum = if req.path() == "/frames" { the_function_with_frames(start) } else { the_function_that_recurses(start) };
    Response::text(sum.to_string())
}
