//! Does not answer: `/` returns, `/computes` goes on computing for ever, `/drops` does so too after it has dropped its means to answer.

use std::hint::black_box;

use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Worker;

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let kept = Some(out).filter(|_| path != "/drops");
        let mut sum = 0_u64;
        while path != "/" {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        drop(kept);
    }
}

wasip2::http::proxy::export!(Worker);
