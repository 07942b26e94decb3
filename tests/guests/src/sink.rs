//! Takes a request body: `/` reads it in pieces and answers `{"bytes", "fnv1a64"}`, `/echo` streams it back as it comes, `/ignore` answers
//! without reading it.

use serde_json::json;
use tovuk_guests::{Checksum, Pump, for_each_piece, head, respond, respond_json, segments};
use wasip2::http::types::{IncomingRequest, OutgoingBody, ResponseOutparam};

struct Worker;

fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let from = request.consume().unwrap();
    let to = head(out, 200, "application/octet-stream");
    let pump = Pump::new(from.stream().unwrap(), to.write().unwrap());
    let copied = pump.run();
    drop(pump);
    match copied {
        Ok(()) => OutgoingBody::finish(to, None).unwrap(),
        Err(why) => eprintln!("echo: {why}"),
    }
}

fn count(request: &IncomingRequest, out: ResponseOutparam) {
    let body = request.consume().unwrap();
    let stream = body.stream().unwrap();
    let (mut bytes, mut checksum) = (0_u64, Checksum::default());
    let read = for_each_piece(&stream, |piece| {
        bytes += piece.len() as u64;
        checksum.update(piece);
    });
    match read {
        Ok(()) => respond_json(out, 200, &json!({ "bytes": bytes, "fnv1a64": checksum.hex() })),
        Err(error) => respond_json(out, 400, &json!({ "bytes": bytes, "error": error })),
    }
}

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match segments(&request.path_with_query().unwrap_or_default())[..] {
            ["echo"] => echo(&request, out),
            ["ignore"] => respond(out, 200, "text/plain", b"ignored"),
            _ => count(&request, out),
        }
    }
}

wasip2::http::proxy::export!(Worker);
