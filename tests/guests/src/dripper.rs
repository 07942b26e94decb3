//! `GET /<ms>` sends its head at once and then `tick <i>` every so many ms, without end or `?count=<n>` times. `?compute=<n>` computes for n million turns of
//! a loop before the first.

use std::hint::black_box;

use tovuk_guests::{head, number, query, write_all};
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::http::types::{IncomingRequest, OutgoingBody, ResponseOutparam};

struct Worker;

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let ms = number(&path, 100);
        let count = query(&path, "count").and_then(|count| count.parse().ok()).unwrap_or(u64::MAX);
        let body = head(out, 200, "text/plain");
        let stream = body.write().unwrap();
        let millions: u64 = query(&path, "compute").and_then(|millions| millions.parse().ok()).unwrap_or(0);
        (0..millions * 1_000_000).for_each(|turn| _ = black_box(turn));
        for tick in 1..=count {
            subscribe_duration(ms * 1_000_000).block();
            if let Err(error) = write_all(&stream, format!("tick {tick}\n").as_bytes()) {
                return eprintln!("stopped at tick {tick}: {error:?}");
            }
        }
        drop(stream);
        OutgoingBody::finish(body, None).unwrap();
    }
}

wasip2::http::proxy::export!(Worker);
