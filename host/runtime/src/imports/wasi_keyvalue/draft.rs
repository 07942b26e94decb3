//! `wasi:keyvalue@0.2.0-draft`, which wasmtime and wasmCloud have.

use wasmtime::component::{Linker, Resource};

use super::{Bucket, Fault};
use crate::imports::Whole;
use crate::instance::Data;

mod bindings {
    #![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
    wasmtime::component::bindgen!({
        inline: "
            package wasi:keyvalue@0.2.0-draft;
            interface store {
                variant error { no-such-store, access-denied, other(string) }
                record key-response { keys: list<string>, cursor: option<u64> }
                open: func(identifier: string) -> result<bucket, error>;
                resource bucket {
                    get: func(key: string) -> result<option<list<u8>>, error>;
                    set: func(key: string, value: list<u8>) -> result<_, error>;
                    delete: func(key: string) -> result<_, error>;
                    exists: func(key: string) -> result<bool, error>;
                    list-keys: func(cursor: option<u64>) -> result<key-response, error>;
                }
            }
            interface atomics {
                use store.{bucket, error};
                increment: func(bucket: borrow<bucket>, key: string, delta: u64) -> result<u64, error>;
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
        with: { "wasi:keyvalue/store.bucket": crate::imports::wasi_keyvalue::Bucket },
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

    /// A cursor is good for going on with the list that gave it out, and until the bucket's next list.
    async fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<u64>) -> Result<store::KeyResponse, store::Error> {
        let listed = self.table.get_mut(&bucket).map_err(Fault::from)?.listed.take();
        let (before, from) = match (cursor, listed) {
            (None, _) => (0, None),
            (Some(cursor), Some((number, from))) if number == cursor => (number, Some(from)),
            (Some(cursor), _) => return Err(store::Error::Other(format!("invalid_cursor: `{cursor}` is not the cursor of this bucket's last list"))),
        };
        let (keys, next) = self.bucket_list(&bucket, from).await?;
        // A page may be empty although more follows, and its cursor must differ from the one before all the same.
        let after = before + (keys.len() as u64).max(1);
        let bucket = self.table.get_mut(&bucket).map_err(Fault::from)?;
        bucket.listed = next.map(|next| (after, next));
        Ok(store::KeyResponse { keys, cursor: bucket.listed.as_ref().map(|_| after) })
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.close_bucket(bucket)
    }
}

impl atomics::Host for Data {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Result<u64, store::Error> {
        let too_large = || store::Error::Other("invalid_request: numbers have at most 63 bits".to_owned());
        let sum = self.bucket_increment(bucket, key, i64::try_from(delta).map_err(|_| too_large())?).await?;
        u64::try_from(sum).map_err(|_| store::Error::Other("invalid_request: the number is below zero".to_owned()))
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
