//! The table of operations: what the kernel says of each, with the code that does it.

use std::io;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::{Schema, SchemaGenerator};
use serde::Serialize;
use tovuk_kernel::limits::API_ANSWER_BYTES_FREE;
use tovuk_kernel::operation::{Operation, Request};
use tovuk_runtime::body::Body;
use tovuk_runtime::memory::{HostMemory, Reservation};

use super::Control;
use super::caller::Caller;
use super::decode::{self, Fields};
use super::refusal::Refusal;
use tovuk_kernel::codes;

/// An operation that this host can do.
pub trait Handler: Request {
    /// Whether what it answers with can be so large that it counts as host memory, until the client has it. It is refused where there is none, so it must
    /// have changed nothing.
    const COUNTS_ANSWER: bool = false;

    /// Does it. Who may was decided before; what belongs to another account must look as if it did not exist.
    fn run(self, control: Control, caller: Caller) -> impl Future<Output = Result<Self::Response, Refusal>> + Send;
}

/// An operation whose answer goes on: a JSON object for each line, each of the type of its response.
pub trait Streams: Request {
    /// Begins to answer. Who may was decided before.
    fn stream(self, control: Control, caller: Caller) -> impl Future<Output = Result<Body, Refusal>> + Send;
}

/// Bodies beyond this are read beside the threads that answer requests; one of this size takes them about a millisecond.
const LARGE_BODY_BYTES: usize = 1 << 20;

type Run = fn(Control, Caller, Fields, Bytes) -> BoxFuture<'static, Result<Body, Refusal>>;

/// One row of the table.
pub struct Registered {
    /// What there is to say of it.
    pub operation: &'static Operation,
    /// The schema of its request.
    pub request: fn(&mut SchemaGenerator) -> Schema,
    /// The schema of what it answers with.
    pub response: fn(&mut SchemaGenerator) -> Schema,
    pub(super) run: Run,
}

impl Registered {
    /// The row of an operation.
    pub(super) const fn of<T: Handler>() -> Self {
        Self {
            operation: const { &T::OPERATION },
            request: |generator| generator.subschema_for::<T>(),
            response: |generator| generator.subschema_for::<T::Response>(),
            run: run::<T>,
        }
    }

    /// The row of an operation whose answer goes on.
    pub(super) const fn streaming<T: Streams>() -> Self {
        Self {
            operation: const { &T::OPERATION },
            request: |generator| generator.subschema_for::<T>(),
            response: |generator| generator.subschema_for::<T::Response>(),
            run: stream::<T>,
        }
    }
}

async fn decoded<T: Request>(fields: Fields, body: Bytes) -> Result<T, Refusal> {
    let is_large = body.len() > LARGE_BODY_BYTES;
    let decode = move || decode::decode::<T>(fields, T::OPERATION.method.has_body().then_some(&body[..]));
    let request = if is_large { tovuk_kernel::threads::spawn_blocking(decode).await.map_err(Refusal::internal)? } else { decode() };
    request.map_err(|error| {
        let operation = &T::OPERATION;
        let text = format!("{} {}: {error}", operation.method.as_str(), operation.path);
        Refusal::new(&codes::INVALID_REQUEST, text)
    })
}

fn stream<T: Streams>(control: Control, caller: Caller, fields: Fields, body: Bytes) -> BoxFuture<'static, Result<Body, Refusal>> {
    async move { decoded::<T>(fields, body).await?.stream(control, caller).await }.boxed()
}

fn run<T: Handler>(control: Control, caller: Caller, fields: Fields, body: Bytes) -> BoxFuture<'static, Result<Body, Refusal>> {
    async move {
        let request = decoded::<T>(fields, body).await?;
        let memory = control.runtime().memory().clone();
        let response = request.run(control, caller).await?;
        if T::COUNTS_ANSWER {
            return Answer::counted_in(&memory, &response).map(Body::from);
        }
        serde_json::to_vec(&response).map(|text| Body::from(Bytes::from(text))).map_err(Refusal::internal)
    }
    .boxed()
}

/// An answer while it is written, with the memory that it has.
struct Answer {
    bytes: Vec<u8>,
    memory: Reservation,
    refused: bool,
}

impl Answer {
    /// The answer as JSON. Its memory is given back when the last of its bytes is.
    fn counted_in(memory: &HostMemory, response: &impl Serialize) -> Result<Bytes, Refusal> {
        let mut answer = Self { bytes: Vec::new(), memory: memory.reserve(), refused: false };
        match serde_json::to_writer(&mut answer, response) {
            Ok(()) => Ok(answer.memory.hold(answer.bytes.into())),
            Err(_) if answer.refused => {
                Err(Refusal::new(&codes::HOST_BUSY, "the host has no memory left for this answer; try again shortly, or ask for less at a time"))
            }
            Err(error) => Err(Refusal::internal(error)),
        }
    }
}

impl io::Write for Answer {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        let (before, needed) = (self.bytes.capacity(), self.bytes.len().saturating_add(more.len()));
        if needed > before {
            let wanted = needed.max(before.saturating_add(before / 2)).max(256);
            let counted = |capacity: usize| capacity.saturating_sub(API_ANSWER_BYTES_FREE) as u64;
            if !self.memory.grow(counted(wanted) - counted(before)) {
                self.refused = true;
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.bytes.reserve_exact(wanted.saturating_sub(self.bytes.len()));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_answer_counts_until_it_is_gone_and_is_refused_where_there_is_no_memory() {
        let memory = HostMemory::new(1 << 20);
        let text = "x".repeat((1 << 20) + (300 << 10));
        let first = Answer::counted_in(&memory, &text);
        assert!(first.as_ref().is_ok_and(|bytes| bytes.len() == text.len() + 2));
        assert!((300 << 10..1 << 20).contains(&memory.used_bytes()), "{}", memory.used_bytes());
        let refused = Answer::counted_in(&memory, &[&text, &text]);
        assert!(refused.is_err_and(|refusal| refusal.code == &codes::HOST_BUSY));
        let small = Answer::counted_in(&HostMemory::new(0), &"x".repeat(1_000));
        assert!(small.is_ok(), "a small one is always given");
        drop(first);
        assert_eq!(memory.used_bytes(), 0);
    }
}
