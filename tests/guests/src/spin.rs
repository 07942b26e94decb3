//! Uses CPU: `/` for ever in its own code, `/host` for ever in calls of a cheap host function, `/random` of an expensive one, `/turns/<n>` for n million turns of a loop.

use std::hint::black_box;
use std::time::Instant;

use tovuk::{Request, Response, Result, Router};

#[inline(never)]
fn the_loop_that_spins(turns: u64) -> u64 {
    let mut sum = 0_u64;
    for turn in 0..turns {
        sum = black_box(sum.wrapping_mul(31).wrapping_add(turn));
    }
    sum
}

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    Router::new()
        .any("/host", |_| {
            loop {
                black_box(Instant::now());
            }
        })
        .any("/random", |_| {
            loop {
                black_box(wasip2::random::random::get_random_bytes(64 << 10));
            }
        })
        .any("/turns/{millions}", |req| Ok(Response::text(the_loop_that_spins(req.param::<u64>("millions")? * 1_000_000).to_string())))
        .any("/", |_| {
            loop {
                the_loop_that_spins(u64::MAX);
            }
        })
        .run(req)
}
