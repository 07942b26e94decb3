//! Calls that a worker makes: to a bound service, or to a host outside. Both worlds and both forms of a binding end here.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::error::{ErrorBody, HopBody};
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::paths;
use tovuk_kernel::resource::Kind;
use tovuk_resources::bindings::INTERNAL_DOMAIN;
use tovuk_resources::state::Namespace;

use crate::body::Body;
use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::invoke::{Budget, Event};
use crate::objects::ObjectName;
use crate::outbound::{Caller, OutboundError};
use crate::record::{EventKind, Outcome};
use crate::spans;

/// Why a call was not made or brought no response. The variants are those of the WIT.
#[derive(Debug)]
pub(crate) enum CallError {
    UnknownBinding(String),
    ChainLimit(Vec<HopBody>),
    SubrequestLimit(u32),
    InvalidRequest(String),
    BodyTooLarge(u64),
    Timeout,
    Outbound(OutboundError),
    Unreachable(String),
    Other(String),
}

/// Why a call of a State object brought no response. The variants are those of the WIT.
#[derive(Debug)]
pub(crate) enum ObjectCallError {
    Refused(&'static Code, String),
    Call(CallError),
}

/// Sends a request to where its absolute URL leads.
pub(crate) async fn by_url(caller: &Arc<Invocation>, request: Request<Body>) -> Result<Response<Body>, CallError> {
    let Some(authority) = request.uri().authority().cloned() else {
        return Err(CallError::InvalidRequest(format!("`{}` is no absolute URL: begin it with http:// or https:// and a host", request.uri())));
    };
    let has_port = authority.as_str().len() > authority.host().len();
    if authority.as_str().contains('@') || (has_port && authority.port_u16().is_none()) {
        return Err(CallError::InvalidRequest(format!("`{authority}` is no host with a port: leave out the user name, and use a port up to 65535")));
    }
    match caller.deployment.bindings.by_authority(authority.host(), authority.port_u16()) {
        Some(Ok(target)) => call(caller, &target.clone(), request).await,
        Some(Err(error)) => Err(CallError::UnknownBinding(error.to_string())),
        None => match caller.runtime.own_door(&authority, request.uri().scheme_str()) {
            Some(door) => {
                caller.count_subrequest().map_err(CallError::SubrequestLimit)?;
                let mut request = with_trace(caller, None, request);
                // For operations on State objects that the API runs.
                request.extensions_mut().insert(caller.holds.clone());
                // It may be another account's service, so it is answered like anybody outside.
                let entered = door.enter(request, Budget::call(caller.clone()));
                spans::begin(caller, "own-host", authority.as_str()).answered(async { Ok(entered.await) }).await
            }
            None => Box::pin(outside(caller, request)).await,
        },
    }
}

/// Calls the service behind a binding.
pub(crate) async fn by_binding(caller: &Arc<Invocation>, name: &str, request: Request<Body>) -> Result<Response<Body>, CallError> {
    let target = caller.deployment.bindings.by_name(name).map_err(|error| CallError::UnknownBinding(error.to_string()))?.clone();
    call(caller, &target, request).await
}

/// Calls the handler of an object of the caller's own service.
pub(crate) async fn by_object(
    caller: &Arc<Invocation>,
    class: &str,
    object: String,
    request: Request<Body>,
) -> Result<Response<Body>, ObjectCallError> {
    caller.count_subrequest().map_err(|limit| ObjectCallError::Call(CallError::SubrequestLimit(limit)))?;
    let grants = &caller.deployment.grants;
    let number =
        grants.find(Kind::State, class).ok_or_else(|| ObjectCallError::Refused(&codes::RESOURCE_NOT_FOUND, not_granted(Kind::State, class)))?;
    let name = ObjectName { namespace: Namespace(number), class: grants.name(Kind::State, class).into(), object: object.into() };
    let own = &caller.target.id;
    let Some(service) = caller.runtime.services().get(own) else {
        return Err(ObjectCallError::Refused(&codes::SERVICE_NOT_DEPLOYED, format!("{own} no longer exists")));
    };
    let request = addressed(&service.identity.name, request);
    let call = spans::Call::of(EventKind::State, &request);
    let result = Box::pin(caller.runtime.invoke(&service, Event::Object(name, request), Budget::call(caller.clone()))).await;
    if let Err(failure) = &result {
        call.failed(caller, class, failure);
    }
    match result {
        Ok(started) => Ok(started.response),
        // Before the handler was called, or when what it has written could not be kept.
        Err(failure) if failure.code.code != codes::BINDING_CHAIN_LIMIT.code && (!failure.has_begun() || is_of_state(failure.code)) => {
            Err(ObjectCallError::Refused(failure.code, failure.message))
        }
        Err(failure) => failed(caller, failure).map_err(ObjectCallError::Call),
    }
}

/// Whether only the store of State ends an invocation with this code.
fn is_of_state(code: &Code) -> bool {
    [&codes::STORAGE_FAILED, &codes::STATE_STORAGE_FULL, &codes::RESOURCE_NOT_FOUND].iter().any(|of_state| of_state.code == code.code)
}

/// What a worker is told that names data which its version may not reach.
pub(crate) fn not_granted(kind: Kind, name: &str) -> String {
    let (noun, kind, name) = (kind.noun(), kind.as_str(), name.escape_debug());
    format!(
        "this version of the service has no {noun} `{name}`: declare it in tovuk.toml, or run `tovuk {kind} create --service <service> {name}`, and deploy or restart"
    )
}

async fn call(caller: &Arc<Invocation>, target: &ServiceId, request: Request<Body>) -> Result<Response<Body>, CallError> {
    caller.count_subrequest().map_err(CallError::SubrequestLimit)?;
    let asked = spans::Call::of(EventKind::Binding, &request);
    let turned_away = |name: &str, failure: Failure| {
        asked.failed(caller, name, &failure);
        failed(caller, failure)
    };
    if paths::is_reserved(request.uri().path()) {
        // The worker behind the binding answers unknown paths in its own way; this one it must never see.
        let failure = Failure::refused(&codes::RESERVED_PATH, "paths under /.tovuk are the host's: only it delivers events");
        return turned_away(target.as_str(), failure);
    }
    let Some(service) = caller.runtime.services().get(target) else {
        return turned_away(target.as_str(), Failure::refused(&codes::SERVICE_NOT_DEPLOYED, format!("{target} no longer exists")));
    };
    let request = addressed(&service.identity.name, request);
    // Boxed, because this future is moved through several hands before it is polled.
    match Box::pin(caller.runtime.invoke(&service, Event::Binding(request), Budget::call(caller.clone()))).await {
        Ok(started) => Ok(started.response),
        Err(failure) => turned_away(&service.identity.name, failure),
    }
}

/// A request as every worker sees one: path and query, and the host in its header, whatever form the call had.
fn addressed(target: &str, mut request: Request<Body>) -> Request<Body> {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    if let Ok(host) = HeaderValue::from_str(&format!("{target}.{INTERNAL_DOMAIN}")) {
        request.headers_mut().insert(http::header::HOST, host);
    }
    request
}

/// What the calling worker gets for a target that failed: a response. The chain's limit is an error instead, also when a worker further down
/// met it and did not handle it, with the hops as this host knows them.
fn failed(caller: &Invocation, failure: Failure) -> Result<Response<Body>, CallError> {
    if failure.code.code == codes::BINDING_CHAIN_LIMIT.code {
        return Err(CallError::ChainLimit(caller.chain.hops(&caller.target.account)));
    }
    let request_id = caller.chain.trace.to_string();
    let body = ErrorBody::detailed(failure.code, &failure.message, &failure.hops, &request_id).to_json();
    let mut response = json(failure.code.status, body);
    if let Some(seconds) = failure.retry_after_seconds {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}

/// A response of the host itself.
pub fn json(status: u16, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

async fn outside(caller: &Arc<Invocation>, request: Request<Body>) -> Result<Response<Body>, CallError> {
    caller.count_subrequest().map_err(CallError::SubrequestLimit)?;
    let subject = request.uri().authority().map_or_else(String::new, |authority| format!("{} {authority}", request.method()));
    let span = spans::begin(caller, "outbound", &subject);
    let from = Caller { account: &caller.target.account, service: &caller.target.name, allow: &caller.deployment.outbound };
    let request = with_trace(caller, span.id(), request).map(Body::into_boxed);
    let sent = async { caller.runtime.outbound().send(from, request).await.map(|response| response.map(Body::stream)).map_err(CallError::Outbound) };
    span.answered(sent).await
}

/// Whoever is called continues the trace, below the request's own span where that is kept, unless the worker has said otherwise.
fn with_trace(caller: &Invocation, span: Option<u64>, mut request: Request<Body>) -> Request<Body> {
    if !request.headers().contains_key(crate::trace::TRACEPARENT) {
        request.headers_mut().insert(crate::trace::TRACEPARENT, crate::trace::header(caller.chain.trace, span.unwrap_or(caller.span)));
    }
    request
}

impl CallError {
    /// What the author has to read where the error itself has no room for it.
    pub(crate) fn advice(&self) -> Option<String> {
        match self {
            Self::UnknownBinding(text) | Self::InvalidRequest(text) | Self::Unreachable(text) | Self::Other(text) => Some(text.clone()),
            Self::ChainLimit(hops) => Some(chain_limit_text(hops)),
            Self::SubrequestLimit(limit) => Some(format!("the invocation has made {limit} calls, which is the limit")),
            Self::Outbound(error) => Some(error.to_string()),
            Self::BodyTooLarge(_) | Self::Timeout => None,
        }
    }

    /// What becomes of a request whose worker returned this error without handling it.
    pub(crate) fn unhandled(self) -> Failure {
        let (code, message) = match self {
            Self::ChainLimit(hops) => {
                let mut failure = Failure::new(&codes::BINDING_CHAIN_LIMIT, Outcome::Refused, chain_limit_text(&hops));
                failure.hops = hops;
                return failure;
            }
            Self::SubrequestLimit(limit) => (&codes::SUBREQUEST_LIMIT, format!("the worker made more than {limit} calls")),
            Self::Timeout => (&codes::WORKER_TIMEOUT, "a call that the worker made timed out".to_owned()),
            Self::Unreachable(text) => (&codes::UPSTREAM_UNREACHABLE, text),
            Self::Outbound(error) => (&codes::UPSTREAM_UNREACHABLE, error.to_string()),
            Self::UnknownBinding(text) | Self::InvalidRequest(text) | Self::Other(text) => (&codes::WORKER_FAILED, text),
            Self::BodyTooLarge(limit) => (&codes::WORKER_FAILED, format!("a body had more than {limit} bytes")),
        };
        Failure::new(code, Outcome::Failed, message)
    }
}

/// The chain in one line.
pub(crate) fn chain_limit_text(hops: &[HopBody]) -> String {
    let path: Vec<_> = hops.iter().map(|hop| format!("{} {} {} {}", hop.number, hop.service, hop.method, hop.path)).collect();
    format!("the chain has {} invocations, which is the limit: {}", hops.len(), path.join("; "))
}
