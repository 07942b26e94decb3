//! `tovuk:http/client`, `tovuk:bindings/service` and `tovuk:state/calls`: calls of workers that take responses whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use wasmtime::component::Linker;

use super::{Whole, convert};
use crate::calls::{self, CallError, ObjectCallError};
use crate::instance::Data;
use crate::invocation::Invocation;
use crate::lean_bindings::tovuk::bindings::service;
use crate::lean_bindings::tovuk::http::{client, types};
use crate::lean_bindings::tovuk::state::calls as state_calls;

/// Calls of one batch that run at a time; the others begin as these end. A chain has 32 invocations, so only calls to other hosts wait.
const CALLS_AT_ONCE_MAX: usize = 64;

/// The responses of one batch, which the host holds until the last has come. More than the worker's memory could not be handed over.
struct Batch {
    left_bytes: AtomicU64,
    limit_bytes: u64,
}

impl Batch {
    fn new(caller: &Invocation) -> Self {
        let limit_bytes = caller.deployment.limits.memory_mb << 20;
        Self { left_bytes: AtomicU64::new(limit_bytes), limit_bytes }
    }

    /// The call, unless its response is more than the batch may still hold.
    async fn take(&self, call: impl Future<Output = Result<types::Response, types::Error>>) -> Result<types::Response, types::Error> {
        let response = call.await?;
        let bytes = (response.body.len() + response.headers.len()) as u64;
        let taken = self.left_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.map(|_| response).map_err(|_| types::Error::BodyTooLarge(self.limit_bytes))
    }
}

impl types::Host for Data {}

impl client::Host for Data {
    async fn fetch(&mut self, request: types::RequestResult) -> Result<types::Response, types::Error> {
        by_url(self.invocation.clone(), request).await
    }

    async fn fetch_all(&mut self, requests: Vec<types::RequestResult>) -> Vec<Result<types::Response, types::Error>> {
        let batch = Batch::new(&self.invocation);
        let calls = requests.into_iter().map(|request| batch.take(by_url(self.invocation.clone(), request)));
        futures::stream::iter(calls).buffered(CALLS_AT_ONCE_MAX).collect().await
    }
}

impl service::Host for Data {
    async fn fetch(&mut self, binding: String, request: types::RequestResult) -> Result<types::Response, types::Error> {
        by_binding(self.invocation.clone(), binding, request).await
    }

    async fn fetch_all(&mut self, calls: Vec<service::Call>) -> Vec<Result<types::Response, types::Error>> {
        let batch = Batch::new(&self.invocation);
        let calls = calls.into_iter().map(|call| batch.take(by_binding(self.invocation.clone(), call.binding, call.request)));
        futures::stream::iter(calls).buffered(CALLS_AT_ONCE_MAX).collect().await
    }
}

impl state_calls::Host for Data {
    async fn fetch(&mut self, class: String, object: String, request: types::RequestResult) -> Result<types::Response, state_calls::Failure> {
        by_object(self.invocation.clone(), class, object, request).await
    }

    async fn fetch_all(&mut self, calls: Vec<state_calls::Call>) -> Vec<Result<types::Response, state_calls::Failure>> {
        let batch = Batch::new(&self.invocation);
        let calls = calls.into_iter().map(async |call| {
            let response = by_object(self.invocation.clone(), call.class, call.object, call.request).await?;
            batch.take(async { Ok(response) }).await.map_err(state_calls::Failure::Call)
        });
        futures::stream::iter(calls).buffered(CALLS_AT_ONCE_MAX).collect().await
    }
}

async fn by_object(
    caller: Arc<Invocation>,
    class: String,
    object: String,
    request: types::RequestResult,
) -> Result<types::Response, state_calls::Failure> {
    let failure = |error| match error {
        ObjectCallError::Call(error) => state_calls::Failure::Call(convert::error(error)),
        ObjectCallError::Refused(code, message) => {
            state_calls::Failure::Refused(state_calls::Refusal { code: code.code.to_owned(), message, retryable: code.retryable })
        }
    };
    let answer = async {
        let request = convert::request(request).map_err(ObjectCallError::Call)?;
        let response = calls::by_object(&caller, &class, object, request).await?;
        convert::collect(response, &caller).await.map_err(ObjectCallError::Call)
    };
    answer.await.map_err(failure)
}

async fn by_url(caller: Arc<Invocation>, request: types::RequestResult) -> Result<types::Response, types::Error> {
    let answer = async {
        let response = calls::by_url(&caller, convert::request(request)?).await?;
        convert::collect(response, &caller).await
    };
    answer.await.map_err(convert::error)
}

async fn by_binding(caller: Arc<Invocation>, binding: String, request: types::RequestResult) -> Result<types::Response, types::Error> {
    let answer = async {
        let response = calls::by_binding(&caller, &binding, convert::request(request)?).await?;
        convert::collect(response, &caller).await
    };
    answer.await.map_err(|error: CallError| convert::error(error))
}

pub(super) fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    types::add_to_linker::<Data, Whole>(linker, |data| data)?;
    client::add_to_linker::<Data, Whole>(linker, |data| data)?;
    service::add_to_linker::<Data, Whole>(linker, |data| data)?;
    state_calls::add_to_linker::<Data, Whole>(linker, |data| data)
}
