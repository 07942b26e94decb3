//! One admitted invocation, run: an instance is made, called and dropped, and how that ended becomes a response or a failure.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use tokio::sync::oneshot;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};

use tovuk_kernel::codes;

use crate::body::Body;
use crate::failure::Failure;
use crate::flow::{GuestTask, RequestBody, ResponseBody};
use crate::headers;
use crate::imports::convert;
use crate::instance::{Data, Instance};
use crate::invocation::Invocation;
use crate::invoke::{Admitted, OutcomeHandle, Started, body_too_large};
use crate::lean_bindings::LeanPre;
use crate::lean_bindings::tovuk::http::types::RequestParam;
use crate::metered::{Metered, Stop};
use crate::record::Outcome;
use crate::{trap, usage};

/// Runs a worker of the lean world to its end.
pub(crate) async fn lean(pre: LeanPre<Data>, admitted: Admitted, parts: http::request::Parts, body: Bytes) -> Result<Started, Failure> {
    let Admitted { invocation, permit, place, purse } = admitted;
    let guest = {
        let invocation = invocation.clone();
        async move {
            let mut instance = Instance::new(invocation, permit)?;
            let headers = convert::field_lines(&parts.headers);
            let uri = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            let request = RequestParam { method: parts.method.as_str(), uri, headers: &headers, body: &body };
            let worker = pre.instantiate_async(&mut instance.store).await?;
            let result = worker.tovuk_http_handler().call_handle(&mut instance.store, request).await?;
            instance.returned();
            wasmtime::Result::Ok(result)
        }
    };
    let result = Metered::new(invocation.clone(), purse, guest).await;
    drop(place);
    let ended = match result {
        Ok(Ok(Ok(response))) => convert::response(response, &invocation),
        Ok(Ok(Err(error))) => Err(convert::call_error(error).unhandled()),
        Ok(Err(error)) => Err(trap::classify(&invocation, &error)),
        Err(stop) => Err(stopped(&invocation, stop)),
    };
    answered(&invocation, ended).await
}

/// The end of an invocation whose answer is whole.
pub(crate) async fn answered(invocation: &Invocation, answer: Result<Response<Body>, Failure>) -> Result<Started, Failure> {
    let mut response = answer.map_err(|failure| end_failed(invocation, failure))?;
    headers::clean_response(response.headers_mut());
    let size = http_body::Body::size_hint(response.body()).lower();
    // A server sends no body with an answer to HEAD, or with these statuses; a caller that is a worker is given it.
    let leaves = if invocation.is_from_outside() { bytes_due(&invocation.method, &response).map_or(size, |due| due.min(size)) } else { size };
    usage::send(&invocation.deployment.bill, leaves).await.map_err(|error| end_failed(invocation, error.into()))?;
    invocation.bytes_out.store(size, Ordering::Relaxed);
    invocation.head(response.status());
    invocation.end(Outcome::Response, None);
    Ok(Started { response, outcome: OutcomeHandle::Settled(Outcome::Response) })
}

/// Says that a guest ends, before all that it has goes.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

type Head = Result<Response<wasmtime_wasi_http::p2::body::HyperOutgoingBody>, ErrorCode>;

/// Runs a streaming worker until its response head is out; what is left of it goes on in a task.
pub(crate) async fn wasi_http(pre: ProxyPre<Data>, admitted: Admitted, parts: http::request::Parts, body: Body) -> Result<Started, Failure> {
    let Admitted { invocation, permit, place, purse } = admitted;
    let (head_sender, mut head) = oneshot::channel::<Head>();
    let ends = Arc::new(AtomicBool::new(false));
    let guest = {
        let (invocation, ending) = (invocation.clone(), Ending(ends.clone()));
        async move {
            // The place is kept until the guest ends, not only until its head is out.
            let _place = place;
            let body = RequestBody::new(body, invocation.clone());
            let mut instance = Instance::new(invocation, permit)?;
            // What is declared last is dropped first, and with the instance the sender of its head goes.
            let _ending = ending;
            let scheme = if parts.uri.scheme() == Some(&http::uri::Scheme::HTTPS) { Scheme::Https } else { Scheme::Http };
            let mut http = instance.store.data_mut().http();
            let request = http.new_incoming_request(scheme, Request::from_parts(parts, body))?;
            let out = http.new_response_outparam(head_sender)?;
            let proxy = pre.instantiate_async(&mut instance.store).await?;
            proxy.wasi_http_incoming_handler().call_handle(&mut instance.store, request, out).await?;
            instance.returned();
            wasmtime::Result::Ok(())
        }
    };
    let mut guest = Some(Box::pin(Metered::new(invocation.clone(), purse, guest)));
    let mut guest_result = None;
    // The guest is run here until its head is out, and so dropped with this future. Most end with their head; one that goes on gets a
    // task, because hyper polls a body only while it can send, and a slow reader would stop the guest's clock.
    let head = poll_fn(|cx| {
        if let Some(running) = &mut guest
            && let Poll::Ready(result) = running.as_mut().poll(cx)
        {
            guest = None;
            guest_result = Some(result);
        }
        Pin::new(&mut head).poll(cx)
    })
    .await;
    // One that ends on a thread of the line is heard of here a moment before its result is.
    if let Some(guest) = guest.take_if(|_| head.is_err() && ends.load(Ordering::Acquire)) {
        guest_result = Some(guest.await);
    }
    let failure = match head {
        Ok(Ok(response)) if !is_final(response.status()) => {
            let text = format!("the worker answered with status {}, which is not between 200 and 599", response.status().as_u16());
            Failure::new(&codes::WORKER_FAILED, Outcome::Failed, text)
        }
        Ok(Ok(response)) => {
            if let Some(result) = guest_result {
                note_end(&invocation, &result);
            }
            return Ok(streaming(&invocation, guest, response));
        }
        Ok(Err(code)) => convert::from_error_code(code).unhandled(),
        Err(_) => match guest_result {
            Some(Ok(Ok(()))) => {
                Failure::new(&codes::WORKER_FAILED, Outcome::Failed, "the worker ended without a response: it has to call response-outparam.set")
            }
            Some(Ok(Err(error))) => trap::classify(&invocation, &error),
            Some(Err(stop)) => stopped(&invocation, stop),
            // It dropped its means to answer and still runs.
            None => Failure::new(&codes::WORKER_FAILED, Outcome::Failed, "the worker dropped its response-outparam without a response"),
        },
    };
    let failure = if invocation.request_too_large.load(Ordering::Relaxed) {
        body_too_large(invocation.deployment.limits.stream_body_mb << 20)
    } else {
        failure
    };
    // Said before the guest goes, which would otherwise count as cancelled.
    let failure = end_failed(&invocation, failure);
    drop(guest);
    Err(failure)
}

/// Whether a worker may answer with this status. Informational ones belong to the server, and what lies above has no meaning.
pub(crate) fn is_final(status: StatusCode) -> bool {
    (200..600).contains(&status.as_u16())
}

type StreamingGuest = Pin<Box<Metered<wasmtime::Result<()>>>>;

fn streaming(
    invocation: &Arc<Invocation>,
    guest: Option<StreamingGuest>,
    mut response: Response<wasmtime_wasi_http::p2::body::HyperOutgoingBody>,
) -> Started {
    headers::clean_response(response.headers_mut());
    invocation.head(response.status());
    let task = guest.map(|guest| {
        let invocation = invocation.clone();
        GuestTask::spawn(async move {
            let result = guest.await;
            note_end(&invocation, &result);
        })
    });
    let outcome = OutcomeHandle::Running(invocation.tell());
    let due_bytes = bytes_due(&invocation.method, &response);
    let response = response.map(|body| Body::stream(ResponseBody::new(body, invocation.clone(), task, due_bytes)));
    Started { response, outcome }
}

/// After how many bytes the response is whole though its body may not say so. A server stops reading there.
fn bytes_due<B>(method: &Method, response: &Response<B>) -> Option<u64> {
    if method == Method::HEAD || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Some(0);
    }
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A guest whose head is out has ended. What went wrong can only be noted, and its body cut; one that was stopped has been noted.
fn note_end(invocation: &Invocation, result: &Result<wasmtime::Result<()>, Stop>) {
    if let Ok(Err(error)) = result {
        let failure = trap::classify(invocation, error);
        invocation.end(failure.outcome, Some(failure.for_log().to_owned()));
    }
}

fn end_failed(invocation: &Invocation, mut failure: Failure) -> Failure {
    failure.recorded = true;
    invocation.head(StatusCode::from_u16(failure.code.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    invocation.end(failure.outcome, Some(failure.for_log().to_owned()));
    failure
}

/// The failure of a guest that was stopped.
pub(crate) fn stopped(invocation: &Invocation, stop: Stop) -> Failure {
    match stop {
        Stop::Cpu => trap::cpu_exceeded(invocation),
        Stop::Wall => {
            let text = format!("{} did not answer within {} ms", invocation.target.name, invocation.wall_ms());
            Failure::new(&codes::WORKER_TIMEOUT, Outcome::Wall, text)
        }
        Stop::Panic => Failure::internal("the host panicked inside the invocation"),
        Stop::Cap(exceeded) => Failure::over_cap(&exceeded),
        Stop::Uncounted => Failure::internal("what the invocation uses could not be reserved"),
    }
}
