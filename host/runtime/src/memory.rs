//! Guest memory: what one invocation may have, and what all of them together may have of this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;
use tovuk_resources::memory::Memory;
use wasmtime::ResourceLimiter;

use crate::engine::{CORE_INSTANCES_PER_COMPONENT_MAX, MEMORIES_PER_COMPONENT_MAX, TABLE_ELEMENTS_MAX, TABLES_PER_COMPONENT_MAX};

/// The memory that all guests share. Clones share one count.
#[derive(Clone, Debug)]
pub struct HostMemory(Arc<Shared>);

#[derive(Debug)]
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

    /// Bytes that guests and bodies may have together.
    pub fn budget_bytes(&self) -> u64 {
        self.0.budget_bytes
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

    /// Takes host memory for a body that is held whole. Bodies count in the same budget as guests, since they fill the same machine.
    pub fn reserve(&self) -> Reservation {
        Reservation { host: self.clone(), bytes: AtomicU64::new(0) }
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

/// Memory that a buffered body has, or an answer that is put together, given back when it goes.
#[derive(Debug)]
pub struct Reservation {
    host: HostMemory,
    bytes: AtomicU64,
}

impl Reservation {
    /// Takes more, if the budget has it.
    pub fn grow(&self, bytes: u64) -> bool {
        let granted = self.host.try_add(bytes);
        if granted {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        granted
    }

    /// The bytes, which give their memory back when the last of them is dropped.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _reservation: self })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.host.release(*self.bytes.get_mut());
    }
}

impl Memory for Reservation {
    fn take(&self, bytes: u64) -> bool {
        self.grow(bytes)
    }
}

struct Held {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The limiter of one store.
pub struct MemoryLimiter {
    host: HostMemory,
    limit_bytes: u64,
    used_bytes: u64,
    peak_bytes: u64,
    last_growth_bytes: u64,
    refused: bool,
}

/// What one invocation may have though the host's budget is used up: the start of an ordinary worker.
const FLOOR_BYTES: u64 = 4 << 20;

impl MemoryLimiter {
    /// A limiter for one invocation.
    pub fn new(host: HostMemory, limit_bytes: u64) -> Self {
        Self { host, limit_bytes, used_bytes: 0, peak_bytes: 0, last_growth_bytes: 0, refused: false }
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
        // What an ordinary instance starts with is always given: the host's budget was asked at admission, and a hop of a chain that began must
        // be able to start. Slots bound how often.
        if self.used_bytes + added <= FLOOR_BYTES {
            self.host.add(added);
        } else if !self.host.try_add(added) {
            self.refused = true;
            return Ok(false);
        }
        self.used_bytes += added;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
        self.last_growth_bytes = added;
        Ok(true)
    }

    /// The engine asks before it looks at the memory's own maximum, so what it then refuses is given back.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        let returned = std::mem::take(&mut self.last_growth_bytes);
        self.used_bytes -= returned;
        self.host.release(returned);
        Ok(())
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    // The pool has these bounds already; without a pool they are the only ones.
    fn instances(&self) -> usize {
        CORE_INSTANCES_PER_COMPONENT_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_PER_COMPONENT_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_PER_COMPONENT_MAX as usize
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
        const MIB: usize = 1 << 20;
        let host = HostMemory::new(10 * MIB as u64);
        let mut small = MemoryLimiter::new(host.clone(), 4 * MIB as u64);
        assert!(small.memory_growing(0, 3 * MIB, None).unwrap());
        assert!(!small.memory_growing(3 * MIB, 5 * MIB, None).unwrap());
        assert!(small.refused());
        let mut large = MemoryLimiter::new(host.clone(), 1 << 30);
        assert!(large.memory_growing(0, 6 * MIB, None).unwrap());
        assert!(!large.memory_growing(6 * MIB, 8 * MIB, None).unwrap());
        // An instance that starts is not refused by the budget, one that starts large is.
        let mut late = MemoryLimiter::new(host.clone(), 1 << 30);
        assert!(late.memory_growing(0, 4 * MIB, None).unwrap());
        let mut greedy = MemoryLimiter::new(host.clone(), 1 << 30);
        assert!(!greedy.memory_growing(0, 5 * MIB, None).unwrap());
        assert_eq!(host.used_bytes(), 13 * MIB as u64);
        // What the engine refuses after it was granted is given back.
        late.memory_grow_failed(wasmtime::Error::msg("the memory's own maximum")).unwrap();
        assert_eq!(host.used_bytes(), 9 * MIB as u64);
        drop((small, large, late, greedy));
        assert_eq!(host.used_bytes(), 0);
    }

    #[test]
    fn a_held_body_gives_its_memory_back_with_its_last_clone() {
        let host = HostMemory::new(100);
        let reservation = host.reserve();
        assert!(reservation.grow(60) && !reservation.grow(60));
        let body = reservation.hold(Bytes::from_static(b"body"));
        let part = body.slice(1..);
        drop(body);
        assert_eq!((host.used_bytes(), part.as_ref()), (60, b"ody".as_slice()));
        drop(part);
        assert_eq!(host.used_bytes(), 0);
    }
}
