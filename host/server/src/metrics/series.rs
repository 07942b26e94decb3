//! The figures of one service since the host started.

use std::sync::atomic::{AtomicU64, Ordering};

use tovuk_kernel::histogram::{Durations, Histogram};
use tovuk_runtime::record::{Outcome, Record};

/// Outcomes of invocations.
pub(super) const OUTCOMES: usize = Outcome::ALL.len();

/// Figures that invocations are added to.
#[derive(Default)]
pub(super) struct Series {
    outcomes: [AtomicU64; OUTCOMES],
    refused: AtomicU64,
    errors: AtomicU64,
    durations: Histogram,
    cpu_ns: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Series {
    pub fn add(&self, record: &Record) {
        let position = Outcome::ALL.iter().position(|outcome| *outcome == record.outcome);
        if let Some(count) = position.and_then(|position| self.outcomes.get(position)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if is_error(record) {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        self.durations.observe(record.duration);
        self.cpu_ns.fetch_add(record.cpu_ns, Ordering::Relaxed);
        self.bytes_in.fetch_add(record.bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(record.bytes_out, Ordering::Relaxed);
    }

    pub fn add_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn read(&self) -> Totals {
        let figure = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut outcomes = [0; OUTCOMES];
        for (total, counter) in outcomes.iter_mut().zip(&self.outcomes) {
            *total = figure(counter);
        }
        Totals {
            outcomes,
            refused: figure(&self.refused),
            errors: figure(&self.errors),
            durations: self.durations.read(),
            cpu_ns: figure(&self.cpu_ns),
            bytes_in: figure(&self.bytes_in),
            bytes_out: figure(&self.bytes_out),
        }
    }
}

/// Whether the worker, or the host, is to blame: it did not end well, or answered with a status of 500 or above. Clients that went away are not errors.
fn is_error(record: &Record) -> bool {
    match record.outcome {
        Outcome::Response => record.status.is_some_and(|status| status >= 500),
        Outcome::Cancelled => false,
        _ => true,
    }
}

/// What a service has done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Invocations by outcome, in the order of [`Outcome::ALL`].
    pub outcomes: [u64; OUTCOMES],
    /// What was turned away before an invocation had begun.
    pub refused: u64,
    /// Invocations that ended badly, or with a status of 500 or above.
    pub errors: u64,
    /// How long invocations took, to their last byte.
    pub durations: Durations,
    /// CPU time in ns.
    pub cpu_ns: u64,
    /// Body bytes received.
    pub bytes_in: u64,
    /// Body bytes answered with.
    pub bytes_out: u64,
}

impl Totals {
    /// Invocations, and what was turned away.
    pub fn calls(&self) -> u64 {
        self.outcomes.iter().sum::<u64>() + self.refused
    }

    /// What was done since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.with(earlier, u64::saturating_sub, Durations::since)
    }

    /// Both together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add, Durations::and)
    }

    fn with(&self, other: &Self, of: fn(u64, u64) -> u64, of_durations: fn(&Durations, &Durations) -> Durations) -> Self {
        let mut outcomes = self.outcomes;
        for (figure, other) in outcomes.iter_mut().zip(other.outcomes) {
            *figure = of(*figure, other);
        }
        Self {
            outcomes,
            refused: of(self.refused, other.refused),
            errors: of(self.errors, other.errors),
            durations: of_durations(&self.durations, &other.durations),
            cpu_ns: of(self.cpu_ns, other.cpu_ns),
            bytes_in: of(self.bytes_in, other.bytes_in),
            bytes_out: of(self.bytes_out, other.bytes_out),
        }
    }
}
