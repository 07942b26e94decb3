//! How much memory the bodies of API requests hold at a time: of all accounts together, and of one. Whoever sends slowly holds its own share and no more.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tovuk_kernel::limits::{API_BODIES_ACCOUNT_MIB_MAX, API_BODIES_MIB_MAX};

/// The memory of all bodies. Clones share it.
#[derive(Clone)]
pub(super) struct Bodies {
    all: Arc<Semaphore>,
    accounts: Arc<DashMap<i64, u32>>,
}

/// Memory that one body holds, until this is dropped.
pub(super) struct Held {
    bodies: Bodies,
    account: i64,
    mib: u32,
    _permit: OwnedSemaphorePermit,
}

impl Bodies {
    pub fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(API_BODIES_MIB_MAX as usize)), accounts: Arc::default() }
    }

    /// Room for a body of this account; nothing when there is too little.
    pub fn hold(&self, account: i64, mib: u32) -> Option<Held> {
        let mut taken = self.accounts.entry(account).or_default();
        let wanted = taken.saturating_add(mib);
        if wanted > API_BODIES_ACCOUNT_MIB_MAX {
            return None;
        }
        let permit = self.all.clone().try_acquire_many_owned(mib).ok()?;
        *taken = wanted;
        drop(taken);
        Some(Held { bodies: self.clone(), account, mib, _permit: permit })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut taken) = self.bodies.accounts.get_mut(&self.account) {
            *taken = taken.saturating_sub(self.mib);
        }
        self.bodies.accounts.remove_if(&self.account, |_, taken| *taken == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_account_cannot_take_the_room_of_all() {
        let bodies = Bodies::new();
        let first = bodies.hold(1, API_BODIES_ACCOUNT_MIB_MAX);
        assert!(first.is_some());
        assert!(bodies.hold(1, 1).is_none(), "its own share is used up");
        let second = bodies.hold(2, API_BODIES_ACCOUNT_MIB_MAX);
        assert!(second.is_some(), "others have theirs");
        assert!(bodies.hold(3, 1).is_none(), "all is used up");
        drop((first, second));
        assert!(bodies.accounts.is_empty());
        assert!(bodies.hold(1, 1).is_some());
    }
}
