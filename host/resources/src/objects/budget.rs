//! Memory for what is being received: so much for all, less for one account and less still for one service, so that nobody can take what others need.
//!
//! Who sends nothing holds nothing. The first bytes of a chunk have room of their own, and room for the whole chunk is taken only when those have come, so
//! that it cannot be held by senders of single bytes. Who waits for room holds at most such a beginning, and who has room for a whole chunk waits for nobody
//! but its sender: so room becomes free, whatever waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tovuk_kernel::limits;

/// Accounts or services that are remembered before those that receive nothing are forgotten.
const REMEMBERED: usize = 1_024;
/// The first bytes of a chunk, for which little is taken.
pub(super) const BEGINNING_BYTES: usize = 64 << 10;

/// The memory of the host for what is being received.
pub(super) struct Budget {
    /// For the first bytes of chunks.
    beginnings: Pool,
    /// For chunks.
    chunks: Pool,
}

impl Budget {
    pub fn new() -> Self {
        let (beginnings, chunks) = (limits::OBJECT_BEGINNINGS_MIB_MAX, limits::OBJECT_BUFFERS_MIB_MAX);
        Self {
            beginnings: Pool::new(beginnings, limits::OBJECT_BEGINNINGS_ACCOUNT_MIB_MAX, limits::OBJECT_BEGINNINGS_SERVICE_MIB_MAX),
            chunks: Pool::new(chunks, limits::OBJECT_BUFFERS_ACCOUNT_MIB_MAX, limits::OBJECT_BUFFERS_SERVICE_MIB_MAX),
        }
    }
}

/// The memory that a service of an account receives with.
#[derive(Clone)]
pub(super) struct Purse {
    pub budget: Arc<Budget>,
    pub account: i64,
    pub service: i64,
}

impl Purse {
    /// Waits until there is room for the first bytes of a chunk.
    pub async fn begin(&self) -> Option<Share> {
        self.budget.beginnings.take(self.account, self.service, BEGINNING_BYTES as u64).await
    }

    /// Waits until there is room for a chunk.
    pub async fn take(&self, bytes: usize) -> Option<Share> {
        self.budget.chunks.take(self.account, self.service, bytes as u64).await
    }
}

struct Pool {
    all: Arc<Semaphore>,
    accounts: Own,
    services: Own,
}

/// Memory that is taken, given back when this is gone. It keeps the shares that it is of known, too.
pub(super) struct Share {
    _all: OwnedSemaphorePermit,
    _of_account: OwnedSemaphorePermit,
    _of_service: OwnedSemaphorePermit,
}

impl Pool {
    /// So much for all, for one account and for one service, in MiB.
    fn new(all_mib: u32, account_mib: u32, service_mib: u32) -> Self {
        Self { all: semaphore(all_mib.saturating_mul(1_024)), accounts: Own::new(account_mib), services: Own::new(service_mib) }
    }

    /// Waits until there is memory for so many bytes. None when the host ends.
    async fn take(&self, account: i64, service: i64, bytes: u64) -> Option<Share> {
        let kib = u32::try_from(bytes.div_ceil(1_024)).unwrap_or(u32::MAX).clamp(1, self.services.kib.max(1));
        // First its own: who waits for his own share must not hold what others could use.
        let of_service = self.services.of(service).acquire_many_owned(kib).await.ok()?;
        let of_account = self.accounts.of(account).acquire_many_owned(kib).await.ok()?;
        let all = self.all.clone().acquire_many_owned(kib).await.ok()?;
        Some(Share { _all: all, _of_account: of_account, _of_service: of_service })
    }
}

/// What each account, or each service, may take.
struct Own {
    kib: u32,
    known: Mutex<HashMap<i64, Weak<Semaphore>>>,
}

impl Own {
    fn new(mib: u32) -> Self {
        Self { kib: mib.saturating_mul(1_024), known: Mutex::default() }
    }

    fn of(&self, number: i64) -> Arc<Semaphore> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = known.get(&number).and_then(Weak::upgrade) {
            return own;
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, own| own.strong_count() > 0);
        }
        let own = semaphore(self.kib);
        known.insert(number, Arc::downgrade(&own));
        own
    }
}

fn semaphore(kib: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(usize::try_from(kib).unwrap_or(usize::MAX).max(1)))
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn a_service_and_an_account_wait_for_their_own_shares_and_leave_the_rest_to_others() {
        let pool = Pool::new(4, 3, 2);
        let first = pool.take(1, 1, 2 << 20).await.unwrap();
        let mut second = Box::pin(pool.take(1, 1, 1));
        assert!(poll!(&mut second).is_pending(), "the service has its share");
        let beside = pool.take(1, 2, 1 << 20).await.unwrap();
        let mut more = Box::pin(pool.take(1, 3, 1));
        assert!(poll!(&mut more).is_pending(), "the account has its share");
        let other = pool.take(2, 4, 1 << 20).await.unwrap();
        let mut third = Box::pin(pool.take(3, 5, 1));
        assert!(poll!(&mut third).is_pending(), "all of it is taken");
        drop(other);
        third.await.unwrap();
        assert!(poll!(&mut second).is_pending());
        drop(first);
        second.await.unwrap();
        more.await.unwrap();
        drop(beside);
        for number in 0..3 * REMEMBERED as i64 {
            pool.take(number, number, u64::MAX).await.unwrap();
        }
        assert!(pool.services.known.lock().unwrap().len() <= REMEMBERED);
        assert!(pool.accounts.known.lock().unwrap().len() <= REMEMBERED);
    }
}
