//! The one door into a worker. Whatever starts an invocation comes through [`Runtime::invoke`], so limits, metering, tracing and the chain's cap
//! exist once, here.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use tokio::sync::oneshot;

use tovuk_kernel::codes;
use tovuk_kernel::limits::{ADMISSION_EVENT_WAITS, EVENT_WALL_MS};
use tovuk_kernel::meters::Meter;
use tovuk_resources::state::Holds;

use crate::body::{Body, CollectError};
use crate::calls::chain_limit_text;
use crate::failure::Failure;
use crate::headers;
use crate::invocation::{Chain, Invocation, Start};
use crate::lines::{Full, Standing};
use crate::meter;
use crate::objects::{ObjectHandler, ObjectName, Ringing};
use crate::places::Place;
use crate::record::{EventKind, Outcome};
use crate::run;
use crate::runtime::Runtime;
use crate::service::{Deployment, Service};
use crate::slots::{Permit, QueueFull, TreeSlots};
use crate::trace::{self, TraceContext};
use crate::usage::{self, Purse};
use crate::worker::HttpHandler;

/// What starts an invocation.
pub enum Event {
    /// A request from outside.
    Http(Request<Body>),
    /// A call by another worker.
    Binding(Request<Body>),
    /// What the host delivers by itself: a batch of a queue, a tick of a cron trigger, an alarm. Its body is whole, and as large as the host has made it.
    Delivery(EventKind, Request<Body>),
    /// A call of a State object's handler.
    Object(ObjectName, Request<Body>),
    /// The alarm of a State object. The request is for workers that do not export a handler of alarms.
    Alarm(ObjectName, Ringing, Request<Body>),
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

    /// The calls of State objects that what is asked for is part of.
    pub(crate) fn holds(&self) -> Holds {
        match &self.0 {
            Grant::Chain(_) => Holds::default(),
            Grant::Call(caller) => caller.holds.clone(),
        }
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
const X_TOVUK_EVENT: HeaderName = HeaderName::from_static("x-tovuk-event");
const X_TOVUK_INVOCATION: HeaderName = HeaderName::from_static("x-tovuk-invocation");

/// What an invocation holds besides its store, and gives back when it ends.
pub(crate) struct Admitted {
    pub(crate) invocation: Arc<Invocation>,
    pub(crate) permit: Permit,
    pub(crate) place: Option<Place>,
    pub(crate) purse: Purse,
}

/// CPU time that the host has used for what came from outside, in ns. Whoever goes away meanwhile pays it too.
struct Overhead<'a> {
    service: &'a Service,
    ns: u64,
}

impl Drop for Overhead<'_> {
    fn drop(&mut self) {
        if let Some(deployment) = self.service.live().filter(|_| self.ns > 0) {
            deployment.bill.charge(Meter::WorkerCpuMs, deployment.bill.whole_cpu_ms(self.ns));
        }
    }
}

/// After so much CPU time in one poll, in ns, a chain lets others in before its next call. Whole chains are a millisecond or two.
const YIELD_AFTER_NS: u64 = 300_000;

impl Runtime {
    /// Runs a worker once and returns its response. The future runs the worker: dropping it cancels the invocation and all that it has called.
    pub async fn invoke(&self, service: &Arc<Service>, event: Event, budget: Budget) -> Result<Started, Failure> {
        let trace = match &budget.0 {
            Grant::Chain(context) => context.trace,
            Grant::Call(caller) => caller.chain.trace,
        };
        let result = match &budget.0 {
            Grant::Chain(_) => self.begin(service, event, budget).await,
            Grant::Call(_) => {
                if meter::spent_in_this_poll_ns() > YIELD_AFTER_NS {
                    // Also has the async runtime look at its sockets before it goes on here.
                    tokio::task::yield_now().await;
                }
                self.run(service, event, budget).await
            }
        };
        // What got a number has a record; what was turned away before that is told of here.
        if let Err(failure) = &result
            && !failure.recorded
        {
            self.observer().refused(&service.identity, trace, failure);
        }
        result
    }

    /// Runs what comes from outside. What the host does for it outside of its guests is charged to the service too, unless it was turned away.
    async fn begin(&self, service: &Arc<Service>, event: Event, budget: Budget) -> Result<Started, Failure> {
        let mut run = pin!(self.run(service, event, budget));
        let mut overhead = Overhead { service, ns: 0 };
        let result = poll_fn(|cx| {
            let (polled, spent) = self.measure(|| run.as_mut().poll(cx));
            overhead.ns += spent.own_ns;
            polled
        })
        .await;
        if result.as_ref().is_err_and(|failure| !failure.recorded) {
            overhead.ns = 0;
        }
        result
    }

    async fn run(&self, service: &Arc<Service>, event: Event, budget: Budget) -> Result<Started, Failure> {
        let (request, event, object) = match event {
            Event::Http(request) => (request, EventKind::Http, None),
            Event::Binding(request) => (request, EventKind::Binding, None),
            Event::Delivery(kind, request) => (request, kind, None),
            Event::Object(name, request) => (request, EventKind::State, Some((name, None))),
            Event::Alarm(name, ringing, request) => (request, EventKind::Alarm, Some((name, Some(ringing)))),
        };
        let Some(deployment) = service.live() else {
            return Err(Failure::refused(&codes::SERVICE_NOT_DEPLOYED, format!("{} has no live deploy", service.identity.name)));
        };
        let worker = self.artifacts().load(&deployment.artifact.id).await.map_err(|error| Failure::internal(error.to_string()))?;
        let (mut parts, body) = request.into_parts();
        headers::strip_host_fields(&mut parts.headers);
        if event.is_delivery() {
            parts.headers.insert(X_TOVUK_EVENT, HeaderValue::from_static(event.as_str()));
        }
        if let Some((name, ringing)) = object {
            let handler = match ringing {
                None => Some(ObjectHandler::of_calls(&worker, service)?),
                Some(ringing) => ObjectHandler::of_alarms(&worker, ringing),
            };
            if let Some(handler) = handler {
                return Box::pin(self.object((service, &deployment), (handler, name), budget, (parts, body))).await;
            }
        }
        let holds = budget.holds();
        match &worker.http {
            HttpHandler::Lean(pre) => {
                // Read before a slot is taken, so that a slow sender holds none.
                let body = match body {
                    // The limit is for what others send.
                    Body::Full(bytes) if event.is_delivery() => bytes,
                    body => self.whole_body(&deployment, body).await?,
                };
                let admitted = self.admit(service, &deployment, event, budget, &mut parts, holds).await?;
                admitted.invocation.bytes_in.store(body.len() as u64, Ordering::Relaxed);
                run::lean(pre.clone(), admitted, parts, body).await
            }
            HttpHandler::WasiHttp(pre) => {
                let limit_bytes = deployment.limits.stream_body_mb << 20;
                if http_body::Body::size_hint(&body).lower() > limit_bytes {
                    return Err(body_too_large(limit_bytes));
                }
                let admitted = self.admit(service, &deployment, event, budget, &mut parts, holds).await?;
                Box::pin(run::wasi_http(pre.clone(), admitted, parts, body)).await
            }
        }
    }

    pub(crate) async fn whole_body(&self, deployment: &Deployment, body: Body) -> Result<Bytes, Failure> {
        let limit_bytes = deployment.limits.body_mb << 20;
        if http_body::Body::size_hint(&body).lower() > limit_bytes {
            return Err(body_too_large(limit_bytes));
        }
        match body {
            Body::Empty => Ok(Bytes::new()),
            // Its hint is its length.
            Body::Full(bytes) => Ok(bytes),
            // Boxed, like all that few invocations need: futures are moved several times before they are polled, and a small one moves faster.
            Body::Stream(_) => Box::pin(self.streamed_body(deployment, body, limit_bytes)).await,
        }
    }

    async fn streamed_body(&self, deployment: &Deployment, body: Body, limit_bytes: u64) -> Result<Bytes, Failure> {
        let wall = Duration::from_millis(deployment.limits.wall_ms);
        match self.clock().timeout(wall, body.collect_within(limit_bytes, self.memory())).await {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(CollectError::TooLarge)) => Err(body_too_large(limit_bytes)),
            Some(Err(CollectError::Busy)) => Err(Failure::refused(&codes::HOST_BUSY, "the host has no memory for the request body now")),
            Some(Err(CollectError::Broken(text))) => Err(Failure::new(&codes::BAD_REQUEST, Outcome::Cancelled, text)),
            None => {
                Err(Failure::new(&codes::WORKER_TIMEOUT, Outcome::Wall, format!("the request body did not arrive within {} ms", wall.as_millis())))
            }
        }
    }

    /// Finds the invocation its number, its place and its slot.
    pub(crate) async fn admit(
        &self,
        service: &Arc<Service>,
        deployment: &Arc<Deployment>,
        event: EventKind,
        budget: Budget,
        parts: &mut http::request::Parts,
        holds: Holds,
    ) -> Result<Admitted, Failure> {
        let target = service.identity.clone();
        let (chain, number, permit, place, parent_span, caller, charge) = match budget.0 {
            Grant::Chain(TraceContext { trace, parent_span }) => {
                let place = match service.places().try_enter() {
                    Some(place) => place,
                    None => Box::pin(self.place(service, deployment, event)).await?,
                };
                let charge = usage::begin(&deployment.bill, event).await?;
                let at_once = if self.memory().is_available() { service.slots().try_admit() } else { None };
                let (slots, permit) = match at_once {
                    Some(granted) => granted,
                    None => Box::pin(self.slot(service, event)).await?,
                };
                (Chain::new(trace, slots, &target, parts), 1, permit, Some(place), parent_span, None, charge)
            }
            Grant::Call(caller) => {
                let charge = usage::begin(&deployment.bill, event).await?;
                let chain = caller.chain.clone();
                let number = chain.number(&target, parts, &caller.target.account).map_err(|hops| {
                    let mut failure = Failure::refused(&codes::BINDING_CHAIN_LIMIT, chain_limit_text(&hops));
                    failure.hops = hops;
                    failure
                })?;
                let permit = chain.slots.hop().await;
                (chain, number, permit, None, caller.span, Some(caller.target.clone()), charge)
            }
        };
        // A worker that comes through the front door is a client like others, and may be of another account.
        let caller = caller.filter(|_| matches!(event, EventKind::Binding | EventKind::State));
        if let Some(caller) = &caller {
            parts.headers.insert(X_TOVUK_CALLER, HeaderValue::from_str(caller.id.as_str()).unwrap_or(HeaderValue::from_static("")));
        }
        parts.headers.insert(X_TOVUK_INVOCATION, HeaderValue::from(number));
        let backlog = (number == 1).then(|| service.backlog().clone());
        let deployment = deployment.clone();
        let start = Start { runtime: self, chain, deployment, target, number, holds, backlog, parent_span, event, caller, request: parts };
        let invocation = Invocation::start(start);
        parts.headers.insert(trace::TRACEPARENT, trace::header(invocation.chain.trace, invocation.span));
        Ok(Admitted { invocation, permit, place, purse: charge.begun() })
    }

    /// A place of the service and of its account, once both have one.
    async fn place(&self, service: &Service, deployment: &Deployment, event: EventKind) -> Result<Place, Failure> {
        let (name, concurrency) = (&service.identity.name, deployment.limits.concurrency);
        let running =
            format!("{name} has as many requests running as its limit `concurrency` says, {concurrency}, or its account has as many as it may");
        match self.clock().timeout(self.patience(event), service.places().enter(standing(event))).await {
            Some(Ok(place)) => Ok(place),
            Some(Err(Full)) => Err(Failure::refused(&codes::SERVICE_BUSY, format!("{running}, and as many of its account wait as may"))),
            None => Err(Failure::refused(&codes::SERVICE_BUSY, running)),
        }
    }

    /// A first slot, once there is one and guests have not used up the host's memory.
    async fn slot(&self, service: &Service, event: EventKind) -> Result<(TreeSlots, Permit), Failure> {
        let wait = async {
            self.memory().available().await;
            service.slots().admit(standing(event)).await
        };
        let patience = self.patience(event);
        match self.clock().timeout(patience, wait).await {
            Some(Ok(granted)) => Ok(granted),
            Some(Err(QueueFull)) => {
                Err(Failure::refused(&codes::HOST_BUSY, "every instance slot that the account may have is in use, and as many requests wait as may"))
            }
            None => Err(Failure::refused(&codes::HOST_BUSY, format!("no instance slot or memory came free within {} ms", patience.as_millis()))),
        }
    }

    /// How long something waits for its turn. Events wait longer than requests do. They are not refused where a line is full, so when a request's wait
    /// is over an event has come to the head of its line, and the next turn is its own, however many requests come.
    fn patience(&self, event: EventKind) -> Duration {
        if event.is_delivery() { self.admission_wait() * ADMISSION_EVENT_WAITS } else { self.admission_wait() }
    }
}

fn standing(event: EventKind) -> Standing {
    if event.is_delivery() { Standing::Event } else { Standing::Request }
}

/// How long an invocation may take to answer, in ms.
pub(crate) fn wall_ms(event: EventKind, deployment: &Deployment) -> u64 {
    if event.is_delivery() { EVENT_WALL_MS } else { deployment.limits.wall_ms }
}

/// The answer to a body that is larger than the service takes.
pub(crate) fn body_too_large(limit_bytes: u64) -> Failure {
    Failure::refused(&codes::BODY_TOO_LARGE, format!("the request body has more than {limit_bytes} bytes"))
}
