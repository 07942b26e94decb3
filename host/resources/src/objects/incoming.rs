//! A body on its way in: it is counted, digested, looked at and cut into chunks, and never more than one chunk of it is held. What has come of a chunk waits
//! in memory for the rest, so the rest has to come in time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use ring::digest::{Context, SHA256};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::limits::{BODY_STALL_SECONDS_MAX, OBJECT_BYTES_PER_SECOND_MIN};

use super::budget::{BEGINNING_BYTES, Purse, Share};
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

/// Bytes that are to be written together, and the memory that they have.
pub(super) struct Piece {
    pub bytes: Bytes,
    pub memory: Option<Share>,
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
    purse: Purse,
    clock: Clock,
}

impl<S: Stream<Item = Result<Bytes, Error>> + Send + Unpin> Incoming<S> {
    pub fn new(body: S, expected: Expected, public_type: Option<String>, purse: Purse, clock: Clock) -> Self {
        Self { body, rest: Bytes::new(), received: 0, expected, digest: Context::new(&SHA256), public_type, purse, clock }
    }

    /// The next chunk: of exactly this size unless it is the last; empty at the end.
    ///
    /// The bytes are copied: a frame of one byte may hold a whole buffer of the connection.
    pub async fn next_chunk(&mut self, bytes: usize) -> Result<Piece, Error> {
        let mut chunk = BytesMut::new();
        let mut memory = None;
        // Nothing is taken before there is something.
        if self.has_more().await? {
            memory = self.purse.begin().await;
            self.fill_in_time(&mut chunk, bytes.min(BEGINNING_BYTES)).await?;
            if chunk.len() == BEGINNING_BYTES {
                let whole = self.whole(chunk.len(), bytes);
                if whole > chunk.len() {
                    // The wait for memory is not of the sender's time.
                    memory = self.purse.take(whole).await;
                    chunk.reserve(whole - chunk.len());
                }
                // Also where nothing more may come: whether it does is told by the body's end.
                self.fill_in_time(&mut chunk, bytes).await?;
            }
        }
        if let Some(content_type) = self.public_type.take() {
            media::check(&content_type, chunk.get(..media::HEAD_BYTES).unwrap_or(&chunk))?;
        }
        self.digest.update(&chunk);
        Ok(Piece { bytes: chunk.freeze(), memory })
    }

    /// How large a chunk becomes of which so much has come, at most.
    fn whole(&self, come: usize, bytes: usize) -> usize {
        match &self.expected {
            Expected::Exactly(total) => {
                let left = total.saturating_sub(self.received).saturating_add(self.rest.len() as u64);
                bytes.min(come.saturating_add(usize::try_from(left).unwrap_or(bytes))).max(come)
            }
            Expected::Growing(_) => bytes,
        }
    }

    /// Fills a chunk up to this size or the end, at the rate that a sender has to keep.
    async fn fill_in_time(&mut self, chunk: &mut BytesMut, bytes: usize) -> Result<(), Error> {
        let clock = self.clock.clone();
        let slowest = BODY_STALL_SECONDS_MAX + (bytes - chunk.len()) as u64 / OBJECT_BYTES_PER_SECOND_MIN;
        let filled = clock.timeout(Duration::from_secs(slowest), self.fill(chunk, bytes)).await;
        filled.unwrap_or_else(|| Err(Error::Interrupted(format!("{bytes} bytes at a time have to come within {slowest} s"))))
    }

    async fn fill(&mut self, chunk: &mut BytesMut, bytes: usize) -> Result<(), Error> {
        while chunk.len() < bytes && self.has_more().await? {
            let taken = self.rest.split_to(self.rest.len().min(bytes - chunk.len()));
            chunk.extend_from_slice(&taken);
        }
        Ok(())
    }

    /// Waits for bytes that are not part of a chunk yet. Whether there are any.
    async fn has_more(&mut self) -> Result<bool, Error> {
        while self.rest.is_empty() {
            match self.body.next().await {
                Some(frame) => self.rest = self.admit(frame?).await?,
                None => return Ok(false),
            }
        }
        Ok(true)
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
