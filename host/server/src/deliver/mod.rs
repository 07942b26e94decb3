//! Work that arrives without a browser: batches of queues, ticks of cron triggers and alarms of State are brought to workers, through the one door that
//! requests take as well.
//!
//! Each kind has a dispatcher (`queues.rs`, `crons.rs`, `alarms.rs`) that takes from its store what is due, has it delivered by [`Deliveries::deliver`],
//! and tells the store how it went. What is taken and never told is taken again, so whatever ends a dispatcher loses nothing.

mod alarms;
mod crons;
mod lines;
mod notices;
pub(crate) mod queues;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tovuk_kernel::codes;
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::limits::EVENT_ANSWER_BYTES_MAX;
use tovuk_kernel::paths::segment;
use tovuk_resources::bindings::INTERNAL_DOMAIN;
use tovuk_runtime::body::{Body, CollectError};
use tovuk_runtime::failure::Failure;
use tovuk_runtime::invoke::{Budget, Event, Started};
use tovuk_runtime::record::{EventKind, Outcome};
use tovuk_runtime::runtime::Runtime;
use tovuk_runtime::service::Service;
use tovuk_runtime::trace::TraceContext;

use crate::control::Control;

/// What has become of an event.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// The worker has answered, wholly.
    Answered {
        /// With this status.
        status: StatusCode,
        /// And this body; none where it is a success that nobody reads.
        body: Bytes,
    },
    /// The worker has been called and has not answered: it trapped, took too long, or broke off. Why.
    Failed(String),
    /// The worker was not called, or was stopped together with the host, or the host could not take its answer. It does not count as an attempt. Why.
    Held(String),
}

/// What is being delivered on this host.
pub(crate) struct Deliveries {
    /// Nothing more is taken.
    stopping: CancellationToken,
    /// What runs is cut off.
    cut: CancellationToken,
    tasks: TaskTracker,
    promoted: Notify,
    queues: queues::Consumers,
}

impl Deliveries {
    pub fn new() -> Self {
        Self {
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
            promoted: Notify::new(),
            queues: queues::Consumers::default(),
        }
    }

    /// Runs a dispatcher, or a part of one, which ends by itself soon after [`Deliveries::stopping`].
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Resolves when nothing more may be taken.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        self.stopping.clone().cancelled_owned()
    }

    /// Resolves when what runs is to end now.
    pub fn cut(&self) -> impl Future<Output = ()> + Send + 'static {
        self.cut.clone().cancelled_owned()
    }

    /// A version has gone on the air: what was held for want of one may be tried.
    pub fn promoted(&self) {
        self.promoted.notify_waiters();
    }

    /// Waits for the next version of any service that goes on the air. Counts from its first poll, or from when it is enabled.
    pub fn next_promotion(&self) -> tokio::sync::futures::Notified<'_> {
        self.promoted.notified()
    }

    /// What is done with queues.
    pub fn queues(&self) -> &queues::Consumers {
        &self.queues
    }

    /// Takes nothing more. What runs goes on.
    pub fn begin_to_stop(&self) {
        self.stopping.cancel();
    }

    /// Returns once nothing runs any more.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Cuts off what still runs; it is delivered again after the next start. For those that have to wait no longer.
    pub async fn stop(&self) {
        self.begin_to_stop();
        self.cut.cancel();
        self.finished().await;
    }

    /// Calls the worker of a service with a JSON body under `/.tovuk/` and these segments, and returns when its invocation has ended. The future runs the
    /// worker: dropping it stops it.
    pub async fn deliver(&self, runtime: &Runtime, service: &ServiceId, event: EventKind, segments: &[&str], body: Bytes) -> Delivered {
        let Some(service) = runtime.services().get(service) else {
            return Delivered::Held(format!("{service} is not on the air"));
        };
        let request = match request(&service, segments, body) {
            Ok(request) => request,
            Err(why) => return Delivered::Failed(why),
        };
        self.bring(runtime, &service, Event::Delivery(event, request)).await.unwrap_or_else(|refused| {
            if refused.has_begun() && refused.code.code != codes::USAGE_CAP_EXCEEDED.code {
                Delivered::Failed(refused.message)
            } else {
                Delivered::Held(refused.message)
            }
        })
    }

    /// Brings an event to a service, and returns when its invocation has ended. The future runs the worker: dropping it stops it.
    ///
    /// # Errors
    /// Why the worker was not called, or that the host could not keep what it has done, which says nothing about the worker. It does not count as an
    /// attempt.
    pub async fn bring(&self, runtime: &Runtime, service: &Arc<Service>, event: Event) -> Result<Delivered, Failure> {
        let trace = TraceContext::of(&HeaderMap::new());
        // What becomes of a batch is in its answer; of others that succeed nobody reads it, and it may be as long as it likes.
        let is_read = matches!(event, Event::Delivery(EventKind::Queue, _));
        let work = async {
            match Box::pin(runtime.invoke(service, event, Budget::top_level(trace))).await {
                Ok(started) => Ok(answered(runtime, started, is_read).await),
                Err(failure) if failure.has_begun() && !is_hosts(&failure) => Ok(Delivered::Failed(failure.message)),
                Err(failure) => Err(failure),
            }
        };
        tokio::select! {
            biased;
            () = self.cut.cancelled() => Ok(Delivered::Held("the host has ended".to_owned())),
            delivered = work => delivered,
        }
    }
}

/// Whether a worker that was called is not to blame: the host could not keep what it has done, or stopped it for a usage cap.
fn is_hosts(failure: &Failure) -> bool {
    [codes::STORAGE_FAILED.code, codes::USAGE_CAP_EXCEEDED.code].contains(&failure.code.code)
}

/// A request that only the host can make.
fn request(service: &Service, segments: &[&str], body: Bytes) -> Result<Request<Body>, String> {
    let path: String = segments.iter().map(|part| format!("/{}", segment(part))).collect();
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("/.tovuk{path}").parse().map_err(|error| format!("the path of the event is none: {error}"))?;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(host) = HeaderValue::from_str(&format!("{}.{INTERNAL_DOMAIN}", service.identity.name)) {
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(request)
}

/// The whole of an answer; where it is a success that is not read, nothing of its body. An event is done when its invocation is, not when its head is out.
async fn answered(runtime: &Runtime, started: Started, is_read: bool) -> Delivered {
    let (head, body) = started.response.into_parts();
    let body = if is_read || !head.status.is_success() {
        body.collect_within(EVENT_ANSWER_BYTES_MAX, runtime.memory()).await
    } else {
        body.discard().await.map(|()| Bytes::new())
    };
    let body = match body {
        Ok(body) => body,
        Err(CollectError::TooLarge) => {
            let text = format!("the worker answered {} with more than the {EVENT_ANSWER_BYTES_MAX} bytes that are read", head.status.as_u16());
            return Delivered::Failed(text);
        }
        // The worker is not to blame, and what it did may be done again.
        Err(CollectError::Busy) => return Delivered::Held("the host has no memory for the answer now".to_owned()),
        Err(CollectError::Broken(text)) => return Delivered::Failed(format!("the answer broke off: {text}")),
    };
    match started.outcome.settled().await {
        Outcome::Response => Delivered::Answered { status: head.status, body },
        outcome => Delivered::Failed(format!("the worker answered with {} and then failed: {}", head.status.as_u16(), outcome.as_str())),
    }
}

/// Begins to bring what is due. Ends with [`Control::begin_to_stop`].
pub(crate) fn start(control: &Control) {
    control.deliveries().spawn(alarms::run(control.clone()));
    control.deliveries().spawn(crons::run(control.clone()));
    control.deliveries().spawn(notices::run(control.clone()));
    queues::start(control);
}
