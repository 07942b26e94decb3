//! Why an operation of a queue was not done, and which code says so on every door.

use std::time::Duration;

use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::limits::{
    QUEUE_BACKLOG_BYTES_MAX, QUEUE_BATCH_MESSAGES_MAX, QUEUE_BODY_BYTES_MAX, QUEUE_DELAY_SECONDS_MAX, QUEUE_MESSAGES_PER_SECOND_MAX,
    QUEUE_METADATA_BYTES, QUEUE_PAGE_MESSAGES_MAX, QUEUE_SEND_BYTES_MAX, QUEUE_SEND_MESSAGES_MAX, QUEUE_VISIBILITY_SECONDS_MAX,
};

use crate::{database, meters};

/// How much of what somebody sent a message shows, in characters.
const SHOWN_CHARS: usize = 64;

/// Why something was not done. Nothing was changed. The text is for whoever sent it and names nothing but what they sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The body is too large.
    #[error("the body has {bytes} bytes; a message has at most {QUEUE_BODY_BYTES_MAX}")]
    Body {
        /// Its length.
        bytes: usize,
    },
    /// The body was said to be text and is not.
    #[error("the body is not UTF-8; send it with encoding `base64`")]
    NotText,
    /// The body was said to be base64 and is not.
    #[error("the body is not base64: {0}")]
    Base64(String),
    /// There is no such encoding.
    #[error("`{0}` is no encoding; a body is `text` or `base64`")]
    Encoding(String),
    /// The batch has too many messages, or none.
    #[error("the batch has {messages} messages; a batch has 1 to {QUEUE_SEND_MESSAGES_MAX}")]
    BatchMessages {
        /// How many.
        messages: usize,
    },
    /// The bodies of the batch are too large together.
    #[error("the bodies of the batch have {bytes} bytes; together they may have {QUEUE_SEND_BYTES_MAX}")]
    BatchBytes {
        /// How many.
        bytes: usize,
    },
    /// The delay is too long.
    #[error("a delay of {seconds} s is too long; it may be {QUEUE_DELAY_SECONDS_MAX} s")]
    Delay {
        /// How long.
        seconds: u32,
    },
    /// Messages come too fast.
    #[error("the queue takes {QUEUE_MESSAGES_PER_SECOND_MAX} messages a second; try again in {wait_ms} ms")]
    Rate {
        /// When there will be room, in ms.
        wait_ms: u64,
    },
    /// There is no room.
    #[error("{bytes} bytes wait in the queue already, {QUEUE_METADATA_BYTES} for each message included; it holds {QUEUE_BACKLOG_BYTES_MAX}")]
    Full {
        /// How much waits, what each message counts beside its body included.
        bytes: u64,
    },
    /// A setting is out of its range.
    #[error("`{name}` is {value}; it must be {least} to {most}")]
    Policy {
        /// Which.
        name: &'static str,
        /// What was sent.
        value: u32,
        /// The least that it may be.
        least: u32,
        /// The most.
        most: u32,
    },
    /// An update changes nothing.
    #[error("the update names no setting")]
    NoChange,
    /// The dead-letter queue is of another service, or is not there.
    #[error("the dead-letter queue must be another queue of the same service")]
    DeadLetter,
    /// Dead letters would come back.
    #[error("dead letters of that queue would come back to this one; one of the queues in a row must have no dead-letter queue")]
    DeadLetterCycle,
    /// A batch that is asked for is too large, or empty.
    #[error("{messages} messages are asked for; a batch has 1 to {QUEUE_BATCH_MESSAGES_MAX}")]
    Batch {
        /// How many.
        messages: usize,
    },
    /// The visibility timeout is out of its range.
    #[error("the visibility timeout is {seconds} s; it must be 1 to {QUEUE_VISIBILITY_SECONDS_MAX}")]
    Visibility {
        /// How long.
        seconds: u32,
    },
    /// The queue delivers to its worker.
    #[error("the queue delivers to its worker; set its consumer to `pull` first")]
    NotPull,
    /// The queue waits for clients.
    #[error("the queue is pulled and delivers to no worker")]
    NotPush,
    /// That is no id of a message.
    #[error("`{0}` is no id of a message")]
    MessageId(String),
    /// That is no lease.
    #[error("`{0}` is no lease of a message of this queue")]
    Lease(String),
    /// A page of a list has too many messages, or none.
    #[error("`limit` must be 1 to {QUEUE_PAGE_MESSAGES_MAX}")]
    Limit,
    /// The cursor was not given out by this list.
    #[error("`{0}` is not a cursor of this list")]
    Cursor(String),
    /// There is no such queue, or it was dropped.
    #[error("the queue has been deleted")]
    Dropped,
    /// A usage cap has no room for it.
    #[error(transparent)]
    Usage(#[from] meters::Exceeded),
    /// The store failed.
    #[error("the queue could not be read or written: {0}")]
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
            Self::Body { .. } => &codes::QUEUE_MESSAGE_TOO_LARGE,
            Self::BatchMessages { messages: 0 } | Self::Batch { .. } | Self::Visibility { .. } | Self::Delay { .. } => &codes::INVALID_REQUEST,
            Self::NotText | Self::Base64(_) | Self::Encoding(_) | Self::NoChange | Self::MessageId(_) | Self::Lease(_) | Self::Limit => {
                &codes::INVALID_REQUEST
            }
            Self::BatchMessages { .. } | Self::BatchBytes { .. } => &codes::QUEUE_BATCH_TOO_LARGE,
            Self::Rate { .. } => &codes::QUEUE_RATE_EXCEEDED,
            Self::Full { .. } => &codes::QUEUE_BACKLOG_FULL,
            Self::Policy { .. } => &codes::QUEUE_POLICY_INVALID,
            Self::DeadLetter | Self::DeadLetterCycle => &codes::QUEUE_DEAD_LETTER_REFUSED,
            Self::NotPull | Self::NotPush => &codes::QUEUE_CONSUMER_MISMATCH,
            Self::Cursor(_) => &codes::INVALID_CURSOR,
            Self::Dropped => &codes::RESOURCE_NOT_FOUND,
            Self::Database(_) => &codes::STORAGE_FAILED,
        }
    }

    /// How long to wait before it is worth trying again, if that is known: the `Retry-After` of an answer.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Rate { wait_ms } => Some(Duration::from_millis(*wait_ms)),
            _ => None,
        }
    }
}

/// As much of what somebody sent as a message may have.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(SHOWN_CHARS).collect()
}
