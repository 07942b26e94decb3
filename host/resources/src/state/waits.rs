//! Which chain of calls holds which object, and which waits for one, so that a wait that could only end by itself is refused at once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use super::objects::{Id, locked};
use super::{Chain, Error};

/// Holders and waiters of all objects.
#[derive(Clone, Default)]
pub(super) struct Waits(Arc<Mutex<Graph>>);

#[derive(Default)]
struct Graph {
    holders: HashMap<Id, Chain>,
    /// One entry for each wait of a chain.
    waiting: HashMap<Chain, Vec<Id>>,
}

/// Something that is noted, until it is dropped.
pub(super) struct Noted {
    waits: Waits,
    chain: Chain,
    id: Id,
    holds: bool,
}

impl Waits {
    /// Notes that a chain waits for an object. Fails when it would wait for itself.
    pub fn wait(&self, chain: Chain, id: &Id) -> Result<Noted, Error> {
        let mut graph = locked(&self.0);
        if graph.leads_to(id, chain) {
            return Err(Error::Deadlock);
        }
        graph.waiting.entry(chain).or_default().push(id.clone());
        Ok(Noted { waits: self.clone(), chain, id: id.clone(), holds: false })
    }

    /// Notes that a chain has an object.
    pub fn hold(&self, chain: Chain, id: &Id) -> Noted {
        locked(&self.0).holders.insert(id.clone(), chain);
        Noted { waits: self.clone(), chain, id: id.clone(), holds: true }
    }

    /// The chain that has an object, if one has.
    pub fn holder(&self, id: &Id) -> Option<Chain> {
        locked(&self.0).holders.get(id).copied()
    }
}

impl Graph {
    /// Whether the object is held by that chain, or by one that waits, directly or through others, for an object that is.
    fn leads_to(&self, id: &Id, chain: Chain) -> bool {
        let (mut ahead, mut seen) = (vec![id], HashSet::new());
        while let Some(id) = ahead.pop() {
            let Some(holder) = self.holders.get(id) else { continue };
            if *holder == chain {
                return true;
            }
            if seen.insert(*holder) {
                ahead.extend(self.waiting.get(holder).into_iter().flatten());
            }
        }
        false
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        let mut graph = locked(&self.waits.0);
        if self.holds {
            graph.holders.remove(&self.id);
            return;
        }
        let Some(waiting) = graph.waiting.get_mut(&self.chain) else { return };
        if let Some(at) = waiting.iter().position(|id| *id == self.id) {
            waiting.swap_remove(at);
        }
        if waiting.is_empty() {
            graph.waiting.remove(&self.chain);
        }
    }
}
