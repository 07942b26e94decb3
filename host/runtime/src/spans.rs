//! Spans of what a worker does besides being called: operations on data, and requests to hosts outside. Whoever observes is asked first whether it keeps the
//! trace, so that nothing is measured for nobody.
//!
//! ```text
//! begin → Span, with an id that a request may carry on → of(the work) → how it ended, and what it did → observer
//! ```

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::{Method, Request, Response, Uri};
use tovuk_kernel::codes;
use tovuk_kernel::limits::TRACE_OPERATIONS_MAX;

use crate::body::Body;
use crate::calls::CallError;
use crate::data_bindings::tovuk::data::types;
use crate::failure::Failure;
use crate::instance::Data;
use crate::invocation::Invocation;
use crate::outbound::OutboundError;
use crate::record::{EventKind, OPERATION_CANCELLED, OPERATION_OK, Operation};
use crate::trace;

/// An error that has a name: mostly a code of the code table.
pub(crate) trait Named {
    /// The name.
    fn name(&self) -> Cow<'static, str>;
}

impl Named for types::Error {
    fn name(&self) -> Cow<'static, str> {
        self.code.clone().into()
    }
}

impl Named for CallError {
    fn name(&self) -> Cow<'static, str> {
        let name = match self {
            Self::UnknownBinding(_) => "unknown_binding",
            Self::ChainLimit(_) => codes::BINDING_CHAIN_LIMIT.code,
            Self::SubrequestLimit(_) => codes::SUBREQUEST_LIMIT.code,
            Self::InvalidRequest(_) | Self::Outbound(OutboundError::InvalidRequest(_)) => codes::INVALID_REQUEST.code,
            Self::BodyTooLarge(_) => codes::BODY_TOO_LARGE.code,
            Self::Timeout | Self::Outbound(OutboundError::ConnectTimeout { .. }) => "timeout",
            Self::Unreachable(_) | Self::Other(_) => codes::UPSTREAM_UNREACHABLE.code,
            Self::Outbound(OutboundError::Denied { .. } | OutboundError::AddressRefused { .. }) => "denied",
            Self::Outbound(OutboundError::Dns { .. }) => "dns",
            Self::Outbound(OutboundError::Connect { .. }) => "connect",
            Self::Outbound(OutboundError::ConnectionLimit { .. }) => "connection_limit",
            Self::Outbound(OutboundError::Tls { .. }) => "tls",
            Self::Outbound(OutboundError::Protocol { .. }) => "protocol",
        };
        name.into()
    }
}

/// An operation that has begun, if anybody keeps it.
pub(crate) struct Span(Option<Running>);

/// It is told of when this is dropped, however it ended.
struct Running {
    invocation: Arc<Invocation>,
    span: u64,
    kind: &'static str,
    subject: String,
    started: Instant,
    outcome: Cow<'static, str>,
    did: Option<String>,
    status: Option<u16>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.invocation.runtime.observer().operation(Operation {
            trace: self.invocation.chain.trace,
            span: self.span,
            parent_span: self.invocation.span,
            service: self.invocation.target.clone(),
            kind: self.kind,
            subject: std::mem::take(&mut self.subject),
            started: self.started,
            duration: self.started.elapsed(),
            outcome: std::mem::take(&mut self.outcome),
            did: self.did.take(),
            status: self.status,
        });
    }
}

impl Span {
    /// The id for requests that it sends; none if nobody keeps it.
    pub fn id(&self) -> Option<u64> {
        self.0.as_ref().map(|running| running.span)
    }

    /// Does the work, whose result says how it ended. Dropping the future ends it as cancelled.
    pub async fn of<T, E: Named>(mut self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let result = work.await;
        self.ended(&result);
        result
    }

    /// The same, and says what it did.
    pub async fn telling<T, E: Named>(mut self, did: impl FnOnce(&T) -> String, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let result = work.await;
        if let (Some(running), Ok(answer)) = (&mut self.0, &result) {
            running.did = Some(did(answer));
        }
        self.ended(&result);
        result
    }

    /// The same, for a request.
    pub async fn answered<E: Named>(mut self, request: impl Future<Output = Result<Response<Body>, E>>) -> Result<Response<Body>, E> {
        let result = request.await;
        if let (Some(running), Ok(response)) = (&mut self.0, &result) {
            running.status = Some(response.status().as_u16());
        }
        self.ended(&result);
        result
    }

    fn ended<T, E: Named>(&mut self, result: &Result<T, E>) {
        if let Some(running) = &mut self.0 {
            running.outcome = match result {
                Ok(_) => OPERATION_OK.into(),
                Err(error) => error.name(),
            };
        }
    }
}

/// A call of another worker, of which there is a span only if it is turned away: an invocation that begins has its own.
pub(crate) struct Call {
    kind: EventKind,
    method: Method,
    uri: Uri,
    started: Instant,
}

impl Call {
    /// This call begins.
    pub fn of(kind: EventKind, request: &Request<Body>) -> Self {
        Self { kind, method: request.method().clone(), uri: request.uri().clone(), started: Instant::now() }
    }

    /// It has failed.
    pub fn failed(self, caller: &Arc<Invocation>, target: &str, failure: &Failure) {
        if failure.has_begun() {
            return;
        }
        let span = begin(caller, self.kind.as_str(), &format!("{} {} of {target}", self.method, self.uri.path()));
        if let Some(mut running) = span.0 {
            running.started = self.started;
            running.outcome = failure.code.code.into();
            running.status = Some(failure.code.status);
        }
    }
}

/// An operation of this invocation begins. It is about a subject.
pub(crate) fn begin(invocation: &Arc<Invocation>, kind: &'static str, subject: &str) -> Span {
    if !invocation.runtime.observer().keeps(invocation.chain.trace) {
        return Span(None);
    }
    let is_kept = invocation.operations.fetch_add(1, Ordering::Relaxed) < TRACE_OPERATIONS_MAX;
    Span(is_kept.then(|| Running {
        invocation: invocation.clone(),
        span: trace::random_span(),
        kind,
        subject: subject.to_owned(),
        started: Instant::now(),
        outcome: OPERATION_CANCELLED.into(),
        did: None,
        status: None,
    }))
}

/// So many of something, in words.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// What was found of one thing with so many bytes.
pub(crate) fn found(bytes: Option<usize>) -> String {
    bytes.map_or_else(|| "found nothing".to_owned(), |bytes| format!("found {}", counted(bytes, "byte")))
}

impl Data {
    /// An operation of the guest begins.
    pub(crate) fn span(&self, kind: &'static str, subject: &str) -> Span {
        begin(&self.invocation, kind, subject)
    }
}
