//! What can go wrong with usage and caps.

use tovuk_kernel::codes::{self, Code};

use super::Exceeded;
use crate::database::{self, rusqlite};

/// Why something was not counted, capped or allowed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A cap would be exceeded.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// A cap without sense.
    #[error("a cap tells at 1 to 100 percent, not at {0}")]
    Percent(u16),
    /// The store has failed.
    #[error(transparent)]
    Database(#[from] database::Error),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Error {
    /// The row of the code table.
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Exceeded(_) => &codes::USAGE_CAP_EXCEEDED,
            Self::Percent(_) => &codes::INVALID_REQUEST,
            Self::Database(_) => &codes::STORAGE_FAILED,
        }
    }
}
