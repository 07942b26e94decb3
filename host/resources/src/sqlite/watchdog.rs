//! One thread that interrupts statements at their deadline. The handler that counts steps does so too, but it is not called inside one step, and a
//! step can be a whole full-text query.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rusqlite::InterruptHandle;

/// The thread. It ends with the last handle.
pub(super) struct Watchdog(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    watched: BTreeMap<(Instant, u64), Arc<InterruptHandle>>,
    next: u64,
    closed: bool,
}

/// A statement that runs; dropping it ends the watch.
pub(super) struct Watched {
    shared: Arc<Shared>,
    key: (Instant, u64),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            let now = Instant::now();
            state = match state.watched.first_key_value() {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(((at, _), _)) if *at > now => {
                    let wait = at.duration_since(now);
                    self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    // Under the lock, so that a watch that has ended interrupts nothing that began later.
                    if let Some((_, handle)) = state.watched.pop_first() {
                        handle.interrupt();
                    }
                    state
                }
            };
        }
    }
}

impl Watchdog {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let thread = shared.clone();
        std::thread::Builder::new().name("sqlite-watchdog".to_owned()).spawn(move || thread.run())?;
        Ok(Self(shared))
    }

    /// Interrupts what runs on the connection at that time, unless the watch was ended before.
    pub fn watch(&self, at: Instant, handle: Arc<InterruptHandle>) -> Watched {
        let mut state = self.0.lock();
        let key = (at, state.next);
        state.next = state.next.wrapping_add(1);
        let earliest = state.watched.first_key_value().is_none_or(|(first, _)| key < *first);
        state.watched.insert(key, handle);
        drop(state);
        if earliest {
            self.0.changed.notify_one();
        }
        Watched { shared: self.0.clone(), key }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.lock().watched.remove(&self.key);
    }
}
