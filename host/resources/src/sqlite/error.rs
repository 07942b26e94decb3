//! What can go wrong with a tenant's database, each with its row of the table of codes. Messages are for whoever sent the statement: they name
//! no path.

use std::sync::Arc;

use rusqlite::{ErrorCode, ffi};
use tovuk_kernel::codes::{self, Code};

use crate::meters;

/// What a query may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Budget {
    /// Steps of the virtual machine.
    #[error("it took more than {0} steps of SQLite's virtual machine")]
    Steps(u64),
    /// Time.
    #[error("it ran for more than {0} ms")]
    Time(u64),
    /// Time of all migrations of one call.
    #[error("the migrations of one call ran for more than {0} ms together; those before it stay, and the same call again goes on from there")]
    Migrations(u64),
    /// CPU time of the invocation that asked.
    #[error("the CPU time of the invocation is used up")]
    Cpu,
    /// Bytes of its result.
    #[error("its result is larger than {0} bytes")]
    Result(usize),
    /// Memory.
    #[error("it needed more than {0} bytes of memory")]
    Heap(usize),
}

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A usage cap has no room for it.
    #[error(transparent)]
    Usage(#[from] meters::Exceeded),
    /// There is no such database, or it was deleted.
    #[error("there is no such database")]
    NotFound,
    /// SQLite cannot make sense of the statement, or its parameters do not fit.
    #[error("{0}")]
    Query(Arc<str>),
    /// The change breaks a constraint.
    #[error("{0}")]
    Constraint(Arc<str>),
    /// The statement is not for tenants.
    #[error("not allowed: {0}")]
    Forbidden(Arc<str>),
    /// A budget is used up; everything was rolled back.
    #[error("the statement was stopped and rolled back: {0}")]
    Budget(Budget),
    /// The database is as large as it may be.
    #[error("the database is full: it may have {0} bytes; nothing was written")]
    StorageFull(u64),
    /// All databases and backups of the account are as large as they may be together.
    #[error("all databases and backups of the account may have {0} bytes together; nothing was written")]
    AccountFull(u64),
    /// The database and its backups are as large as they may be.
    #[error("with one more backup the database and its backups would have {needed} bytes, and they may have {allowed}; delete a backup first")]
    BackupsFull {
        /// What they would have.
        needed: u64,
        /// What they may have.
        allowed: u64,
    },
    /// The disk is full.
    #[error("the host's disk is full: nothing was written")]
    DiskFull,
    /// Too many calls wait for this database.
    #[error("{} calls of this database run or wait already", tovuk_kernel::limits::SQLITE_WAITING_MAX)]
    Busy,
    /// The interactive transaction or stream is over.
    #[error("the transaction has ended and was rolled back: {0}")]
    Ended(&'static str),
    /// The migrations do not fit those that were applied.
    #[error("{0}")]
    Migration(Arc<str>),
    /// A migration failed; it left nothing behind, and those before it stay.
    #[error("migration {name}: {source}")]
    MigrationFailed {
        /// Its name.
        name: Arc<str>,
        /// Why.
        source: Box<Error>,
    },
    /// The host ends, and migrations with it.
    #[error("the host is stopping: migrations that were not applied are left for later")]
    Closing,
    /// There is no such backup.
    #[error("there is no such backup")]
    BackupNotFound,
    /// A backup cannot be restored.
    #[error("the backup was not restored: {0}")]
    BackupRefused(Arc<str>),
    /// After an earlier error it is unknown what is on disk.
    #[error("the database takes no more writes because an earlier one may not have reached the disk")]
    Poisoned,
    /// The file is no database any more.
    #[error("the database is damaged: restore a backup")]
    Damaged,
    /// The system refused something. The text is for the host's log.
    #[error("the host could not do this")]
    Host(Arc<str>),
}

impl Error {
    /// Its row in the table of codes.
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Usage(_) => &codes::USAGE_CAP_EXCEEDED,
            Self::NotFound => &codes::RESOURCE_NOT_FOUND,
            Self::Query(_) => &codes::SQLITE_QUERY_FAILED,
            Self::Constraint(_) => &codes::SQLITE_CONSTRAINT,
            Self::Forbidden(_) => &codes::SQLITE_FORBIDDEN,
            Self::Budget(_) => &codes::SQLITE_BUDGET_EXCEEDED,
            Self::StorageFull(_) | Self::AccountFull(_) | Self::BackupsFull { .. } => &codes::SQLITE_STORAGE_FULL,
            Self::Busy => &codes::SQLITE_BUSY,
            Self::Ended(_) => &codes::SQLITE_TRANSACTION_ENDED,
            Self::Migration(_) => &codes::SQLITE_MIGRATION_REFUSED,
            Self::MigrationFailed { source, .. } => source.code(),
            Self::Closing => &codes::HOST_DRAINING,
            Self::BackupNotFound => &codes::SQLITE_BACKUP_NOT_FOUND,
            Self::BackupRefused(_) => &codes::SQLITE_BACKUP_REFUSED,
            Self::DiskFull | Self::Poisoned | Self::Damaged | Self::Host(_) => &codes::STORAGE_FAILED,
        }
    }

    pub(super) fn query(text: impl Into<Arc<str>>) -> Self {
        Self::Query(text.into())
    }

    pub(super) fn forbidden(text: impl Into<Arc<str>>) -> Self {
        Self::Forbidden(text.into())
    }

    /// Something that the system refused.
    pub(super) fn host(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a tenant's database failed");
        Self::Host(Arc::from(error.to_string()))
    }
}

impl From<meters::Error> for Error {
    fn from(error: meters::Error) -> Self {
        match error {
            meters::Error::Exceeded(exceeded) => Self::Usage(exceeded),
            meters::Error::Database(error) => Self::host(&error),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::host(&error),
        }
    }
}

/// The errors of the host's own statements, and what is left when those of tenants were told apart.
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let text = || -> Arc<str> {
            match &error {
                rusqlite::Error::SqliteFailure(_, Some(text)) => Arc::from(text.as_str()),
                other => Arc::from(other.to_string()),
            }
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::CannotOpen) => Self::NotFound,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                tracing::error!(%error, "a tenant's database is damaged");
                Self::Damaged
            }
            Some(ErrorCode::ConstraintViolation) => Self::Constraint(text()),
            Some(ErrorCode::SystemIoFailure | ErrorCode::PermissionDenied | ErrorCode::OutOfMemory | ErrorCode::FileLockingProtocolFailed) => {
                Self::host(&error)
            }
            Some(_) => Self::Query(text()),
            None => Self::host(&error),
        }
    }
}

/// Whether an error of a commit or a checkpoint leaves open what is on disk. A full disk, a lock or too little memory do not.
pub(super) fn poisons(error: &rusqlite::Error) -> bool {
    let Some(failure) = error.sqlite_error() else { return false };
    matches!(
        failure.extended_code,
        ffi::SQLITE_IOERR_FSYNC
            | ffi::SQLITE_IOERR_DIR_FSYNC
            | ffi::SQLITE_IOERR_WRITE
            | ffi::SQLITE_IOERR_TRUNCATE
            | ffi::SQLITE_IOERR_CLOSE
            | ffi::SQLITE_IOERR_DATA
            | ffi::SQLITE_IOERR_CORRUPTFS
    )
}
