//! Why an operation of State was not done, and which code says so on every door.

use std::path::Path;
use std::sync::Arc;

use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::limits::{
    STATE_ALARM_UNIX_MS_MAX, STATE_BATCH_BYTES_MAX, STATE_BATCH_CHANGES_MAX, STATE_ENTRY_BYTES_MAX, STATE_KEY_BYTES_MAX, STATE_PAGE_KEYS_MAX,
    STATE_WAIT_MS_MAX, STATE_WAITING_MAX,
};

use crate::{database, meters};

/// How much of a key a message shows, in characters.
const SHOWN_CHARS: usize = 64;

/// Why something was not done. Nothing was changed. The text is for whoever sent it and names nothing but what they sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The key of a value or of an object is empty, too long, `.` or `..`.
    #[error("the key `{key}` has {bytes} bytes; a key has 1 to {STATE_KEY_BYTES_MAX} bytes and is neither `.` nor `..`")]
    Key {
        /// Its beginning.
        key: String,
        /// Its length.
        bytes: usize,
    },
    /// The prefix is longer than any key.
    #[error("the prefix has {bytes} bytes; a key has at most {STATE_KEY_BYTES_MAX}")]
    Prefix {
        /// Its length.
        bytes: usize,
    },
    /// Key and value are too large.
    #[error("`{key}` and its value have {bytes} bytes; together they may have {STATE_ENTRY_BYTES_MAX}")]
    Value {
        /// The beginning of the key.
        key: String,
        /// The length of both.
        bytes: usize,
    },
    /// The atomic write has too many changes.
    #[error("the write has {changes} changes and conditions; it may have {STATE_BATCH_CHANGES_MAX}")]
    BatchChanges {
        /// How many.
        changes: usize,
    },
    /// The atomic write, or what a call of the object has changed, has too many bytes.
    #[error("what is written together may have {STATE_BATCH_BYTES_MAX} bytes, keys included")]
    BatchBytes,
    /// The value is no decimal integer.
    #[error("the value of `{key}` is not a decimal integer of 64 bits")]
    NotInteger {
        /// The beginning of the key.
        key: String,
    },
    /// The sum is beyond what 64 bits hold.
    #[error("`{key}` cannot be counted that far: {value} and {by} are more than 64 bits hold")]
    Overflow {
        /// The beginning of the key.
        key: String,
        /// What is stored.
        value: i64,
        /// What was to be added.
        by: i64,
    },
    /// The alarm lies too far ahead.
    #[error("the alarm lies after {STATE_ALARM_UNIX_MS_MAX} ms since the UNIX epoch, the end of the year 9999")]
    AlarmTooLate,
    /// The object has no room for it.
    #[error("the object has {used} bytes, and with {more} more it would exceed {max}")]
    ObjectFull {
        /// What it has, in bytes.
        used: u64,
        /// What was to be added, in bytes.
        more: u64,
        /// What it may have, in bytes.
        max: u64,
    },
    /// The account has no room for it.
    #[error("the account's State has {used} bytes, and with {more} more it would exceed {max}")]
    AccountFull {
        /// What it has, in bytes.
        used: u64,
        /// What was to be added, in bytes.
        more: u64,
        /// What it may have, in bytes.
        max: u64,
    },
    /// A page of a list has too many keys, or none.
    #[error("`limit` must be 1 to {STATE_PAGE_KEYS_MAX}")]
    Limit,
    /// The cursor was not given out by this list.
    #[error("`{0}` is not a cursor of this list")]
    Cursor(String),
    /// Others had the object for too long.
    #[error("the object was in use for {STATE_WAIT_MS_MAX} ms; try again")]
    Busy,
    /// Too many wait already.
    #[error("{STATE_WAITING_MAX} calls wait for the object already; try again")]
    Crowded,
    /// The host has no memory for another change.
    #[error("the host has no memory left for this change; try again shortly")]
    NoMemory,
    /// It would wait for itself.
    #[error("the call would wait for an object that a call which it is part of has, or that is had by one which waits for it")]
    Deadlock,
    /// The session has ended: one of its operations was cancelled, or it was committed.
    #[error("the call of the object has ended")]
    Ended,
    /// What it was built on could not be committed.
    #[error("the change was undone together with an earlier one that could not be committed; try again")]
    Undone,
    /// The namespace was deleted.
    #[error("the namespace has been deleted")]
    Dropped,
    /// A usage cap has no room for it.
    #[error(transparent)]
    Usage(#[from] meters::Exceeded),
    /// The store failed.
    #[error("State could not be read or written: {0}")]
    Database(#[from] database::Error),
}

impl From<database::rusqlite::Error> for Error {
    fn from(error: database::rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

meters::refuses!(Error);

impl Error {
    /// The row of the code table.
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Usage(_) => &codes::USAGE_CAP_EXCEEDED,
            Self::Key { .. } | Self::Prefix { .. } => &codes::STATE_KEY_INVALID,
            Self::Value { .. } => &codes::STATE_VALUE_TOO_LARGE,
            Self::BatchChanges { .. } | Self::BatchBytes => &codes::STATE_BATCH_TOO_LARGE,
            Self::NotInteger { .. } | Self::Overflow { .. } => &codes::STATE_NOT_INTEGER,
            Self::AlarmTooLate => &codes::STATE_ALARM_INVALID,
            Self::ObjectFull { .. } | Self::AccountFull { .. } => &codes::STATE_STORAGE_FULL,
            Self::Limit => &codes::INVALID_REQUEST,
            Self::Cursor(_) => &codes::INVALID_CURSOR,
            Self::Busy | Self::Crowded => &codes::STATE_OBJECT_BUSY,
            Self::NoMemory => &codes::HOST_BUSY,
            Self::Deadlock => &codes::STATE_DEADLOCK,
            Self::Dropped => &codes::RESOURCE_NOT_FOUND,
            Self::Ended | Self::Undone | Self::Database(_) => &codes::STORAGE_FAILED,
        }
    }

    pub(super) fn closed() -> Self {
        Self::Database(database::Error::Closed)
    }

    pub(super) fn file(path: &Path, error: std::io::Error) -> Self {
        Self::Database(database::Error::File { path: path.to_owned(), source: Arc::new(error) })
    }
}

/// As much of what somebody sent as a message may have.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(SHOWN_CHARS).collect()
}
