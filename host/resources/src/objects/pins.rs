//! Which versions are being read, so that their bytes stay until the last reader has finished.
//!
//! A reader looks for the version first and pins it then. Between the two the version may be replaced, and its bytes must stay nevertheless; so the
//! reader announces itself before it looks, and whoever removes bytes waits with those that may be looked at just now.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The versions that are read, and the readers that look for one.
#[derive(Clone)]
pub(super) struct Pins(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Told when something that had to stay may go.
    released: Arc<Notify>,
    /// Told when a reader has found what it looked for.
    found: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    looking: BTreeSet<u64>,
    pinned: HashMap<i64, usize>,
    /// Whether something was kept because of them.
    kept: bool,
}

impl Pins {
    pub fn new(released: Arc<Notify>) -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), released, found: Notify::new() }))
    }

    /// Announces a reader. To be called before the row is read.
    pub fn look(&self) -> Looking {
        let mut state = self.0.lock();
        let ticket = state.next;
        state.next += 1;
        state.looking.insert(ticket);
        Looking { pins: self.clone(), ticket }
    }

    /// Waits until every reader that looks at this moment has found what it looks for. Those that come later see what is committed by now.
    pub async fn settle(&self) {
        let moment = self.0.lock().next;
        loop {
            let found = self.0.found.notified();
            if self.0.lock().looking.first().is_none_or(|oldest| *oldest >= moment) {
                return;
            }
            found.await;
        }
    }

    /// Whether a version is read, so that its bytes must stay for now. It was settled after nothing referred to it any more.
    pub fn keeps(&self, version: Option<i64>) -> bool {
        let Some(version) = version else { return false };
        let mut state = self.0.lock();
        let keeps = state.pinned.contains_key(&version);
        state.kept |= keeps;
        keeps
    }

    fn unpin(&self, version: i64) {
        let mut state = self.0.lock();
        let readers = state.pinned.remove(&version).unwrap_or(1) - 1;
        if readers > 0 {
            state.pinned.insert(version, readers);
        } else if std::mem::take(&mut state.kept) {
            self.0.released.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader that looks for a version.
pub(super) struct Looking {
    pins: Pins,
    ticket: u64,
}

impl Looking {
    /// Keeps the version that was found for as long as the answer lives.
    pub fn pin(self, version: i64) -> Pin {
        *self.pins.0.lock().pinned.entry(version).or_default() += 1;
        Pin { pins: self.pins.clone(), version }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.pins.0.lock().looking.remove(&self.ticket);
        self.pins.0.found.notify_waiters();
    }
}

/// A version that is being read.
pub(super) struct Pin {
    pins: Pins,
    version: i64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.unpin(self.version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_version_stays_from_the_look_to_the_last_reader() {
        let pins = Pins::new(Arc::default());
        pins.settle().await;
        let looking = pins.look();
        let settled = tokio::spawn({
            let pins = pins.clone();
            async move { pins.settle().await }
        });
        tokio::task::yield_now().await;
        assert!(!settled.is_finished(), "the one that looks may find it");
        let later = pins.look();
        let (first, second) = (looking.pin(1), later.pin(1));
        settled.await.unwrap();
        assert!(pins.keeps(Some(1)) && !pins.keeps(Some(2)) && !pins.keeps(None));
        drop(first);
        assert!(pins.keeps(Some(1)));
        drop(second);
        assert!(!pins.keeps(Some(1)));
        pins.0.released.notified().await;
    }

    #[tokio::test]
    async fn who_comes_later_is_not_waited_for() {
        let pins = Pins::new(Arc::default());
        let early = pins.look();
        let mut settled = Box::pin(pins.settle());
        assert!(futures::poll!(&mut settled).is_pending());
        let late = pins.look();
        drop(early);
        settled.await;
        drop(late);
    }
}
