//! The one door into a worker. Whatever starts an invocation comes through [`Runtime::invoke`], so limits, metering, tracing and the chain's cap
//! exist once, here.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::sync::oneshot;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};

use tovuk_kernel::codes;

use crate::body::{Body, CollectError};
use crate::calls::chain_limit_text;
use crate::failure::Failure;
use crate::flow::{GuestTask, RequestBody, ResponseBody};
use crate::imports::convert;
use crate::instance::{Data, Instance};
use crate::invocation::{Chain, Invocation, Start};
use crate::lean_bindings::{WorkerPre, tovuk::http::types as lean};
use crate::metered::{Metered, Stop};
use crate::record::{EventKind, Outcome};
use crate::runtime::Runtime;
use crate::service::{Deployment, Place, Service};
use crate::slots::Permit;
use crate::trace::{self, TraceContext};
use crate::trap;
use crate::worker::Worker;

/// What starts an invocation.
pub enum Event {
    /// A request from outside.
    Http(Request<Body>),
    /// A call by another worker.
    Binding(Request<Body>),
}

/// What an invocation may cost whoever asks for it: a chain of its own, or a place in the chain of its caller.
pub struct Budget(Grant);

enum Grant {
    Chain(TraceContext),
    Call(Arc<Invocation>),
}

impl Budget {
    /// For what comes from outside: a chain of 32 invocations, this one included.
    pub fn top_level(trace: TraceContext) -> Self {
        Self(Grant::Chain(trace))
    }

    /// For a call: what is left of the caller's chain.
    pub(crate) fn call(caller: Arc<Invocation>) -> Self {
        Self(Grant::Call(caller))
    }
}

/// An invocation that has begun to answer.
pub struct Started {
    /// The response. Its body may still be coming.
    pub response: Response<Body>,
    /// How the invocation ends, once its last byte has gone.
    pub outcome: OutcomeHandle,
}

/// The outcome of an invocation, now or later.
pub enum OutcomeHandle {
    /// It has ended.
    Settled(Outcome),
    /// It still streams.
    Running(oneshot::Receiver<Outcome>),
}

impl OutcomeHandle {
    /// Waits for the last byte.
    pub async fn settled(self) -> Outcome {
        match self {
            Self::Settled(outcome) => outcome,
            Self::Running(receiver) => receiver.await.unwrap_or(Outcome::Cancelled),
        }
    }
}

const X_TOVUK_CALLER: HeaderName = HeaderName::from_static("x-tovuk-caller");
const X_TOVUK_INVOCATION: HeaderName = HeaderName::from_static("x-tovuk-invocation");
/// Header fields that only the host sets.
const HOST_HEADER_PREFIX: &str = "x-tovuk-";

/// What an invocation holds besides its store, and gives back when it ends.
struct Admitted {
    invocation: Arc<Invocation>,
    permit: Permit,
    place: Option<Place>,
}

impl Runtime {
    /// Runs a worker once and returns its response. The future runs the worker: dropping it cancels the invocation and all that it has called.
    pub async fn invoke(&self, service: &Arc<Service>, event: Event, budget: Budget) -> Result<Started, Failure> {
        let result = self.run(service, event, budget).await;
        // What got a number has a record; what was turned away before that is told of here.
        if let Err(failure) = &result
            && !failure.recorded
        {
            self.observer().refused(&service.identity, failure);
        }
        result
    }

    async fn run(&self, service: &Arc<Service>, event: Event, budget: Budget) -> Result<Started, Failure> {
        let (request, event) = match event {
            Event::Http(request) => (request, EventKind::Http),
            Event::Binding(request) => (request, EventKind::Binding),
        };
        let Some(deployment) = service.live() else {
            return Err(Failure::refused(&codes::SERVICE_NOT_DEPLOYED, format!("{} has no live deploy", service.identity.name)));
        };
        let worker = self.artifacts().load(&deployment.artifact.id).map_err(|error| Failure::internal(error.to_string()))?;
        let (mut parts, body) = request.into_parts();
        strip_host_headers(&mut parts.headers);
        match &*worker {
            Worker::Lean(pre) => {
                // Read before a slot is taken, so that a slow sender holds none.
                let body = self.whole_body(&deployment, body).await?;
                let admitted = self.admit(service, &deployment, event, budget, &mut parts).await?;
                admitted.invocation.bytes_in.store(body.len() as u64, Ordering::Relaxed);
                run_lean(pre.clone(), admitted, parts, body).await
            }
            Worker::WasiHttp(pre) => {
                let limit_bytes = deployment.limits.stream_body_mb << 20;
                if http_body::Body::size_hint(&body).lower() > limit_bytes {
                    return Err(too_large(limit_bytes));
                }
                let admitted = self.admit(service, &deployment, event, budget, &mut parts).await?;
                Box::pin(run_wasi(pre.clone(), admitted, parts, body)).await
            }
        }
    }

    async fn whole_body(&self, deployment: &Deployment, body: Body) -> Result<Bytes, Failure> {
        let limit_bytes = deployment.limits.body_mb << 20;
        if http_body::Body::size_hint(&body).lower() > limit_bytes {
            return Err(too_large(limit_bytes));
        }
        match body {
            Body::Empty => Ok(Bytes::new()),
            Body::Full(bytes) if bytes.len() as u64 <= limit_bytes => Ok(bytes),
            Body::Full(_) => Err(too_large(limit_bytes)),
            // Boxed, like all that few invocations need: futures are moved several times before they are polled, and a small one moves faster.
            Body::Stream(_) => Box::pin(self.streamed_body(deployment, body, limit_bytes)).await,
        }
    }

    async fn streamed_body(&self, deployment: &Deployment, body: Body, limit_bytes: u64) -> Result<Bytes, Failure> {
        let wall = Duration::from_millis(deployment.limits.wall_ms);
        match self.clock().timeout(wall, body.collect_within(limit_bytes)).await {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(CollectError::TooLarge)) => Err(too_large(limit_bytes)),
            Some(Err(CollectError::Broken(text))) => Err(Failure::new(&codes::BAD_REQUEST, Outcome::Cancelled, text)),
            None => Err(Failure::new(&codes::WORKER_TIMEOUT, Outcome::Wall, format!("the request body did not arrive within {} ms", wall.as_millis()))),
        }
    }

    /// Finds the invocation its number, its place and its slot.
    async fn admit(&self, service: &Arc<Service>, deployment: &Arc<Deployment>, event: EventKind, budget: Budget, parts: &mut http::request::Parts) -> Result<Admitted, Failure> {
        let target = service.identity.clone();
        let (chain, number, permit, place, parent_span, caller) = match budget.0 {
            Grant::Chain(TraceContext { trace, parent_span }) => {
                let place = match service.try_enter() {
                    Some(place) => place,
                    None => Box::pin(self.place(service, deployment)).await?,
                };
                let at_once = if self.memory().is_available() { self.slots().try_admit() } else { None };
                let (slots, permit) = match at_once {
                    Some(granted) => granted,
                    None => Box::pin(self.slot()).await?,
                };
                (Chain::new(trace, slots, &target, parts), 1, permit, Some(place), parent_span, None)
            }
            Grant::Call(caller) => {
                let chain = caller.chain.clone();
                let number = chain.number(&target, parts).map_err(|hops| {
                    let mut failure = Failure::refused(&codes::BINDING_CHAIN_LIMIT, chain_limit_text(&hops));
                    failure.hops = hops;
                    failure
                })?;
                let permit = chain.slots.hop().await;
                (chain, number, permit, None, caller.span, Some(caller.target.clone()))
            }
        };
        if let Some(caller) = &caller {
            parts.headers.insert(X_TOVUK_CALLER, HeaderValue::from_str(caller.id.as_str()).unwrap_or(HeaderValue::from_static("")));
        }
        parts.headers.insert(X_TOVUK_INVOCATION, HeaderValue::from(number));
        let start = Start { runtime: self, chain, deployment: deployment.clone(), target, number, parent_span, event, caller, request: parts };
        let invocation = Invocation::start(start);
        parts.headers.insert(trace::TRACEPARENT, trace::header(invocation.chain.trace, invocation.span));
        Ok(Admitted { invocation, permit, place })
    }

    async fn place(&self, service: &Arc<Service>, deployment: &Deployment) -> Result<Place, Failure> {
        let busy = || Failure::refused(&codes::SERVICE_BUSY, format!("{} requests of {} or of its account are running", deployment.limits.concurrency, service.identity.name));
        self.clock().timeout(self.admission_wait(), service.enter()).await.flatten().ok_or_else(busy)
    }

    /// A first slot, once there is one and guests have not used up the host's memory.
    async fn slot(&self) -> Result<(crate::slots::TreeSlots, Permit), Failure> {
        let wait = async {
            self.memory().available().await;
            self.slots().admit().await
        };
        match self.clock().timeout(self.admission_wait(), wait).await {
            Some(Ok(granted)) => Ok(granted),
            Some(Err(crate::slots::QueueFull)) => Err(Failure::refused(&codes::HOST_BUSY, "every instance slot is in use, and as many requests wait as may")),
            None => Err(Failure::refused(&codes::HOST_BUSY, format!("no instance slot or memory came free within {} ms", self.admission_wait().as_millis()))),
        }
    }
}

fn too_large(limit_bytes: u64) -> Failure {
    Failure::refused(&codes::BODY_TOO_LARGE, format!("the request body has more than {limit_bytes} bytes"))
}

/// Drops what only the host may say. Public traffic and guests are treated alike.
fn strip_host_headers(headers: &mut HeaderMap) {
    let is_host = |name: &HeaderName| name.as_str().starts_with(HOST_HEADER_PREFIX);
    if headers.keys().any(is_host) {
        let names: Vec<_> = headers.keys().filter(|name| is_host(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// Drops what belongs to a connection or to the host from a worker's response.
fn clean_response_headers(headers: &mut HeaderMap) {
    strip_host_headers(headers);
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")] {
        headers.remove(name);
    }
}

async fn run_lean(pre: WorkerPre<Data>, admitted: Admitted, parts: http::request::Parts, body: Bytes) -> Result<Started, Failure> {
    let Admitted { invocation, permit, place } = admitted;
    let guest = {
        let invocation = invocation.clone();
        async move {
            let mut instance = Instance::new(invocation, permit)?;
            let headers = convert::field_lines(&parts.headers);
            let uri = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            let request = lean::RequestParam { method: parts.method.as_str(), uri, headers: &headers, body: &body };
            let worker = pre.instantiate_async(&mut instance.store).await?;
            let result = worker.tovuk_http_handler().call_handle(&mut instance.store, request).await?;
            instance.returned();
            wasmtime::Result::Ok(result)
        }
    };
    let result = Metered::new(invocation.clone(), guest).await;
    drop(place);
    let ended = match result {
        Ok(Ok(Ok(response))) => convert::response(response, invocation.deployment.limits.body_mb << 20),
        Ok(Ok(Err(error))) => Err(convert::call_error(error).unhandled()),
        Ok(Err(error)) => Err(trap::classify(&invocation, &error)),
        Err(stop) => Err(stopped(&invocation, stop)),
    };
    match ended {
        Ok(mut response) => {
            clean_response_headers(response.headers_mut());
            let size = http_body::Body::size_hint(response.body()).lower();
            invocation.bytes_out.store(size, Ordering::Relaxed);
            invocation.head(response.status());
            invocation.end(Outcome::Response, None);
            Ok(Started { response, outcome: OutcomeHandle::Settled(Outcome::Response) })
        }
        Err(failure) => Err(end_failed(&invocation, failure)),
    }
}

type Head = Result<Response<wasmtime_wasi_http::p2::body::HyperOutgoingBody>, ErrorCode>;

async fn run_wasi(pre: ProxyPre<Data>, admitted: Admitted, parts: http::request::Parts, body: Body) -> Result<Started, Failure> {
    let Admitted { invocation, permit, place } = admitted;
    let (head_sender, mut head) = oneshot::channel::<Head>();
    let guest = {
        let invocation = invocation.clone();
        async move {
            // The place is kept until the guest ends, not only until its head is out.
            let _place = place;
            let body = RequestBody::new(body, invocation.clone());
            let mut instance = Instance::new(invocation, permit)?;
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
    let mut guest = Some(Box::pin(Metered::new(invocation.clone(), guest)));
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
            Some(Ok(Ok(()))) => Failure::new(&codes::WORKER_FAILED, Outcome::Failed, "the worker ended without a response: it has to call response-outparam.set"),
            Some(Ok(Err(error))) => trap::classify(&invocation, &error),
            Some(Err(stop)) => stopped(&invocation, stop),
            // It dropped its means to answer and still runs.
            None => Failure::new(&codes::WORKER_FAILED, Outcome::Failed, "the worker dropped its response-outparam without a response"),
        },
    };
    let failure = if invocation.request_too_large.load(Ordering::Relaxed) { too_large(invocation.deployment.limits.stream_body_mb << 20) } else { failure };
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

fn streaming(invocation: &Arc<Invocation>, guest: Option<StreamingGuest>, mut response: Response<wasmtime_wasi_http::p2::body::HyperOutgoingBody>) -> Started {
    clean_response_headers(response.headers_mut());
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

/// A guest whose head is out has ended. What went wrong can only be noted, and its body cut.
fn note_end(invocation: &Invocation, result: &Result<wasmtime::Result<()>, Stop>) {
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let failure = trap::classify(invocation, error);
            invocation.end(failure.outcome, Some(failure.message));
        }
        Err(stop) => {
            let failure = stopped(invocation, *stop);
            invocation.end(failure.outcome, Some(failure.message));
        }
    }
}

fn end_failed(invocation: &Invocation, mut failure: Failure) -> Failure {
    failure.recorded = true;
    invocation.head(StatusCode::from_u16(failure.code.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    invocation.end(failure.outcome, Some(failure.message.clone()));
    failure
}

fn stopped(invocation: &Invocation, stop: Stop) -> Failure {
    let limits = &invocation.deployment.limits;
    match stop {
        Stop::Cpu => Failure::new(&codes::WORKER_CPU_EXCEEDED, Outcome::Cpu, format!("{} used more than {} ms of CPU time", invocation.target.name, limits.cpu_ms)),
        Stop::Wall => Failure::new(&codes::WORKER_TIMEOUT, Outcome::Wall, format!("{} did not answer within {} ms", invocation.target.name, limits.wall_ms)),
        Stop::Panic => Failure::internal("the host panicked inside the invocation"),
    }
}
