//! Memory for what is being received: so much for all, less for one account and less still for one service, so that nobody can take what others need.
//!
//! Who sends nothing holds nothing. The first bytes of a chunk have room of their own, and room for the whole chunk is taken only when those have come, so
//! that it cannot be held by senders of single bytes. Who waits for room holds at most such a beginning, and who has room for a whole chunk waits for nobody
//! but its sender: so room becomes free, whatever waits for it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tovuk_kernel::limits;

use crate::shares::Shares;

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
    /// KiB of each.
    accounts: Shares,
    services: Shares,
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
        let (all_kib, share) = (all_mib.saturating_mul(1_024), |mib: u32| Shares::new(mib.saturating_mul(1_024)));
        let all = Arc::new(Semaphore::new(usize::try_from(all_kib).unwrap_or(usize::MAX).max(1)));
        Self { all, accounts: share(account_mib), services: share(service_mib) }
    }

    /// Waits until there is memory for so many bytes. None when the host ends.
    async fn take(&self, account: i64, service: i64, bytes: u64) -> Option<Share> {
        let kib = u32::try_from(bytes.div_ceil(1_024)).unwrap_or(u32::MAX).clamp(1, self.services.size());
        // First its own: who waits for his own share must not hold what others could use.
        let of_service = self.services.of(service).acquire_many_owned(kib).await.ok()?;
        let of_account = self.accounts.of(account).acquire_many_owned(kib).await.ok()?;
        let all = self.all.clone().acquire_many_owned(kib).await.ok()?;
        Some(Share { _all: all, _of_account: of_account, _of_service: of_service })
    }
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
        pool.take(1, 1, u64::MAX).await.unwrap();
    }
}
