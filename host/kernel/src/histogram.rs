//! How long things take, counted by length: what is observed from many threads at once costs two additions, and is read whenever somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets, in µs. What is longer than the last is counted by itself.
pub const BOUNDS_US: [u64; 16] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000, 30_000_000];
/// Buckets, the one without a bound included.
pub const BUCKETS: usize = BOUNDS_US.len() + 1;

/// Durations that were observed.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    /// One in which nothing was observed.
    pub const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }

    /// Counts one more.
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(BOUNDS_US.partition_point(|bound| *bound < us)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// What was observed until now.
    pub fn read(&self) -> Durations {
        let mut buckets = [0; BUCKETS];
        for (figure, bucket) in buckets.iter_mut().zip(&self.buckets) {
            *figure = bucket.load(Ordering::Relaxed);
        }
        Durations { buckets, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

/// What a histogram has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many were in each bucket, and not in the one before.
    pub buckets: [u64; BUCKETS],
    /// Their sum, in µs.
    pub sum_us: u64,
}

impl Durations {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// About how long the shortest was that so many in a thousand did not exceed, in µs; nothing when there were none. Within a bucket they are taken for
    /// evenly spread, and what is longer than the last bound counts as that.
    pub fn quantile_us(&self, per_mille: u64) -> Option<u64> {
        let count = self.count();
        let wanted = count.saturating_mul(per_mille).div_ceil(1_000).max(1);
        let (mut before, mut lower) = (0, 0);
        for (within, bound) in self.buckets.iter().zip(BOUNDS_US) {
            if *within > 0 && before + within >= wanted {
                return Some(lower + (bound - lower).saturating_mul(wanted - before) / within);
            }
            before += within;
            lower = bound;
        }
        (count > 0).then_some(lower)
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.with(earlier, u64::saturating_sub)
    }

    /// Both together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    fn with(&self, other: &Self, of: fn(u64, u64) -> u64) -> Self {
        let mut result = *self;
        for (figure, other) in result.buckets.iter_mut().zip(other.buckets) {
            *figure = of(*figure, other);
        }
        result.sum_us = of(self.sum_us, other.sum_us);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_where_they_belong() {
        let histogram = Histogram::new();
        for us in [0, 100, 101, 30_000_000, 30_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let read = histogram.read();
        assert_eq!((read.buckets[0], read.buckets[1], read.buckets[15], read.buckets[16]), (2, 1, 1, 1));
        assert_eq!((read.count(), read.sum_us), (5, 60_000_202));
        assert_eq!(read.since(&read), Durations::default());
        assert_eq!(read.and(&read).count(), 10);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        assert_eq!(Durations::default().quantile_us(990), None);
        let histogram = Histogram::new();
        for _ in 0..99 {
            histogram.observe(Duration::from_micros(300));
        }
        histogram.observe(Duration::from_secs(3));
        let read = histogram.read();
        assert!((250..=500).contains(&read.quantile_us(500).unwrap()));
        assert_eq!(read.quantile_us(990), Some(500));
        assert!((2_500_000..=10_000_000).contains(&read.quantile_us(1_000).unwrap()));
    }
}
