//! What an account has begun, so that a flood of computations, each too short to be put in line, is in line all the same.

use std::sync::atomic::{AtomicU64, Ordering};

/// An account whose guests have more than this before them, in ns of CPU time, by what its last ones used, has the next begin in line.
const BACKLOG_NS: u64 = 50_000_000;
/// Guests that use less than this are done sooner than they are moved.
const SHORT_NS: u64 = 100_000;
/// The mean follows what guests use by this part of the difference, as a power of two.
const FOLLOWS: u32 = 4;

/// The guests of one account that have begun and were not called by others.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    begun: AtomicU64,
    /// What one uses with what it calls, in ns.
    mean_ns: AtomicU64,
}

impl Backlog {
    /// One begins. Whether that is in line.
    pub fn begin(&self) -> bool {
        let before = self.begun.fetch_add(1, Ordering::Relaxed);
        let mean_ns = self.mean_ns.load(Ordering::Relaxed);
        mean_ns > SHORT_NS && mean_ns.saturating_mul(before) > BACKLOG_NS
    }

    /// One has ended that used so much.
    pub fn end(&self, used_ns: u64) {
        self.begun.fetch_sub(1, Ordering::Relaxed);
        // Two that end at once may lose one of them, which a mean can bear.
        let mean_ns = self.mean_ns.load(Ordering::Relaxed);
        self.mean_ns.store(mean_ns - (mean_ns >> FOLLOWS) + (used_ns >> FOLLOWS), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_that_use_much_have_the_next_begin_in_line_and_short_ones_never() {
        let backlog = Backlog::default();
        for _ in 0..200 {
            backlog.begin();
            backlog.end(1_000_000);
        }
        assert_eq!((0..100).filter(|_| !backlog.begin()).count(), 51, "50 of a millisecond, and one that was before them");
        (0..100).for_each(|_| backlog.end(20_000));
        assert_eq!(backlog.begun.load(Ordering::Relaxed), 0);
        assert!((0..5_000).all(|_| !backlog.begin()));
    }
}
