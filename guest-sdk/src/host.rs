//! The one place where the SDK meets what is outside the worker: the host's imports in a component, `testing` in a native program.
//!
//! The two halves have the same functions, so nothing else in the crate asks what it is compiled for.

pub(crate) mod sqlite;
pub(crate) mod state;

#[cfg(target_arch = "wasm32")]
pub(crate) use component::{
    fetch, fetch_all, kv_delete, kv_delete_many, kv_get, kv_get_many, kv_increment, kv_list, kv_put, kv_put_many, service_fetch, service_fetch_all,
    var,
};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::{
    fetch, fetch_all, kv_delete, kv_delete_many, kv_get, kv_get_many, kv_increment, kv_list, kv_put, kv_put_many, service_fetch, service_fetch_all,
    var,
};

#[cfg(target_arch = "wasm32")]
mod component {
    use crate::bindings::tovuk::bindings::service;
    use crate::bindings::tovuk::http::client;
    use crate::bindings::tovuk::kv::store;
    use crate::kv::{Entry, Item, Key, Page};
    use crate::{CallError, DataError, Request, Response};

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

    fn entry(entry: store::Entry) -> Entry {
        Entry { value: entry.value, metadata: entry.metadata, expiration: entry.expiration }
    }

    fn item(item: Item) -> store::Item {
        store::Item { key: item.key, value: item.value, metadata: item.metadata, ttl: item.ttl, expiration: item.expiration }
    }

    pub(crate) fn kv_get(namespace: &str, key: &str) -> Result<Option<Entry>, DataError> {
        Ok(store::get(namespace, key)?.map(entry))
    }

    pub(crate) fn kv_get_many(namespace: &str, keys: Vec<String>) -> Result<Vec<Option<Entry>>, DataError> {
        Ok(store::get_many(namespace, &keys)?.into_iter().map(|found| found.map(entry)).collect())
    }

    pub(crate) fn kv_put(namespace: &str, put: Item) -> Result<(), DataError> {
        Ok(store::put(namespace, &item(put))?)
    }

    pub(crate) fn kv_put_many(namespace: &str, puts: Vec<Item>) -> Result<(), DataError> {
        Ok(store::put_many(namespace, &puts.into_iter().map(item).collect::<Vec<_>>())?)
    }

    pub(crate) fn kv_delete(namespace: &str, key: &str) -> Result<bool, DataError> {
        Ok(store::delete(namespace, key)?)
    }

    pub(crate) fn kv_delete_many(namespace: &str, keys: Vec<String>) -> Result<u32, DataError> {
        Ok(store::delete_many(namespace, &keys)?)
    }

    pub(crate) fn kv_increment(namespace: &str, key: &str, delta: i64) -> Result<i64, DataError> {
        Ok(store::increment(namespace, key, delta)?)
    }

    pub(crate) fn kv_list(namespace: &str, prefix: &str, limit: u32, cursor: Option<&str>) -> Result<Page, DataError> {
        let options = store::ListOptions { prefix: prefix.to_owned(), limit: Some(limit), cursor: cursor.map(str::to_owned) };
        let page = store::list(namespace, &options)?;
        let keys = page.keys.into_iter().map(|key| Key { name: key.name, metadata: key.metadata, expiration: key.expiration });
        Ok(Page { keys: keys.collect(), cursor: page.cursor })
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use crate::kv::{Entry, Item, Page};
    use crate::{CallError, DataError, Request, Response, testing};

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

    /// Asks the namespace that the test has made.
    fn kv<T>(namespace: &str, ask: impl FnOnce(testing::Namespace<'_>) -> Result<T, DataError>) -> Result<T, DataError> {
        let no_host =
            || DataError::new("storage_failed", "a native program has no host that keeps data: run the handler with `tovuk::testing::TestEnv`");
        testing::current().ok_or_else(no_host)?.with_kv(namespace, ask)
    }

    pub(crate) fn kv_get(namespace: &str, key: &str) -> Result<Option<Entry>, DataError> {
        Ok(kv_get_many(namespace, vec![key.to_owned()])?.pop().flatten())
    }

    pub(crate) fn kv_get_many(namespace: &str, keys: Vec<String>) -> Result<Vec<Option<Entry>>, DataError> {
        kv(namespace, |namespace| namespace.get_many(&keys))
    }

    pub(crate) fn kv_put(namespace: &str, put: Item) -> Result<(), DataError> {
        kv_put_many(namespace, vec![put])
    }

    pub(crate) fn kv_put_many(namespace: &str, puts: Vec<Item>) -> Result<(), DataError> {
        kv(namespace, |mut namespace| namespace.put_many(puts))
    }

    pub(crate) fn kv_delete(namespace: &str, key: &str) -> Result<bool, DataError> {
        Ok(kv_delete_many(namespace, vec![key.to_owned()])? > 0)
    }

    pub(crate) fn kv_delete_many(namespace: &str, keys: Vec<String>) -> Result<u32, DataError> {
        kv(namespace, |mut namespace| namespace.delete_many(&keys))
    }

    pub(crate) fn kv_increment(namespace: &str, key: &str, delta: i64) -> Result<i64, DataError> {
        kv(namespace, |mut namespace| namespace.increment(key, delta))
    }

    pub(crate) fn kv_list(namespace: &str, prefix: &str, limit: u32, cursor: Option<&str>) -> Result<Page, DataError> {
        kv(namespace, |namespace| namespace.list(prefix, limit, cursor))
    }
}
