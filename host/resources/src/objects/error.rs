//! What can go wrong with objects, and the row of the code table that each error is.

use std::io;
use std::sync::Arc;

use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::limits;

use crate::{database, meters};

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No such object, or none that may be seen this way.
    #[error("there is no object `{0}`")]
    NotFound(String),
    /// The path cannot be one.
    #[error("the path of the object {0}")]
    Path(&'static str),
    /// Some other field of a request makes no sense.
    #[error("{0}")]
    Request(String),
    /// The cursor of a list was not given out by it.
    #[error("the cursor is not one of this list")]
    Cursor,
    /// The object is larger than it may be.
    #[error("the object has {bytes} bytes and may have {max}")]
    TooLarge {
        /// Its size, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        max: u64,
    },
    /// The account has no room for it.
    #[error("the account's objects and open uploads have {used} bytes, and with {more} more they would exceed {max}")]
    StorageLimit {
        /// What there is, in bytes.
        used: u64,
        /// What was to be added, in bytes.
        more: u64,
        /// The limit, in bytes.
        max: u64,
    },
    /// The service has too many uploads that were not completed.
    #[error("the service has {} open uploads", limits::OBJECT_UPLOADS_OPEN_MAX)]
    UploadLimit,
    /// The service was deleted.
    #[error("the service was deleted, and its objects with it")]
    Removed,
    /// No such upload, or no longer.
    #[error("there is no such upload, or it has ended")]
    UploadNotFound,
    /// The upload cannot be completed yet.
    #[error("{0}")]
    Incomplete(String),
    /// What came is not what was announced.
    #[error("{0}")]
    Mismatch(String),
    /// The sender broke off.
    #[error("the upload broke off: {0}")]
    Interrupted(String),
    /// A later request sends the same.
    #[error("a later request sends the same upload")]
    Superseded,
    /// A public object of a media type does not hold what its type says.
    #[error("a public object of type `{declared}` may not hold {found}")]
    Media {
        /// The content type.
        declared: String,
        /// What its first bytes are.
        found: &'static str,
    },
    /// `If-Match` or `If-Unmodified-Since` does not hold.
    #[error("the object is not the version that was asked for")]
    PreconditionFailed,
    /// The object has no such range.
    #[error("the object has {bytes} bytes and no such range")]
    Range {
        /// Its size, in bytes.
        bytes: u64,
    },
    /// A URL was not signed by this host, or not for this.
    #[error("the URL is not one that this host has signed")]
    UrlInvalid,
    /// A URL is too old.
    #[error("the URL has expired")]
    UrlExpired,
    /// There is no room on the disk, or in the store. Nothing was changed.
    #[error("there is no room for the object's bytes")]
    Full,
    /// The store of bytes failed.
    #[error("the store of objects failed: {0}")]
    Store(Arc<object_store::Error>),
    /// What the store has is not what was written.
    #[error("the bytes of an object are not what was stored: {0}")]
    Damaged(String),
    /// A usage cap has no room for it.
    #[error(transparent)]
    Usage(#[from] meters::Exceeded),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The folder of bytes cannot be made or read.
    #[error("the folder of objects: {0}")]
    Folder(Arc<io::Error>),
    /// The database belongs to bytes that lie elsewhere.
    #[error("the objects lie in {stored} and not in {configured}: configure that again, or move them")]
    Elsewhere {
        /// Where they were written.
        stored: String,
        /// Where they are looked for.
        configured: String,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

meters::refuses!(Error);

impl Error {
    /// The row of the code table.
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Usage(_) => &codes::USAGE_CAP_EXCEEDED,
            Self::NotFound(_) => &codes::OBJECT_NOT_FOUND,
            Self::Path(_) => &codes::OBJECT_PATH_INVALID,
            Self::Request(_) => &codes::INVALID_REQUEST,
            Self::Cursor => &codes::INVALID_CURSOR,
            Self::TooLarge { .. } => &codes::OBJECT_TOO_LARGE,
            Self::StorageLimit { .. } => &codes::OBJECT_STORAGE_LIMIT,
            Self::UploadLimit => &codes::UPLOAD_LIMIT,
            Self::Removed => &codes::SERVICE_NOT_FOUND,
            Self::UploadNotFound => &codes::UPLOAD_NOT_FOUND,
            Self::Incomplete(_) => &codes::UPLOAD_INCOMPLETE,
            Self::Mismatch(_) => &codes::UPLOAD_MISMATCH,
            Self::Interrupted(_) => &codes::UPLOAD_INTERRUPTED,
            Self::Superseded => &codes::UPLOAD_SUPERSEDED,
            Self::Media { .. } => &codes::OBJECT_MEDIA_REFUSED,
            Self::PreconditionFailed => &codes::OBJECT_PRECONDITION_FAILED,
            Self::Range { .. } => &codes::OBJECT_RANGE_INVALID,
            Self::UrlInvalid => &codes::SIGNED_URL_INVALID,
            Self::UrlExpired => &codes::SIGNED_URL_EXPIRED,
            Self::Full | Self::Store(_) | Self::Database(_) | Self::Folder(_) | Self::Elsewhere { .. } => &codes::STORAGE_FAILED,
            Self::Damaged(_) | Self::Random => &codes::INTERNAL_ERROR,
        }
    }

    /// Whether its text may be shown to whoever asked. The text of other errors names what is the operator's, and is for the log.
    pub fn is_for_caller(&self) -> bool {
        !matches!(self, Self::Full | Self::Store(_) | Self::Database(_) | Self::Folder(_) | Self::Elsewhere { .. } | Self::Damaged(_) | Self::Random)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        // A full disk is somewhere below what the store's library says about it.
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(cause) = source {
            let full = |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            if cause.downcast_ref::<io::Error>().is_some_and(full) {
                return Self::Full;
            }
            source = cause.source();
        }
        Self::Store(Arc::new(error))
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Folder(Arc::new(error)),
        }
    }
}
