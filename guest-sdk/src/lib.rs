//! The SDK for tovuk workers: a handler, a router, JSON, calls to other services, logging.
//!
//! A worker is a function from a [`Request`] to a [`Response`]:
//!
//! ```
//! use tovuk::{Request, Response, Result};
//!
//! #[tovuk::handler]
//! fn handle(req: Request) -> Result<Response> {
//!     Ok(Response::text(format!("hello from {}", req.path())))
//! }
//! ```
//!
//! Built as a `cdylib` with `cargo build --release --target wasm32-wasip2`, the crate that holds it is a component that a tovuk host
//! serves.
//!
//! - [`Router`] matches methods and paths and hands over typed path parameters.
//! - [`Env`] reads environment variables and calls bound services; [`fetch`] calls absolute URLs.
//! - [`sqlite`] runs SQL in the service's databases: typed rows, batches, transactions, results of any size.
//! - [`kv()`] reads and writes the KV namespaces of the worker's service.
//! - [`cron`](mod@cron) has what cron triggers send, and [`Router::cron`] answers it; so does `#[tovuk::cron]` in a worker that does nothing else.
//! - [`queue()`](fn@queue) sends messages to the queues of the worker's service, and [`Router::queue`] answers what they deliver; so does `#[tovuk::queue]`
//!   in a worker that does nothing else.
//! - [`state()`](fn@state) reads and writes State: objects that do one thing at a time and have an alarm; `#[tovuk::state]` is a handler of theirs.
//! - [`objects()`] stores files of any size and reads them, in pieces where they are large.
//! - [`Error`] carries a status; `?` works on the usual errors, whose text goes to the log and not to the client.
//! - [`log`] writes to the service's log.
//! - `tovuk::testing` runs a handler natively, in `cargo test`, against a made-up environment.
//!
//! What it deliberately does not do: stream. A request arrives whole and a response leaves whole, which is what makes an invocation cheap.
//! A worker that streams exports `wasi:http/incoming-handler` instead, for example with the `wstd` crate. It is also synchronous: waiting
//! for several calls at once is [`fetch_all`].

// The generated code and the `handler` macro say `::tovuk`, also when they are expanded in this crate.
extern crate self as tovuk;

// Public so that the exported function can be generated in the worker's crate.
#[doc(hidden)]
pub mod bindings;
mod call_error;
pub mod cron;
mod data_error;
mod env;
mod error;
mod handler;
mod headers;
mod host;
pub mod kv;
mod logger;
#[doc(hidden)]
pub mod object_bindings;
pub mod objects;
mod paged;
pub mod queue;
mod request;
mod response;
mod router;
pub mod sqlite;
pub mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use call_error::{CallError, Hop};
pub use data_error::DataError;
pub use env::{Env, Service, fetch, fetch_all};
pub use error::Error;
pub use handler::{Handler, IntoOutcome};
pub use headers::Headers;
pub use kv::kv;
pub use log;
pub use objects::objects;
pub use queue::queue;
pub use request::Request;
pub use response::Response;
pub use router::Router;
pub use state::state;
pub use tovuk_macros::{alarm, cron, handler, queue, state};

/// What handlers return: `Result<Response>`, with [`Error`] for everything else.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the `handler` macro expands to. Not for direct use: it may change in any release.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings;
    pub use crate::bindings::export_worker;
    pub use crate::bindings::exports::tovuk::http::handler::{Error, Guest, Request, Response};
    pub use crate::handler::run;
    pub use crate::object_bindings;
    pub use crate::object_bindings::alarms::export_object_alarm;
    pub use crate::object_bindings::alarms::exports::tovuk::state::alarm_handler::{Alarm, Guest as AlarmGuest};
    pub use crate::object_bindings::calls::export_object;
    pub use crate::object_bindings::calls::exports::tovuk::state::handler::{Failure as ObjectFailure, Guest as ObjectGuest};
    pub use crate::state::{IntoDone, run as run_object, run_alarm};
    pub use wit_bindgen::rt as wit_bindgen_rt;
}
