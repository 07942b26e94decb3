//! What one connection has been doing, told by its socket and its bodies and judged from outside at intervals, so that no request pays for a timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::task::Context;
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;

/// What a connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Go on.
    Serve = 0,
    /// Answer what it has been asked, and end.
    Drain = 1,
    /// End now.
    Cut = 2,
}

/// Intervals that are told apart. What has not moved in all of them but the one that runs is cut.
const EPOCHS: usize = 4;

/// The counters of one connection. They need no order among each other: who judges looks at them much later.
#[derive(Default)]
pub(super) struct Progress {
    phase: AtomicU8,
    waker: AtomicWaker,
    /// Requests so far.
    requests: AtomicU32,
    /// Requests whose response has not been handed over whole.
    active: AtomicU32,
    /// Writes to the socket that were taken.
    writes: AtomicU32,
    /// Whether the last write found the socket full.
    blocked: AtomicBool,
    epoch: AtomicU32,
    /// Bodies that wait for the client, by the epoch in which each last moved.
    waiting: [AtomicU32; EPOCHS],
}

impl Progress {
    /// Tells the connection what to do. It never goes back.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Release);
        self.waker.wake();
    }

    /// What the connection is to do; its task is woken when that changes.
    pub fn phase(&self, cx: &Context<'_>) -> Phase {
        self.waker.register(cx.waker());
        match self.phase.load(Acquire) {
            0 => Phase::Serve,
            1 => Phase::Drain,
            _ => Phase::Cut,
        }
    }

    /// Waits until the connection is to end.
    pub async fn ending(&self) {
        futures::future::poll_fn(|cx| if self.phase(cx) == Phase::Serve { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }).await;
    }

    /// The socket was written to: bytes were taken, or it was full.
    pub fn wrote(&self, taken: bool) {
        self.blocked.store(!taken, Relaxed);
        if taken {
            self.writes.fetch_add(1, Relaxed);
        }
    }
}

/// A request that has not been answered whole. It counts until it is dropped.
pub(super) struct Active {
    progress: Arc<Progress>,
    /// Where its body is counted as waiting for the client.
    waiting: Option<u32>,
}

impl Active {
    pub fn new(progress: &Arc<Progress>) -> Self {
        progress.requests.fetch_add(1, Relaxed);
        progress.active.fetch_add(1, Relaxed);
        Self { progress: progress.clone(), waiting: None }
    }

    /// The body has given something, and it is the client's turn.
    pub fn gave(&mut self) {
        let epoch = self.progress.epoch.load(Relaxed);
        if self.waiting != Some(epoch) {
            self.took();
            self.waiting = Some(epoch);
            self.count(epoch).fetch_add(1, Relaxed);
        }
    }

    /// The client has taken all that there was, and it is the body's turn.
    pub fn took(&mut self) {
        if let Some(epoch) = self.waiting.take() {
            self.count(epoch).fetch_sub(1, Relaxed);
        }
    }

    fn count(&self, epoch: u32) -> &AtomicU32 {
        count(&self.progress, epoch)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.took();
        self.progress.active.fetch_sub(1, Relaxed);
    }
}

#[expect(clippy::indexing_slicing, reason = "a remainder of the length is below it")]
fn count(progress: &Progress, epoch: u32) -> &AtomicU32 {
    &progress.waiting[epoch as usize % EPOCHS]
}

/// How long a connection may stand still.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub idle: Duration,
    pub stall: Duration,
}

impl Patience {
    /// How often connections are judged.
    pub fn interval(self) -> Duration {
        (self.stall.min(self.idle) / (EPOCHS as u32 - 1)).max(Duration::from_millis(1))
    }
}

/// A connection as whoever judges it remembers it. Times are the machine's, which nobody advances: they are about the network.
pub(super) struct Judged {
    progress: Arc<Progress>,
    requests: u32,
    writes: u32,
    asked_at: Instant,
    wrote_at: Instant,
    epoch_at: Instant,
    drained_at: Option<Instant>,
}

impl Judged {
    pub fn new(progress: Arc<Progress>, now: Instant) -> Self {
        Self { progress, requests: 0, writes: 0, asked_at: now, wrote_at: now, epoch_at: now, drained_at: None }
    }

    /// Whether anybody else still holds the connection.
    pub fn lives(&self) -> bool {
        Arc::strong_count(&self.progress) > 1
    }

    /// Tells it to drain.
    pub fn drain(&self) {
        self.progress.enter(Phase::Drain);
    }

    /// Looks at it, and tells it to end when it has stood still for too long.
    pub fn judge(&mut self, now: Instant, patience: Patience) {
        let progress = &*self.progress;
        let (requests, writes) = (progress.requests.load(Relaxed), progress.writes.load(Relaxed));
        let active = progress.active.load(Relaxed) > 0;
        if active || requests != self.requests {
            (self.requests, self.asked_at) = (requests, now);
        }
        if writes != self.writes || !progress.blocked.load(Relaxed) {
            (self.writes, self.wrote_at) = (writes, now);
        }
        let unread = now.duration_since(self.wrote_at) >= patience.stall || self.stands_still(now, patience);
        let overdue = !active && self.drained_at.is_some_and(|at| now.duration_since(at) >= patience.stall);
        if unread || overdue {
            self.progress.enter(Phase::Cut);
        } else if self.drained_at.is_none() && now.duration_since(self.asked_at) >= patience.idle {
            self.drained_at = Some(now);
            self.progress.enter(Phase::Drain);
        }
    }

    /// Whether some body has waited for the client for as long as it may.
    fn stands_still(&mut self, now: Instant, patience: Patience) -> bool {
        if now.duration_since(self.epoch_at) < patience.stall / (EPOCHS as u32 - 1) {
            return false;
        }
        self.epoch_at = now;
        let next = self.progress.epoch.load(Relaxed).wrapping_add(1);
        // The count that the next epoch will use still has what moved the last time it was in use.
        if count(&self.progress, next).load(Relaxed) > 0 {
            return true;
        }
        self.progress.epoch.store(next, Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { idle: Duration::from_secs(90), stall: Duration::from_secs(60) };

    struct Watch {
        progress: Arc<Progress>,
        judged: Judged,
        now: Instant,
    }

    impl Watch {
        fn new() -> Self {
            let (progress, now) = (Arc::<Progress>::default(), Instant::now());
            Self { judged: Judged::new(progress.clone(), now), progress, now }
        }

        /// What the connection has been told after so many seconds, looked at as often as it is.
        fn after(&mut self, seconds: u64) -> u8 {
            for _ in 0..seconds / PATIENCE.interval().as_secs() {
                self.now += PATIENCE.interval();
                self.judged.judge(self.now, PATIENCE);
            }
            self.progress.phase.load(Relaxed)
        }
    }

    #[test]
    fn a_connection_without_requests_drains_and_is_cut_when_it_does_not_end() {
        let mut watch = Watch::new();
        assert_eq!(watch.after(80), Phase::Serve as u8);
        drop(Active::new(&watch.progress));
        assert_eq!(watch.after(80), Phase::Serve as u8);
        assert_eq!(watch.after(40), Phase::Drain as u8);
        assert_eq!(watch.after(80), Phase::Cut as u8);
    }

    #[test]
    fn a_request_that_the_worker_computes_may_take_as_long_as_it_likes() {
        let mut watch = Watch::new();
        let mut active = Active::new(&watch.progress);
        assert_eq!(watch.after(900), Phase::Serve as u8);
        active.gave();
        active.took();
        assert_eq!(watch.after(900), Phase::Serve as u8);
    }

    #[test]
    fn one_body_that_the_client_leaves_is_enough_whatever_else_moves() {
        let mut watch = Watch::new();
        let mut left = Active::new(&watch.progress);
        let mut taken = Active::new(&watch.progress);
        left.gave();
        for _ in 0..2 {
            taken.gave();
            watch.progress.wrote(true);
            assert_eq!(watch.after(20), Phase::Serve as u8);
        }
        taken.gave();
        assert_eq!(watch.after(60), Phase::Cut as u8);
    }

    #[test]
    fn a_body_that_moves_now_and_then_goes_on() {
        let mut watch = Watch::new();
        let mut active = Active::new(&watch.progress);
        for _ in 0..20 {
            active.gave();
            assert_eq!(watch.after(40), Phase::Serve as u8);
        }
    }

    #[test]
    fn a_socket_that_nobody_reads_is_cut() {
        let mut watch = Watch::new();
        let _active = Active::new(&watch.progress);
        watch.progress.wrote(false);
        assert_eq!(watch.after(40), Phase::Serve as u8);
        watch.progress.wrote(true);
        watch.progress.wrote(false);
        assert_eq!(watch.after(60), Phase::Serve as u8);
        assert_eq!(watch.after(40), Phase::Cut as u8);
    }
}
