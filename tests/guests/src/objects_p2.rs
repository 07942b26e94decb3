//! Streams objects: `PUT /<path>` stores the body as it comes and answers `{"bytes"}`, `GET /<path>` streams it back.

use std::io::Write;

use serde_json::json;
use tovuk_guests::{for_each_piece, head, respond, respond_json, write_all};
use wasip2::http::types::{IncomingRequest, Method, OutgoingBody, ResponseOutparam};

struct Worker;

fn store(request: &IncomingRequest, path: &str) -> Result<u64, String> {
    let mut writer = tovuk::objects().writer(path).map_err(|error| error.to_string())?;
    let body = request.consume().map_err(|()| "no body".to_owned())?;
    let stream = body.stream().map_err(|()| "no stream".to_owned())?;
    let mut failed = None;
    for_each_piece(&stream, |piece| failed = failed.take().or(writer.write_all(piece).err()))?;
    if let Some(error) = failed {
        return Err(error.to_string());
    }
    Ok(writer.finish().map_err(|error| error.to_string())?.size)
}

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default().trim_start_matches('/').to_owned();
        if matches!(request.method(), Method::Put) {
            return match store(&request, &path) {
                Ok(bytes) => respond_json(out, 200, &json!({ "bytes": bytes })),
                Err(error) => respond(out, 422, "text/plain", error.as_bytes()),
            };
        }
        let mut reader = match tovuk::objects().get(&path) {
            Ok(Some(reader)) => reader,
            Ok(None) => return respond(out, 404, "text/plain", b"missing"),
            Err(error) => return respond(out, 422, "text/plain", error.to_string().as_bytes()),
        };
        let body = head(out, 200, "application/octet-stream");
        let stream = body.write().unwrap();
        while let Some(piece) = reader.next_piece().unwrap() {
            if write_all(&stream, &piece).is_err() {
                return;
            }
        }
        drop(stream);
        OutgoingBody::finish(body, None).unwrap();
    }
}

wasip2::http::proxy::export!(Worker);
