//! Streams a large response: `GET /<n>` n MiB of `x` in pieces of 64 KiB, `GET /` without end.

use tovuk_guests::{head, number, write_all};
use wasip2::http::types::{IncomingRequest, OutgoingBody, ResponseOutparam};

struct Worker;

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let pieces = number(&request.path_with_query().unwrap_or_default(), u64::MAX).saturating_mul(16);
        let body = head(out, 200, "application/octet-stream");
        let stream = body.write().unwrap();
        let piece = vec![b'x'; 65536];
        for sent in 0..pieces {
            if let Err(error) = write_all(&stream, &piece) {
                return eprintln!("stopped after {sent} pieces: {error:?}");
            }
        }
        drop(stream);
        OutgoingBody::finish(body, None).unwrap();
    }
}

wasip2::http::proxy::export!(Worker);
