//! Why an operation on cron triggers was not done, and which code says so on every door.

use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::limits::{CRON_EXPRESSION_BYTES_MAX, CRON_RUNS_KEPT};

use crate::database;

/// How much of what somebody sent a message shows, in characters.
const SHOWN_CHARS: usize = 64;

/// Why something was not done. Nothing was changed. The text is for whoever sent it and names nothing but what they sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The expression will not do.
    #[error("the cron expression `{expression}` cannot be used: {reason}")]
    Expression {
        /// Its beginning.
        expression: String,
        /// Why.
        reason: String,
    },
    /// The expression is too long.
    #[error("the cron expression has {bytes} bytes; it may have {CRON_EXPRESSION_BYTES_MAX}")]
    ExpressionBytes {
        /// Its length.
        bytes: usize,
    },
    /// Too many ticks of the trigger wait or run.
    #[error("{CRON_RUNS_KEPT} ticks of the trigger wait or run already; wait until some have ended")]
    TooMany,
    /// There is no such trigger, or it was dropped.
    #[error("the cron trigger has been deleted")]
    Dropped,
    /// The store failed.
    #[error("cron triggers could not be read or written: {0}")]
    Database(#[from] database::Error),
}

impl From<database::rusqlite::Error> for Error {
    fn from(error: database::rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Error {
    /// The row of the code table.
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Expression { .. } | Self::ExpressionBytes { .. } => &codes::CRON_EXPRESSION_INVALID,
            Self::TooMany => &codes::TOO_MANY_REQUESTS,
            Self::Dropped => &codes::RESOURCE_NOT_FOUND,
            Self::Database(_) => &codes::STORAGE_FAILED,
        }
    }
}

/// As much of what somebody sent as a message may have.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(SHOWN_CHARS).collect()
}
