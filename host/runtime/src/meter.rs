//! CPU time of invocations, from the thread's CPU clock.
//!
//! An invocation is a future; everything it costs, from making its store to dropping it, happens inside polls of that future. So the clock is
//! read where a poll is entered and left, and the end of one span is the start of the next. A binding call polls its target from
//! inside the caller's poll; the target's time is then not the caller's, and nothing is counted twice.
//!
//! Reading the thread's clock costs about half a microsecond, reading the monotonic clock a twentieth of that. Between two reads of the former at most
//! 200 µs pass, in which the monotonic clock stands in for it. While a thread waits for work the two part ways, so a thread that has
//! waited reads the former again before it bills anything: see [`on_thread_unpark`].

use std::cell::Cell;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How long the monotonic clock may stand in for the thread's CPU clock. A thread that loses its core within this span is billed for the
/// loss, so the span bounds the error of one measurement.
const SYNC_EVERY: Duration = Duration::from_micros(200);

#[derive(Clone, Copy)]
struct Sync {
    monotonic: Instant,
    cpu_ns: u64,
}

thread_local! {
    static SYNC: Cell<Option<Sync>> = const { Cell::new(None) };
    /// Thread time at which the current span began.
    static MARK_NS: Cell<u64> = const { Cell::new(0) };
    /// Thread time at which the outermost open span began.
    static BEGAN_NS: Cell<u64> = const { Cell::new(0) };
    /// How many spans are open.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// What the invocation that runs on this thread has used in its current poll, up to the mark.
    static POLL_NS: Cell<u64> = const { Cell::new(0) };
}

/// To be called when a thread of the async runtime has waited and goes on: what has passed meanwhile was no CPU time.
pub fn on_thread_unpark() {
    SYNC.set(None);
}

/// CPU time of this thread in ns, as its clock tells.
pub(crate) fn thread_cpu_ns() -> u64 {
    clock_ns(ClockId::ThreadCPUTime)
}

/// CPU time of all threads of this process in ns.
pub(crate) fn process_cpu_ns() -> u64 {
    clock_ns(ClockId::ProcessCPUTime)
}

fn clock_ns(clock: ClockId) -> u64 {
    let cpu = clock_gettime(clock);
    (cpu.tv_sec as u64).saturating_mul(1_000_000_000) + cpu.tv_nsec as u64
}

/// CPU time of this thread in ns, not below `floor_ns`.
fn thread_now_ns(floor_ns: u64) -> u64 {
    let monotonic = Instant::now();
    if let Some(sync) = SYNC.get() {
        let since = monotonic.saturating_duration_since(sync.monotonic);
        if since < SYNC_EVERY {
            return sync.cpu_ns + since.as_nanos() as u64;
        }
    }
    // Standing in, the monotonic clock may have run ahead of the CPU clock; within one span the difference was billed already.
    let cpu_ns = thread_cpu_ns().max(floor_ns);
    SYNC.set(Some(Sync { monotonic, cpu_ns }));
    cpu_ns
}

/// How much CPU time something has used, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Spans of invocations nested in it excluded.
    pub own_ns: u64,
    /// And included.
    pub whole_ns: u64,
}

/// How much CPU time in ns this thread has used since the outermost span was entered that is open; nothing where none is.
pub fn spent_in_this_poll_ns() -> u64 {
    if DEPTH.get() == 0 { 0 } else { thread_now_ns(MARK_NS.get()).saturating_sub(BEGAN_NS.get()) }
}

/// Runs `f` as part of one invocation and returns the CPU time that it used.
pub fn measure<R>(f: impl FnOnce() -> R) -> (R, Spent) {
    let depth = DEPTH.get();
    // What lies between two spans belongs to nobody, so the first of a nest begins wherever the clock is.
    let mark = if depth == 0 { 0 } else { MARK_NS.get() };
    let entered = thread_now_ns(mark);
    let outer_ns = if depth == 0 { 0 } else { POLL_NS.get() + entered.saturating_sub(mark) };
    if depth == 0 {
        BEGAN_NS.set(entered);
    }
    DEPTH.set(depth + 1);
    POLL_NS.set(0);
    MARK_NS.set(entered);
    let result = f();
    let left = thread_now_ns(MARK_NS.get());
    let own_ns = POLL_NS.get() + left.saturating_sub(MARK_NS.get());
    DEPTH.set(depth);
    POLL_NS.set(outer_ns);
    MARK_NS.set(left);
    (result, Spent { own_ns, whole_ns: left.saturating_sub(entered) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Burns CPU time of this thread, however little of a core it gets.
    fn burn(duration: Duration) {
        let end = thread_cpu_ns() + duration.as_nanos() as u64;
        while thread_cpu_ns() < end {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_nested_span_is_not_counted_in_the_outer_one() {
        let (inner_ns, outer) = measure(|| {
            burn(Duration::from_millis(2));
            let ((), inner) = measure(|| burn(Duration::from_millis(20)));
            burn(Duration::from_millis(2));
            inner.own_ns
        });
        let Spent { own_ns: outer_ns, whole_ns } = outer;
        assert!(whole_ns >= inner_ns + outer_ns, "whole {whole_ns}");
        assert!(inner_ns > outer_ns, "inner {inner_ns} outer {outer_ns}");
        assert!(outer_ns > 1_000_000, "outer {outer_ns}");
    }

    #[test]
    fn sums_of_many_nested_spans_equal_the_thread_clock() {
        let before = thread_cpu_ns();
        let mut nested = 0;
        let ((), own) = measure(|| {
            for _ in 0..2_000 {
                nested += measure(|| burn(Duration::from_micros(5))).1.own_ns;
            }
        });
        let wall = thread_cpu_ns() - before;
        let billed = nested + own.own_ns;
        assert!(billed > wall * 8 / 10, "billed {billed} of {wall}");
    }

    #[test]
    fn a_thread_that_waited_between_spans_bills_neither_more_nor_less() {
        let mut billed = 0;
        let mut burnt = 0;
        for _ in 0..200 {
            let before = thread_cpu_ns();
            billed += measure(|| burn(Duration::from_micros(300))).1.own_ns;
            burnt += thread_cpu_ns() - before;
            std::thread::park_timeout(Duration::from_micros(150));
            on_thread_unpark();
        }
        assert!((burnt * 8 / 10..burnt * 12 / 10).contains(&billed), "billed {billed} of {burnt}");
    }
}
