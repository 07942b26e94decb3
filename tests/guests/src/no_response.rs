//! Returns without having answered.

use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Worker;

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(_: IncomingRequest, out: ResponseOutparam) {
        drop(out);
    }
}

wasip2::http::proxy::export!(Worker);
