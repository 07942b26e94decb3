//! A body on its way in: it is counted, digested, looked at and cut into chunks, and never more than one chunk of it is held.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use ring::digest::{Context, SHA256};

use super::uploads::Room;
use super::{Error, media};

/// The SHA-256 of some bytes.
pub(super) type Digest = [u8; 32];

/// How many bytes have to come.
pub(super) enum Expected {
    /// Exactly these.
    Exactly(u64),
    /// As many as there are, for as long as there is room.
    Growing(Room),
}

impl Expected {
    /// How many may come at most, if that is known.
    pub fn at_most(&self) -> Option<u64> {
        match self {
            Self::Exactly(bytes) => Some(*bytes),
            Self::Growing(_) => None,
        }
    }
}

pub(super) struct Incoming<S> {
    body: S,
    /// What has come and is part of the next chunk.
    rest: Bytes,
    received: u64,
    expected: Expected,
    digest: Context,
    /// The content type of a public object that begins here.
    public_type: Option<String>,
}

impl<S: Stream<Item = Result<Bytes, Error>> + Send + Unpin> Incoming<S> {
    pub fn new(body: S, expected: Expected, public_type: Option<String>) -> Self {
        Self { body, rest: Bytes::new(), received: 0, expected, digest: Context::new(&SHA256), public_type }
    }

    /// The next chunk: of exactly this size unless it is the last; empty at the end.
    ///
    /// The bytes are copied: a frame of one byte may hold a whole buffer of the connection.
    pub async fn next_chunk(&mut self, bytes: usize) -> Result<Bytes, Error> {
        let mut chunk = BytesMut::new();
        while chunk.len() < bytes {
            if self.rest.is_empty() {
                match self.body.next().await {
                    Some(frame) => self.rest = self.admit(frame?).await?,
                    None => break,
                }
                continue;
            }
            let taken = self.rest.split_to(self.rest.len().min(bytes - chunk.len()));
            if chunk.is_empty() && chunk.capacity() < bytes {
                chunk.reserve(self.hint(bytes));
            }
            chunk.extend_from_slice(&taken);
        }
        if let Some(content_type) = self.public_type.take() {
            media::check(&content_type, chunk.get(..media::HEAD_BYTES).unwrap_or(&chunk))?;
        }
        self.digest.update(&chunk);
        Ok(chunk.freeze())
    }

    /// Room for a chunk, without taking more than will come.
    fn hint(&self, bytes: usize) -> usize {
        match &self.expected {
            Expected::Exactly(total) => {
                let before = self.received - self.rest.len() as u64;
                bytes.min(usize::try_from(total.saturating_sub(before)).unwrap_or(bytes)).max(self.rest.len().min(bytes))
            }
            Expected::Growing(_) => self.rest.len().min(bytes),
        }
    }

    async fn admit(&mut self, frame: Bytes) -> Result<Bytes, Error> {
        self.received = self.received.saturating_add(frame.len() as u64);
        match &mut self.expected {
            Expected::Exactly(bytes) if self.received > *bytes => {
                Err(Error::Mismatch(format!("more came than the {bytes} bytes that were announced")))
            }
            Expected::Exactly(_) => Ok(frame),
            Expected::Growing(room) => room.grow_to(self.received).await.map(|()| frame),
        }
    }

    /// Checks that everything has come.
    pub fn finish(&self) -> Result<(), Error> {
        match &self.expected {
            Expected::Exactly(bytes) if self.received != *bytes => {
                Err(Error::Mismatch(format!("{} bytes came and {bytes} were announced", self.received)))
            }
            _ => Ok(()),
        }
    }

    /// How many bytes have come, and their digest.
    pub fn summary(self) -> (u64, Digest) {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.digest.finish().as_ref());
        (self.received, digest)
    }
}
