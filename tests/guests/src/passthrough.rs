//! Streams the request to `<NEXT_URL><path>` (default `http://next.tovuk.internal`) and the response back, both at the same time, each a
//! piece at a time.

use serde_json::json;
use tovuk_guests::{Pump, Step, code_name, request_to, respond_json};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingRequest, IncomingResponse, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::poll::{Pollable, poll};

struct Worker;

/// Streams are children of the body that they belong to and must be dropped before it, hence the order of the fields.
struct Upload {
    pump: Pump,
    to: OutgoingBody,
    _from: IncomingBody,
}

struct Download {
    pump: Pump,
    to: OutgoingBody,
    _from: IncomingBody,
    _response: IncomingResponse,
}

fn start(request: &IncomingRequest) -> Result<(FutureIncomingResponse, Upload), ErrorCode> {
    let base = std::env::var("NEXT_URL").unwrap_or_else(|_| "http://next.tovuk.internal".to_owned());
    let url = format!("{}{}", base.trim_end_matches('/'), request.path_with_query().unwrap_or_default());
    let fields = Fields::new();
    for value in request.headers().get("content-type") {
        fields.append("content-type", &value).map_err(|_| ErrorCode::InternalError(None))?;
    }
    let call = request_to(&request.method(), &url, fields)?;
    let to = call.body().map_err(|()| ErrorCode::InternalError(None))?;
    let output = to.write().map_err(|()| ErrorCode::InternalError(None))?;
    let from = request.consume().map_err(|()| ErrorCode::InternalError(None))?;
    let input = from.stream().map_err(|()| ErrorCode::InternalError(None))?;
    let future = outgoing_handler::handle(call, None)?;
    Ok((future, Upload { pump: Pump::new(input, output), to, _from: from }))
}

fn answer(response: IncomingResponse, out: ResponseOutparam) -> Download {
    let fields = Fields::new();
    for value in response.headers().get("content-type") {
        fields.append("content-type", &value).unwrap();
    }
    let head = OutgoingResponse::new(fields);
    head.set_status_code(response.status()).unwrap();
    let to = head.body().unwrap();
    let output = to.write().unwrap();
    ResponseOutparam::set(out, Ok(head));
    let from = response.consume().unwrap();
    let input = from.stream().unwrap();
    Download { pump: Pump::new(input, output), to, _from: from, _response: response }
}

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let (future, upload) = match start(&request) {
            Ok(started) => started,
            Err(code) => return respond_json(out, 502, &json!({ "error": code_name(&code), "message": format!("{code:?}"), "hops": [] })),
        };
        let (mut upload, mut download, mut out) = (Some(upload), None::<Download>, Some(out));
        loop {
            let mut waits: Vec<Pollable> = Vec::new();
            let mut moved = false;
            match upload.as_ref().map(|upload| upload.pump.step()) {
                None => {}
                Some(Step::Moved) => moved = true,
                Some(Step::Wait(pollable)) => waits.push(pollable),
                Some(Step::Done) => {
                    if let Some(Upload { pump, to, _from }) = upload.take() {
                        drop(pump);
                        let _ = OutgoingBody::finish(to, None);
                    }
                    moved = true;
                }
                Some(Step::Failed(why)) => {
                    // The target may answer without having read everything; whether it did shows in its response.
                    eprintln!("upload: {why}");
                    upload = None;
                }
            }
            match download.as_ref().map(|download| download.pump.step()) {
                None => match future.get() {
                    None => waits.push(future.subscribe()),
                    Some(result) => match result.unwrap() {
                        Ok(response) => {
                            download = out.take().map(|out| answer(response, out));
                            moved = true;
                        }
                        Err(code) => {
                            let Some(out) = out.take() else { return };
                            return respond_json(out, 502, &json!({ "error": code_name(&code), "message": format!("{code:?}"), "hops": [] }));
                        }
                    },
                },
                Some(Step::Moved) => moved = true,
                Some(Step::Wait(pollable)) => waits.push(pollable),
                Some(Step::Done) => {
                    if let Some(Download { pump, to, _from, _response }) = download.take() {
                        drop(pump);
                        let _ = OutgoingBody::finish(to, None);
                    }
                    return;
                }
                Some(Step::Failed(why)) => return eprintln!("download: {why}"),
            }
            if !moved {
                poll(&waits.iter().collect::<Vec<_>>());
            }
        }
    }
}

wasip2::http::proxy::export!(Worker);
