//! Bringing the catalogue up to date before it is asked, without more than one thread being kept by it: those who ask for a namespace at the same time share
//! one run, and runs wait for each other where no thread is held.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::objects::{Shared, locked};
use super::{Error, Namespace, State};

/// Runs that go on or are waited for.
#[derive(Default)]
pub(super) struct Telling {
    namespaces: Mutex<HashMap<Namespace, Arc<Runs>>>,
    /// Had by the run that goes on.
    turn: tokio::sync::Mutex<()>,
}

/// The runs of one namespace.
#[derive(Default)]
struct Runs {
    begun: AtomicU64,
    /// The number of the last one that has ended. Had by whoever runs one.
    ended: tokio::sync::Mutex<u64>,
}

/// Somebody who asks. The last one of a namespace takes its entry away.
struct Asking<'a> {
    telling: &'a Telling,
    namespace: Namespace,
    runs: Arc<Runs>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut namespaces = locked(&self.telling.namespaces);
        // The map has one, and this is another.
        if Arc::strong_count(&self.runs) == 2 {
            namespaces.remove(&self.namespace);
        }
    }
}

impl Telling {
    fn asking(&self, namespace: Namespace) -> Asking<'_> {
        let runs = locked(&self.namespaces).entry(namespace).or_default().clone();
        Asking { telling: self, namespace, runs }
    }

    /// Whether nobody asks, and how many runs of a namespace have begun.
    #[cfg(test)]
    pub fn begun(&self, namespace: Namespace) -> Option<u64> {
        locked(&self.namespaces).get(&namespace).map(|runs| runs.begun.load(Ordering::SeqCst))
    }
}

impl State {
    /// Tells the catalogue what the namespace's objects hold now.
    pub(super) async fn tell(&self, namespace: Namespace) -> Result<(), Error> {
        let shared: &Arc<Shared> = &self.0.shared;
        if shared.ledger.is_dropped(namespace) {
            return Ok(());
        }
        let asking = shared.telling.asking(namespace);
        // A run that goes on already may have passed what was written before this was asked; the next one has not.
        let wanted = asking.runs.begun.load(Ordering::SeqCst) + 1;
        let mut ended = asking.runs.ended.lock().await;
        if *ended >= wanted {
            return Ok(());
        }
        let _turn = shared.telling.turn.lock().await;
        let number = asking.runs.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let (sender, told) = oneshot::channel();
        let telling = shared.clone();
        shared.pool.submit(move || {
            telling.tell_all(namespace);
            let _ = sender.send(());
        });
        told.await.map_err(|_| Error::closed())?;
        *ended = number;
        Ok(())
    }
}
