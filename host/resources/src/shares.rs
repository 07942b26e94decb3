//! What each account, or each service, may have of something at a time, so that others have the rest. Nobody is remembered who holds nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

/// Owners that are remembered before those that hold nothing are forgotten.
const REMEMBERED: usize = 1_024;

/// A share for each owner, all of one size.
pub struct Shares {
    size: u32,
    known: Mutex<HashMap<i64, Weak<Semaphore>>>,
}

impl Shares {
    /// Shares of so many permits.
    pub fn new(size: u32) -> Self {
        Self { size: size.max(1), known: Mutex::default() }
    }

    /// The permits of one share. Asking for more at once waits for ever.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The share of the owner of this number.
    pub fn of(&self, number: i64) -> Arc<Semaphore> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = known.get(&number).and_then(Weak::upgrade) {
            return own;
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, own| own.strong_count() > 0);
        }
        let own = Arc::new(Semaphore::new(usize::try_from(self.size).unwrap_or(usize::MAX)));
        known.insert(number, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_one_for_whoever_asks_and_those_that_nobody_holds_are_forgotten() {
        let shares = Shares::new(2);
        let own = shares.of(-1);
        for number in 0..3 * REMEMBERED as i64 {
            assert_eq!(shares.of(number).available_permits(), 2);
        }
        assert!(shares.known.lock().unwrap_or_else(PoisonError::into_inner).len() <= REMEMBERED);
        assert!(Arc::ptr_eq(&own, &shares.of(-1)));
    }
}
