//! What a handler returns instead of a response: a status and a message, or a call's error on its way to the host.
//!
//! It keeps two texts apart: the message, which the client sees, and the detail, which only the service's log sees. Everything that `?`
//! converts by itself is detail.

use std::borrow::Cow;
use std::fmt;

use crate::{CallError, DataError, Response};

/// An error that ends a request.
///
/// ```
/// # use tovuk::{Error, Request, Response, Result};
/// fn order(id: u64) -> Result<Response> {
///     match id {
///         42 => Ok(Response::text("a teapot")),
///         _ => Err(Error::not_found(format!("there is no order {id}"))),
///     }
/// }
/// assert_eq!(order(7).unwrap_err().status(), 404);
/// ```
///
/// The client gets the status and `{"error": "<message>"}`. `?` on the errors of `std`, `serde_json` and on boxed errors gives a 500 that
/// says nothing but `internal error`, with the text in the log. `?` on a [`CallError`] hands it to the host, which answers for it; one of State is a 503, 508 or 500
/// of the worker.
#[derive(Debug)]
pub struct Error {
    status: u16,
    message: Cow<'static, str>,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    None,
    /// For the log.
    Detail(String),
    /// For the host.
    Call(CallError),
}

impl Error {
    /// An error that the client sees as `status` with `message`.
    pub fn new(status: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), cause: Cause::None }
    }

    /// 400.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, message)
    }

    /// 401.
    pub fn unauthorized(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(401, message)
    }

    /// 403.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(403, message)
    }

    /// 404.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(404, message)
    }

    /// 500 that tells the client nothing, and the log `detail`.
    pub fn internal(detail: impl fmt::Display) -> Self {
        Self { status: 500, message: Cow::Borrowed("internal error"), cause: Cause::Detail(detail.to_string()) }
    }

    /// The status that the client sees.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The message that the client sees.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The call that failed, when that is what this is.
    pub fn call_error(&self) -> Option<&CallError> {
        match &self.cause {
            Cause::Call(error) => Some(error),
            Cause::None | Cause::Detail(_) => None,
        }
    }

    /// The failure of a handler of events. The host reads a 404 or 405 as a worker that has no such handler, and brings a queue's messages no more: only
    /// the router says that, and what a handler has not found is a 500.
    pub(crate) fn of_event(self) -> Self {
        match self.status {
            404 | 405 => Self::internal(&self),
            _ => self,
        }
    }

    /// The response that stands for this error. Writes the detail to the log. A call's error is given back: it is for the host.
    pub(crate) fn into_response(self) -> Result<Response, CallError> {
        match self.cause {
            Cause::Call(error) => return Err(error),
            Cause::Detail(detail) => log::error!(target: "tovuk", "answered {}: {detail}", self.status),
            Cause::None => {}
        }
        let body = format!("{{\"error\":{}}}", serde_json::Value::from(&*self.message));
        Ok(Response::empty(self.status).with_header("content-type", "application/json").with_body(body))
    }
}

/// The message, then what is behind it: for logs and tests, not for clients.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.cause {
            Cause::None => Ok(()),
            Cause::Detail(detail) => write!(f, ": {detail}"),
            Cause::Call(error) => write!(f, ": {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.call_error().map(|error| error as &dyn std::error::Error)
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        if let CallError::State(refused) = &error {
            let message = if refused.is_retryable() { "try again in a moment" } else { "internal error" };
            return Self { status: error.status(), message: Cow::Borrowed(message), cause: Cause::Detail(error.to_string()) };
        }
        Self { status: error.status(), message: Cow::Borrowed("a call to another service failed"), cause: Cause::Call(error) }
    }
}

impl From<DataError> for Error {
    fn from(error: DataError) -> Self {
        let (status, message) = if error.is_retryable() { (503, "try again in a moment") } else { (500, "internal error") };
        Self { status, message: Cow::Borrowed(message), cause: Cause::Detail(error.to_string()) }
    }
}

/// The text of an error and of all that caused it, in one line.
fn whole_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

macro_rules! internal_from {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::internal(whole_text(&error))
            }
        }
    )*};
}

// An implementation for every `E: std::error::Error` would be shorter, but it would keep workers from giving their own error types a status
// with `impl From<MyError> for tovuk::Error`.
internal_from!(
    serde_json::Error,
    std::io::Error,
    fmt::Error,
    std::str::Utf8Error,
    std::string::FromUtf8Error,
    std::num::ParseIntError,
    std::num::ParseFloatError,
    std::env::VarError,
    std::time::SystemTimeError,
);

/// A boxed [`Error`], [`CallError`] or [`DataError`] comes out as what it was; any other is a 500.
impl From<Box<dyn std::error::Error + Send + Sync>> for Error {
    fn from(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => *error,
            Err(error) => match error.downcast::<CallError>() {
                Ok(call) => (*call).into(),
                Err(error) => match error.downcast::<DataError>() {
                    Ok(data) => (*data).into(),
                    Err(error) => Self::internal(whole_text(&*error)),
                },
            },
        }
    }
}

/// A boxed [`Error`], [`CallError`] or [`DataError`] comes out as what it was; any other is a 500.
impl From<Box<dyn std::error::Error>> for Error {
    fn from(error: Box<dyn std::error::Error>) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => *error,
            Err(error) => match error.downcast::<CallError>() {
                Ok(call) => (*call).into(),
                Err(error) => match error.downcast::<DataError>() {
                    Ok(data) => (*data).into(),
                    Err(error) => Self::internal(whole_text(&*error)),
                },
            },
        }
    }
}

/// An [`Error`], [`CallError`] or [`DataError`] inside comes out as what it was; any other is a 500.
#[cfg(feature = "anyhow")]
impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(error) => match error.downcast::<CallError>() {
                Ok(call) => call.into(),
                Err(error) => match error.downcast::<DataError>() {
                    Ok(data) => data.into(),
                    Err(error) => Self::internal(format_args!("{error:#}")),
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_client_sees_the_message_and_never_the_detail() {
        let response = Error::new(409, "taken \"twice\"").into_response().unwrap();
        assert_eq!((response.status(), response.body_text().unwrap()), (409, r#"{"error":"taken \"twice\""}"#));
        let io: Error = std::io::Error::other("disk /dev/sda1 is on fire").into();
        assert!(io.to_string().contains("sda1"));
        let response = io.into_response().unwrap();
        assert_eq!((response.status(), response.body_text().unwrap()), (500, r#"{"error":"internal error"}"#));
    }

    #[test]
    fn a_calls_error_goes_to_the_host_through_any_number_of_boxes() {
        let direct: Error = CallError::Timeout.into();
        assert_eq!((direct.status(), direct.call_error()), (504, Some(&CallError::Timeout)));
        assert_eq!(direct.into_response().unwrap_err(), CallError::Timeout);
        let boxed: Box<dyn std::error::Error + Send + Sync> = CallError::Timeout.into();
        assert_eq!(Error::from(boxed).into_response().unwrap_err(), CallError::Timeout);
        let boxed: Box<dyn std::error::Error> = Error::from(CallError::Timeout).into();
        assert_eq!(Error::from(boxed).into_response().unwrap_err(), CallError::Timeout);
        #[cfg(feature = "anyhow")]
        assert_eq!(Error::from(anyhow::Error::new(CallError::Timeout).context("while asking auth")).into_response().unwrap_err(), CallError::Timeout);
    }

    #[test]
    fn what_the_host_says_of_data_is_for_the_log() {
        let error: Error = DataError::new("kv_key_invalid", "the key is empty").into();
        assert_eq!((error.status(), error.message(), error.to_string().contains("the key is empty")), (500, "internal error", true));
        let boxed: Box<dyn std::error::Error> = DataError::new("a", "b").into();
        assert_eq!(Error::from(boxed).to_string(), "internal error: a: b");
    }

    #[test]
    fn a_boxed_error_keeps_its_status_and_others_tell_their_whole_story_to_the_log() {
        let boxed: Box<dyn std::error::Error + Send + Sync> = Error::not_found("no such order").into();
        assert_eq!(Error::from(boxed).status(), 404);
        let boxed: Box<dyn std::error::Error + Send + Sync> = "just words".into();
        let error = Error::from(boxed);
        assert_eq!((error.status(), error.to_string().as_str()), (500, "internal error: just words"));
    }
}
