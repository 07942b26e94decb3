//! From an HTTP request to an operation and back. It knows paths, tokens and bodies; what an operation does, and what it refuses, is its own.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as _;
use percent_encoding::percent_decode_str;
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::error::ErrorBody;
use tovuk_kernel::limits::{API_BODY_BYTES_PER_SECOND_MIN, BODY_STALL_SECONDS_MAX};
use tovuk_kernel::operation::{Access, Method, Operation};
use tovuk_resources::state::Holds;
use tovuk_runtime::body::{Body, CollectError};
use tovuk_runtime::calls::json;
use tovuk_runtime::trace::TraceContext;

use super::bodies::Held;
use super::caller::{Caller, Credential};
use super::decode::Fields;
use super::handler::Registered;
use super::operations;
use super::reference::TOKEN_ERRORS;
use super::refusal::Refusal;
use super::{Control, pages};

/// Where operations are found.
struct Table {
    operations: Vec<Registered>,
    router: matchit::Router<Vec<usize>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let operations = operations::all();
    let mut router = matchit::Router::<Vec<usize>>::new();
    for (position, registered) in operations.iter().enumerate() {
        let path = registered.operation.path;
        match router.at_mut(path) {
            // A path that merely matches a pattern is not the pattern's own; inserting tells.
            Ok(found) if is_same_pattern(&operations, found.value, path) => found.value.push(position),
            _ => {
                if let Err(error) = router.insert(path, vec![position]) {
                    tracing::error!("the route {path} cannot be added: {error}");
                }
            }
        }
    }
    Table { operations, router }
});

fn is_same_pattern(operations: &[Registered], positions: &[usize], path: &str) -> bool {
    positions.iter().any(|position| operations.get(*position).is_some_and(|registered| registered.operation.path == path))
}

/// Every operation, in the order of the reference.
pub fn operations() -> &'static [Registered] {
    &TABLE.operations
}

enum Found {
    Operation(&'static Registered, Fields),
    WrongMethod(Vec<&'static str>),
    Nothing,
}

/// The operation of this method and path. Segments are taken apart before they are decoded, so that an encoded slash stays in its segment.
fn find(method: &str, path: &str) -> Found {
    let path = path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path);
    let Ok(found) = TABLE.router.at(path) else { return Found::Nothing };
    let rows: Vec<_> = found.value.iter().filter_map(|position| TABLE.operations.get(*position)).collect();
    let wanted = if method == "HEAD" { "GET" } else { method };
    let Some(registered) = rows.iter().find(|row| row.operation.method.as_str() == wanted) else {
        return Found::WrongMethod(rows.iter().map(|row| row.operation.method.as_str()).collect());
    };
    let mut fields = Fields::new();
    for (name, value) in found.params.iter() {
        let Ok(value) = percent_decode_str(value).decode_utf8() else { return Found::Nothing };
        fields.push((name.to_owned(), value.into_owned()));
    }
    Found::Operation(registered, fields)
}

impl Control {
    /// Answers a request to the API by a client at this address; a worker's call has none.
    pub async fn respond(&self, request: Request<Body>, client: Option<IpAddr>) -> Response<Body> {
        let request_id = TraceContext::of(request.headers()).trace.to_string();
        let mut response = match self.route(request, client, &request_id).await {
            Ok(response) => response,
            Err(refusal) => failure(&refusal, &request_id),
        };
        let headers = response.headers_mut();
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        if let Ok(id) = HeaderValue::from_str(&request_id) {
            headers.insert("x-request-id", id);
        }
        response
    }

    async fn route(&self, request: Request<Body>, client: Option<IpAddr>, request_id: &str) -> Result<Response<Body>, Refusal> {
        let (registered, mut fields) = match find(request.method().as_str(), request.uri().path()) {
            Found::Operation(registered, fields) => (registered, fields),
            Found::WrongMethod(methods) => return Ok(wrong_method(&request, &methods, request_id)),
            Found::Nothing => return pages::respond(self, request).await,
        };
        let operation = registered.operation;
        let caller = self.caller(&request, client, operation, request_id)?;
        caller.may(operation)?;
        let query = request.uri().query().unwrap_or_default();
        fields.extend(form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| !value.is_empty()).map(|(k, v)| (k.into_owned(), v.into_owned())));
        let (body, held) = self.body(operation.name, operation.body_bytes_max, caller.account_number(), request.into_body()).await?;
        let run = (registered.run)(self.clone(), caller, fields, body);
        // What the body holds of the memory is given back when the operation has ended, not when its client has gone.
        let running = async move {
            let result = run.await;
            drop(held);
            result
        };
        let result = match operation.method {
            Method::Get => running.await,
            // What changes something is finished once it has begun, also when its client is gone: half of it would be stored and not done.
            _ => self.0.operations.spawn(running).await.unwrap_or_else(|error| Err(Refusal::internal(error))),
        };
        if let Err(refusal) = &result {
            debug_assert!(may_fail_with(operation, refusal), "{} failed with {}, which it does not declare", operation.name, refusal.code.code);
        }
        let mut response = Response::new(result?);
        *response.status_mut() = StatusCode::from_u16(operation.status).unwrap_or(StatusCode::OK);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(operation.content_type()));
        Ok(response)
    }

    /// Who asks. A route that needs no token looks at none, so that a stale one does no harm there.
    fn caller(&self, request: &Request<Body>, client: Option<IpAddr>, operation: &Operation, request_id: &str) -> Result<Caller, Refusal> {
        if operation.access == Access::Public {
            let credential = Credential::Anonymous(client);
            return Ok(Caller { account: "".into(), credential, request_id: request_id.to_owned(), holds: Holds::default() });
        }
        let missing = || Refusal::new(&codes::UNAUTHORIZED, "the request has no `Authorization: Bearer <token>`");
        let value = request.headers().get(header::AUTHORIZATION).ok_or_else(missing)?;
        let (scheme, token) = value.to_str().ok().and_then(|value| value.trim().split_once(' ')).ok_or_else(missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(missing());
        }
        let caller = self.tokens().caller(token.trim(), self.now_ms(), request_id.to_owned())?;
        // Set by the runtime alone: what came over a socket has no extensions of ours.
        let holds = request.extensions().get::<Holds>().cloned().unwrap_or_default();
        Ok(Caller { holds, ..caller })
    }

    /// The whole body, and what it holds of the memory that all bodies together may have.
    pub(super) async fn body(&self, what: &str, limit_bytes: u64, account: i64, body: Body) -> Result<(Bytes, Option<Held>), Refusal> {
        if body.is_end_stream() {
            return Ok((Bytes::new(), None));
        }
        let too_large = || Refusal::new(&codes::BODY_TOO_LARGE, format!("{what}: the body has more than {limit_bytes} bytes")).instruct("Send less.");
        let declared = body.size_hint().lower();
        if declared > limit_bytes {
            return Err(too_large());
        }
        // A body of unknown length is counted with the most it may have.
        let expected = body.size_hint().exact().unwrap_or(limit_bytes);
        let busy = || Refusal::new(&codes::HOST_BUSY, "the host has no memory for the body now");
        let held = Some(self.0.bodies.hold(account, expected).ok_or_else(busy)?);
        let slowest = Duration::from_secs(BODY_STALL_SECONDS_MAX + expected / API_BODY_BYTES_PER_SECOND_MIN);
        let collected = self.clock().timeout(slowest, body.collect_within(limit_bytes, self.0.bodies.memory())).await;
        match collected.unwrap_or_else(|| Err(CollectError::Broken(format!("it took more than {} s", slowest.as_secs())))) {
            Ok(bytes) => Ok((bytes, held)),
            Err(CollectError::TooLarge) => Err(too_large()),
            Err(CollectError::Busy) => Err(busy()),
            Err(CollectError::Broken(text)) => Err(Refusal::new(&codes::BAD_REQUEST, format!("the body did not arrive whole: {text}"))),
        }
    }
}

/// What every operation can fail with, whatever it says itself.
pub fn common_errors() -> [&'static Code; 7] {
    [
        &codes::BAD_REQUEST,
        &codes::INVALID_REQUEST,
        &codes::BODY_TOO_LARGE,
        &codes::INTERNAL_ERROR,
        &codes::STORAGE_FAILED,
        &codes::HOST_BUSY,
        &codes::HOST_DRAINING,
    ]
}

/// Whether an operation says that it can fail like this. What any route can fail with need not be said.
fn may_fail_with(operation: &Operation, refusal: &Refusal) -> bool {
    let own_subject = operation.path.contains("{service}") && refusal.code == &codes::SERVICE_NOT_FOUND;
    let may = |codes: &[&'static Code]| codes.contains(&refusal.code);
    let is_over_cap = !operation.meters.is_empty() && refusal.code == &codes::USAGE_CAP_EXCEEDED;
    own_subject || is_over_cap || may(&common_errors()) || may(&TOKEN_ERRORS) || may(operation.errors)
}

/// The answer to a method that a route does not have.
fn wrong_method(request: &Request<Body>, methods: &[&str], request_id: &str) -> Response<Body> {
    let allowed = methods.join(", ");
    let text = format!("{} {}: this route has {allowed}", request.method(), request.uri().path());
    let mut response = failure(&Refusal::new(&codes::METHOD_NOT_ALLOWED, text), request_id);
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// A refusal as a response.
pub(super) fn failure(refusal: &Refusal, request_id: &str) -> Response<Body> {
    let body = ErrorBody::detailed(refusal.code, &refusal.message, &[], request_id)
        .instructed(refusal.instruction.as_deref())
        .with_details(refusal.details.as_deref());
    let mut response = json(refusal.code.status, body.to_json());
    if refusal.code.status == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if refusal.code.retryable && matches!(refusal.code.status, 429 | 503) {
        let seconds = refusal.retry_after_seconds.unwrap_or(1);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
