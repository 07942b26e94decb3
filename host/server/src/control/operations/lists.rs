//! Lists of keys and objects that can be asked for whole: how much of one an answer may have.

use tovuk_kernel::codes;
use tovuk_runtime::memory::Reservation;

use crate::control::{Control, Refusal};

/// What a whole list may take: it counts as host memory, and ends when it is long.
pub(super) struct Room {
    memory: Reservation,
    bytes: usize,
    bytes_max: usize,
}

impl Room {
    /// Room for about so many bytes of an answer.
    pub(super) fn new(control: &Control, bytes_max: usize) -> Self {
        Self { memory: control.runtime().memory().reserve(), bytes: 0, bytes_max }
    }

    /// Whether one more page may be added.
    pub(super) fn is_left(&self) -> bool {
        self.bytes < self.bytes_max
    }

    /// Takes what a page needs. The first one is always given: it is small.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        if self.bytes > 0 && !self.memory.grow(bytes as u64) {
            return Err(Refusal::new(&codes::HOST_BUSY, "the host has no memory left for this list; try again shortly, or ask for less at a time"));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// What was taken, for as long as the answer is.
    pub(super) fn into_memory(self) -> Reservation {
        self.memory
    }
}

/// The limit of a request, as stores have it.
pub(super) fn page_limit(limit: u32) -> Option<usize> {
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// What a text takes in an answer.
pub(super) fn written_bytes(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        0..=0x1f => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}
