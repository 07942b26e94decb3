//! Readers that count: what comes in compressed, and what comes out of it. Their limits are on what was read, so no header can lie about it.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use super::{ArchiveError, ArchiveLimits, CHUNK_BYTES, HEADERS_PER_FILE, OVERHEAD_BYTES_PER_ENTRY, Problem};

/// The compressed side.
pub(super) struct Compressed<R> {
    inner: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Compressed<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, bytes: Rc::default() }
    }

    /// How much was read so far.
    pub(super) fn count(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.bytes)
    }
}

impl<R: Read> Read for Compressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

/// The tar as it comes out of the decompressor.
pub(super) struct Stream<R> {
    inner: R,
    bytes: u64,
    /// How many zeros were read last, without a break.
    zeros: u64,
    bytes_max: u64,
    limits: ArchiveLimits,
    compressed: Option<Rc<Cell<u64>>>,
}

impl<R: Read> Stream<R> {
    /// A tar, and how much of it was read in compressed form.
    pub(super) fn new(inner: R, limits: &ArchiveLimits, compressed: Option<Rc<Cell<u64>>>) -> Self {
        let overhead = limits.files.saturating_mul(HEADERS_PER_FILE * OVERHEAD_BYTES_PER_ENTRY);
        // Headers compress well and cost time rather than space, so they get no more than the content does.
        let bytes_max = limits.bytes.saturating_add(overhead.min(limits.bytes)).saturating_add(1 << 20);
        Self { inner, bytes: 0, zeros: 0, bytes_max, limits: *limits, compressed }
    }

    fn check(&self) -> Result<(), Problem> {
        if self.bytes > self.bytes_max {
            return Err(Problem::TooLarge { max: self.limits.bytes });
        }
        let compressed = self.compressed.as_ref().map(|bytes| bytes.get());
        if compressed.is_some_and(|bytes| self.bytes > self.limits.ratio_from_bytes.max(bytes.saturating_mul(self.limits.ratio))) {
            return Err(Problem::Ratio { max: self.limits.ratio });
        }
        Ok(())
    }

    /// Reads to the end of the stream, which checks its sum. `end` zeros must stand there, and after the first of them nothing else.
    pub(super) fn finish(mut self, end: u64) -> Result<(), ArchiveError> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = self.read(&mut chunk).map_err(ArchiveError::read)?;
            match chunk.get(..read) {
                None | Some([]) => break,
                Some(piece) if piece.iter().any(|byte| *byte != 0) => return Err(Problem::TrailingBytes.into()),
                Some(_) => {}
            }
        }
        if self.zeros < end { Err(Problem::Truncated.into()) } else { Ok(()) }
    }
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        self.check().map_err(io::Error::other)?;
        let piece = buffer.get(..read).unwrap_or_default();
        let zeros = piece.iter().rev().take_while(|byte| **byte == 0).count() as u64;
        self.zeros = if zeros == read as u64 { self.zeros + zeros } else { zeros };
        Ok(read)
    }
}
