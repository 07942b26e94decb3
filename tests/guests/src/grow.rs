//! Uses memory: `/fill` allocates until refused and says how much it got, `/pages` the same by `memory.grow` alone, `/abort` until the
//! refusal aborts it, `/hold/<n>` writes to n MiB and answers.

use tovuk::{Request, Response, Result, Router};

const MIB: usize = 1 << 20;

fn fill() -> usize {
    let mut held: Vec<Vec<u8>> = Vec::with_capacity(4096);
    loop {
        let mut piece = Vec::new();
        // Stopping before the list itself must grow keeps its allocation out of the experiment.
        if held.len() == held.capacity() || piece.try_reserve_exact(MIB).is_err() {
            return held.len();
        }
        held.push(piece);
    }
}

#[inline(never)]
fn the_function_that_aborts() -> usize {
    let mut held = Vec::new();
    loop {
        held.push(std::hint::black_box(vec![1_u8; MIB]));
        if held.len() > 8192 {
            return held.len();
        }
    }
}

fn pages() -> usize {
    let mut grown = 0;
    while core::arch::wasm32::memory_grow(0, 1) != usize::MAX {
        grown += 1;
    }
    grown
}

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    Router::new()
        .get("/fill", |_| Ok(Response::text(fill().to_string())))
        .get("/pages", |_| Ok(Response::text(pages().to_string())))
        .get("/abort", |_| Ok(Response::text(the_function_that_aborts().to_string())))
        .get("/hold/{mib}", |req| {
            let held = vec![1_u8; req.param::<usize>("mib")? * MIB];
            Ok(Response::text(std::hint::black_box(&held).len().to_string()))
        })
        .run(req)
}
