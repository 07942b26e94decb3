//! `GET /<ms>` waits that long on the monotonic clock, then answers `slept <ms>`.

use tovuk_guests::{number, respond};
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Worker;

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let ms = number(&request.path_with_query().unwrap_or_default(), 0);
        subscribe_duration(ms * 1_000_000).block();
        respond(out, 200, "text/plain", format!("slept {ms}").as_bytes());
    }
}

wasip2::http::proxy::export!(Worker);
