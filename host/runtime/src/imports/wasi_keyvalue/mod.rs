//! `wasi:keyvalue`, an adapter for components that were written for it: experimental, as the standard is. Buckets are KV namespaces, by the name or the
//! id that the worker has them by; an empty name and `default` stand for the namespace of a service that has only one.
//!
//! Components in the wild import one of two drafts, which differ in few places (`draft.rs`, `draft2.rs`); both come down to the operations here. What
//! is written through it has neither metadata nor expiration; what counts or is swapped keeps those it has. Batches are all or nothing, which the
//! standard allows and does not ask for.

mod draft;
mod draft2;

use std::borrow::Cow;

use tovuk_kernel::codes;
use tovuk_kernel::limits::KV_CALL_BYTES_MAX;
use tovuk_kernel::resource::Kind;
use tovuk_resources::kv::{self, Kv, Namespace, Tag};
use wasmtime::component::{Linker, Resource, ResourceTableError};

use super::kv::{refused, value_of};
use crate::data_bindings::tovuk::data::types;
use crate::instance::Data;
use crate::spans::{self, Named};

/// The name of a service's only namespace, for components that expect there to be one.
const DEFAULT: &str = "default";

/// An open bucket.
pub struct Bucket {
    namespace: Namespace,
    /// The first draft's cursors are numbers: how many keys the list has had, and the cursor of ours that goes on there.
    listed: Option<(u64, String)>,
}

/// What a worker has seen of a key, to be compared when it writes.
pub struct Cas {
    namespace: Namespace,
    key: String,
    seen: Tag,
}

/// Why something was not done.
enum Fault {
    NoSuchStore,
    Refused(types::Error),
    Handle(ResourceTableError),
}

impl Fault {
    /// What the guest is told that has no code for it.
    fn text(&self) -> String {
        match self {
            Self::NoSuchStore => "there is no such store".to_owned(),
            Self::Refused(error) => format!("{}: {}", error.code, error.message),
            Self::Handle(error) => error.to_string(),
        }
    }
}

impl Named for Fault {
    fn name(&self) -> Cow<'static, str> {
        match self {
            Self::NoSuchStore => codes::RESOURCE_NOT_FOUND.code.into(),
            Self::Refused(error) => error.name(),
            Self::Handle(_) => codes::INVALID_REQUEST.code.into(),
        }
    }
}

impl From<types::Error> for Fault {
    fn from(error: types::Error) -> Self {
        Self::Refused(error)
    }
}

impl From<kv::Error> for Fault {
    fn from(error: kv::Error) -> Self {
        refused(error).into()
    }
}

impl From<ResourceTableError> for Fault {
    fn from(error: ResourceTableError) -> Self {
        Self::Handle(error)
    }
}

impl Data {
    fn open_bucket(&mut self, identifier: &str) -> Result<Resource<Bucket>, Fault> {
        let grants = self.grants();
        let only = || if matches!(identifier, "" | DEFAULT) { grants.only(Kind::Kv) } else { None };
        let number = grants.find(Kind::Kv, identifier).or_else(only).ok_or(Fault::NoSuchStore)?;
        Ok(self.table.push(Bucket { namespace: Namespace(number), listed: None })?)
    }

    fn close_bucket(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }

    /// The store, and the namespace of an open bucket.
    fn bucket(&self, bucket: &Resource<Bucket>) -> Result<(Kv, Namespace), Fault> {
        Ok((self.kv_to_read()?, self.table.get(bucket)?.namespace))
    }

    async fn bucket_get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>, Fault> {
        self.span("kv.get", "wasi:keyvalue")
            .telling(|found: &Option<Vec<u8>>| spans::found(found.as_ref().map(Vec::len)), async move {
                let (kv, namespace) = self.bucket(&bucket)?;
                Ok(kv.get(namespace, &key).await?.map(value_of))
            })
            .await
    }

    async fn bucket_exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool, Fault> {
        self.span("kv.exists", "wasi:keyvalue")
            .of(async move {
                let (kv, namespace) = self.bucket(&bucket)?;
                Ok(kv.get(namespace, &key).await?.is_some())
            })
            .await
    }

    async fn bucket_set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<(), Fault> {
        self.span("kv.put", "wasi:keyvalue").of(async { self.bucket_set_many(bucket, vec![(key, value)]).await }).await
    }

    async fn bucket_set_many(&mut self, bucket: Resource<Bucket>, pairs: Vec<(String, Vec<u8>)>) -> Result<(), Fault> {
        self.span("kv.put-many", "wasi:keyvalue")
            .of(async move {
                let (kv, namespace) = self.bucket(&bucket)?;
                let put = |(key, value)| Ok::<_, Fault>(kv::Put { key, value: self.held(value)?, ..kv::Put::default() });
                let puts = pairs.into_iter().map(put).collect::<Result<Vec<_>, _>>()?;
                kv.bulk_put_within(namespace, puts, KV_CALL_BYTES_MAX).await?;
                Ok(())
            })
            .await
    }

    async fn bucket_delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<(), Fault> {
        self.span("kv.delete-many", "wasi:keyvalue")
            .of(async move {
                let (kv, namespace) = self.bucket(&bucket)?;
                kv.bulk_delete(namespace, keys).await?;
                Ok(())
            })
            .await
    }

    async fn bucket_get_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<Vec<Option<(String, Vec<u8>)>>, Fault> {
        self.span("kv.get-many", "wasi:keyvalue")
            .of(async move {
                let (kv, namespace) = self.bucket(&bucket)?;
                let found = kv.bulk_get_within(namespace, keys.clone(), KV_CALL_BYTES_MAX).await?;
                Ok(keys.into_iter().zip(found).map(|(key, entry)| entry.map(|entry| (key, value_of(entry)))).collect())
            })
            .await
    }

    /// A page of keys, with the cursor of the next.
    async fn bucket_list(&mut self, bucket: &Resource<Bucket>, cursor: Option<String>) -> Result<(Vec<String>, Option<String>), Fault> {
        self.span("kv.list", "wasi:keyvalue")
            .of(async move {
                let (kv, namespace) = self.bucket(bucket)?;
                let page = kv.list(namespace, kv::List { cursor, ..kv::List::default() }).await?;
                Ok((page.keys.into_iter().map(|key| key.name).collect(), page.next_cursor))
            })
            .await
    }

    async fn bucket_increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Result<i64, Fault> {
        self.span("kv.increment", "wasi:keyvalue")
            .of(async move {
                let (kv, namespace) = self.bucket(&bucket)?;
                Ok(kv.increment(namespace, &key, delta).await?)
            })
            .await
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    draft::add_to_linker(linker)?;
    draft2::add_to_linker(linker)
}
