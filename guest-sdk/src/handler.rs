//! From the component boundary to the worker's function and back.
//!
//! Only this and the macro know that a handler may take one argument or two and may return a response or a result.

use crate::__private as boundary;
use crate::{Env, Error, Request, Response, Result, logger};

/// A function that `#[tovuk::handler]` accepts: `fn(Request)` or `fn(Request, Env)`, returning [`Response`] or `Result<Response, E>` with
/// `E: Into<tovuk::Error>`. `Args` only tells the two apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    note = "a handler is `fn(tovuk::Request)` or `fn(tovuk::Request, tovuk::Env)`",
    note = "it returns `tovuk::Response` or `Result<tovuk::Response, E>` where `E: Into<tovuk::Error>`"
)]
pub trait Handler<Args> {
    /// Answers one request.
    ///
    /// # Errors
    /// What the function returned, converted.
    fn call(&self, request: Request, env: Env) -> Result<Response>;
}

impl<F, R> Handler<(Request,)> for F
where
    F: Fn(Request) -> R,
    R: IntoOutcome,
{
    fn call(&self, request: Request, _: Env) -> Result<Response> {
        self(request).into_outcome()
    }
}

impl<F, R> Handler<(Request, Env)> for F
where
    F: Fn(Request, Env) -> R,
    R: IntoOutcome,
{
    fn call(&self, request: Request, env: Env) -> Result<Response> {
        self(request, env).into_outcome()
    }
}

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    note = "return `tovuk::Response` or `Result<tovuk::Response, E>` where `E: Into<tovuk::Error>`"
)]
pub trait IntoOutcome {
    /// The response or the error that this is.
    ///
    /// # Errors
    /// When this is one.
    fn into_outcome(self) -> Result<Response>;
}

impl IntoOutcome for Response {
    fn into_outcome(self) -> Result<Response> {
        Ok(self)
    }
}

impl<E: Into<Error>> IntoOutcome for Result<Response, E> {
    fn into_outcome(self) -> Result<Response> {
        self.map_err(Into::into)
    }
}

/// Runs one invocation; the macro's exported function is this call.
#[doc(hidden)]
pub fn run<Args>(handler: impl Handler<Args>, request: boundary::Request) -> Result<boundary::Response, boundary::Error> {
    logger::install();
    match handler.call(request.into(), Env).or_else(Error::into_response) {
        Ok(response) => Ok(response.into()),
        Err(error) => Err(error.into()),
    }
}
