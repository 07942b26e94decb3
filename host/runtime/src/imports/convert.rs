//! Between HTTP as the host speaks it and HTTP as the two worlds do. The errors of both worlds are rendered here and nowhere else.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use wasmtime_wasi_http::p2::bindings::http::types::{DnsErrorPayload, ErrorCode};

use tovuk_kernel::codes;
use tovuk_kernel::error::HopBody;

use crate::body::{Body, BodyError, CollectError};
use crate::calls::CallError;
use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::lean_bindings::tovuk::http::types as lean;
use crate::outbound::OutboundError;
use crate::record::Outcome;

/// Names and values of all fields of one message. The streaming world has the same bound.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Bodies from this size on count in the host's memory while they wait for their reader; smaller ones are bounded by connections.
const COUNTED_BODY_BYTES_MIN: usize = 16 << 10;

/// A worker's outgoing request.
pub(crate) fn request(request: lean::RequestResult) -> Result<Request<Body>, CallError> {
    let invalid = |what: &str, text: &dyn std::fmt::Display| CallError::InvalidRequest(format!("the {what} is not valid HTTP: {text}"));
    let mut built = Request::new(Body::from(Bytes::from(request.body)));
    *built.method_mut() = Method::from_bytes(request.method.as_bytes()).map_err(|error| invalid("method", &error))?;
    *built.uri_mut() = Uri::from_maybe_shared(Bytes::from(request.uri)).map_err(|error| invalid("URL", &error))?;
    *built.headers_mut() = headers(request.headers).map_err(|name| invalid("header field", &name))?;
    // The body says how long it is.
    built.headers_mut().remove(http::header::CONTENT_LENGTH);
    Ok(built)
}

/// A worker's answer to whoever invoked it.
pub(crate) fn response(response: lean::Response, invocation: &Invocation) -> Result<Response<Body>, Failure> {
    let limit_bytes = invocation.deployment.limits.body_mb << 20;
    let failed = |text: String| Failure::new(&codes::WORKER_FAILED, Outcome::Failed, text);
    if response.body.len() as u64 > limit_bytes {
        return Err(Failure::refused(
            &codes::RESPONSE_TOO_LARGE,
            format!("the response body has {} bytes and may have {limit_bytes}", response.body.len()),
        ));
    }
    let status = StatusCode::from_u16(response.status).ok().filter(|status| crate::run::is_final(*status));
    let status = status.ok_or_else(|| failed(format!("the worker answered with status {}, which is not between 200 and 599", response.status)))?;
    let mut body = Bytes::from(response.body);
    if body.len() >= COUNTED_BODY_BYTES_MIN {
        // A slow reader keeps it long after the instance and its slot are gone.
        let reservation = invocation.runtime.memory().reserve();
        if !reservation.grow(body.len() as u64) {
            return Err(Failure::refused(&codes::HOST_BUSY, "the host has no memory for the response body now"));
        }
        body = reservation.hold(body);
    }
    let mut built = Response::new(Body::from(body));
    *built.status_mut() = status;
    *built.headers_mut() =
        headers(response.headers).map_err(|name| failed(format!("the worker answered with a header field that is not valid HTTP: {name}")))?;
    built.headers_mut().remove(http::header::CONTENT_LENGTH);
    Ok(built)
}

/// The fields of a message as the lean world writes them.
pub(crate) fn field_lines(headers: &HeaderMap) -> Vec<u8> {
    let size = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut lines = Vec::with_capacity(size);
    for (name, value) in headers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

/// The fields that a worker wrote, or what is wrong with the first that HTTP does not allow.
fn headers(lines: Vec<u8>) -> Result<HeaderMap, String> {
    if lines.len() > HEADER_BYTES_MAX {
        return Err(format!("all of them together have more than {HEADER_BYTES_MAX} bytes"));
    }
    let lines = Bytes::from(lines);
    let mut headers = HeaderMap::new();
    let mut rest = lines.clone();
    while !rest.is_empty() {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else { return Err("a line without its end".to_owned()) };
        let mut value = rest.split_to(end);
        rest = rest.slice(2..);
        let Some(colon) = value.iter().position(|byte| *byte == b':') else { return Err("a line without a colon".to_owned()) };
        let name = value.split_to(colon);
        value = value.slice(1..);
        let Ok(valid_name) = HeaderName::from_bytes(&name) else { return Err(format!("name {name:?}")) };
        let Ok(value) = HeaderValue::from_maybe_shared(value.slice_ref(value.trim_ascii())) else { return Err(format!("value of {name:?}")) };
        if headers.try_append(valid_name, value).is_err() {
            return Err("there are too many".to_owned());
        }
    }
    Ok(headers)
}

/// A response, whole, for a worker that called.
pub(crate) async fn collect(response: Response<Body>, caller: &Invocation) -> Result<lean::Response, CallError> {
    let limit_bytes = caller.deployment.limits.body_mb << 20;
    let (parts, body) = response.into_parts();
    let body = match body {
        Body::Empty => Bytes::new(),
        body => body.collect_within(limit_bytes, caller.runtime.memory()).await.map_err(|error| match error {
            CollectError::Busy => CallError::Other("host_busy: the host has no memory for the response body now".to_owned()),
            CollectError::TooLarge => CallError::BodyTooLarge(limit_bytes),
            CollectError::Broken(text) => CallError::Unreachable(format!("the response broke off: {text}")),
        })?,
    };
    Ok(lean::Response { status: parts.status.as_u16(), headers: field_lines(&parts.headers), body: body.into() })
}

/// A call's error for the lean world.
pub(crate) fn error(error: CallError) -> lean::Error {
    match error {
        CallError::UnknownBinding(text) => lean::Error::UnknownBinding(text),
        CallError::ChainLimit(hops) => lean::Error::ChainLimit(
            hops.into_iter().map(|hop| lean::Hop { number: hop.number, service: hop.service, method: hop.method, path: hop.path }).collect(),
        ),
        CallError::SubrequestLimit(limit) => lean::Error::SubrequestLimit(limit),
        CallError::InvalidRequest(text) => lean::Error::InvalidRequest(text),
        CallError::BodyTooLarge(limit) => lean::Error::BodyTooLarge(limit),
        CallError::Timeout => lean::Error::Timeout,
        CallError::Unreachable(text) => lean::Error::Unreachable(text),
        CallError::Other(text) => lean::Error::Other(text),
        CallError::Outbound(error) => match &error {
            OutboundError::Denied { .. } | OutboundError::AddressRefused { .. } => lean::Error::Denied(error.to_string()),
            OutboundError::InvalidRequest { .. } => lean::Error::InvalidRequest(error.to_string()),
            OutboundError::ConnectTimeout { .. } => lean::Error::Timeout,
            _ => lean::Error::Unreachable(error.to_string()),
        },
    }
}

/// An error that a worker returned instead of a response.
pub(crate) fn call_error(error: lean::Error) -> CallError {
    match error {
        lean::Error::UnknownBinding(text) => CallError::UnknownBinding(text),
        lean::Error::ChainLimit(hops) => CallError::ChainLimit(
            hops.into_iter().map(|hop| HopBody { number: hop.number, service: hop.service, method: hop.method, path: hop.path }).collect(),
        ),
        lean::Error::SubrequestLimit(limit) => CallError::SubrequestLimit(limit),
        lean::Error::Denied(text) | lean::Error::Other(text) => CallError::Other(text),
        lean::Error::InvalidRequest(text) => CallError::InvalidRequest(text),
        lean::Error::BodyTooLarge(limit) => CallError::BodyTooLarge(limit),
        lean::Error::Unreachable(text) => CallError::Unreachable(text),
        lean::Error::Timeout => CallError::Timeout,
    }
}

/// A call's error for `wasi:http`.
pub(crate) fn error_code(error: CallError) -> BodyError {
    match error {
        CallError::UnknownBinding(_) => BodyError::DestinationNotFound,
        CallError::ChainLimit(_) => BodyError::LoopDetected,
        CallError::SubrequestLimit(limit) => {
            BodyError::InternalError(Some(format!("subrequest_limit: the invocation has made {limit} calls, which is the limit")))
        }
        CallError::InvalidRequest(_) => BodyError::HttpRequestUriInvalid,
        CallError::BodyTooLarge(limit) => BodyError::HttpResponseBodySize(Some(limit)),
        CallError::Timeout => BodyError::HttpResponseTimeout,
        CallError::Unreachable(_) => BodyError::DestinationUnavailable,
        CallError::Other(text) => BodyError::InternalError(Some(text)),
        CallError::Outbound(error) => outbound_code(error),
    }
}

fn outbound_code(error: OutboundError) -> BodyError {
    match error {
        OutboundError::Denied { .. } => BodyError::HttpRequestDenied,
        OutboundError::AddressRefused { .. } => BodyError::DestinationIpProhibited,
        OutboundError::InvalidRequest { .. } => BodyError::HttpRequestUriInvalid,
        OutboundError::Dns { reason, .. } => BodyError::DnsError { rcode: Some(reason), info_code: None },
        OutboundError::Connect { refused: true, .. } => BodyError::ConnectionRefused,
        OutboundError::Connect { .. } => BodyError::DestinationUnavailable,
        OutboundError::ConnectionLimit { .. } => BodyError::ConnectionLimitReached,
        OutboundError::Tls { certificate: true, .. } => BodyError::TlsCertificateError,
        OutboundError::Tls { .. } => BodyError::TlsProtocolError,
        OutboundError::ConnectTimeout { .. } => BodyError::ConnectionTimeout,
        OutboundError::Protocol { .. } => BodyError::HttpProtocolError,
    }
}

/// An error that a `wasi:http` worker returned instead of a response. The list of hops does not survive in that world; the log has the calls.
pub(crate) fn from_error_code(code: ErrorCode) -> CallError {
    match code {
        ErrorCode::LoopDetected => CallError::ChainLimit(Vec::new()),
        ErrorCode::ConnectionTimeout
        | ErrorCode::HttpResponseTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::DnsTimeout => CallError::Timeout,
        ErrorCode::DestinationNotFound
        | ErrorCode::DestinationUnavailable
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionTerminated
        | ErrorCode::DestinationIpUnroutable => CallError::Unreachable(format!("the worker returned {code:?}")),
        ErrorCode::DnsError(DnsErrorPayload { rcode, .. }) => {
            CallError::Unreachable(format!("a name did not resolve: {}", rcode.unwrap_or_default()))
        }
        ErrorCode::InternalError(Some(text)) => CallError::Other(text),
        other => CallError::Other(format!("the worker returned {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fields_survive_the_boundary() {
        let mut fields = HeaderMap::new();
        fields.append("accept", HeaderValue::from_static("text/html"));
        fields.append("set-cookie", HeaderValue::from_static("a=1; path=/"));
        fields.append("set-cookie", HeaderValue::from_static("b=2"));
        fields.append("empty", HeaderValue::from_static(""));
        fields.append("bytes", HeaderValue::from_bytes(b"\xff: \xfe").unwrap());
        assert_eq!(headers(field_lines(&fields)).unwrap(), fields);
        assert_eq!(headers(Vec::new()).unwrap(), HeaderMap::new());
    }

    #[test]
    fn lines_that_are_no_fields_are_refused() {
        for bad in [
            "a: b",
            "a: b\n",
            "no colon\r\n",
            ": value\r\n",
            "a b: c\r\n",
            "a: b\nc: d\r\n",
            "a: b\0\r\n",
            "\r\n",
            "a: b\r\n\r\nbody",
            " folded: x\r\n",
            "a: b\r\n c\r\n",
        ] {
            assert!(headers(bad.as_bytes().to_vec()).is_err(), "{bad:?}");
        }
    }
}
