//! What is known of a queue in memory, and only there: which messages are being delivered, how far its messages have been given out, how fast they come. It is
//! lost with the process: what was being delivered is then delivered again, and no delivery of it has counted.
//!
//! Two cursors say how far messages were given out, so that taking a batch neither writes nor passes by everything that is being delivered. They only
//! save work. Why nothing is left behind them:
//!
//! - *Ready* messages wait for no time. The one thread that writes numbers them upwards and commits in that order, so when one is seen, all that
//!   come before it have been. None becomes ready later: a message that is put back gets a time.
//! - Messages that are *due* can come in before the cursor, because a time is written before its commit is seen. Whoever has committed one lowers the
//!   cursor to it ([`Live::lower`]), also while somebody takes, who then does not raise it again.
//! - What was given out and not settled is in `in_flight`, what came back unsettled in `returned`, which is taken first. Messages in either are passed by.
//! - What is settled while somebody takes may still be seen by the older state that they read; it is kept in `Meanwhile::left` until they are done.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;
use tovuk_kernel::limits::QUEUE_MESSAGES_PER_SECOND_MAX;

use super::rows::Stored;
use super::{Consumer, Error, Policy, Queue, Service};

/// A queue in memory.
pub(super) struct Live {
    pub queue: Queue,
    pub service: Service,
    pub local: i64,
    policy: RwLock<Arc<Policy>>,
    hand: Mutex<Hand>,
    /// Held by whoever takes.
    pub taking: tokio::sync::Mutex<()>,
    /// Told when there may be something to take.
    pub changed: Notify,
    /// Whether the queue is on the list of those where there may be something.
    pub listed: AtomicBool,
    /// Ready messages up to this id were pulled.
    pub pulled: AtomicI64,
    /// How often the cursors were put back to the beginning. Whoever looked before that must not raise them.
    pub epoch: AtomicU64,
    /// No message came before this time.
    pub head_ms: AtomicI64,
    rate: Rate,
}

/// What has been given out.
#[derive(Default)]
pub(super) struct Hand {
    pub ready_after: i64,
    pub due_after: (i64, i64),
    in_flight: HashSet<i64>,
    returned: BTreeSet<i64>,
    /// While somebody takes.
    scan: Option<Meanwhile>,
    /// Which of two kinds has its turn, where a batch has room for one message.
    pub turn: bool,
}

/// What has happened since the taking that goes on began.
#[derive(Default)]
struct Meanwhile {
    /// What was settled.
    left: HashSet<i64>,
    /// The least time that was written.
    least: Option<(i64, i64)>,
}

impl Hand {
    /// Whether a message is not to be given out now.
    pub fn is_held(&self, id: i64) -> bool {
        self.in_flight.contains(&id) || self.returned.contains(&id) || self.scan.as_ref().is_some_and(|scan| scan.left.contains(&id))
    }

    /// Whether a message is being delivered.
    pub fn is_in_flight(&self, id: i64) -> bool {
        self.in_flight.contains(&id)
    }

    /// The first message after an id that came back.
    pub fn returned_after(&self, id: i64) -> Option<i64> {
        self.returned.range(id.saturating_add(1)..).next().copied()
    }

    /// Messages that are being delivered.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Gives messages out.
    pub fn give(&mut self, ids: impl Iterator<Item = i64>) {
        for id in ids {
            self.returned.remove(&id);
            self.in_flight.insert(id);
        }
    }

    /// Forgets a message that had come back.
    pub fn forget(&mut self, id: i64) {
        self.returned.remove(&id);
    }

    /// A message is due at a time, perhaps one that was passed.
    pub fn lower(&mut self, place: (i64, i64)) {
        if let Some(scan) = &mut self.scan {
            scan.least = Some(scan.least.map_or(place, |least| least.min(place)));
        }
        self.due_after = self.due_after.min(before(place));
    }

    /// Raises the cursor of what is due, but not past what was lowered since the taking began.
    pub fn raise(&mut self, due_after: (i64, i64)) {
        let least = self.scan.as_ref().and_then(|scan| scan.least);
        self.due_after = least.map_or(due_after, |least| due_after.min(before(least)));
    }
}

fn before((due, id): (i64, i64)) -> (i64, i64) {
    (due, id - 1)
}

impl Live {
    pub fn new(stored: &Stored) -> Self {
        Self {
            queue: stored.queue,
            service: stored.service,
            local: stored.local,
            policy: RwLock::new(Arc::new(stored.policy.clone())),
            hand: Mutex::default(),
            taking: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            listed: AtomicBool::new(false),
            pulled: AtomicI64::new(0),
            epoch: AtomicU64::new(0),
            head_ms: AtomicI64::new(0),
            rate: Rate::default(),
        }
    }

    pub fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over settings that are on disk.
    pub fn set_policy(&self, policy: &Policy) {
        let before = std::mem::replace(&mut *self.policy.write().unwrap_or_else(PoisonError::into_inner), Arc::new(policy.clone()));
        if before.consumer != policy.consumer || before.retention_seconds < policy.retention_seconds {
            // Whoever consumed before has left messages behind the cursors, and so has who took them for expired.
            self.epoch.fetch_add(1, Ordering::Relaxed);
            self.pulled.store(0, Ordering::Relaxed);
            let mut hand = self.hand();
            hand.ready_after = 0;
            hand.lower((0, 0));
        }
    }

    /// Refuses who consumes in another way.
    pub fn check(&self, consumer: Consumer) -> Result<Arc<Policy>, Error> {
        let policy = self.policy();
        match (policy.consumer, consumer) {
            (Consumer::Worker, Consumer::Pull) => Err(Error::NotPull),
            (Consumer::Pull, Consumer::Worker) => Err(Error::NotPush),
            _ => Ok(policy),
        }
    }

    /// What has been given out. Held for moments only.
    pub fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to note what is settled and lowered; ends when the guard is dropped.
    pub fn scan(&self) -> Scan<'_> {
        self.hand().scan = Some(Meanwhile::default());
        Scan(self)
    }

    /// A message that was committed is due at a time.
    pub fn lower(&self, place: (i64, i64)) {
        self.hand().lower(place);
    }

    /// Messages are no longer being delivered: they are gone, or due anew.
    pub fn settled(&self, ids: impl Iterator<Item = i64>) {
        let mut hand = self.hand();
        for id in ids {
            hand.in_flight.remove(&id);
            hand.returned.remove(&id);
            if let Some(scan) = &mut hand.scan {
                scan.left.insert(id);
            }
        }
    }

    /// Messages come back as they were.
    pub fn give_back(&self, ids: impl Iterator<Item = i64>) {
        let mut hand = self.hand();
        for id in ids {
            if hand.in_flight.remove(&id) {
                hand.returned.insert(id);
            }
        }
    }

    /// Lets so many messages in, or says how long to wait.
    pub fn admit(&self, messages: usize, now_ms: u64) -> Result<(), Error> {
        self.rate.admit(messages, now_ms).map_err(|wait_ms| Error::Rate { wait_ms })
    }
}

/// Somebody takes.
pub(super) struct Scan<'a>(&'a Live);

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        self.0.hand().scan = None;
    }
}

/// How fast messages come: so many a second, and as many at once after a second without one.
#[derive(Default)]
struct Rate {
    /// When the last message that was let in would have come at an even pace, in µs. The generic cell rate algorithm, which needs only this.
    even: AtomicU64,
}

/// How far messages are apart at an even pace, in µs.
const PACE_US: u64 = 1_000_000 / QUEUE_MESSAGES_PER_SECOND_MAX;

impl Rate {
    fn admit(&self, messages: usize, now_ms: u64) -> Result<(), u64> {
        let now = now_ms.saturating_mul(1_000);
        let wanted = u64::try_from(messages).unwrap_or(u64::MAX).saturating_mul(PACE_US);
        let next = |even: u64| even.max(now).saturating_add(wanted);
        let latest = now.saturating_add(1_000_000);
        let admit = |even| Some(next(even)).filter(|next| *next <= latest);
        let admitted = self.even.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit);
        admitted.map(drop).map_err(|even| next(even).saturating_sub(latest).div_ceil(1_000))
    }
}
