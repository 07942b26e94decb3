//! Failures as HTTP: the one place that decides who may read what.

use http::Response;
use tovuk_kernel::error::ErrorBody;
use tovuk_runtime::body::Body;
use tovuk_runtime::calls::json;
use tovuk_runtime::failure::Failure;
use tovuk_runtime::trace::TraceId;

/// Whom an edge answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Anybody: code, neutral message and request id.
    Public,
    /// The worker's own author, on a development host: everything.
    Author,
}

/// The response to a request that brought none.
pub(super) fn failure(failure: &Failure, trace: TraceId, audience: Audience) -> Response<Body> {
    let request_id = trace.to_string();
    let body = match audience {
        Audience::Public => ErrorBody::public(failure.code, &request_id).to_json(),
        Audience::Author => ErrorBody::detailed(failure.code, &failure.message, &failure.hops, &request_id).to_json(),
    };
    let mut response = json(failure.code.status, body);
    let seconds = failure.retry_after_seconds.or((failure.code.retryable && failure.code.status == 503).then_some(1));
    if let Some(seconds) = seconds {
        response.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from(seconds));
    }
    response
}
