//! Writes that depend on what is there. They run where all writes of a shard do, one after the other, so nobody writes the key between the look and the
//! write.

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use tovuk_kernel::limits::{KV_NUMBER_BYTES_MAX, KV_VALUE_BYTES_MAX};
use tovuk_kernel::meters::Meter;

use super::error::shown;
use super::store::Change;
use super::types::{Checked, check_key, is_live};
use super::{Account, Entry, Error, Kv, Namespace, store};
use crate::database::rusqlite::Transaction;

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
        let too_long = Error::Number { key: name.clone() };
        let added = self.update(namespace, key, (0, KV_NUMBER_BYTES_MAX), move |entry| {
            let before = match entry {
                None => Some(0),
                Some(entry) => std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse::<i64>().ok()),
            };
            let after = before.and_then(|before| before.checked_add(delta)).ok_or(Error::Number { key: name })?;
            Ok((after, Some(after.to_string().into())))
        });
        added.await.map_err(|error| if matches!(error, Error::BulkBytes { .. }) { too_long } else { error })
    }

    /// Replaces a value if the key still holds what had that tag; otherwise nothing is written and the answer is the tag of what it holds. Metadata and
    /// expiration stay.
    pub async fn swap(&self, namespace: Namespace, key: &str, expected: Tag, value: Bytes) -> Result<Result<(), Tag>, Error> {
        self.update(namespace, key, (value.len(), KV_VALUE_BYTES_MAX), move |entry| {
            let found = Tag::of(entry);
            Ok(if found == expected { (Ok(()), Some(value)) } else { (Err(found), None) })
        })
        .await
    }

    /// Asks `change` what to make of what is there, and writes the value that it returns, if any. Its answer is given once that is on disk. Fails when
    /// what is there is longer than `bytes_max`, without reading it: all writes of the shard wait meanwhile. `bytes` is how long the new value is at the most,
    /// where that is much.
    async fn update<T, F>(&self, namespace: Namespace, key: &str, (bytes, bytes_max): (usize, usize), change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(Option<&Entry>) -> Result<(T, Option<Bytes>), Error> + Send + 'static,
    {
        check_key(key)?;
        let charge = self.bill.reserve(Meter::KvWrites, 1).await?;
        let turn = self.turn(1, bytes as u64).await;
        let (cache, clock, key) = (self.store.cache.clone(), self.store.clock.clone(), key.to_owned());
        let (ledger, account, bill) = (self.store.ledger.clone(), self.account, self.bill.clone());
        let update = move |tx: &Transaction<'_>| {
            // Fails where the namespace was dropped.
            store::usage(tx, namespace)?;
            let found = store::find(tx, namespace, &key)?.filter(|found| is_live(found.expiration, clock.now_unix_ms()));
            if found.as_ref().is_some_and(|found| found.bytes > bytes_max) {
                return Err(Error::BulkBytes { bytes_max });
            }
            let found = found.map(|found| found.read(tx)).transpose()?;
            let (answer, value) = change(found.as_ref())?;
            let Some(value) = value else { return Ok((answer, (None, turn))) };
            if value.len() > KV_VALUE_BYTES_MAX {
                return Err(Error::Value { key: shown(&key), bytes: value.len() });
            }
            let writing = cache.writing([(namespace, key.as_str())]);
            let metadata = found.as_ref().and_then(|entry| entry.metadata.as_deref()).map(str::to_owned);
            let expiration = found.and_then(|entry| entry.expiration).and_then(|expiration| i64::try_from(expiration).ok());
            let change: Change = store::put(tx, namespace, &Checked { key, value, metadata, expiration })?;
            Account::count(account, (&bill, &ledger), tx, namespace, change)?;
            Ok::<_, Error>((answer, (Some(writing), turn)))
        };
        let (answer, underway) = self.store.shards.of(namespace.0).await?.write_then(update, move |_| charge.settle(1)).await?;
        // Committed: from here on readers may keep what they find.
        drop(underway);
        Ok(answer)
    }
}
