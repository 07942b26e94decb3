//! `wasi:keyvalue@0.2.0-draft2`, which Spin has: cursors are text, numbers have a sign, and there is compare-and-swap.

use wasmtime::component::{Linker, Resource};

use super::{Bucket, Cas, Fault, Tag, value_of};
use crate::imports::Whole;
use crate::instance::Data;

mod bindings {
    #![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
    wasmtime::component::bindgen!({
        inline: "
            package wasi:keyvalue@0.2.0-draft2;
            interface store {
                variant error { no-such-store, access-denied, other(string) }
                record key-response { keys: list<string>, cursor: option<string> }
                open: func(identifier: string) -> result<bucket, error>;
                resource bucket {
                    get: func(key: string) -> result<option<list<u8>>, error>;
                    set: func(key: string, value: list<u8>) -> result<_, error>;
                    delete: func(key: string) -> result<_, error>;
                    exists: func(key: string) -> result<bool, error>;
                    list-keys: func(cursor: option<string>) -> result<key-response, error>;
                }
            }
            interface atomics {
                use store.{bucket, error};
                variant cas-error { store-error(error), cas-failed(cas) }
                resource cas {
                    new: static func(bucket: borrow<bucket>, key: string) -> result<cas, error>;
                    current: func() -> result<option<list<u8>>, error>;
                }
                increment: func(bucket: borrow<bucket>, key: string, delta: s64) -> result<s64, error>;
                swap: func(cas: cas, value: list<u8>) -> result<_, cas-error>;
            }
            interface batch {
                use store.{bucket, error};
                get-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<list<option<tuple<string, list<u8>>>>, error>;
                set-many: func(bucket: borrow<bucket>, key-values: list<tuple<string, list<u8>>>) -> result<_, error>;
                delete-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<_, error>;
            }
            world imports { import store; import atomics; import batch; }
        ",
        world: "wasi:keyvalue/imports",
        imports: { default: async },
        with: { "wasi:keyvalue/store.bucket": crate::imports::wasi_keyvalue::Bucket, "wasi:keyvalue/atomics.cas": crate::imports::wasi_keyvalue::Cas },
        require_store_data_send: true,
    });
}

use bindings::wasi::keyvalue::{atomics, batch, store};

impl From<Fault> for store::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NoSuchStore => Self::NoSuchStore,
            fault => Self::Other(fault.text()),
        }
    }
}

impl From<Fault> for atomics::CasError {
    fn from(fault: Fault) -> Self {
        Self::StoreError(fault.into())
    }
}

impl store::Host for Data {
    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, store::Error> {
        Ok(self.open_bucket(&identifier)?)
    }
}

impl store::HostBucket for Data {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>, store::Error> {
        Ok(self.bucket_get(bucket, key).await?)
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<(), store::Error> {
        Ok(self.bucket_set(bucket, key, value).await?)
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<(), store::Error> {
        Ok(self.bucket_delete_many(bucket, vec![key]).await?)
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool, store::Error> {
        Ok(self.bucket_exists(bucket, key).await?)
    }

    async fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<String>) -> Result<store::KeyResponse, store::Error> {
        let (keys, cursor) = self.bucket_list(&bucket, cursor).await?;
        Ok(store::KeyResponse { keys, cursor })
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.close_bucket(bucket)
    }
}

impl Data {
    /// What a key holds, and a handle that knows it by its tag.
    async fn cas_of(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Resource<Cas>, Fault> {
        let (kv, namespace) = self.bucket(&bucket)?;
        let seen = Tag::of(kv.get(namespace, &key).await?.as_deref());
        Ok(self.table.push(Cas { namespace, key, seen })?)
    }

    /// What the key holds now. The handle goes on from there, so that a swap compares with what the guest has last been shown.
    async fn cas_current(&mut self, cas: Resource<Cas>) -> Result<Option<Vec<u8>>, Fault> {
        let (kv, handle) = (self.kv_to_read()?, self.table.get(&cas)?);
        let entry = kv.get(handle.namespace, &handle.key).await?;
        self.table.get_mut(&cas)?.seen = Tag::of(entry.as_deref());
        Ok(entry.map(value_of))
    }

    /// Swaps, or gives a handle that knows what the key holds instead.
    async fn cas_swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> Result<Result<(), Resource<Cas>>, Fault> {
        let Cas { namespace, key, seen } = self.table.delete(cas)?;
        let value = self.held(value)?;
        match self.kv()?.swap(namespace, &key, seen, value).await? {
            Ok(()) => Ok(Ok(())),
            Err(seen) => Ok(Err(self.table.push(Cas { namespace, key, seen })?)),
        }
    }
}

impl atomics::Host for Data {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Result<i64, store::Error> {
        Ok(self.bucket_increment(bucket, key, delta).await?)
    }

    async fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> Result<(), atomics::CasError> {
        self.cas_swap(cas, value).await?.map_err(atomics::CasError::CasFailed)
    }
}

impl atomics::HostCas for Data {
    async fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Resource<Cas>, store::Error> {
        Ok(self.cas_of(bucket, key).await?)
    }

    async fn current(&mut self, cas: Resource<Cas>) -> Result<Option<Vec<u8>>, store::Error> {
        Ok(self.cas_current(cas).await?)
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl batch::Host for Data {
    async fn get_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<Vec<Option<(String, Vec<u8>)>>, store::Error> {
        Ok(self.bucket_get_many(bucket, keys).await?)
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, pairs: Vec<(String, Vec<u8>)>) -> Result<(), store::Error> {
        Ok(self.bucket_set_many(bucket, pairs).await?)
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<(), store::Error> {
        Ok(self.bucket_delete_many(bucket, keys).await?)
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    store::add_to_linker::<Data, Whole>(linker, |data| data)?;
    atomics::add_to_linker::<Data, Whole>(linker, |data| data)?;
    batch::add_to_linker::<Data, Whole>(linker, |data| data)
}
