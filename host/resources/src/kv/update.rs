//! Writes that depend on what is there. They run where all writes of a shard do, one after the other, so nobody writes the key between the look and the
//! write.

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use tovuk_kernel::limits::KV_VALUE_BYTES_MAX;

use super::error::shown;
use super::store::Change;
use super::types::{Checked, check_key};
use super::{Entry, Error, Kv, Namespace, store};

/// What a key held at some moment, in few bytes: equal when the values were. Absence has one too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(Option<Vec<u8>>);

impl Tag {
    /// Of what was read.
    pub fn of(entry: Option<&Entry>) -> Self {
        Self(entry.map(|entry| digest(&SHA256, &entry.value).as_ref().to_vec()))
    }
}

impl Kv {
    /// Adds to a number that is stored as decimal text, and says what it is then. A key that is not there counts as 0. Metadata and expiration stay.
    pub async fn increment(&self, namespace: Namespace, key: &str, delta: i64) -> Result<i64, Error> {
        let name = shown(key);
        self.update(namespace, key, move |entry| {
            let before = match entry {
                None => Some(0),
                Some(entry) => std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse::<i64>().ok()),
            };
            let after = before.and_then(|before| before.checked_add(delta)).ok_or(Error::Number { key: name })?;
            Ok((after, Some(after.to_string().into())))
        })
        .await
    }

    /// Replaces a value if the key still holds what had that tag; otherwise nothing is written and the answer is the tag of what it holds. Metadata and
    /// expiration stay.
    pub async fn swap(&self, namespace: Namespace, key: &str, expected: Tag, value: Bytes) -> Result<Result<(), Tag>, Error> {
        self.update(namespace, key, move |entry| {
            let found = Tag::of(entry);
            Ok(if found == expected { (Ok(()), Some(value)) } else { (Err(found), None) })
        })
        .await
    }

    /// Asks `change` what to make of what is there, and writes the value that it returns, if any. Its answer is given once that is on disk.
    async fn update<T, F>(&self, namespace: Namespace, key: &str, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(Option<&Entry>) -> Result<(T, Option<Bytes>), Error> + Send + 'static,
    {
        check_key(key)?;
        let (cache, clock, key) = (self.store.cache.clone(), self.store.clock.clone(), key.to_owned());
        let work = self.store.shards.of(namespace.0).await?.write(move |tx| {
            let keys = [key];
            let found = store::get(tx, namespace, &keys, KV_VALUE_BYTES_MAX)?.pop().flatten();
            let found = found.filter(|entry| entry.is_live(clock.now_unix_ms()));
            let (answer, value) = change(found.as_deref())?;
            let [key] = keys;
            let Some(value) = value else { return Ok((answer, None)) };
            if value.len() > KV_VALUE_BYTES_MAX {
                return Err(Error::Value { key: shown(&key), bytes: value.len() });
            }
            let writing = cache.writing([(namespace, key.as_str())]);
            let metadata = found.as_ref().and_then(|entry| entry.metadata.as_deref()).map(str::to_owned);
            let expiration = found.and_then(|entry| entry.expiration).and_then(|expiration| i64::try_from(expiration).ok());
            let change: Change = store::put(tx, namespace, &Checked { key, value, metadata, expiration })?;
            store::count(tx, namespace, change)?;
            Ok::<_, Error>((answer, Some(writing)))
        });
        let (answer, writing) = work.await?;
        // Committed: from here on readers may keep what they find.
        drop(writing);
        Ok(answer)
    }
}
