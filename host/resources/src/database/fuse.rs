//! The death of a store at a chosen moment, for tests: between two commits, or between a commit and the answer to it. A host never has a fuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Burns down by one with each moment at which a process could die. When it is out, nothing is written any more and nobody is answered, as if the process had
/// ended; what was committed before stays. Clones are the same fuse, so that stores die together.
#[derive(Clone, Debug)]
pub struct Fuse(Arc<AtomicI64>);

impl Fuse {
    /// One that lasts for so many moments. Each commit has two: before it, and after it and before its answers.
    pub fn of(moments: u32) -> Self {
        Self(Arc::new(AtomicI64::new(i64::from(moments))))
    }

    /// Whether the stores that have it are dead.
    pub fn is_out(&self) -> bool {
        self.0.load(Ordering::SeqCst) <= 0
    }

    /// A moment passes. Whether whoever asks still lives.
    pub(crate) fn burn(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) > 1
    }
}

/// A moment passes for a store that may have a fuse. Whether it still lives.
pub(crate) fn lives(fuse: Option<&Fuse>) -> bool {
    fuse.is_none_or(Fuse::burn)
}
