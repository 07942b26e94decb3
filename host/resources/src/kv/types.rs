//! What the operations of KV take and answer, and which of it is refused. Nothing here touches a file.

use std::sync::Arc;

use bytes::Bytes;
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::{KV_EXPIRATION_SECONDS_MIN, KV_EXPIRATION_UNIX_MAX, KV_KEY_BYTES_MAX, KV_METADATA_BYTES_MAX, KV_VALUE_BYTES_MAX};

use super::Error;
use super::error::shown;

/// The number that the control database has given to a namespace. It is never given to another: what was dropped stays dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(pub i64);

impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A key to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// 1 to 512 bytes, neither `.` nor `..`.
    pub key: String,
    /// At most 25 MiB.
    pub value: Bytes,
    /// JSON of at most 1,024 bytes.
    pub metadata: Option<String>,
    /// When the key expires, in seconds since the UNIX epoch.
    pub expiration: Option<u64>,
    /// In how many seconds it expires. Counts before `expiration`.
    pub ttl_seconds: Option<u64>,
}

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// The metadata, as it was written.
    pub metadata: Option<Arc<str>>,
    /// When it expires, in seconds since the UNIX epoch.
    pub expiration: Option<u64>,
}

impl Entry {
    /// Whether readers see it at that time.
    pub(super) fn is_live(&self, now_ms: UnixMs) -> bool {
        is_live(self.expiration, now_ms)
    }
}

/// What a namespace holds. Keys that have expired count until they are swept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Keys.
    pub keys: u64,
    /// Keys, values and metadata together, in bytes.
    pub bytes: u64,
}

/// The answer to a write: it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Keys that the request had; each is metered.
    pub keys: u64,
    /// Their keys, values and metadata, in bytes.
    pub bytes: u64,
    /// What the namespace holds now.
    pub usage: Usage,
}

/// The answer to a removal: it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Keys that the request had; each is metered.
    pub keys: u64,
    /// How many of them were there.
    pub existed: u64,
    /// What the namespace holds now.
    pub usage: Usage,
}

/// One key of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub name: String,
    /// When it expires, in seconds since the UNIX epoch.
    pub expiration: Option<u64>,
    /// Its metadata.
    pub metadata: Option<String>,
}

/// Which keys to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// What the keys begin with.
    pub prefix: String,
    /// How many keys the page may have, 1 to 1,000; 1,000 if not given.
    pub limit: Option<usize>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// A page of a list, in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys. There can be fewer than asked for, or none, although more follow: where many have expired and are not swept yet.
    pub keys: Vec<Listed>,
    /// Whether another page follows. Keys that expire meanwhile can leave it empty.
    pub has_more: bool,
    /// Where it begins.
    pub next_cursor: Option<String>,
}

/// A write that has been found good.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub key: String,
    pub value: Bytes,
    pub metadata: Option<String>,
    pub expiration: Option<i64>,
}

impl Checked {
    /// What it counts for in the usage of its namespace.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + self.metadata.as_ref().map_or(0, String::len)
    }
}

/// Whether something with that expiration is there at that time.
pub(super) fn is_live(expiration: Option<u64>, now_ms: UnixMs) -> bool {
    expiration.is_none_or(|expiration| now_ms < expiration.saturating_mul(1_000))
}

/// Refuses what cannot be a key.
pub(super) fn check_key(key: &str) -> Result<(), Error> {
    match key {
        "." | ".." => {}
        key if (1..=KV_KEY_BYTES_MAX).contains(&key.len()) => return Ok(()),
        _ => {}
    }
    Err(Error::Key { key: shown(key), bytes: key.len() })
}

/// Refuses what may not be written, and computes when it expires.
pub(super) fn check_put(put: Put, now_ms: UnixMs) -> Result<Checked, Error> {
    check_key(&put.key)?;
    if put.value.len() > KV_VALUE_BYTES_MAX {
        return Err(Error::Value { key: shown(&put.key), bytes: put.value.len() });
    }
    if let Some(metadata) = &put.metadata {
        if metadata.len() > KV_METADATA_BYTES_MAX {
            return Err(Error::MetadataBytes { key: shown(&put.key), bytes: metadata.len() });
        }
        // As a tree, which bounds how deep it may nest: readers that parse it must not fail.
        serde_json::from_str::<serde_json::Value>(metadata).map_err(|error| Error::Metadata { key: shown(&put.key), reason: error.to_string() })?;
    }
    let expiration = expiration(&put, now_ms)?;
    Ok(Checked { key: put.key, value: put.value, metadata: put.metadata, expiration })
}

fn expiration(put: &Put, now_ms: UnixMs) -> Result<Option<i64>, Error> {
    // A request that was sent at the beginning of a second must not be too late at its end, so the present is rounded down.
    let now = now_ms / 1_000;
    let expiration = match (put.ttl_seconds, put.expiration) {
        (Some(ttl), _) if ttl < KV_EXPIRATION_SECONDS_MIN => return Err(too_soon(put, now.saturating_add(ttl), now)),
        // And a key lives for the whole of its ttl.
        (Some(ttl), _) => now_ms.div_ceil(1_000).saturating_add(ttl),
        (None, Some(expiration)) if expiration < now.saturating_add(KV_EXPIRATION_SECONDS_MIN) => return Err(too_soon(put, expiration, now)),
        (None, Some(expiration)) => expiration,
        (None, None) => return Ok(None),
    };
    if expiration > KV_EXPIRATION_UNIX_MAX {
        return Err(Error::TooLate { key: shown(&put.key) });
    }
    Ok(i64::try_from(expiration).ok())
}

fn too_soon(put: &Put, expiration: u64, now: u64) -> Error {
    let seconds = i64::try_from(expiration).unwrap_or(i64::MAX).saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
    Error::TooSoon { key: shown(&put.key), seconds }
}
