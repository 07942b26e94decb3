//! One pool of slots: what of it is free, what is held, and to which claims it can give one more.

use tovuk_kernel::limits::CHAIN_INVOCATIONS;

use super::RESERVE;

/// Claims run from 0 to 32.
pub(super) const CLAIMS: usize = CHAIN_INVOCATIONS as usize + 1;

/// What one tree may still claim, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filed {
    pub claim: usize,
    pub held: u32,
}

/// A pool in which every tree can get its whole claim, those with the smallest claim first.
pub(super) struct Pool {
    pub free: u32,
    /// Per claim: how many slots the trees that have it hold together.
    held: [u32; CLAIMS],
}

impl Pool {
    pub fn new(total: u32) -> Self {
        Self { free: total, held: [0; CLAIMS] }
    }

    /// A tree has changed.
    pub fn refile(&mut self, before: Filed, after: Filed) {
        if let Some(held) = self.held.get_mut(before.claim) {
            *held -= before.held;
        }
        if let Some(held) = self.held.get_mut(after.claim) {
            *held += after.held;
        }
        self.free = self.free + before.held - after.held;
    }

    /// Whether a new tree can begin: it leaves what it may still claim.
    pub fn admits(&self) -> bool {
        self.free > RESERVE
    }

    /// Whether a waiting hop of a tree with this claim can have a slot.
    pub fn gives(&self, claim: usize) -> bool {
        self.free > 0 && (self.free >= RESERVE || claim <= self.reach())
    }

    /// The largest claim whose trees can have one more slot. All smaller ones can, too.
    ///
    /// A slot for a tree of claim `c` makes it one of claim `c - 1` and takes one of what is free. What is returned by trees up to `c - 1` before a tree of a larger
    /// claim has its turn is one more, so nothing changes for those. The order remains if, with one slot less, trees of each claim below `c` that there
    /// is can still have theirs, and `c - 1` could be had as well. Where a claim cannot be had that no tree has, nor can those above it,
    /// because nothing is returned at that claim. So it is the first claim that could not be had with one slot less.
    pub fn reach(&self) -> usize {
        let Some(mut at_hand) = self.free.checked_sub(1) else { return 0 };
        for (claim, held) in self.held.iter().enumerate() {
            if claim as u32 > at_hand {
                return claim;
            }
            at_hand += held;
        }
        CLAIMS
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.held.iter().all(|held| *held == 0)
    }
}
