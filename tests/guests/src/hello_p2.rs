//! `hello` through `wasi:http`, with no more calls of the host than it takes.

use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Worker;

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(_: IncomingRequest, out: ResponseOutparam) {
        let fields = Fields::new();
        fields.append("content-type", b"text/plain").unwrap();
        fields.append("content-length", b"5").unwrap();
        let response = OutgoingResponse::new(fields);
        let body = response.body().unwrap();
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().unwrap();
        stream.blocking_write_and_flush(b"hello").unwrap();
        drop(stream);
        OutgoingBody::finish(body, None).unwrap();
    }
}

wasip2::http::proxy::export!(Worker);
