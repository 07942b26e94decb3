//! What the operations of queues take and answer, and which messages are refused. Nothing here touches a file.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::{QUEUE_BODY_BYTES_MAX, QUEUE_DELAY_SECONDS_MAX, QUEUE_OPERATION_BYTES, QUEUE_SEND_BYTES_MAX, QUEUE_SEND_MESSAGES_MAX};

use super::Error;
use super::error::shown;

/// The number that the control database has given to a queue. It is never given to another: what was dropped stays dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue(pub i64);

/// The number of the service that a queue belongs to. Queues of one service lie in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Service(pub i64);

impl Display for Queue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which message of the host. Clients get it as opaque text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId {
    /// The queue that it is in.
    pub queue: Queue,
    /// Which of the queue: counts up in the order in which messages came.
    pub sequence: i64,
}

impl Display for MessageId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.queue.0, self.sequence)
    }
}

impl FromStr for MessageId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = text.split_once('-').and_then(|(queue, sequence)| Some((hexadecimal(queue)?, hexadecimal(sequence)?)));
        // Only what is written exactly so is an id, so that a message has one.
        let id = parsed.map(|(queue, sequence)| Self { queue: Queue(queue), sequence }).filter(|id| id.to_string() == text);
        id.ok_or_else(|| Error::MessageId(shown(text)))
    }
}

/// The right to settle a message that was pulled, until somebody else has pulled it. Clients get it as opaque text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The message.
    pub id: MessageId,
    /// Drawn at random when it was pulled.
    pub(super) secret: i64,
}

impl Display for Lease {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.id, self.secret)
    }
}

impl FromStr for Lease {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = text.rsplit_once('-').and_then(|(id, secret)| Some(Self { id: id.parse().ok()?, secret: hexadecimal(secret)? }));
        parsed.filter(|lease| lease.to_string() == text).ok_or_else(|| Error::Lease(shown(text)))
    }
}

fn hexadecimal(text: &str) -> Option<i64> {
    i64::from_str_radix(text, 16).ok().filter(|number| *number >= 0)
}

/// How a body was sent, and is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As text.
    #[default]
    Text,
    /// As base64 of bytes.
    Base64,
}

impl Encoding {
    /// The encoding of this name: `text` or `base64`.
    ///
    /// # Errors
    /// [`Error::Encoding`] for any other name.
    pub fn named(name: &str) -> Result<Self, Error> {
        match name {
            "text" => Ok(Self::Text),
            "base64" => Ok(Self::Base64),
            _ => Err(Error::Encoding(shown(name))),
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Base64 => "base64",
        }
    }

    pub(super) fn stored(number: i64) -> Self {
        if number == 0 { Self::Text } else { Self::Base64 }
    }

    pub(super) fn number(self) -> i64 {
        match self {
            Self::Text => 0,
            Self::Base64 => 1,
        }
    }
}

/// A message to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Send {
    /// At most 127,900 bytes.
    pub body: Bytes,
    /// How it was sent. A body that was sent as text is UTF-8.
    pub encoding: Encoding,
    /// In how many seconds it may be delivered, at most 24 hours. 0 is at once; the queue's own delay counts if not given.
    pub delay_seconds: Option<u32>,
}

impl Send {
    /// A message from the text of a request, which is decoded.
    ///
    /// # Errors
    /// [`Error::Base64`] when the text is none.
    pub fn from_text(text: String, encoding: Encoding, delay_seconds: Option<u32>) -> Result<Self, Error> {
        let body = match encoding {
            Encoding::Text => Bytes::from(text),
            Encoding::Base64 => Bytes::from(BASE64_STANDARD.decode(text).map_err(|error| Error::Base64(error.to_string()))?),
        };
        Ok(Self { body, encoding, delay_seconds })
    }
}

/// What waits in a queue, what is being delivered included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages.
    pub messages: u64,
    /// Their bodies, in bytes.
    pub bytes: u64,
}

/// What waits in all queues of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TotalBacklog {
    /// How many queues there are.
    pub queues: u64,
    /// What waits in them.
    pub backlog: Backlog,
    /// How long the oldest message has waited, in ms; 0 when there is none.
    pub oldest_age_ms: u64,
}

/// The answer to a send: it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The messages, in the order of the request.
    pub ids: Vec<MessageId>,
    /// Their bodies, in bytes.
    pub bytes: u64,
    /// What was written, in metered operations of 64 KB.
    pub operations: u64,
    /// What waits now.
    pub backlog: Backlog,
}

/// A message that is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// When it came into this queue.
    pub sent_ms: UnixMs,
    /// Which delivery this is, counted from 1; those that the host itself cut short do not count.
    pub attempts: u32,
    /// How it was sent.
    pub encoding: Encoding,
    /// The body.
    pub body: Bytes,
}

impl Message {
    /// What reading, writing or deleting it costs, in metered operations.
    pub fn operations(&self) -> u64 {
        operations(self.body.len())
    }

    /// The body as text, in its encoding.
    pub fn text(&self) -> String {
        match self.encoding {
            Encoding::Text => String::from_utf8_lossy(&self.body).into_owned(),
            Encoding::Base64 => BASE64_STANDARD.encode(&self.body),
        }
    }
}

/// A message that is to be delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry<T> {
    /// Which.
    pub what: T,
    /// In how many seconds, at most 24 hours; at once if not given.
    pub delay_seconds: Option<u32>,
}

/// What has become of messages that were delivered. It is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Messages that are done.
    pub acked: u64,
    /// Messages that will be delivered again.
    pub retried: u64,
    /// Messages that have failed for the last time and are in the dead-letter queue now, as what they were and what they are.
    pub dead_lettered: Vec<(MessageId, MessageId)>,
    /// Messages that have failed for the last time and are gone, because there is no dead-letter queue.
    pub discarded: Vec<MessageId>,
    /// Messages that were not there: expired, or settled by somebody else.
    pub gone: Vec<MessageId>,
    /// What was deleted, and written as dead letters, in metered operations.
    pub operations: u64,
}

/// What reading, writing or deleting a body costs, in metered operations.
pub(super) fn operations(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX).div_ceil(QUEUE_OPERATION_BYTES).max(1)
}

/// Refuses what may not be sent in one request. Returns the bytes of all bodies, and what they cost.
pub(super) fn check_sends(sends: &[Send]) -> Result<(u64, u64), Error> {
    if !(1..=QUEUE_SEND_MESSAGES_MAX).contains(&sends.len()) {
        return Err(Error::BatchMessages { messages: sends.len() });
    }
    let (mut bytes, mut cost) = (0_usize, 0);
    for send in sends {
        if send.body.len() > QUEUE_BODY_BYTES_MAX {
            return Err(Error::Body { bytes: send.body.len() });
        }
        if send.encoding == Encoding::Text && std::str::from_utf8(&send.body).is_err() {
            return Err(Error::NotText);
        }
        check_delay(send.delay_seconds)?;
        bytes = bytes.saturating_add(send.body.len());
        cost += operations(send.body.len());
    }
    // One message alone is smaller than this.
    if bytes > QUEUE_SEND_BYTES_MAX {
        return Err(Error::BatchBytes { bytes });
    }
    Ok((u64::try_from(bytes).unwrap_or(u64::MAX), cost))
}

/// Refuses a delay that is too long.
pub(super) fn check_delay(seconds: Option<u32>) -> Result<(), Error> {
    match seconds {
        Some(seconds) if seconds > QUEUE_DELAY_SECONDS_MAX => Err(Error::Delay { seconds }),
        _ => Ok(()),
    }
}
