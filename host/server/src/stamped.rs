//! Ids of rows that tell when they were written, and how they stand in cursors: what the stores of logs and of traces have in common.

use std::sync::atomic::{AtomicI64, Ordering};

use tovuk_kernel::clock::UnixMs;

/// Ids are the time of writing, in ms, times this, so that age is a range of ids.
const IDS_PER_MS: i64 = 1 << 20;

/// Gives out ids: ever larger ones, that tell the time of writing. Only asked by the thread that writes, so that whoever has read up to an id has
/// read everything before it.
pub(crate) struct Ids(AtomicI64);

impl Ids {
    /// After the last that was given out.
    pub fn after(last: i64) -> Self {
        Self(AtomicI64::new(last))
    }

    /// The next, for a row that is written then.
    pub fn next(&self, now_ms: UnixMs) -> i64 {
        let next = first_id_at(now_ms).max(self.0.load(Ordering::Relaxed).saturating_add(1));
        self.0.store(next, Ordering::Relaxed);
        next
    }
}

/// The smallest id of a row that is written then.
pub(crate) fn first_id_at(unix_ms: UnixMs) -> i64 {
    i64::try_from(unix_ms).unwrap_or(i64::MAX).saturating_mul(IDS_PER_MS)
}

/// The id in a cursor, only as it was given out: `parse` alone would take `+7` and `007`.
pub(crate) fn id_of(digits: &str) -> Option<i64> {
    digits.parse().ok().filter(|id: &i64| id.to_string() == digits)
}

/// As much of a wrong cursor, or of what else was asked for, as a message may have.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(64).collect()
}
