//! Bodies that do not end as they should: `/` writes `partial` and drops the body unfinished, `/head` drops it before writing, `/short`
//! announces ten bytes and finishes after five, `/long` announces five and writes ten, `/trap` traps after `partial`.

use tovuk_guests::{segments, write_all};
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Worker;

fn start(out: ResponseOutparam, content_length: Option<&str>) -> OutgoingBody {
    let fields = Fields::new();
    if let Some(length) = content_length {
        fields.append("content-length", length.as_bytes()).unwrap();
    }
    let response = OutgoingResponse::new(fields);
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    body
}

/// Writes, and says on the log what the host said to it.
fn write(body: &OutgoingBody, bytes: &[u8]) {
    let stream = body.write().unwrap();
    if let Err(error) = write_all(&stream, bytes) {
        eprintln!("write: {error:?}");
    }
}

fn finish(body: OutgoingBody) {
    if let Err(error) = OutgoingBody::finish(body, None) {
        eprintln!("finish: {error:?}");
    }
}

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match segments(&request.path_with_query().unwrap_or_default())[..] {
            ["head"] => drop(start(out, None)),
            ["short"] => {
                let body = start(out, Some("10"));
                write(&body, b"short");
                finish(body);
            }
            ["long"] => {
                let body = start(out, Some("5"));
                write(&body, b"too long!!");
                finish(body);
            }
            ["trap"] => {
                let body = start(out, None);
                write(&body, b"partial");
                core::arch::wasm32::unreachable();
            }
            _ => {
                let body = start(out, None);
                write(&body, b"partial");
            }
        }
    }
}

wasip2::http::proxy::export!(Worker);
