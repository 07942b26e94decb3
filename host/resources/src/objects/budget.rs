//! Memory for what is being received: so much for all, and less for one service, so that no service can take what others need. Who finds none waits
//! before anything of a body is read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Services that are remembered before those that receive nothing are forgotten.
const REMEMBERED: usize = 1_024;

pub(super) struct Budget {
    all: Arc<Semaphore>,
    service_kib: u32,
    services: Mutex<HashMap<i64, Weak<Semaphore>>>,
}

/// Memory that is taken, given back when this is gone.
pub(super) struct Share {
    _all: OwnedSemaphorePermit,
    _of_service: OwnedSemaphorePermit,
    /// Keeps the service's own share known while it has something of it.
    _service: Arc<Semaphore>,
}

impl Budget {
    /// So much for all and for one service, in MiB.
    pub fn new(all_mib: u32, service_mib: u32) -> Self {
        Self { all: semaphore(all_mib.saturating_mul(1_024)), service_kib: service_mib.saturating_mul(1_024), services: Mutex::default() }
    }

    /// Waits until there is memory for so many bytes. None when the host ends.
    pub async fn take(&self, service: i64, bytes: u64) -> Option<Share> {
        let kib = u32::try_from(bytes.div_ceil(1_024)).unwrap_or(u32::MAX).clamp(1, self.service_kib.max(1));
        let own = self.of_service(service);
        // First its own: who waits for his own share must not hold what others could use.
        let of_service = own.clone().acquire_many_owned(kib).await.ok()?;
        let all = self.all.clone().acquire_many_owned(kib).await.ok()?;
        Some(Share { _all: all, _of_service: of_service, _service: own })
    }

    fn of_service(&self, service: i64) -> Arc<Semaphore> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = services.get(&service).and_then(Weak::upgrade) {
            return own;
        }
        if services.len() >= REMEMBERED {
            services.retain(|_, own| own.strong_count() > 0);
        }
        let own = semaphore(self.service_kib);
        services.insert(service, Arc::downgrade(&own));
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
    async fn a_service_waits_for_its_own_share_and_leaves_the_rest_to_others() {
        let budget = Budget::new(4, 2);
        let first = budget.take(1, 2 << 20).await.unwrap();
        let mut second = Box::pin(budget.take(1, 1));
        assert!(poll!(&mut second).is_pending());
        let other = budget.take(2, u64::MAX).await.unwrap();
        let mut third = Box::pin(budget.take(3, 1));
        assert!(poll!(&mut third).is_pending(), "all of it is taken");
        drop(other);
        third.await.unwrap();
        assert!(poll!(&mut second).is_pending());
        drop(first);
        second.await.unwrap();
        for service in 0..3 * REMEMBERED as i64 {
            budget.take(service, 1).await.unwrap();
        }
        assert!(budget.services.lock().unwrap().len() <= REMEMBERED);
    }
}
