//! `tovuk:http/client` and `tovuk:bindings/service`: calls of workers that take responses whole.

use std::sync::Arc;

use futures::future::join_all;
use wasmtime::component::Linker;

use super::{Whole, convert};
use crate::calls::{self, CallError};
use crate::instance::Data;
use crate::invocation::Invocation;
use crate::lean_bindings::tovuk::bindings::service;
use crate::lean_bindings::tovuk::http::{client, types};

impl types::Host for Data {}

impl client::Host for Data {
    async fn fetch(&mut self, request: types::RequestResult) -> Result<types::Response, types::Error> {
        by_url(self.invocation.clone(), request).await
    }

    async fn fetch_all(&mut self, requests: Vec<types::RequestResult>) -> Vec<Result<types::Response, types::Error>> {
        join_all(requests.into_iter().map(|request| by_url(self.invocation.clone(), request))).await
    }
}

impl service::Host for Data {
    async fn fetch(&mut self, binding: String, request: types::RequestResult) -> Result<types::Response, types::Error> {
        by_binding(self.invocation.clone(), binding, request).await
    }

    async fn fetch_all(&mut self, calls: Vec<service::Call>) -> Vec<Result<types::Response, types::Error>> {
        join_all(calls.into_iter().map(|call| by_binding(self.invocation.clone(), call.binding, call.request))).await
    }
}

async fn by_url(caller: Arc<Invocation>, request: types::RequestResult) -> Result<types::Response, types::Error> {
    let answer = async {
        let response = calls::by_url(&caller, convert::request(request)?).await?;
        convert::collect(response, limit_bytes(&caller)).await
    };
    answer.await.map_err(convert::error)
}

async fn by_binding(caller: Arc<Invocation>, binding: String, request: types::RequestResult) -> Result<types::Response, types::Error> {
    let answer = async {
        let response = calls::by_binding(&caller, &binding, convert::request(request)?).await?;
        convert::collect(response, limit_bytes(&caller)).await
    };
    answer.await.map_err(|error: CallError| convert::error(error))
}

fn limit_bytes(caller: &Invocation) -> u64 {
    caller.deployment.limits.body_mb << 20
}

pub(super) fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    types::add_to_linker::<Data, Whole>(linker, |data| data)?;
    client::add_to_linker::<Data, Whole>(linker, |data| data)?;
    service::add_to_linker::<Data, Whole>(linker, |data| data)
}
