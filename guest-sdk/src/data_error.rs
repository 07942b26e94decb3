//! Why an operation on a service's data was not done.
//!
//! It mirrors the `error` record in `wit/deps/data.wit`, which all kinds of data share.

use std::fmt;

/// Why an operation on a service's data was not done. Unless the operation says otherwise, nothing was changed.
///
/// Returned from a handler with `?`, it becomes a 500 that tells the client nothing, with the text in the service's log; 503 when the same request can
/// succeed later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataError {
    code: String,
    message: String,
    retryable: bool,
}

impl DataError {
    pub(crate) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retryable: false }
    }

    /// A stable word for it, for example `kv_key_invalid`: the one that the control API answers with, from the table of codes of the host.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What happened and what to do about it, for whoever wrote the worker.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the same call can succeed later.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for DataError {}

#[cfg(target_arch = "wasm32")]
impl From<crate::bindings::tovuk::state::calls::Refusal> for DataError {
    fn from(refusal: crate::bindings::tovuk::state::calls::Refusal) -> Self {
        Self { code: refusal.code, message: refusal.message, retryable: refusal.retryable }
    }
}

#[cfg(target_arch = "wasm32")]
impl From<crate::bindings::tovuk::data::types::Error> for DataError {
    fn from(error: crate::bindings::tovuk::data::types::Error) -> Self {
        Self { code: error.code, message: error.message, retryable: error.retryable }
    }
}
