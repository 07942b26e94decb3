//! From the component boundary to the functions that a worker has for its objects, and back.

use crate::__private as boundary;
use crate::state::{Object, Ringing};
use crate::{CallError, Env, Error, IntoOutcome, Request, Response, Result, logger};

/// A function that `#[tovuk::state]` accepts: `fn(Object, Request)` or `fn(Object, Request, Env)`, returning [`Response`] or `Result<Response, E>` with
/// `E: Into<tovuk::Error>`. `Args` only tells the two apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of State objects",
    note = "it is `fn(tovuk::state::Object, tovuk::Request)`, with a `tovuk::Env` behind it if it likes",
    note = "it returns `tovuk::Response` or `Result<tovuk::Response, E>` where `E: Into<tovuk::Error>`"
)]
pub trait Handler<Args> {
    /// Answers one call of an object.
    ///
    /// # Errors
    /// What the function returned, converted. What it has written to the object is undone then.
    fn call(&self, object: Object, request: Request) -> Result<Response>;
}

impl<F, R> Handler<(Object, Request)> for F
where
    F: Fn(Object, Request) -> R,
    R: IntoOutcome,
{
    fn call(&self, object: Object, request: Request) -> Result<Response> {
        self(object, request).into_outcome()
    }
}

impl<F, R> Handler<(Object, Request, Env)> for F
where
    F: Fn(Object, Request, Env) -> R,
    R: IntoOutcome,
{
    fn call(&self, object: Object, request: Request) -> Result<Response> {
        self(object, request, Env).into_outcome()
    }
}

/// A function that `#[tovuk::alarm]` accepts: `fn(Object, Ringing)`, returning nothing or `Result<(), E>` with `E: Into<tovuk::Error>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of alarms",
    note = "it is `fn(tovuk::state::Object, tovuk::state::Ringing)`",
    note = "it returns nothing or `Result<(), E>` where `E: Into<tovuk::Error>`"
)]
pub trait AlarmHandler {
    /// Takes the alarm of an object.
    ///
    /// # Errors
    /// What the function returned, converted. What it has written to the object is undone then, and the alarm rings again.
    fn ring(&self, object: Object, alarm: Ringing) -> Result<()>;
}

impl<F, R> AlarmHandler for F
where
    F: Fn(Object, Ringing) -> R,
    R: IntoDone,
{
    fn ring(&self, object: Object, alarm: Ringing) -> Result<()> {
        self(object, alarm).into_done()
    }
}

/// What a handler of alarms, of batches or of ticks may return.
#[diagnostic::on_unimplemented(
    message = "a handler of events cannot return `{Self}`",
    note = "return nothing or `Result<(), E>` where `E: Into<tovuk::Error>`"
)]
pub trait IntoDone {
    /// Nothing, or the error that this is.
    ///
    /// # Errors
    /// When this is one.
    fn into_done(self) -> Result<()>;
}

impl IntoDone for () {
    fn into_done(self) -> Result<()> {
        Ok(())
    }
}

impl<E: Into<Error>> IntoDone for Result<(), E> {
    fn into_done(self) -> Result<()> {
        self.map_err(Into::into)
    }
}

/// What the caller of an object gets whose call was undone.
pub(crate) enum Undone {
    /// A response.
    Answer(Response),
    /// The host's answer for this.
    Call(CallError),
}

impl From<Error> for Undone {
    fn from(error: Error) -> Self {
        error.into_response().map_or_else(Self::Call, Self::Answer)
    }
}

/// Runs one call; the macro's exported function is this call.
#[doc(hidden)]
pub fn run<Args>(
    handler: impl Handler<Args>,
    class: String,
    object: String,
    request: boundary::Request,
) -> Result<boundary::Response, boundary::ObjectFailure> {
    logger::install();
    match handler.call(Object::new(class, object), request.into()).map_err(Undone::from) {
        Ok(response) => Ok(response.into()),
        Err(Undone::Answer(response)) => Err(boundary::ObjectFailure::Answer(response.into())),
        Err(Undone::Call(error)) => Err(boundary::ObjectFailure::Error(error.into())),
    }
}

/// Runs one alarm; the macro's exported function is this call.
#[doc(hidden)]
pub fn run_alarm(handler: impl AlarmHandler, class: String, object: String, alarm: boundary::Alarm) -> Result<(), String> {
    logger::install();
    let ringing = Ringing { scheduled_ms: alarm.scheduled_ms, retry_count: alarm.retry_count };
    handler.ring(Object::new(class, object), ringing).map_err(|error| error.to_string())
}
