//! Which call of an object has it, and which calls wait for one, so that a wait that could only end by itself is refused at once.
//!
//! A call has its object until all that it has called has ended. So what a call waits for is what anything within it waits for, and a wait can never end
//! if whoever has the object is one of the calls that the waiting one is part of, or waits, directly or through others, for what one of those has. Two
//! calls of one request that have nothing to do with each other can well wait for the same object.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use super::objects::{Id, locked};
use super::{Error, Holds};

/// Holders and waiters of all objects.
#[derive(Clone, Default)]
pub(super) struct Waits(Arc<Mutex<Graph>>);

#[derive(Default)]
struct Graph {
    /// Calls that have been given an object so far.
    calls: u64,
    /// By object, the number of the call that has it.
    holders: HashMap<Id, u64>,
    /// By the number of a call, one entry for each wait within it.
    waiting: HashMap<u64, Vec<Id>>,
}

/// A wait that is noted until this is dropped.
pub(super) struct Waiting<'a> {
    waits: &'a Waits,
    holds: &'a Holds,
    id: &'a Id,
}

/// A call that has an object until this is dropped.
pub(super) struct Held {
    waits: Waits,
    id: Id,
    number: u64,
}

impl Waits {
    /// Notes that something within these calls waits for an object. Fails when it would wait for itself.
    pub fn wait<'a>(&'a self, holds: &'a Holds, id: &'a Id) -> Result<Waiting<'a>, Error> {
        // What is part of no call of an object keeps nobody waiting.
        if !holds.is_empty() {
            let mut graph = locked(&self.0);
            if graph.leads_to(id, holds) {
                return Err(Error::Deadlock);
            }
            for call in holds.calls() {
                graph.waiting.entry(*call).or_default().push(id.clone());
            }
        }
        Ok(Waiting { waits: self, holds, id })
    }

    /// Notes that a call has an object.
    pub fn hold(&self, id: &Id) -> Held {
        let mut graph = locked(&self.0);
        graph.calls += 1;
        let number = graph.calls;
        graph.holders.insert(id.clone(), number);
        Held { waits: self.clone(), id: id.clone(), number }
    }

    /// Whether nothing is noted.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        let graph = locked(&self.0);
        graph.holders.is_empty() && graph.waiting.is_empty()
    }
}

impl Held {
    /// The number of the call.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Graph {
    /// Whether the object is held by one of these calls, or by one that waits, directly or through others, for an object that is.
    fn leads_to(&self, id: &Id, holds: &Holds) -> bool {
        let (mut ahead, mut seen) = (vec![id], HashSet::new());
        while let Some(id) = ahead.pop() {
            let Some(holder) = self.holders.get(id) else { continue };
            if holds.calls().contains(holder) {
                return true;
            }
            if seen.insert(*holder) {
                ahead.extend(self.waiting.get(holder).into_iter().flatten());
            }
        }
        false
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.holds.is_empty() {
            return;
        }
        let mut graph = locked(&self.waits.0);
        for call in self.holds.calls() {
            let Some(waiting) = graph.waiting.get_mut(call) else { continue };
            if let Some(at) = waiting.iter().position(|id| id == self.id) {
                waiting.swap_remove(at);
            }
            if waiting.is_empty() {
                graph.waiting.remove(call);
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        locked(&self.waits.0).holders.remove(&self.id);
    }
}
