//! The one place where the SDK meets what is outside the worker: the host's imports in a component, `testing` in a native program.
//!
//! The two halves have the same functions, so nothing else in the crate asks what it is compiled for.

pub(crate) mod sqlite;

#[cfg(target_arch = "wasm32")]
pub(crate) use component::{fetch, fetch_all, service_fetch, service_fetch_all, var};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::{fetch, fetch_all, service_fetch, service_fetch_all, var};

#[cfg(target_arch = "wasm32")]
mod component {
    use crate::bindings::tovuk::bindings::service;
    use crate::bindings::tovuk::http::client;
    use crate::{CallError, Request, Response};

    pub(crate) fn var(name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    pub(crate) fn service_fetch(binding: &str, request: Request) -> Result<Response, CallError> {
        service::fetch(binding, &request.into()).map(Response::from).map_err(CallError::from)
    }

    pub(crate) fn service_fetch_all(calls: Vec<(String, Request)>) -> Vec<Result<Response, CallError>> {
        let calls: Vec<_> = calls.into_iter().map(|(binding, request)| service::Call { binding, request: request.into() }).collect();
        service::fetch_all(&calls).into_iter().map(|answer| answer.map(Response::from).map_err(CallError::from)).collect()
    }

    pub(crate) fn fetch(request: Request) -> Result<Response, CallError> {
        client::fetch(&request.into()).map(Response::from).map_err(CallError::from)
    }

    pub(crate) fn fetch_all(requests: Vec<Request>) -> Vec<Result<Response, CallError>> {
        let requests: Vec<_> = requests.into_iter().map(Into::into).collect();
        client::fetch_all(&requests).into_iter().map(|answer| answer.map(Response::from).map_err(CallError::from)).collect()
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use crate::{CallError, Request, Response, testing};

    /// What a call answers outside of `TestEnv::run`, where there is nobody to make it.
    fn no_host() -> CallError {
        CallError::Other("a native program has no host to make calls: run the handler with `tovuk::testing::TestEnv`".to_owned())
    }

    pub(crate) fn var(name: &str) -> Option<String> {
        match testing::current() {
            Some(env) => env.lookup_var(name),
            None => std::env::var(name).ok(),
        }
    }

    pub(crate) fn service_fetch(binding: &str, request: Request) -> Result<Response, CallError> {
        testing::current().ok_or_else(no_host)?.call_service(binding, request)
    }

    pub(crate) fn service_fetch_all(calls: Vec<(String, Request)>) -> Vec<Result<Response, CallError>> {
        calls.into_iter().map(|(binding, request)| service_fetch(&binding, request)).collect()
    }

    pub(crate) fn fetch(request: Request) -> Result<Response, CallError> {
        testing::current().ok_or_else(no_host)?.call_url(request)
    }

    pub(crate) fn fetch_all(requests: Vec<Request>) -> Vec<Result<Response, CallError>> {
        requests.into_iter().map(fetch).collect()
    }
}
