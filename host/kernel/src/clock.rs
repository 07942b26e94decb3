//! Time. Everything that asks what time it is, or waits for a point in time, does so here, so that a test or a development host can
//! advance all of it together. CPU time is not time of day and is measured in the runtime.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;

/// A point in time: milliseconds since the UNIX epoch, UTC.
pub type UnixMs = u64;

/// The host's clock. Clones share one time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// The machine's clock plus an offset that only grows. The time of day differs from that by a fixed number of milliseconds.
    Advanced(Arc<watch::Sender<Duration>>, i64),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that runs with the machine's and can be moved ahead with [`Clock::advance`].
    pub fn advanceable() -> Self {
        Self(Source::Advanced(Arc::new(watch::Sender::new(Duration::ZERO)), 0))
    }

    /// The same, on which it is now that time of day.
    pub fn advanceable_at(now: UnixMs) -> Self {
        let ahead_ms = now.cast_signed().saturating_sub(Self::system().now_unix_ms().cast_signed());
        Self(Source::Advanced(Arc::new(watch::Sender::new(Duration::ZERO)), ahead_ms))
    }

    /// The time of day.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    pub fn now_unix_ms(&self) -> UnixMs {
        let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ahead_ms = if let Source::Advanced(_, ahead_ms) = &self.0 { *ahead_ms } else { 0 };
        u64::try_from((machine + self.offset()).as_millis()).unwrap_or(u64::MAX).saturating_add_signed(ahead_ms)
    }

    /// Moves the clock ahead and wakes every sleeper whose time has come. Returns false, and does nothing, on the machine's clock.
    pub fn advance(&self, by: Duration) -> bool {
        match &self.0 {
            Source::System => false,
            Source::Advanced(offset, _) => {
                offset.send_modify(|offset| *offset += by);
                true
            }
        }
    }

    /// Waits until `duration` has passed on this clock.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that sleeps")]
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Source::System => tokio::time::sleep(duration).await,
            Source::Advanced(offset, _) => {
                let mut changes = offset.subscribe();
                let started = Instant::now();
                let offset_at_start = *changes.borrow_and_update();
                loop {
                    let skipped = changes.borrow_and_update().saturating_sub(offset_at_start);
                    let Some(remaining) = duration.checked_sub(skipped + started.elapsed()) else { return };
                    tokio::select! {
                        () = tokio::time::sleep(remaining) => return,
                        // The sender lives in this clock, so it cannot be gone while we borrow it.
                        _ = changes.changed() => {}
                    }
                }
            }
        }
    }

    /// Waits for `future`, at most for `duration` on this clock; `None` when the time has run out.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep(duration) => None,
        }
    }

    /// Milliseconds on a clock that never goes back, from an arbitrary origin, advanced like the time of day.
    pub fn monotonic_ms(&self) -> u64 {
        static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
        let running = ORIGIN.get_or_init(std::time::Instant::now).elapsed();
        u64::try_from((running + self.offset()).as_millis()).unwrap_or(u64::MAX)
    }

    fn offset(&self) -> Duration {
        match &self.0 {
            Source::System => Duration::ZERO,
            Source::Advanced(offset, _) => *offset.borrow(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sleeper_wakes_when_the_clock_is_advanced_past_its_time() {
        let clock = Clock::advanceable();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(3600)).await }
        });
        tokio::task::yield_now().await;
        let before = clock.now_unix_ms();
        assert!(clock.advance(Duration::from_secs(3599)));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        assert!(clock.advance(Duration::from_secs(1)));
        sleeper.await.unwrap();
        assert!(clock.now_unix_ms() >= before + 3_600_000);
    }

    #[test]
    fn the_time_of_day_can_begin_elsewhere() {
        let clock = Clock::advanceable_at(1_000_000);
        assert!((1_000_000..1_060_000).contains(&clock.now_unix_ms()));
        clock.advance(Duration::from_secs(3_600));
        assert!((4_600_000..4_660_000).contains(&clock.now_unix_ms()));
    }

    #[test]
    fn the_system_clock_cannot_be_advanced() {
        assert!(!Clock::system().advance(Duration::from_secs(1)));
    }
}
