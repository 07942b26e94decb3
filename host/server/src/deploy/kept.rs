//! Names of what a deploy under way has on disk and no row refers to yet: an upload that comes in, what a build makes until it is promoted. A sweep leaves it
//! alone, and need not wait until nothing is under way. It knows names, and neither files nor rows.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::MutexGuard;

/// The names that are kept.
#[derive(Default)]
pub(super) struct Names {
    holders: Arc<Mutex<HashMap<String, usize>>>,
    sweeping: tokio::sync::Mutex<()>,
    waiting: tokio::sync::Mutex<()>,
}

/// Keeps a name for as long as it or a clone of it exists.
#[derive(Clone)]
pub(crate) struct Kept {
    _holder: Arc<Holder>,
}

struct Holder {
    name: String,
    holders: Arc<Mutex<HashMap<String, usize>>>,
}

/// The right to remove what neither a row nor one of these names refers to.
pub(super) struct Sweep<'a> {
    /// The names. Rows have to be read after them: a name that is kept no longer may have got its row in between.
    pub names: HashSet<String>,
    _alone: MutexGuard<'a, ()>,
}

impl Names {
    /// Keeps a name. A sweep that is under way is waited for: what is there afterwards stays.
    pub async fn keep(&self, name: &str) -> Kept {
        let _between_sweeps = self.sweeping.lock().await;
        *self.holders.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default() += 1;
        Kept { _holder: Arc::new(Holder { name: name.to_owned(), holders: self.holders.clone() }) }
    }

    /// Begins a sweep. Nothing where another one is about to begin, which finds what this one would.
    pub async fn sweep(&self) -> Option<Sweep<'_>> {
        let waiting = self.waiting.try_lock().ok()?;
        let alone = self.sweeping.lock().await;
        drop(waiting);
        let names = self.holders.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        Some(Sweep { names, _alone: alone })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = holders.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                holders.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_name_is_kept_until_its_last_holder_is_gone() {
        let names = Names::default();
        let (first, second) = (names.keep("a").await, names.keep("a").await);
        let clone = first.clone();
        drop((first, second));
        assert_eq!(names.sweep().await.unwrap().names, HashSet::from(["a".to_owned()]));
        drop(clone);
        assert!(names.sweep().await.unwrap().names.is_empty());
    }

    #[tokio::test]
    async fn nothing_is_kept_in_the_middle_of_a_sweep_and_only_one_waits() {
        let names = Names::default();
        let sweep = names.sweep().await.unwrap();
        let mut keeping = Box::pin(names.keep("a"));
        assert!(keeping.as_mut().now_or_never().is_none());
        let mut next = Box::pin(names.sweep());
        assert!(next.as_mut().now_or_never().is_none());
        assert!(names.sweep().await.is_none(), "the one that waits does it");
        drop(sweep);
        let kept = keeping.await;
        assert_eq!(next.await.unwrap().names.len(), 1);
        drop(kept);
    }
}
