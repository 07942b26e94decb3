//! KV: small values by key, kept on disk. Thin over `tovuk:kv/store`; every limit is the host's, who says which one was met.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::paged::Paged;
use crate::{DataError, host};

/// More than this cannot be carried into the host by one call: it would end the worker instead of failing.
const CALL_BYTES_MAX: usize = 28 << 20;
/// What the host counts for an item besides its bytes.
const ITEM_BYTES: usize = 128;

/// The KV namespace of this worker's service with this name, for example `CACHE`, or with this id.
///
/// ```
/// use std::time::Duration;
/// use serde_json::json;
/// use tovuk::{DataError, kv::Item, testing::TestEnv};
///
/// fn sign_in(id: &str) -> Result<(), DataError> {
///     let sessions = tovuk::kv("SESSIONS");
///     sessions.put("greeting", "hello")?;
///     sessions.put_item(Item::json(id, &json!({"user": "ada"}))?.with_ttl(Duration::from_secs(3_600)))?;
///     let session: Option<serde_json::Value> = sessions.get_json(id)?;
///     assert_eq!(session.unwrap()["user"], "ada");
///     assert_eq!(sessions.get_text("greeting")?.as_deref(), Some("hello"));
///     for key in sessions.keys("") {
///         println!("{}", key?.name);
///     }
///     Ok(())
/// }
/// # TestEnv::new().kv("SESSIONS").within(|| sign_in("s1"))?;
/// # Ok::<(), DataError>(())
/// ```
pub fn kv(namespace: &str) -> Kv<'_> {
    Kv { namespace }
}

/// A KV namespace. Every write is on disk when it returns, and what is read is what was written last.
#[derive(Clone, Copy, Debug)]
pub struct Kv<'a> {
    namespace: &'a str,
}

impl<'a> Kv<'a> {
    /// The value of a key with what belongs to it; `None` when there is none or it has expired.
    ///
    /// # Errors
    /// `kv_key_invalid`; `resource_not_found` when the service has no such namespace; `storage_failed`. So with all operations.
    pub fn get(&self, key: &str) -> Result<Option<Entry>, DataError> {
        host::kv_get(self.namespace, key)
    }

    /// The value of a key as text.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `invalid_value` when it is no text.
    pub fn get_text(&self, key: &str) -> Result<Option<String>, DataError> {
        self.get(key)?.map(Entry::into_text).transpose()
    }

    /// The value of a key, read as JSON.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `invalid_value` when it is not the JSON of a `T`.
    pub fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, DataError> {
        self.get(key)?.map(|entry| entry.json()).transpose()
    }

    /// The values of up to 100 keys, in their order. They may have 26 MiB together.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `kv_bulk_too_large`.
    pub fn get_many<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Entry>>, DataError> {
        host::kv_get_many(self.namespace, keys.into_iter().map(Into::into).collect())
    }

    /// Writes a value of up to 25 MiB that stays until it is removed. What was there before is replaced, with its metadata and its expiration.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `kv_value_too_large`, and `kv_storage_full` when the account has as much as it may.
    pub fn put(&self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Result<(), DataError> {
        self.put_item(Item::new(key, value))
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// As [`put`](Self::put), and `invalid_value` when it cannot be written as JSON.
    pub fn put_json<T: Serialize + ?Sized>(&self, key: impl Into<String>, value: &T) -> Result<(), DataError> {
        self.put_item(Item::json(key, value)?)
    }

    /// Writes a value that may expire and have metadata.
    ///
    /// # Errors
    /// As [`put`](Self::put), and `kv_metadata_invalid`, `kv_expiration_too_soon`.
    pub fn put_item(&self, item: Item) -> Result<(), DataError> {
        if item.bytes() > CALL_BYTES_MAX {
            let text = format!("the value of `{}` has {} bytes; a value has at most 26214400", item.key, item.value.len());
            return Err(DataError::new("kv_value_too_large", text));
        }
        host::kv_put(self.namespace, item)
    }

    /// Writes up to 10,000 values, all or none. Keys, values and metadata may have 26 MiB together. Of items with one key the last counts.
    ///
    /// # Errors
    /// As [`put_item`](Self::put_item), and `kv_bulk_too_large`.
    pub fn put_many(&self, items: impl IntoIterator<Item = Item>) -> Result<(), DataError> {
        let items: Vec<Item> = items.into_iter().collect();
        if items.iter().map(Item::bytes).sum::<usize>() > CALL_BYTES_MAX {
            let text = "keys, values and metadata together have more than 27262976 bytes; write fewer at a time";
            return Err(DataError::new("kv_bulk_too_large", text));
        }
        host::kv_put_many(self.namespace, items)
    }

    /// Removes a key; false when there was none.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete(&self, key: &str) -> Result<bool, DataError> {
        host::kv_delete(self.namespace, key)
    }

    /// Removes up to 10,000 keys, all or none; how many there were.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `kv_bulk_too_large`.
    pub fn delete_many<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) -> Result<u32, DataError> {
        host::kv_delete_many(self.namespace, keys.into_iter().map(Into::into).collect())
    }

    /// Adds to a number that is stored as decimal text, and says what it is then; a key that is not there counts as 0. Of calls at the same time none
    /// is lost. Metadata and expiration stay.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `invalid_request` when the value is no number.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, DataError> {
        host::kv_increment(self.namespace, key, delta)
    }

    /// The keys that begin with `prefix`, in the order of their bytes. Asks the host for a thousand at a time, when they are needed.
    pub fn keys(&self, prefix: impl Into<String>) -> Keys<'a> {
        Keys { kv: *self, rest: Paged::new(prefix.into()) }
    }

    /// One page of keys: at most `limit`, 1 to 1,000, going on after the page that gave `cursor`.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `invalid_request` for the limit, `invalid_cursor`.
    pub fn page(&self, prefix: &str, limit: u32, cursor: Option<&str>) -> Result<Page, DataError> {
        host::kv_list(self.namespace, prefix, limit, cursor)
    }
}

/// A value with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Vec<u8>,
    pub(crate) metadata: Option<String>,
    /// When it expires, in seconds of Unix time.
    pub expiration: Option<u64>,
}

impl Entry {
    /// The value as text.
    ///
    /// # Errors
    /// `invalid_value` when it is no text.
    pub fn text(&self) -> Result<&str, DataError> {
        std::str::from_utf8(&self.value).map_err(invalid)
    }

    fn into_text(self) -> Result<String, DataError> {
        String::from_utf8(self.value).map_err(invalid)
    }

    /// The value, read as JSON.
    ///
    /// # Errors
    /// `invalid_value` when it is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, DataError> {
        serde_json::from_slice(&self.value).map_err(invalid)
    }

    /// The metadata, if there is some.
    ///
    /// # Errors
    /// `invalid_value` when it is not the JSON of a `T`.
    pub fn metadata<T: DeserializeOwned>(&self) -> Result<Option<T>, DataError> {
        read(self.metadata.as_deref())
    }
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    pub(crate) metadata: Option<String>,
    pub(crate) ttl: Option<u64>,
    pub(crate) expiration: Option<u64>,
}

impl Item {
    /// A key with its value, which stays until it is removed.
    pub fn new(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: value.into(), metadata: None, ttl: None, expiration: None }
    }

    /// A key with a value that is written as JSON.
    ///
    /// # Errors
    /// `invalid_value` when it cannot be.
    pub fn json<T: Serialize + ?Sized>(key: impl Into<String>, value: &T) -> Result<Self, DataError> {
        Ok(Self::new(key, serde_json::to_vec(value).map_err(invalid)?))
    }

    /// How long it is kept: at least 30 s, in whole seconds, rounded up. It wins over [`with_expiration`](Self::with_expiration).
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0)));
        self
    }

    /// When it expires, in seconds of Unix time, at least 30 s ahead.
    #[must_use]
    pub fn with_expiration(mut self, unix_seconds: u64) -> Self {
        self.expiration = Some(unix_seconds);
        self
    }

    /// At most 1,024 bytes of JSON that [`Kv::get`] and [`Kv::keys`] show.
    ///
    /// # Errors
    /// `invalid_value` when it cannot be written as JSON.
    pub fn with_metadata<T: Serialize + ?Sized>(mut self, metadata: &T) -> Result<Self, DataError> {
        self.metadata = Some(serde_json::to_string(metadata).map_err(invalid)?);
        Ok(self)
    }

    /// About what it takes to carry it into the host.
    fn bytes(&self) -> usize {
        ITEM_BYTES + self.key.len() + self.value.len() + self.metadata.as_ref().map_or(0, String::len)
    }
}

/// What a list says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub name: String,
    pub(crate) metadata: Option<String>,
    /// When it expires, in seconds of Unix time.
    pub expiration: Option<u64>,
}

impl Key {
    /// Its metadata, if there is some.
    ///
    /// # Errors
    /// `invalid_value` when it is not the JSON of a `T`.
    pub fn metadata<T: DeserializeOwned>(&self) -> Result<Option<T>, DataError> {
        read(self.metadata.as_deref())
    }
}

/// A page of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys. There can be fewer than asked for although there are more: where many have expired.
    pub keys: Vec<Key>,
    /// Where to go on; `None` on the last page.
    pub cursor: Option<String>,
}

/// The keys of a namespace, one after the other. It ends after an error.
#[derive(Clone, Debug)]
pub struct Keys<'a> {
    kv: Kv<'a>,
    rest: Paged<Key>,
}

impl Iterator for Keys<'_> {
    type Item = Result<Key, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let kv = self.kv;
        self.rest.next(|prefix, cursor| kv.page(prefix, 1_000, cursor).map(|page| (page.keys, page.cursor)))
    }
}

fn read<T: DeserializeOwned>(json: Option<&str>) -> Result<Option<T>, DataError> {
    json.map(|json| serde_json::from_str(json).map_err(invalid)).transpose()
}

fn invalid(error: impl std::fmt::Display) -> DataError {
    DataError::new("invalid_value", error.to_string())
}
