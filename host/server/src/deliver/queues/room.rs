//! What batches of all queues share: places to be delivered at, and host memory while they wait for more messages. Each account has a share of either, so that
//! its queues leave others the rest.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tovuk_kernel::limits::QUEUE_CONCURRENCY_MAX;
use tovuk_resources::shares::Shares;

/// The part of all places that one account leaves to others. It may have no more than one queue may.
const PLACES_LEFT_PART: usize = 4;
/// The part of the host's memory that batches may have while they wait for more messages.
const WAITING_PART: u64 = 8;
/// The part of that which those of one account may have.
const WAITING_ACCOUNT_PART: u64 = 4;
/// Memory is counted in units of so many bytes.
const UNIT_BYTES: usize = 1_024;

/// What batches of all queues share.
pub(super) struct Room {
    places: Arc<Semaphore>,
    own_places: Shares,
    waiting: Arc<Semaphore>,
    own_waiting: Shares,
}

/// A place to be delivered at, of the account and of the host.
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _host: OwnedSemaphorePermit,
}

/// Memory that a batch has while it waits, of the account's share and of the host's.
pub(super) struct Waiting {
    own: OwnedSemaphorePermit,
    host: OwnedSemaphorePermit,
}

impl Waiting {
    /// Adds what was taken later.
    pub(super) fn merge(&mut self, other: Self) {
        self.own.merge(other.own);
        self.host.merge(other.host);
    }
}

impl Room {
    /// So many places on a host with that much memory for guests and bodies.
    pub(super) fn new(places: usize, memory_bytes: u64) -> Self {
        let units = |bytes: u64| u32::try_from(bytes / UNIT_BYTES as u64).unwrap_or(u32::MAX).max(1);
        let own_places = u32::try_from(places - places / PLACES_LEFT_PART).unwrap_or(u32::MAX).min(QUEUE_CONCURRENCY_MAX);
        let waiting = units(memory_bytes / WAITING_PART);
        Self {
            places: Arc::new(Semaphore::new(places)),
            own_places: Shares::new(own_places),
            waiting: Arc::new(Semaphore::new(usize::try_from(waiting).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS))),
            own_waiting: Shares::new(units(memory_bytes / WAITING_PART / WAITING_ACCOUNT_PART)),
        }
    }

    /// Waits for a place: first for one of the account's, so that whoever has many queues stands in line once per place that it may have. None never comes,
    /// because nobody closes the semaphores.
    pub(super) async fn place(&self, account: i64) -> Option<Place> {
        let own = self.own_places.of(account).acquire_owned().await.ok()?;
        let host = self.places.clone().acquire_owned().await.ok()?;
        Some(Place { _own: own, _host: host })
    }

    /// How many bytes of bodies of an account may wait besides those that do.
    pub(super) fn may_wait(&self, account: i64) -> usize {
        let units = self.own_waiting.of(account).available_permits().min(self.waiting.available_permits());
        units.saturating_mul(UNIT_BYTES)
    }

    /// Lets so many bytes of bodies wait. None if they may not.
    pub(super) fn wait(&self, account: i64, bytes: usize) -> Option<Waiting> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
        let own = self.own_waiting.of(account).try_acquire_many_owned(units).ok()?;
        let host = self.waiting.clone().try_acquire_many_owned(units).ok()?;
        Some(Waiting { own, host })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_small_host_has_places_for_others_too() {
        let room = Room::new(8, 1 << 30);
        let held: Vec<_> = (0..8).map_while(|_| room.place(1).now_or_never().flatten()).collect();
        assert_eq!(held.len(), 6);
        assert!(room.place(2).now_or_never().is_some() && Room::new(1, 1 << 30).place(1).now_or_never().is_some());
    }

    #[test]
    fn an_account_has_its_share_of_places_and_memory() {
        let room = Room::new(1_000, 32 << 20);
        let most = usize::try_from(QUEUE_CONCURRENCY_MAX).unwrap();
        let held: Vec<_> = (0..most).map_while(|_| room.place(1).now_or_never().flatten()).collect();
        assert_eq!(held.len(), most);
        assert!(room.place(1).now_or_never().is_none() && room.place(2).now_or_never().is_some());
        let mut waiting = room.wait(1, 1_000_000).unwrap();
        assert!(room.wait(1, 100_000).is_none() && room.wait(2, 100_000).is_some());
        waiting.merge(room.wait(1, 1).unwrap());
        assert_eq!(room.may_wait(1), (1 << 20) - 977 * 1_024 - 1_024);
        drop(waiting);
        assert_eq!((room.may_wait(1), room.may_wait(2)), (1 << 20, 1 << 20));
        let others: Vec<_> = (3..7).map(|account| room.wait(account, 1 << 20).unwrap()).collect();
        assert_eq!((others.len(), room.may_wait(1)), (4, 0), "all together have no more than the host lets them");
    }
}
