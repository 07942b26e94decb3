//! The table of operations: what the kernel says of each, with the code that does it.

use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::{Schema, SchemaGenerator};
use tovuk_kernel::operation::{Operation, Request};

use super::Control;
use super::caller::Caller;
use super::decode::{self, Fields};
use super::refusal::Refusal;
use tovuk_kernel::codes;

/// An operation that this host can do.
pub trait Handler: Request {
    /// Does it. Who may was decided before; what belongs to another account must look as if it did not exist.
    fn run(self, control: Control, caller: Caller) -> impl Future<Output = Result<Self::Response, Refusal>> + Send;
}

/// Bodies beyond this are read beside the threads that answer requests; one of this size takes them about a millisecond.
const LARGE_BODY_BYTES: usize = 1 << 20;

type Run = fn(Control, Caller, Fields, bytes::Bytes) -> BoxFuture<'static, Result<Vec<u8>, Refusal>>;

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
}

fn run<T: Handler>(control: Control, caller: Caller, fields: Fields, body: bytes::Bytes) -> BoxFuture<'static, Result<Vec<u8>, Refusal>> {
    async move {
        let is_large = body.len() > LARGE_BODY_BYTES;
        let decode = move || decode::decode::<T>(fields, T::OPERATION.method.has_body().then_some(&body[..]));
        let request = if is_large { tokio::task::spawn_blocking(decode).await.map_err(Refusal::internal)? } else { decode() };
        let request = request.map_err(|error| {
            let operation = &T::OPERATION;
            let text = format!("{} {}: {error}", operation.method.as_str(), operation.path);
            Refusal::new(&codes::INVALID_REQUEST, text)
        })?;
        let response = request.run(control, caller).await?;
        serde_json::to_vec(&response).map_err(Refusal::internal)
    }
    .boxed()
}
