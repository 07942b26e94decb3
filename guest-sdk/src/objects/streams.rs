//! Objects as streams of the standard library. Pieces cross into the host a few at a time: each crossing costs about as much as copying some KiB.

use std::io::{self, Read, Write};

use super::backend;
use super::types::Object;
use crate::DataError;

/// What is fetched or sent at a time unless more is asked for, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// The bytes of one version of an object, which can be read to their end whatever becomes of it.
pub struct Reader {
    object: Object,
    start: u64,
    length: u64,
    body: backend::Body,
    piece: Vec<u8>,
    at: usize,
}

impl Reader {
    pub(super) fn new(object: Object, start: u64, length: u64, body: backend::Body) -> Self {
        Self { object, start, length, body, piece: Vec::new(), at: 0 }
    }

    /// The object that the bytes are of.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// The offset of the first byte that is read: 0 unless a range was asked for.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// How many bytes are read in all.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next bytes as they come, at most 256 KiB; nothing at the end.
    ///
    /// # Errors
    /// `storage_failed`; `host_busy`, after which the same can be tried again.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, DataError> {
        if self.at < self.piece.len() {
            return Ok(Some(std::mem::take(&mut self.piece).split_off(std::mem::take(&mut self.at))));
        }
        let piece = self.body.read(PIECE_BYTES)?;
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// All bytes that are left.
    ///
    /// # Errors
    /// As [`next_piece`](Self::next_piece).
    pub fn read_all(mut self) -> Result<Vec<u8>, DataError> {
        let mut all = Vec::new();
        while let Some(piece) = self.next_piece()? {
            all.extend(piece);
        }
        Ok(all)
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.at == self.piece.len() {
            self.piece = self.body.read(PIECE_BYTES.max(buffer.len())).map_err(io::Error::other)?;
            self.at = 0;
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let bytes = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..bytes), rest.get(..bytes)) {
            to.copy_from_slice(from);
        }
        self.at += bytes;
        Ok(bytes)
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("object", &self.object).field("length", &self.length).finish_non_exhaustive()
    }
}

/// An object that is being written. It is there once [`finish`](Self::finish) has returned; dropped before, it leaves nothing.
pub struct Writer {
    sink: backend::Sink,
    pending: Vec<u8>,
}

impl Writer {
    pub(super) fn new(sink: backend::Sink) -> Self {
        Self { sink, pending: Vec::new() }
    }

    /// Stores what was written.
    ///
    /// # Errors
    /// Those of [`put`](super::Objects::put); `upload_mismatch` when there are other than the announced bytes.
    pub fn finish(mut self) -> Result<Object, DataError> {
        self.send()?;
        self.sink.finish()
    }

    fn send(&mut self) -> Result<(), DataError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let sent = self.sink.write(&self.pending);
        self.pending.clear();
        sent
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES - self.pending.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.pending.extend_from_slice(taken);
        if self.pending.len() == PIECE_BYTES {
            self.send().map_err(io::Error::other)?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send().map_err(io::Error::other)
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}
