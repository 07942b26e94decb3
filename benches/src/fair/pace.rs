//! A beat for requests that are due at fixed times. A thread of its own keeps it by the kernel's clock, because the async runtime's counts in whole milliseconds, and
//! being late by one would hide what is measured here.

use std::io;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use rustix::thread::{ClockId, clock_nanosleep_relative, set_current_timer_slack};
use rustix::time::Timespec;

/// Beats so often, for the first time one interval after `began`. A beat that is late does not delay those after it.
pub fn start(began: Instant, interval: Duration, beats: u64, mut beat: impl FnMut() + Send + 'static) -> io::Result<()> {
    let keep = move || {
        // Else the kernel may wake it 50 µs late to save energy; where that is refused, the beats are as late as that, and the report says so.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        let mut due = began;
        for _ in 0..beats {
            due += interval;
            loop {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                // A signal may end the sleep early.
                let _ =
                    clock_nanosleep_relative(ClockId::Monotonic, &Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
            }
            beat();
        }
    };
    std::thread::Builder::new().name("pace".to_owned()).spawn(keep).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn no_beat_comes_before_it_is_due_and_none_is_left_out() {
        let (sender, receiver) = mpsc::channel();
        let (began, interval) = (Instant::now(), Duration::from_micros(500));
        start(began, interval, 100, move || sender.send(Instant::now()).unwrap()).unwrap();
        let beats: Vec<_> = receiver.iter().collect();
        assert_eq!(beats.len(), 100);
        assert!((1..).zip(&beats).all(|(number, beat)| *beat >= began + interval * number));
    }
}
