//! What is lent for longer than one call: a connection with its place among the writers or readers. It comes back when its holder is dropped, was
//! idle for too long, or has had it for too long; what was open on it is rolled back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedSemaphorePermit};
use tovuk_kernel::limits::{SQLITE_TRANSACTION_IDLE_MS_MAX, SQLITE_TRANSACTION_MS_MAX};
use tovuk_kernel::threads::spawn_blocking_on;

use super::Sqlites;
use super::error::Error;
use super::link::{Link, Monitor};
use super::slot::{Slot, Waiting};

/// Stops the statement that runs on a connection when whoever asked for it goes away.
#[derive(Clone, Default)]
pub(super) struct Gone(Arc<Mutex<Watch>>);

#[derive(Default)]
struct Watch {
    monitor: Option<Arc<Monitor>>,
    /// It has happened; what begins to work now is stopped at once.
    left: bool,
}

impl Gone {
    fn lock(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that works for the caller from now on.
    pub fn watch(&self, monitor: &Arc<Monitor>) {
        let mut watch = self.lock();
        if watch.left {
            monitor.gone.store(true, Ordering::Relaxed);
        }
        watch.monitor = Some(monitor.clone());
    }

    /// It does no more; it may be somebody else's at once.
    pub fn end(&self) {
        self.lock().monitor = None;
    }

    /// Stops what runs, and what begins later.
    pub fn leave(&self) {
        let mut watch = self.lock();
        watch.left = true;
        if let Some(monitor) = &watch.monitor {
            monitor.gone.store(true, Ordering::Relaxed);
        }
    }

    /// A guard for the caller's side.
    pub fn guard(&self) -> GoneGuard {
        GoneGuard(self.clone())
    }
}

/// The caller's side: dropped when the caller is gone, or has its answer.
pub(super) struct GoneGuard(Gone);

impl Drop for GoneGuard {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Where a connection belongs.
pub(super) enum Place {
    Writer(OwnedMutexGuard<Option<Link>>),
    Reader(OwnedSemaphorePermit),
}

/// A connection that is lent.
pub(super) struct Lease {
    pub slot: Arc<Slot>,
    link: Option<(Link, Place)>,
    runtime: Handle,
    _waiting: Waiting,
}

impl Lease {
    pub fn new(slot: Arc<Slot>, link: Link, place: Place, runtime: Handle, waiting: Waiting) -> Self {
        Self { slot, link: Some((link, place)), runtime, _waiting: waiting }
    }

    /// The connection.
    pub fn link(&mut self) -> Result<&mut Link, Error> {
        self.link.as_mut().map(|(link, _)| link).ok_or(Error::Ended("it was given back"))
    }

    fn give_back(slot: &Slot, link: Link, place: Place) {
        match place {
            Place::Writer(mut place) => slot.give_writer(&mut place, link),
            Place::Reader(permit) => {
                slot.give_reader(link);
                drop(permit);
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Rolling back touches the disk, and this may be an async thread.
        if let Some((link, place)) = self.link.take() {
            let slot = self.slot.clone();
            spawn_blocking_on(&self.runtime, move || Self::give_back(&slot, link, place));
        }
    }
}

enum State {
    Open(Box<Lease>),
    Ended(&'static str),
}

/// A lease that ends by itself.
pub(super) struct Held {
    state: AsyncMutex<State>,
    /// When it was used last, and when it was begun, in ms on the clock's monotonic time.
    used: AtomicU64,
    begun: u64,
    /// When statements on it end at the latest.
    pub until: Instant,
}

impl Held {
    /// Lends it from now on.
    pub fn new(store: &Sqlites, lease: Lease) -> Arc<Self> {
        let clock = store.0.clock.clone();
        let begun = clock.monotonic_ms();
        let now = Instant::now();
        let until = now.checked_add(Duration::from_millis(SQLITE_TRANSACTION_MS_MAX)).unwrap_or(now);
        let held = Arc::new(Self { state: AsyncMutex::new(State::Open(Box::new(lease))), used: AtomicU64::new(begun), begun, until });
        let weak = Arc::downgrade(&held);
        tokio::spawn(async move {
            loop {
                let Some(held) = weak.upgrade() else { return };
                let Some(wait) = held.left(clock.monotonic_ms()) else {
                    // Waits for the statement that runs, which has a deadline of its own, and looks again: it may have been the last for now.
                    let mut state = held.state.lock().await;
                    if held.left(clock.monotonic_ms()).is_none() {
                        *state = State::Ended("it was open or idle for too long");
                        return;
                    }
                    continue;
                };
                drop(held);
                clock.sleep(wait).await;
            }
        });
        held
    }

    /// How long it may stay as it is. None when it is over.
    fn left(&self, now: u64) -> Option<Duration> {
        let idle = self.used.load(Ordering::Relaxed).saturating_add(SQLITE_TRANSACTION_IDLE_MS_MAX);
        let at = idle.min(self.begun.saturating_add(SQLITE_TRANSACTION_MS_MAX));
        at.checked_sub(now).filter(|left| *left > 0).map(Duration::from_millis)
    }

    /// Works with the connection on one of the threads. It ends here when the work says so.
    pub async fn with<T, F>(&self, store: &Sqlites, work: F) -> Result<T, Error>
    where
        F: FnOnce(&mut Lease) -> (Result<T, Error>, Option<&'static str>) + Send + 'static,
        T: Send + 'static,
    {
        let mut state = self.state.lock().await;
        let mut lease = match std::mem::replace(&mut *state, State::Ended("a call was cut off")) {
            State::Open(lease) => lease,
            State::Ended(why) => {
                *state = State::Ended(why);
                return Err(Error::Ended(why));
            }
        };
        let gone = Gone::default();
        gone.watch(&lease.link()?.monitor);
        let guard = gone.guard();
        let work = store.blocking(move || {
            let (result, ended) = work(&mut lease);
            gone.end();
            Ok((lease, result, ended))
        });
        let (lease, result, ended) = work.await?;
        drop(guard);
        self.used.store(store.0.clock.monotonic_ms(), Ordering::Relaxed);
        *state = match ended {
            None => State::Open(lease),
            Some(why) => State::Ended(why),
        };
        result
    }
}
