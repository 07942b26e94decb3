//! Who pays for the CPU time of the threads that work here. An invocation of a worker waits while SQLite works on another thread, so what that thread
//! uses is measured here and told to the payer; and a statement ends when its payer has nothing left.

use std::cell::Cell;
use std::sync::Arc;

/// Whoever pays. It is held for as long as work goes on for it, also when nobody waits for the answer any more.
pub trait Payer: Send + Sync {
    /// CPU time that it may still use, in ns.
    fn cpu_left_ns(&self) -> u64;
    /// Takes notice of CPU time that was used for it, in ns.
    fn pay_cpu_ns(&self, ns: u64);
}

thread_local! {
    /// Where this thread's CPU clock stands when what the payer had is used up. The largest value when nobody limits it.
    static ENDS_NS: Cell<u64> = const { Cell::new(u64::MAX) };
}

fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Does work on this thread for a payer, if there is one.
pub(super) fn paid<T>(payer: Option<&Arc<dyn Payer>>, work: impl FnOnce() -> T) -> T {
    let Some(payer) = payer else { return work() };
    let began = thread_cpu_ns();
    ENDS_NS.set(began.saturating_add(payer.cpu_left_ns()));
    let result = work();
    ENDS_NS.set(u64::MAX);
    payer.pay_cpu_ns(thread_cpu_ns().saturating_sub(began));
    result
}

/// Whether the payer of what runs on this thread has nothing left.
pub(super) fn used_up() -> bool {
    let ends = ENDS_NS.get();
    // Asking the clock costs half a microsecond, so it is asked only where it matters.
    ends != u64::MAX && thread_cpu_ns() >= ends
}
