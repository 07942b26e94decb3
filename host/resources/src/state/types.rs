//! What the operations of State take and answer, and which of it is refused. Nothing here touches a file.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::{Plan, STATE_BATCH_BYTES_MAX, STATE_BATCH_CHANGES_MAX, STATE_ENTRY_BYTES_MAX, STATE_KEY_BYTES_MAX, STATE_PAGE_KEYS_MAX};

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

/// The calls of objects that something is part of, the outermost first. Each of them has its object until what it has called has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds(Arc<[u64]>);

impl Holds {
    /// With a call within them.
    pub(super) fn with(&self, call: u64) -> Self {
        Self(self.0.iter().copied().chain([call]).collect())
    }

    pub(super) fn calls(&self) -> &[u64] {
        &self.0
    }

    /// Whether it is part of none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Which object, and on whose account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its key: 1 to 512 bytes, neither `.` nor `..`.
    pub object: Arc<str>,
    /// The number of the account that the namespace belongs to.
    pub account: i64,
    /// The account's plan, which says how much may be stored.
    pub plan: Plan,
    /// The calls of objects that whoever asks is part of. What would wait for itself is refused at once.
    pub holds: Holds,
}

/// What an object holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Values.
    pub values: u64,
    /// Their keys and they, in bytes.
    pub bytes: u64,
}

/// What a namespace holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Objects that have a value or an alarm.
    pub objects: u64,
    /// Keys and values, in bytes.
    pub bytes: u64,
}

/// An answer, with what meters count. It is on disk, and so is everything that it is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// Rows that were read. A look for something that is not there is one.
    pub rows_read: u64,
    /// Rows that were written.
    pub rows_written: u64,
    /// What the object holds now.
    pub object: Counts,
}

/// One change, or one condition, of an atomic write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stores a value.
    Put {
        /// 1 to 512 bytes, neither `.` nor `..`.
        key: String,
        /// With its key at most 2 MiB.
        value: Bytes,
    },
    /// Removes a value. It is no error if it is not there.
    Delete {
        /// Its key.
        key: String,
    },
    /// Lets the whole write happen only if this is stored when its turn comes, changes before it in the list not counted.
    Expect {
        /// The key.
        key: String,
        /// The value; none if it must not be there.
        value: Option<Bytes>,
    },
}

/// What became of a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// Whether the new value stands.
    pub swapped: bool,
    /// What was found.
    pub found: Option<Bytes>,
}

/// What became of an atomic write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it stands.
    All,
    /// Nothing does, because of the condition on this key.
    Refused(String),
}

/// One key of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub name: String,
    /// The length of its value, in bytes.
    pub value_bytes: u64,
}

/// One object of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key.
    pub name: String,
    /// What it holds.
    pub counts: Counts,
    /// When its alarm is scheduled for, in ms since the UNIX epoch.
    pub alarm: Option<UnixMs>,
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
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Whether another page follows.
    pub has_more: bool,
    /// Where it begins.
    pub next_cursor: Option<String>,
}

/// When an alarm is to ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// In so many seconds.
    InSeconds(u32),
    /// At that time, in ms since the UNIX epoch. What has passed means now.
    At(UnixMs),
}

/// Where a page begins, and how long it is.
pub(super) struct Span {
    /// The least key that may be in it.
    pub start: String,
    pub prefix: String,
    pub limit: usize,
}

impl List {
    /// Refuses what cannot be listed.
    pub(super) fn span(self) -> Result<Span, Error> {
        let limit = self.limit.unwrap_or(STATE_PAGE_KEYS_MAX);
        if !(1..=STATE_PAGE_KEYS_MAX).contains(&limit) {
            return Err(Error::Limit);
        }
        if self.prefix.len() > STATE_KEY_BYTES_MAX {
            return Err(Error::Prefix { bytes: self.prefix.len() });
        }
        let start = match &self.cursor {
            None => self.prefix.clone(),
            Some(cursor) => {
                let key = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|key| String::from_utf8(key).ok());
                let key = key.filter(|key| check_key(key).is_ok() && key.starts_with(&self.prefix));
                // The least that comes after the key.
                key.ok_or_else(|| Error::Cursor(shown(cursor)))? + "\0"
            }
        };
        Ok(Span { start, prefix: self.prefix, limit })
    }
}

impl<T> Page<T> {
    /// The page of entries of which there is one more than asked for if another page follows.
    pub(super) fn cut(mut items: Vec<T>, limit: usize, name: impl Fn(&T) -> &str) -> Self {
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| has_more).map(|last| BASE64_URL_SAFE_NO_PAD.encode(name(last)));
        Self { items, has_more, next_cursor }
    }
}

/// Refuses what cannot be a key.
pub(super) fn check_key(key: &str) -> Result<(), Error> {
    match key {
        "." | ".." => {}
        key if (1..=STATE_KEY_BYTES_MAX).contains(&key.len()) => return Ok(()),
        _ => {}
    }
    Err(Error::Key { key: shown(key), bytes: key.len() })
}

/// Refuses what cannot be stored.
pub(super) fn check_entry(key: &str, value: &Bytes) -> Result<(), Error> {
    check_key(key)?;
    let bytes = key.len().saturating_add(value.len());
    if bytes <= STATE_ENTRY_BYTES_MAX { Ok(()) } else { Err(Error::Value { key: shown(key), bytes }) }
}

/// Refuses an atomic write that is too large or has a part that cannot be stored.
pub(super) fn check_changes(changes: &[Change]) -> Result<(), Error> {
    if changes.len() > STATE_BATCH_CHANGES_MAX {
        return Err(Error::BatchChanges { changes: changes.len() });
    }
    let mut sum = 0_usize;
    for change in changes {
        match change {
            Change::Put { key, value } | Change::Expect { key, value: Some(value) } => {
                check_entry(key, value)?;
                sum = sum.saturating_add(key.len()).saturating_add(value.len());
            }
            Change::Delete { key } | Change::Expect { key, value: None } => check_key(key)?,
        }
    }
    if sum <= STATE_BATCH_BYTES_MAX { Ok(()) } else { Err(Error::BatchBytes) }
}

/// The integer that a value stands for.
pub(super) fn integer(key: &str, value: Option<&Bytes>) -> Result<i64, Error> {
    let Some(value) = value else { return Ok(0) };
    let parsed = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| Error::NotInteger { key: shown(key) })
}
