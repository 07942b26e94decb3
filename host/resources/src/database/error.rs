//! What can go wrong with a database, and which errors leave open what is on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{ErrorCode, ffi};

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be created, or its mode not be set.
    #[error("{}: {source}", path.display())]
    File {
        /// The database.
        path: PathBuf,
        /// The system's error.
        source: Arc<std::io::Error>,
    },
    /// SQLite could not open the file.
    #[error("{} could not be opened as a database: {source}", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// SQLite's error.
        source: Arc<rusqlite::Error>,
    },
    /// The file belongs to something else.
    #[error("{} is not the database that is expected there: its application id is {found:#x} and not {expected:#x}; move it away", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
        /// The mark that it has.
        found: i32,
        /// The mark that it should have.
        expected: i32,
    },
    /// A later version of the host has migrated the file.
    #[error("{} was written by a newer version of tovuk (schema {found}, this one knows {known}); start that version, or restore a backup", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest version that this host knows.
        known: usize,
    },
    /// A migration failed. The file is as it was before it.
    #[error("{}: migration {number} failed: {source}", path.display())]
    Migration {
        /// The database.
        path: PathBuf,
        /// Which, counted from 1.
        number: usize,
        /// SQLite's error.
        source: Arc<rusqlite::Error>,
    },
    /// There is no room on the disk. Nothing was written; it can succeed when there is.
    #[error("the disk is full: nothing was written; free some space and try again")]
    Full,
    /// Another process holds the database's lock.
    #[error("the database is locked by another process; close whatever has it open and try again")]
    Locked,
    /// Another job of the same commit made SQLite undo all of it.
    #[error("the change was undone together with another that failed; try again")]
    Undone,
    /// After an earlier error it is unknown what is on disk.
    #[error("the database takes no more writes because an earlier one may not have reached the disk ({0}); check the disk, then restart the host")]
    Poisoned(Arc<str>),
    /// The job panicked.
    #[error("the job panicked: {0}")]
    Panicked(Arc<str>),
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// Anything else that SQLite has to say.
    #[error("{0}")]
    Sqlite(Arc<rusqlite::Error>),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            _ => Self::Sqlite(Arc::new(error)),
        }
    }
}

impl Error {
    pub(super) fn file(path: &Path, error: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source: Arc::new(error) }
    }

    pub(super) fn open(path: &Path, error: rusqlite::Error) -> Self {
        Self::Open { path: path.to_owned(), source: Arc::new(error) }
    }

    pub(super) fn panicked(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::Panicked(Arc::from(text.unwrap_or("without a message")))
    }
}

/// Whether an error of a commit or a checkpoint leaves open what is on disk. A full disk, a lock or too little memory do not: SQLite has undone
/// the transaction, and the next one starts from what was there before.
pub(crate) fn poisons(error: &rusqlite::Error) -> bool {
    let Some(failure) = error.sqlite_error() else { return false };
    matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        || matches!(
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

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn only_errors_that_leave_open_what_is_on_disk_poison() {
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            assert!(poisons(&failure(code)), "{code}");
        }
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_BUSY,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_IOERR_NOMEM,
            ffi::SQLITE_IOERR_SHMSIZE,
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_CONSTRAINT_FOREIGNKEY,
            ffi::SQLITE_INTERRUPT,
        ] {
            assert!(!poisons(&failure(code)), "{code}");
        }
        assert!(!poisons(&rusqlite::Error::QueryReturnedNoRows));
    }

    #[test]
    fn a_full_disk_and_a_lock_are_told_apart_from_other_errors() {
        assert!(matches!(Error::from(failure(ffi::SQLITE_FULL)), Error::Full));
        assert!(matches!(Error::from(failure(ffi::SQLITE_BUSY)), Error::Locked));
        assert!(matches!(Error::from(failure(ffi::SQLITE_CONSTRAINT_UNIQUE)), Error::Sqlite(_)));
    }
}
