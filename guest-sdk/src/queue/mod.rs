//! Queues: messages that are sent now and delivered later, at least once. Sending is thin over `tovuk:queue/producer`, whose limits are the host's, who says
//! which one was met; what is delivered comes as a request, which [`Router::queue`](crate::Router::queue) answers. A worker
//! that does nothing else can say so:
//!
//! ```
//! use tovuk::queue::Batch;
//!
//! #[tovuk::queue("jobs")]
//! fn jobs(batch: &Batch) -> tovuk::Result<()> {
//!     for message in batch.messages() {
//!         println!("{}", message.text()?);
//!     }
//!     Ok(())
//! }
//! ```

mod batch;
#[cfg(target_arch = "wasm32")]
mod component;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod memory;

#[cfg(target_arch = "wasm32")]
use component as backend;
#[cfg(not(target_arch = "wasm32"))]
use memory as backend;

use std::time::Duration;

use serde::Serialize;

pub use batch::{Batch, Message};

use crate::DataError;

/// What the paths of events begin with; the name of the queue follows.
pub(crate) const PREFIX: &str = "/.tovuk/queues/";
/// More than this cannot be carried into the host by one call: it would end the worker instead of failing.
const CALL_BYTES_MAX: usize = 28 << 20;
/// What a message takes there besides its body.
const MESSAGE_BYTES: usize = 64;

/// The queue of this worker's service with this name, for example `jobs`, or with this id.
///
/// ```
/// use std::time::Duration;
/// use serde_json::json;
/// use tovuk::{Request, Response, Result, Router, queue::Outgoing, testing::TestEnv};
///
/// #[tovuk::handler]
/// fn handle(req: Request) -> Result<Response> {
///     Router::new()
///         .post("/reports", |req| {
///             let jobs = tovuk::queue("jobs");
///             jobs.send(Outgoing::json(&json!({"report": 7}))?.with_delay(Duration::from_secs(60)))?;
///             jobs.send_batch(["first", "second"])?;
///             Ok(Response::empty(202))
///         })
///         .queue("jobs", |batch| {
///             for message in batch.messages() {
///                 match message.text()? {
///                     "second" => message.retry_after(Duration::from_secs(30)),
///                     text => println!("done: {text}"),
///                 }
///             }
///             Ok(())
///         })
///         .run(req)
/// }
///
/// let env = TestEnv::new().queue("jobs");
/// env.run(handle, Request::post("/reports"));
/// assert_eq!(env.deliver(handle, "jobs").status(), 200);
/// assert_eq!(env.queued("jobs"), [br#"{"report":7}"#.to_vec(), b"second".to_vec()]);
/// ```
pub fn queue(name: &str) -> Queue<'_> {
    Queue { name }
}

/// A queue. What was sent is on disk when the call returns.
#[derive(Clone, Copy, Debug)]
pub struct Queue<'a> {
    name: &'a str,
}

impl Queue<'_> {
    /// Sends a message of at most 127,900 bytes; its id.
    ///
    /// # Errors
    /// `queue_message_too_large`; `queue_rate_exceeded` beyond 5,000 messages a second, which can be tried again; `queue_backlog_full`; `invalid_request` for the
    /// delay; `resource_not_found` when the service has no such queue; `storage_failed`.
    pub fn send(&self, message: impl Into<Outgoing>) -> Result<String, DataError> {
        let message = message.into();
        if message.bytes() > CALL_BYTES_MAX {
            let text = format!("the body has {} bytes; a message has at most 127900", message.body.len());
            return Err(DataError::new("queue_message_too_large", text));
        }
        backend::send(self.name, message)
    }

    /// Sends a message that is written as JSON; its id.
    ///
    /// # Errors
    /// As [`send`](Self::send), and `invalid_value` when it cannot be written as JSON.
    pub fn send_json<T: Serialize + ?Sized>(&self, body: &T) -> Result<String, DataError> {
        self.send(Outgoing::json(body)?)
    }

    /// Sends up to 100 messages, all or none; their ids, in their order. Their bodies may have 256,000 bytes together.
    ///
    /// # Errors
    /// As [`send`](Self::send), and `queue_batch_too_large`.
    pub fn send_batch<M: Into<Outgoing>>(&self, messages: impl IntoIterator<Item = M>) -> Result<Vec<String>, DataError> {
        let messages: Vec<Outgoing> = messages.into_iter().map(Into::into).collect();
        if messages.iter().map(Outgoing::bytes).sum::<usize>() > CALL_BYTES_MAX {
            return Err(DataError::new("queue_batch_too_large", "the bodies together have more than 256000 bytes; send fewer at a time"));
        }
        backend::send_batch(self.name, messages)
    }

    /// What waits in the queue now.
    ///
    /// # Errors
    /// `resource_not_found` when the service has no such queue; `storage_failed`.
    pub fn metrics(&self) -> Result<Metrics, DataError> {
        backend::count(self.name)
    }
}

/// What waits in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Messages, those that are being delivered included.
    pub backlog_count: u64,
    /// Their bodies, in bytes.
    pub backlog_bytes: u64,
    /// How long ago the oldest came, in ms; 0 when none waits.
    pub oldest_message_age_ms: u64,
    /// Messages that are being delivered, or were pulled and not settled.
    pub in_flight: u64,
}

/// A message to be sent. Text and bytes are messages as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub(crate) body: Body,
    pub(crate) delay: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Text(String),
    Bytes(Vec<u8>),
}

impl Body {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl Outgoing {
    /// A message of text, which lists of the queue show as it is.
    pub fn text(body: impl Into<String>) -> Self {
        Self { body: Body::Text(body.into()), delay: None }
    }

    /// A message of bytes.
    pub fn bytes_of(body: impl Into<Vec<u8>>) -> Self {
        Self { body: Body::Bytes(body.into()), delay: None }
    }

    /// A message that is written as JSON.
    ///
    /// # Errors
    /// `invalid_value` when it cannot be.
    pub fn json<T: Serialize + ?Sized>(body: &T) -> Result<Self, DataError> {
        let body = serde_json::to_string(body).map_err(|error| DataError::new("invalid_value", error.to_string()))?;
        Ok(Self::text(body))
    }

    /// It is not delivered before this time has passed: at most a day, in whole seconds, rounded up. It stands in place of the queue's own delay.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = Some(seconds(delay));
        self
    }

    /// About what it takes to carry it into the host.
    fn bytes(&self) -> usize {
        MESSAGE_BYTES + self.body.len()
    }
}

impl From<&str> for Outgoing {
    fn from(body: &str) -> Self {
        Self::text(body)
    }
}

impl From<String> for Outgoing {
    fn from(body: String) -> Self {
        Self::text(body)
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(body: Vec<u8>) -> Self {
        Self::bytes_of(body)
    }
}

impl From<&[u8]> for Outgoing {
    fn from(body: &[u8]) -> Self {
        Self::bytes_of(body)
    }
}

/// In whole seconds, rounded up.
fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))).unwrap_or(u32::MAX)
}
