//! What can go wrong with usage and caps.

use tovuk_kernel::codes::{self, Code};

use super::Exceeded;
use crate::database::{self, rusqlite};

/// Why something was not counted, capped or allowed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A cap would be exceeded.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
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
            Self::Database(_) => &codes::STORAGE_FAILED,
        }
    }
}

/// What a store says whose work could not be charged: its own `Usage` over a cap, and its own failure of a database where that of the meters failed.
macro_rules! refuses {
    ($error:ty) => {
        impl From<$crate::meters::Error> for $error {
            fn from(error: $crate::meters::Error) -> Self {
                match error {
                    $crate::meters::Error::Exceeded(exceeded) => Self::Usage(exceeded),
                    $crate::meters::Error::Database(error) => Self::from(error),
                }
            }
        }
    };
}
pub(crate) use refuses;
