//! How much memory the bodies of API requests hold at a time: of all accounts together, and of one. Whoever sends slowly holds its own share and no more.
//! It is not the memory of guests: whatever they use up, an operator is still heard.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tovuk_kernel::limits::{API_BODIES_ACCOUNT_MIB_MAX, API_BODIES_MIB_MAX};
use tovuk_runtime::memory::HostMemory;

/// Bodies up to this do not wait for the room of large ones, so that whoever uploads does not keep others from asking.
const SMALL_BYTES: u64 = 1 << 20;

/// The memory of all bodies. Clones share it.
#[derive(Clone)]
pub(super) struct Bodies {
    /// MiB that large ones may take.
    large: Arc<Semaphore>,
    /// KiB that each account has taken.
    accounts: Arc<DashMap<i64, u64>>,
    memory: HostMemory,
}

/// Memory that one body holds, until this is dropped.
pub(super) struct Held {
    bodies: Bodies,
    account: i64,
    kib: u64,
    _large: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    pub fn new() -> Self {
        // Small ones have as much again.
        let memory = HostMemory::new(u64::from(2 * API_BODIES_MIB_MAX) << 20);
        Self { large: Arc::new(Semaphore::new(API_BODIES_MIB_MAX as usize)), accounts: Arc::default(), memory }
    }

    /// What bodies are counted in while they arrive.
    pub fn memory(&self) -> &HostMemory {
        &self.memory
    }

    /// Room for a body of this account; nothing when there is too little.
    pub fn hold(&self, account: i64, bytes: u64) -> Option<Held> {
        // Of all first: given back by being dropped when the account's own share is used up.
        let mib = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        let large = (bytes > SMALL_BYTES).then(|| self.large.clone().try_acquire_many_owned(mib)).transpose().ok()?;
        let kib = bytes.div_ceil(1 << 10);
        let mut taken = self.accounts.entry(account).or_default();
        let wanted = taken.saturating_add(kib);
        if wanted > u64::from(API_BODIES_ACCOUNT_MIB_MAX) << 10 {
            drop(taken);
            self.accounts.remove_if(&account, |_, taken| *taken == 0);
            return None;
        }
        *taken = wanted;
        drop(taken);
        Some(Held { bodies: self.clone(), account, kib, _large: large })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut taken) = self.bodies.accounts.get_mut(&self.account) {
            *taken = taken.saturating_sub(self.kib);
        }
        self.bodies.accounts.remove_if(&self.account, |_, taken| *taken == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_OF_ONE: u64 = (API_BODIES_ACCOUNT_MIB_MAX as u64) << 20;

    #[test]
    fn one_account_cannot_take_the_room_of_all() {
        let bodies = Bodies::new();
        let first = bodies.hold(1, ALL_OF_ONE);
        assert!(first.is_some());
        assert!(bodies.hold(1, 1).is_none(), "its own share is used up");
        let second = bodies.hold(2, ALL_OF_ONE);
        assert!(second.is_some(), "others have theirs");
        assert!(bodies.hold(3, SMALL_BYTES + 1).is_none(), "all is used up");
        assert!(bodies.hold(3, SMALL_BYTES).is_some(), "a small one needs none of it");
        drop((first, second));
        assert!(bodies.accounts.is_empty());
        assert!(bodies.hold(1, 1).is_some());
    }
}
