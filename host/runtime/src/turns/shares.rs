//! Queues that take turns by what each has had: the next item is of the one that has had the least.
//!
//! A queue that has nothing waiting keeps what it has had until the others have had as much, so that nobody gains by leaving the line for a moment. One that
//! comes, or comes back later, starts with as much as the one that was served last: it has no claim on the past.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What items are taken from.
pub trait Queue: Default {
    /// What it holds.
    type Item;
    /// The next item.
    fn take(&mut self) -> Option<Self::Item>;
    /// Whether there is none.
    fn is_empty(&self) -> bool;
}

impl<T> Queue for VecDeque<T> {
    type Item = T;

    fn take(&mut self) -> Option<T> {
        self.pop_front()
    }

    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }
}

/// Queues by key.
pub struct Shares<K, Q> {
    by_key: BTreeMap<K, Share<Q>>,
    /// Keys whose queues have items, and what they have had.
    waiting: BTreeSet<(u64, K)>,
    /// Keys whose queues have none, but more than others of what there is to have.
    resting: BTreeSet<(u64, K)>,
    /// What the one that was served last had had before.
    floor: u64,
}

struct Share<Q> {
    had: u64,
    queue: Q,
}

impl<K, Q> Default for Shares<K, Q> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), waiting: BTreeSet::new(), resting: BTreeSet::new(), floor: 0 }
    }
}

impl<K: Ord + Clone, Q: Queue> Shares<K, Q> {
    /// Whether the queue of this key has items.
    pub fn is_waiting(&self, key: &K) -> bool {
        self.by_key.get(key).is_some_and(|share| !share.queue.is_empty())
    }

    /// Puts items into the queue of a key.
    pub fn put(&mut self, key: &K, put: impl FnOnce(&mut Q)) {
        self.change(key, |share, floor| {
            put(&mut share.queue);
            share.had = share.had.max(floor);
        });
    }

    /// Counts what the item of a key has had that was taken last, after it has been put back, or has not.
    pub fn had(&mut self, key: &K, much: u64, within: impl FnOnce(&mut Q)) {
        self.change(key, |share, _| {
            share.had = share.had.saturating_add(much);
            within(&mut share.queue);
        });
    }

    /// Changes a share and puts it where it belongs now.
    fn change(&mut self, key: &K, change: impl FnOnce(&mut Share<Q>, u64)) {
        let floor = self.floor;
        let share = self.by_key.entry(key.clone()).or_insert_with(|| Share { had: floor, queue: Q::default() });
        let before = (share.had, key.clone());
        change(share, floor);
        let after = (share.had, key.clone());
        let is_waiting = !share.queue.is_empty();
        self.waiting.remove(&before);
        self.resting.remove(&before);
        if is_waiting {
            self.waiting.insert(after)
        } else {
            self.resting.insert(after)
        };
    }
}

impl<K: Ord + Clone, Q: Queue> Queue for Shares<K, Q> {
    type Item = Q::Item;

    fn take(&mut self) -> Option<Q::Item> {
        let (had, key) = self.waiting.first()?.clone();
        self.floor = self.floor.max(had);
        let mut item = None;
        self.change(&key, |share, _| item = share.queue.take());
        while let Some((had, key)) = self.resting.first()
            && *had < self.floor
        {
            self.by_key.remove(key);
            self.resting.pop_first();
        }
        item
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests;
