//! Guest memory: what one invocation may have, and what all of them together may have of this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use wasmtime::ResourceLimiter;

/// The memory that all guests share. Clones share one count.
#[derive(Clone)]
pub struct HostMemory(Arc<Shared>);

struct Shared {
    budget_bytes: u64,
    used_bytes: AtomicU64,
    released: Notify,
}

impl HostMemory {
    /// A budget of so many bytes.
    pub fn new(budget_bytes: u64) -> Self {
        Self(Arc::new(Shared { budget_bytes, used_bytes: AtomicU64::new(0), released: Notify::new() }))
    }

    /// Bytes that guests have now.
    pub fn used_bytes(&self) -> u64 {
        self.0.used_bytes.load(Ordering::Relaxed)
    }

    /// Whether the budget is not used up.
    pub fn is_available(&self) -> bool {
        self.used_bytes() < self.0.budget_bytes
    }

    /// Waits until the budget is not used up.
    pub async fn available(&self) {
        loop {
            let released = self.0.released.notified();
            if self.is_available() {
                return;
            }
            released.await;
        }
    }

    fn add(&self, bytes: u64) {
        self.0.used_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds to the count only if the sum stays within the budget.
    fn try_add(&self, bytes: u64) -> bool {
        let within = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.0.budget_bytes);
        self.0.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    fn release(&self, bytes: u64) {
        let before = self.0.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before >= self.0.budget_bytes {
            self.0.released.notify_waiters();
        }
    }
}

/// The limiter of one store.
pub struct MemoryLimiter {
    host: HostMemory,
    limit_bytes: u64,
    used_bytes: u64,
    peak_bytes: u64,
    refused: bool,
}

/// Tables are bounded by the pool; this bounds one that grows.
const TABLE_ELEMENTS_MAX: usize = 65_536;

impl MemoryLimiter {
    /// A limiter for one invocation.
    pub fn new(host: HostMemory, limit_bytes: u64) -> Self {
        Self { host, limit_bytes, used_bytes: 0, peak_bytes: 0, refused: false }
    }

    /// The most that the invocation had, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// Whether it was refused memory, which explains a trap that follows.
    pub fn refused(&self) -> bool {
        self.refused
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let added = desired.saturating_sub(current) as u64;
        if self.used_bytes + added > self.limit_bytes {
            self.refused = true;
            return Ok(false);
        }
        // The memory that an instance starts with is always given: the host's budget was asked at admission, and a hop of a chain that
        // began must be able to start.
        if current == 0 {
            self.host.add(added);
        } else if !self.host.try_add(added) {
            self.refused = true;
            return Ok(false);
        }
        self.used_bytes += added;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

impl Drop for MemoryLimiter {
    fn drop(&mut self) {
        self.host.release(self.used_bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn growth_stops_at_the_limit_of_the_invocation_and_at_the_budget_of_the_host() {
        let host = HostMemory::new(100);
        let mut small = MemoryLimiter::new(host.clone(), 40);
        assert!(small.memory_growing(0, 30, None).unwrap());
        assert!(!small.memory_growing(30, 50, None).unwrap());
        assert!(small.refused());
        let mut large = MemoryLimiter::new(host.clone(), 1_000);
        assert!(large.memory_growing(0, 60, None).unwrap());
        assert!(!large.memory_growing(60, 80, None).unwrap());
        // An instance that starts is not refused by the budget.
        let mut late = MemoryLimiter::new(host.clone(), 1_000);
        assert!(late.memory_growing(0, 50, None).unwrap());
        assert_eq!(host.used_bytes(), 140);
        drop((small, large, late));
        assert_eq!(host.used_bytes(), 0);
    }
}
