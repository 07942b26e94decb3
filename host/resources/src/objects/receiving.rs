//! Which parts are being received, so that a part that is sent again takes the place of an attempt that hangs: there is one attempt for each part.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::types::UploadId;

type Key = (UploadId, u32);

#[derive(Clone, Default)]
pub(super) struct Receiving(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next: u64,
    /// Dropping the sender ends the attempt.
    attempts: HashMap<Key, (u64, oneshot::Sender<()>)>,
}

impl Receiving {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt, which ends the one before.
    pub fn begin(&self, upload: UploadId, part: u32) -> Attempt {
        let (sender, ended) = oneshot::channel();
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.attempts.insert((upload, part), (number, sender));
        Attempt { all: self.clone(), key: (upload, part), number, ended }
    }

    /// Ends all attempts of an upload.
    pub fn end(&self, upload: UploadId) {
        self.lock().attempts.retain(|(other, _), _| *other != upload);
    }
}

/// An attempt to receive a part.
pub(super) struct Attempt {
    all: Receiving,
    key: Key,
    number: u64,
    ended: oneshot::Receiver<()>,
}

impl Attempt {
    /// Returns when another attempt has taken this one's place, or the upload has ended.
    pub async fn wait(&mut self) {
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        if state.attempts.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            state.attempts.remove(&self.key);
        }
    }
}
