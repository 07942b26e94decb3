//! Instance slots, given out so that a chain which began can always finish.
//!
//! A request from outside grows a tree of invocations, each of which holds a slot until it ends. A caller keeps its slot while it waits for its
//! target, so slots given out without care deadlock. This is the banker's algorithm for one kind of resource: what a tree may still
//! claim is known (32 invocations, less those numbered, plus those that wait for a slot), and a slot is given only if some order remains in which every
//! tree can get its whole claim. Requests from outside are admitted only while a full claim stays free beside them, which keeps the
//! check off the path of all but a crowded host.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use tovuk_kernel::limits::CHAIN_INVOCATIONS;

/// Claims run from 0 to 32.
const BUCKETS: usize = CHAIN_INVOCATIONS as usize + 1;
/// What stays free beside a request from outside: the rest of one tree.
const RESERVE: u32 = CHAIN_INVOCATIONS - 1;

/// The slots of a host. Clones share them.
#[derive(Clone)]
pub struct Slots(Arc<Shared>);

struct Shared {
    total: u32,
    queue_max: usize,
    state: Mutex<State>,
}

struct State {
    free: u32,
    /// Per claim: how many trees have it, and how many slots they hold together.
    trees: [u32; BUCKETS],
    held: [u32; BUCKETS],
    hops: VecDeque<Waiter>,
    roots: VecDeque<Waiter>,
    next_waiter: u64,
}

struct Waiter {
    id: u64,
    tree: Arc<Mutex<Tree>>,
    wake: oneshot::Sender<Permit>,
}

/// What one tree holds and may still claim.
#[derive(Default)]
struct Tree {
    numbered: u32,
    waiting: u32,
    held: u32,
}

impl Tree {
    fn claim(&self) -> usize {
        (CHAIN_INVOCATIONS.saturating_sub(self.numbered) + self.waiting) as usize
    }
}

/// The slots of one tree. Dropping a permit returns its slot.
#[derive(Clone)]
pub struct TreeSlots {
    slots: Slots,
    tree: Arc<Mutex<Tree>>,
}

/// One slot, to be kept beside the store that uses it and dropped after it.
pub struct Permit {
    owner: Option<TreeSlots>,
}

/// Every slot is in use and the queue for them is full.
#[derive(Debug, PartialEq, Eq)]
pub struct QueueFull;

impl Slots {
    /// `total` slots, at least one whole chain; `queue_max` requests from outside may wait for one.
    pub fn new(total: u32, queue_max: usize) -> Self {
        let total = total.max(CHAIN_INVOCATIONS);
        Self(Arc::new(Shared {
            total,
            queue_max,
            state: Mutex::new(State {
                free: total,
                trees: [0; BUCKETS],
                held: [0; BUCKETS],
                hops: VecDeque::new(),
                roots: VecDeque::new(),
                next_waiter: 0,
            }),
        }))
    }

    /// How many slots there are.
    pub fn total(&self) -> u32 {
        self.0.total
    }

    /// How many are free now.
    pub fn free(&self) -> u32 {
        self.lock().free
    }

    /// How many requests from outside, and how many hops, wait now.
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.roots.len(), state.hops.len())
    }

    /// The first slot of a new tree, for a request from outside, if it can be had without waiting.
    pub fn try_admit(&self) -> Option<(TreeSlots, Permit)> {
        let owner = TreeSlots { slots: self.clone(), tree: Arc::new(Mutex::new(Tree::default())) };
        let mut state = self.lock();
        if !state.roots.is_empty() || state.free <= RESERVE {
            return None;
        }
        state.grant_root(&owner.tree);
        drop(state);
        Some((owner.clone(), Permit { owner: Some(owner) }))
    }

    /// The same, waiting in a bounded queue, in order of arrival.
    pub async fn admit(&self) -> Result<(TreeSlots, Permit), QueueFull> {
        if let Some(granted) = self.try_admit() {
            return Ok(granted);
        }
        let owner = TreeSlots { slots: self.clone(), tree: Arc::new(Mutex::new(Tree::default())) };
        let wait = {
            let mut state = self.lock();
            if state.roots.len() >= self.0.queue_max {
                return Err(QueueFull);
            }
            let wait = state.enqueue(&owner, Kind::Root);
            // A slot may have come free since it was asked for, and then nobody else would grant it.
            let undelivered = state.grant_waiters(self);
            drop(state);
            drop(undelivered);
            wait
        };
        let permit = wait.granted().await;
        Ok((owner, permit))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic between two related changes, so a poisoned lock guards a consistent state.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(tree: &Mutex<Tree>) -> MutexGuard<'_, Tree> {
    tree.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TreeSlots {
    /// A slot for an invocation after the first. The caller has numbered it, at most 32 in all. Waits until one can be given
    /// without putting any chain's end at risk; it never fails.
    pub async fn hop(&self) -> Permit {
        let receiver = {
            let mut state = self.slots.lock();
            state.update(&self.tree, |tree| {
                tree.numbered += 1;
                tree.waiting += 1;
            });
            // Waiting hops do not bar a newcomer that is safe: it may belong to the tree whose end they wait for.
            if state.try_grant_hop(&self.tree) { None } else { Some(state.enqueue(self, Kind::Hop)) }
        };
        match receiver {
            None => Permit { owner: Some(self.clone()) },
            Some(wait) => wait.granted().await,
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Root,
    Hop,
}

/// A place in a queue. Dropping it gives the place up, and the slot back if it was granted meanwhile.
struct Wait {
    owner: TreeSlots,
    kind: Kind,
    id: u64,
    receiver: Option<oneshot::Receiver<Permit>>,
}

impl Wait {
    async fn granted(mut self) -> Permit {
        // The sender leaves the queue only by granting, so an error here means the host itself is going away.
        let permit = match self.receiver.as_mut() {
            Some(receiver) => receiver.await.ok(),
            None => None,
        };
        match permit {
            Some(permit) => {
                self.receiver = None;
                permit
            }
            None => std::future::pending().await,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.receiver.is_none() {
            return;
        }
        let mut state = self.owner.slots.lock();
        let queue = match self.kind {
            Kind::Root => &mut state.roots,
            Kind::Hop => &mut state.hops,
        };
        if let Some(at) = queue.iter().position(|waiter| waiter.id == self.id) {
            queue.remove(at);
            if let Kind::Hop = self.kind {
                state.update(&self.owner.tree, |tree| tree.waiting -= 1);
            }
            let granted = state.grant_waiters(&self.owner.slots);
            drop(state);
            drop(granted);
        } else {
            // It was granted between the last poll and now: the permit is in the channel, or on its way there. Dropping the
            // receiver drops the permit, which returns the slot.
            drop(state);
            self.receiver = None;
        }
    }
}

impl State {
    /// Changes a tree and moves it to the bucket of its new claim. A tree stands in the buckets while it holds or waits for a slot.
    fn update(&mut self, tree: &Mutex<Tree>, change: impl FnOnce(&mut Tree)) {
        let mut tree = lock(tree);
        self.unfile(&tree);
        change(&mut tree);
        self.file(&tree);
    }

    fn unfile(&mut self, tree: &Tree) {
        if tree.held + tree.waiting == 0 {
            return;
        }
        let claim = tree.claim();
        if let (Some(trees), Some(held)) = (self.trees.get_mut(claim), self.held.get_mut(claim)) {
            *trees -= 1;
            *held -= tree.held;
        }
    }

    fn file(&mut self, tree: &Tree) {
        if tree.held + tree.waiting == 0 {
            return;
        }
        let claim = tree.claim();
        if let (Some(trees), Some(held)) = (self.trees.get_mut(claim), self.held.get_mut(claim)) {
            *trees += 1;
            *held += tree.held;
        }
    }

    fn grant_root(&mut self, tree: &Mutex<Tree>) {
        self.free -= 1;
        self.update(tree, |tree| {
            tree.numbered = 1;
            tree.held = 1;
        });
    }

    /// Gives a waiting hop of this tree a slot if a safe order remains.
    fn try_grant_hop(&mut self, tree: &Mutex<Tree>) -> bool {
        if self.free == 0 {
            return false;
        }
        let ample = self.free >= RESERVE;
        self.free -= 1;
        self.update(tree, |tree| {
            tree.waiting -= 1;
            tree.held += 1;
        });
        if ample || self.is_safe() {
            return true;
        }
        self.free += 1;
        self.update(tree, |tree| {
            tree.waiting += 1;
            tree.held -= 1;
        });
        false
    }

    /// Whether every tree can get its whole claim, one after the other, those with the smallest claim first.
    fn is_safe(&self) -> bool {
        let mut free = self.free;
        for (claim, (trees, held)) in self.trees.iter().zip(&self.held).enumerate() {
            if *trees > 0 && claim as u32 > free {
                return false;
            }
            free += held;
        }
        true
    }

    fn enqueue(&mut self, owner: &TreeSlots, kind: Kind) -> Wait {
        let (wake, receiver) = oneshot::channel();
        self.next_waiter += 1;
        let waiter = Waiter { id: self.next_waiter, tree: owner.tree.clone(), wake };
        match kind {
            Kind::Root => self.roots.push_back(waiter),
            Kind::Hop => self.hops.push_back(waiter),
        }
        Wait { owner: owner.clone(), kind, id: self.next_waiter, receiver: Some(receiver) }
    }

    /// Grants whatever can be granted now: hops before requests from outside, because they belong to chains that began. What could not be
    /// delivered is returned, to be dropped once the lock is released.
    fn grant_waiters(&mut self, slots: &Slots) -> Vec<Permit> {
        let mut undelivered = Vec::new();
        let mut at = 0;
        while at < self.hops.len() && self.free > 0 {
            let Some(tree) = self.hops.get(at).map(|waiter| waiter.tree.clone()) else { break };
            if self.try_grant_hop(&tree) {
                if let Some(waiter) = self.hops.remove(at) {
                    deliver(waiter, slots, &mut undelivered);
                }
            } else {
                at += 1;
            }
        }
        while self.free > RESERVE {
            let Some(waiter) = self.roots.pop_front() else { break };
            self.grant_root(&waiter.tree);
            deliver(waiter, slots, &mut undelivered);
        }
        undelivered
    }
}

fn deliver(waiter: Waiter, slots: &Slots, undelivered: &mut Vec<Permit>) {
    let permit = Permit { owner: Some(TreeSlots { slots: slots.clone(), tree: waiter.tree }) };
    if let Err(permit) = waiter.wake.send(permit) {
        undelivered.push(permit);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Permits that could not be delivered are returned by this loop, without the lock and without recursion.
        let mut next = self.owner.take();
        let mut undelivered = Vec::new();
        while let Some(owner) = next {
            let mut state = owner.slots.lock();
            state.free += 1;
            state.update(&owner.tree, |tree| tree.held -= 1);
            undelivered.append(&mut state.grant_waiters(&owner.slots));
            drop(state);
            next = undelivered.pop().and_then(|mut permit: Permit| permit.owner.take());
        }
    }
}

#[cfg(test)]
mod tests;
