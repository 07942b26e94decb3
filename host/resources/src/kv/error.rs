//! Why an operation of KV was not done, and which code says so on every door.

use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::limits::{
    KV_EXPIRATION_SECONDS_MIN, KV_EXPIRATION_UNIX_MAX, KV_KEY_BYTES_MAX, KV_METADATA_BYTES_MAX, KV_PAGE_KEYS_MAX, KV_VALUE_BYTES_MAX,
};

use crate::{database, meters};

/// How much of a key a message shows, in characters.
const SHOWN_CHARS: usize = 64;

/// Why something was not done. Nothing was changed. The text is for whoever sent it and names nothing but what they sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The key is empty, too long, `.` or `..`.
    #[error("the key `{key}` has {bytes} bytes; a key has 1 to {KV_KEY_BYTES_MAX} bytes and is neither `.` nor `..`")]
    Key {
        /// Its beginning.
        key: String,
        /// Its length.
        bytes: usize,
    },
    /// The prefix is longer than any key.
    #[error("the prefix has {bytes} bytes; a key has at most {KV_KEY_BYTES_MAX}")]
    Prefix {
        /// Its length.
        bytes: usize,
    },
    /// The value is too large.
    #[error("the value of `{key}` has {bytes} bytes; a value has at most {KV_VALUE_BYTES_MAX}")]
    Value {
        /// The beginning of its key.
        key: String,
        /// Its length.
        bytes: usize,
    },
    /// The metadata is too large.
    #[error("the metadata of `{key}` has {bytes} bytes; it may have {KV_METADATA_BYTES_MAX}")]
    MetadataBytes {
        /// The beginning of its key.
        key: String,
        /// Its length.
        bytes: usize,
    },
    /// The metadata is not JSON.
    #[error("the metadata of `{key}` is not JSON: {reason}")]
    Metadata {
        /// The beginning of its key.
        key: String,
        /// Where it stops to be.
        reason: String,
    },
    /// The ttl or the expiration is too soon, or has passed.
    #[error("`{key}` would expire in {seconds} s; an expiration lies at least {KV_EXPIRATION_SECONDS_MIN} s ahead")]
    TooSoon {
        /// The beginning of its key.
        key: String,
        /// How far ahead it lies.
        seconds: i64,
    },
    /// The ttl or the expiration is later than can be stored.
    #[error("the expiration of `{key}` lies after {KV_EXPIRATION_UNIX_MAX}, the end of the year 9999; leave it out to keep the key for ever")]
    TooLate {
        /// The beginning of its key.
        key: String,
    },
    /// The bulk request has too many keys.
    #[error("the request has {keys} keys; it may have {keys_max}")]
    BulkKeys {
        /// How many.
        keys: usize,
        /// How many it may have.
        keys_max: usize,
    },
    /// The bulk request, or the answer to it, has too many bytes.
    #[error("keys, values and metadata together have more than {bytes_max} bytes; send or ask for less at a time")]
    BulkBytes {
        /// How many they may have.
        bytes_max: usize,
    },
    /// The account would have more than it may.
    #[error("with this all KV namespaces of the account would have {bytes} bytes together, and they may have {bytes_max}; nothing was written")]
    AccountFull {
        /// What they would have.
        bytes: u64,
        /// What they may have.
        bytes_max: u64,
    },
    /// What is to be added to is no number, or too large a one.
    #[error("the value of `{key}` is no decimal number, or the sum has more than 64 bits")]
    Number {
        /// The beginning of its key.
        key: String,
    },
    /// There is no memory for what would be read.
    #[error("the host has no memory left for these values; try again shortly, or ask for fewer at a time")]
    Busy,
    /// A page of a list has too many keys, or none.
    #[error("`limit` must be 1 to {KV_PAGE_KEYS_MAX}")]
    Limit,
    /// The cursor was not given out by this list.
    #[error("`{0}` is not a cursor of this list")]
    Cursor(String),
    /// The namespace was dropped.
    #[error("the namespace has been deleted")]
    Dropped,
    /// A usage cap has no room for it.
    #[error(transparent)]
    Usage(#[from] meters::Exceeded),
    /// The store failed.
    #[error("KV could not be read or written: {0}")]
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
            Self::Key { .. } | Self::Prefix { .. } => &codes::KV_KEY_INVALID,
            Self::Value { .. } => &codes::KV_VALUE_TOO_LARGE,
            Self::MetadataBytes { .. } | Self::Metadata { .. } => &codes::KV_METADATA_INVALID,
            Self::TooSoon { .. } => &codes::KV_EXPIRATION_TOO_SOON,
            Self::TooLate { .. } | Self::Limit | Self::Number { .. } => &codes::INVALID_REQUEST,
            Self::BulkKeys { .. } | Self::BulkBytes { .. } => &codes::KV_BULK_TOO_LARGE,
            Self::AccountFull { .. } => &codes::KV_STORAGE_FULL,
            Self::Cursor(_) => &codes::INVALID_CURSOR,
            Self::Dropped => &codes::RESOURCE_NOT_FOUND,
            Self::Busy => &codes::HOST_BUSY,
            Self::Database(_) => &codes::STORAGE_FAILED,
        }
    }
}

/// As much of what somebody sent as a message may have.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(SHOWN_CHARS).collect()
}
