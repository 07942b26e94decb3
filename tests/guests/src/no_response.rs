//! Does not answer: `/` returns, `/computes` goes on computing for ever, `/drops` does so too after it has dropped its means to answer.

use std::hint::black_box;

use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Worker;

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let kept = Some(out).filter(|_| path != "/drops");
        let turns = if path == "/" { 0 } else { u64::MAX };
        for turn in 0..turns {
            black_box(turn);
        }
        drop(kept);
    }
}

wasip2::http::proxy::export!(Worker);
