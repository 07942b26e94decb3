//! `tovuk:kv/store`: the namespaces of the worker's service. The store checks every limit; here names become numbers and bytes change hands.
//!
//! A worker's bulk call has fewer bytes than a request to the API, because all of it crosses the boundary at once: [`KV_CALL_BYTES_MAX`]. What waits
//! to be written counts as host memory until it is on disk, also when the worker has gone meanwhile; values that are read count until the guest has them.

use std::sync::Arc;

use tovuk_kernel::limits::{KV_CALL_BYTES_MAX, kv_account_bytes};
use tovuk_kernel::resource::Kind;
use tovuk_resources::kv::{self, Kv, Namespace};
use wasmtime::component::Linker;

use super::Whole;
use super::data::{error, told};
use crate::data_bindings::tovuk::data::types;
use crate::data_bindings::tovuk::kv::store;
use crate::instance::Data;
use crate::spans;

impl Data {
    /// The store, for the worker's service, which is charged.
    pub(super) fn kv(&self) -> Result<Kv, types::Error> {
        let owner = self.grants().owner;
        let kv = self.stores()?.kv.for_service(owner.account, owner.service, kv_account_bytes(owner.plan));
        Ok(kv.billed_to(self.invocation.deployment.bill.clone()))
    }

    /// The same, for a call that reads values: they count as host memory for as long as this handle is held.
    pub(super) fn kv_to_read(&self) -> Result<Kv, types::Error> {
        Ok(self.kv()?.counted_in(Arc::new(self.invocation.runtime.memory().reserve())))
    }

    /// The namespace that the guest names.
    fn namespace(&self, name: &str) -> Result<Namespace, types::Error> {
        self.resource(Kind::Kv, name).map(Namespace)
    }

    fn put_of(&self, item: store::Item) -> Result<kv::Put, types::Error> {
        let value = self.held(item.value)?;
        Ok(kv::Put { key: item.key, value, metadata: item.metadata, expiration: item.expiration, ttl_seconds: item.ttl })
    }
}

/// What the guest is told.
pub(super) fn refused(refused: kv::Error) -> types::Error {
    let (code, text) = told("KV", refused.code(), &refused, matches!(refused, kv::Error::Database(_)));
    error(code, text)
}

/// The bytes of a value. They are copied where they are hot, and others have them too.
pub(super) fn value_of(entry: Arc<kv::Entry>) -> Vec<u8> {
    Arc::unwrap_or_clone(entry).value.into()
}

fn entry_of(entry: Arc<kv::Entry>) -> store::Entry {
    let (metadata, expiration) = (entry.metadata.as_deref().map(str::to_owned), entry.expiration);
    store::Entry { value: value_of(entry), metadata, expiration }
}

impl store::Host for Data {
    async fn get(&mut self, namespace: String, key: String) -> Result<Option<store::Entry>, types::Error> {
        self.span("kv.get", &namespace)
            .telling(|found: &Option<store::Entry>| spans::found(found.as_ref().map(|entry| entry.value.len())), async move {
                let (kv, namespace) = (self.kv_to_read()?, self.namespace(&namespace)?);
                let found = kv.get(namespace, &key).await.map_err(refused)?;
                Ok(found.map(entry_of))
            })
            .await
    }

    async fn get_many(&mut self, namespace: String, keys: Vec<String>) -> Result<Vec<Option<store::Entry>>, types::Error> {
        self.span("kv.get-many", &namespace)
            .telling(|found: &Vec<Option<store::Entry>>| format!("found {} of {}", found.iter().flatten().count(), found.len()), async move {
                let (kv, namespace) = (self.kv_to_read()?, self.namespace(&namespace)?);
                let found = kv.bulk_get_within(namespace, keys, KV_CALL_BYTES_MAX).await.map_err(refused)?;
                Ok(found.into_iter().map(|entry| entry.map(entry_of)).collect())
            })
            .await
    }

    async fn put(&mut self, namespace: String, item: store::Item) -> Result<(), types::Error> {
        self.span("kv.put", &namespace)
            .of(async move {
                let (kv, namespace) = (self.kv()?, self.namespace(&namespace)?);
                kv.put(namespace, self.put_of(item)?).await.map(drop).map_err(refused)
            })
            .await
    }

    async fn put_many(&mut self, namespace: String, items: Vec<store::Item>) -> Result<(), types::Error> {
        self.span("kv.put-many", &namespace)
            .of(async move {
                let (kv, namespace) = (self.kv()?, self.namespace(&namespace)?);
                let puts = items.into_iter().map(|item| self.put_of(item)).collect::<Result<Vec<_>, _>>()?;
                kv.bulk_put_within(namespace, puts, KV_CALL_BYTES_MAX).await.map(drop).map_err(refused)
            })
            .await
    }

    async fn delete(&mut self, namespace: String, key: String) -> Result<bool, types::Error> {
        self.span("kv.delete", &namespace)
            .telling(|existed| if *existed { "deleted it" } else { "found nothing" }.to_owned(), async move {
                let (kv, namespace) = (self.kv()?, self.namespace(&namespace)?);
                Ok(kv.delete(namespace, &key).await.map_err(refused)?.existed > 0)
            })
            .await
    }

    async fn delete_many(&mut self, namespace: String, keys: Vec<String>) -> Result<u32, types::Error> {
        self.span("kv.delete-many", &namespace)
            .telling(|deleted| format!("deleted {deleted}"), async move {
                let (kv, namespace) = (self.kv()?, self.namespace(&namespace)?);
                let deleted = kv.bulk_delete(namespace, keys).await.map_err(refused)?;
                Ok(u32::try_from(deleted.existed).unwrap_or(u32::MAX))
            })
            .await
    }

    async fn increment(&mut self, namespace: String, key: String, delta: i64) -> Result<i64, types::Error> {
        self.span("kv.increment", &namespace)
            .of(async move {
                let (kv, namespace) = (self.kv()?, self.namespace(&namespace)?);
                kv.increment(namespace, &key, delta).await.map_err(refused)
            })
            .await
    }

    async fn list(&mut self, namespace: String, options: store::ListOptions) -> Result<store::Page, types::Error> {
        self.span("kv.list", &namespace)
            .telling(|page: &store::Page| spans::counted(page.keys.len(), "key"), async move {
                let (kv, namespace) = (self.kv()?, self.namespace(&namespace)?);
                let limit = options.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
                let page = kv.list(namespace, kv::List { prefix: options.prefix, limit, cursor: options.cursor }).await.map_err(refused)?;
                let keys = page.keys.into_iter().map(|key| store::Key { name: key.name, metadata: key.metadata, expiration: key.expiration });
                Ok(store::Page { keys: keys.collect(), cursor: page.next_cursor })
            })
            .await
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    store::add_to_linker::<Data, Whole>(linker, |data| data)
}
