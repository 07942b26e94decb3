//! Why a call to another service or URL brought no response.
//!
//! It mirrors the `error` variant in `wit/deps/http.wit`; it does not decide what an unhandled one becomes, which is the host's business.

use std::fmt;

use serde::Serialize;

use crate::DataError;
use crate::bindings::tovuk::http::types as wit;

/// One invocation of the chain that a request from outside has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Its number: 1 is the request from outside, each call takes the next.
    pub number: u32,
    /// The name of the service that was invoked.
    pub service: String,
    /// The method.
    pub method: String,
    /// The path without its query.
    pub path: String,
}

/// Why a call was not made or brought no response.
///
/// A target that was reached and failed is no error: its status says so. Returned from a handler with `?`, it reaches the host as it is,
/// which then answers 508 for [`ChainLimit`](Self::ChainLimit), 504 for [`Timeout`](Self::Timeout), 502 for
/// [`Unreachable`](Self::Unreachable) and 500 for the rest, and writes the text to the service's log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// The service has no binding of this name, or the URL's host is no bound service. The text says how to declare one.
    UnknownBinding(String),
    /// The request from outside has already started 32 invocations; these are they.
    ChainLimit(Vec<Hop>),
    /// This invocation has used up its calls to elsewhere; the number is the limit.
    SubrequestLimit(u32),
    /// The host in the URL is not in the service's `outbound` list, or workers may not reach its address. The text says what to add where.
    Denied(String),
    /// The method, the URL or a header field is not valid HTTP.
    InvalidRequest(String),
    /// A body is larger than the limit, in bytes, that applies to it.
    BodyTooLarge(u64),
    /// The name did not resolve, the connection or the TLS handshake failed, or it broke before the response was whole.
    Unreachable(String),
    /// No response came in time.
    Timeout,
    /// A call of a State object could not have its object, or what it has written could not be kept. The error says which and why.
    State(DataError),
    /// Anything else, in words.
    Other(String),
}

impl CallError {
    /// A short, stable word for logs and error bodies, for example `binding_chain_limit`. Where the host has a code for it, it is that code.
    pub fn code(&self) -> &str {
        match self {
            Self::UnknownBinding(_) => "unknown_binding",
            Self::ChainLimit(_) => "binding_chain_limit",
            Self::SubrequestLimit(_) => "subrequest_limit",
            Self::Denied(_) => "denied",
            Self::InvalidRequest(_) => "invalid_request",
            Self::BodyTooLarge(_) => "body_too_large",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::State(error) => error.code(),
            Self::Other(_) => "other",
        }
    }

    /// The status that the host answers when a handler returns this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::ChainLimit(_) => 508,
            Self::State(error) if error.code() == "state_deadlock" => 508,
            Self::State(error) if error.is_retryable() => 503,
            Self::Timeout => 504,
            Self::Unreachable(_) => 502,
            _ => 500,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownBinding(text) | Self::Denied(text) | Self::Other(text) => f.write_str(text),
            Self::ChainLimit(hops) => {
                write!(f, "the request from outside has already started {} invocations", hops.len())?;
                for (at, hop) in hops.iter().enumerate() {
                    write!(f, "{}{} {} {} {}", if at == 0 { ": " } else { ", " }, hop.number, hop.service, hop.method, hop.path)?;
                }
                Ok(())
            }
            Self::SubrequestLimit(limit) => write!(f, "this invocation has used up its {limit} calls to other services and hosts"),
            Self::InvalidRequest(text) => write!(f, "the request is not valid HTTP: {text}"),
            Self::BodyTooLarge(limit_bytes) => write!(f, "a body is larger than {limit_bytes} bytes"),
            Self::Unreachable(text) => write!(f, "the target could not be reached: {text}"),
            Self::Timeout => f.write_str("no response came in time"),
            Self::State(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CallError {}

impl From<wit::Error> for CallError {
    fn from(error: wit::Error) -> Self {
        match error {
            wit::Error::UnknownBinding(text) => Self::UnknownBinding(text),
            wit::Error::ChainLimit(hops) => Self::ChainLimit(
                hops.into_iter().map(|hop| Hop { number: hop.number, service: hop.service, method: hop.method, path: hop.path }).collect(),
            ),
            wit::Error::SubrequestLimit(limit) => Self::SubrequestLimit(limit),
            wit::Error::Denied(text) => Self::Denied(text),
            wit::Error::InvalidRequest(text) => Self::InvalidRequest(text),
            wit::Error::BodyTooLarge(limit_bytes) => Self::BodyTooLarge(limit_bytes),
            wit::Error::Unreachable(text) => Self::Unreachable(text),
            wit::Error::Timeout => Self::Timeout,
            wit::Error::Other(text) => Self::Other(text),
        }
    }
}

#[cfg(target_arch = "wasm32")]
impl From<crate::bindings::tovuk::state::calls::Failure> for CallError {
    fn from(failure: crate::bindings::tovuk::state::calls::Failure) -> Self {
        use crate::bindings::tovuk::state::calls::Failure;
        match failure {
            Failure::Refused(refusal) => Self::State(refusal.into()),
            Failure::Call(error) => error.into(),
        }
    }
}

impl From<CallError> for wit::Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::UnknownBinding(text) => Self::UnknownBinding(text),
            CallError::ChainLimit(hops) => Self::ChainLimit(
                hops.into_iter().map(|hop| wit::Hop { number: hop.number, service: hop.service, method: hop.method, path: hop.path }).collect(),
            ),
            CallError::SubrequestLimit(limit) => Self::SubrequestLimit(limit),
            CallError::Denied(text) => Self::Denied(text),
            CallError::InvalidRequest(text) => Self::InvalidRequest(text),
            CallError::BodyTooLarge(limit_bytes) => Self::BodyTooLarge(limit_bytes),
            CallError::Unreachable(text) => Self::Unreachable(text),
            CallError::Timeout => Self::Timeout,
            // The host has no use for it; in an `Error` it becomes a response before.
            CallError::State(error) => Self::Other(error.to_string()),
            CallError::Other(text) => Self::Other(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<CallError> {
        let hop = Hop { number: 1, service: "gateway".into(), method: "GET".into(), path: "/a".into() };
        vec![
            CallError::UnknownBinding("no binding named X".into()),
            CallError::ChainLimit(vec![hop]),
            CallError::SubrequestLimit(50),
            CallError::Denied("not allowed".into()),
            CallError::InvalidRequest("no scheme".into()),
            CallError::BodyTooLarge(8),
            CallError::Unreachable("refused".into()),
            CallError::Timeout,
            CallError::Other("odd".into()),
        ]
    }

    #[test]
    fn every_kind_survives_the_component_boundary() {
        for error in every_kind() {
            assert_eq!(CallError::from(wit::Error::from(error.clone())), error);
        }
    }

    #[test]
    fn texts_and_statuses() {
        let refused = |code| CallError::State(DataError::new(code, "refused"));
        let kinds = every_kind().into_iter().chain([refused("state_deadlock"), refused("state_handler_missing")]);
        let lines: Vec<String> = kinds.map(|error| format!("{} {} {error}", error.status(), error.code())).collect();
        assert_eq!(
            lines,
            [
                "500 unknown_binding no binding named X",
                "508 binding_chain_limit the request from outside has already started 1 invocations: 1 gateway GET /a",
                "500 subrequest_limit this invocation has used up its 50 calls to other services and hosts",
                "500 denied not allowed",
                "500 invalid_request the request is not valid HTTP: no scheme",
                "500 body_too_large a body is larger than 8 bytes",
                "502 unreachable the target could not be reached: refused",
                "504 timeout no response came in time",
                "500 other odd",
                "508 state_deadlock state_deadlock: refused",
                "500 state_handler_missing state_handler_missing: refused",
            ]
        );
    }
}
