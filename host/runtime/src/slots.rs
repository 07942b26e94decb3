//! Instance slots, given out so that a chain which began can always finish, and so that no account has more than its share.
//!
//! A request from outside grows a tree of invocations, each of which holds a slot until it ends. A caller keeps its slot while it waits for its
//! target, so slots given out without care deadlock. This is the banker's algorithm for one kind of resource: what a tree may still
//! claim is known (32 invocations, less those numbered, plus those that wait for a slot), and a slot is given only if some order remains in which every
//! tree can get its whole claim. Requests from outside are admitted only while a full claim stays free beside them, which keeps the
//! check off the path of all but a crowded host.
//!
//! A tree belongs to the account of its root, whichever services its calls reach, and the trees of one account together have at most half of the slots. So
//! there are two kinds of pools, the host's and one of each account, and a slot is taken from both. It is given only if both stay safe, each for
//! itself. That is enough. A pool is safe if and only if its trees can end in the order of their claims, the smallest first. Let all trees of the host end
//! in that order: the host's pool has what each of them claims when its turn comes. An account's pool sees only its own trees, which end in the order of
//! their claims too, and nobody else takes from it or returns to it, so it has what they claim as well. One order serves all pools.
//!
//! Where what flows:
//! - `State` has the pools (`pool.rs`) and who waits, under one lock. Every change of a tree goes through `State::change` (`state.rs`), which keeps the
//!   pools and the lines right.
//! - A hop that has to wait stands in its tree. Whether it can be granted depends on its tree's claim and account alone, so its tree stands in a line for
//!   its account and claim, and only the heads of lines are looked at: the oldest that both pools can give a slot to is first.
//! - A request that has to wait stands in the line of its account. Accounts take turns. One that has its share has no turn, so it bars nobody.
//! - A slot that comes back goes to hops before it goes to requests, because they belong to chains that began.

mod pool;
mod state;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use tovuk_kernel::limits::{CHAIN_INVOCATIONS, SLOTS_ACCOUNT_PERCENT, SLOTS_SHARED_MIN};

use crate::lines::Standing;
use pool::Filed;
use state::State;

/// What stays free beside a request from outside: the rest of one tree.
const RESERVE: u32 = CHAIN_INVOCATIONS - 1;

/// The slots of a host. Clones share them.
#[derive(Clone)]
pub struct Slots(Arc<Shared>);

struct Shared {
    total: u32,
    account_total: u32,
    state: Mutex<State>,
}

/// An account, as the slots know it. Clones are the same account.
#[derive(Clone)]
pub struct AccountSlots {
    slots: Slots,
    number: usize,
}

/// The slots of one tree. Dropping a permit returns its slot.
#[derive(Clone)]
pub struct TreeSlots(Arc<Tree>);

struct Tree {
    account: AccountSlots,
    counts: Mutex<Counts>,
}

/// What one tree holds and may still claim.
#[derive(Default)]
struct Counts {
    numbered: u32,
    held: u32,
    /// Hops that wait, by their numbers: the first came first.
    hops: BTreeMap<u64, oneshot::Sender<Permit>>,
}

impl Counts {
    fn filed(&self) -> Filed {
        Filed { claim: CHAIN_INVOCATIONS.saturating_sub(self.numbered) as usize + self.hops.len(), held: self.held }
    }
}

/// One slot, to be kept beside the store that uses it and dropped after it.
pub struct Permit {
    owner: Option<TreeSlots>,
}

/// Every slot is in use, and as many requests wait for one as may.
#[derive(Debug, PartialEq, Eq)]
pub struct QueueFull;

impl Slots {
    /// `total` slots, at least one whole chain; `queue_max` requests from outside may wait for one.
    pub fn new(total: u32, queue_max: usize) -> Self {
        let total = total.max(CHAIN_INVOCATIONS);
        // A request is admitted only beside the rest of a chain, so half of a small pool would be a few requests at a time, for whoever has such a host
        // for himself as well. There accounts take turns, and that is all.
        let percent = if total < SLOTS_SHARED_MIN { 100 } else { SLOTS_ACCOUNT_PERCENT };
        Self::with_share(total, (u64::from(total) * u64::from(percent) / 100) as u32, queue_max)
    }

    fn with_share(total: u32, account_total: u32, queue_max: usize) -> Self {
        let account_total = account_total.clamp(CHAIN_INVOCATIONS, total);
        Self(Arc::new(Shared { total, account_total, state: Mutex::new(State::new(total, queue_max)) }))
    }

    /// How many slots there are.
    pub fn total(&self) -> u32 {
        self.0.total
    }

    /// How many of them the trees of one account may have together.
    pub fn account_total(&self) -> u32 {
        self.0.account_total
    }

    /// How many are free now.
    pub fn free(&self) -> u32 {
        self.lock().free()
    }

    /// How many requests from outside, and how many hops, wait now.
    pub fn waiting(&self) -> (usize, usize) {
        self.lock().waiting()
    }

    /// A new account, which is remembered as long as the slots are.
    pub fn account(&self) -> AccountSlots {
        let number = self.lock().add_account(self.0.account_total);
        AccountSlots { slots: self.clone(), number }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic between two related changes, so a poisoned lock guards a consistent state.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccountSlots {
    /// How many slots its trees have now.
    pub fn held(&self) -> u32 {
        self.slots.0.account_total - self.slots.lock().account_free(self.number)
    }

    /// The first slot of a new tree, for a request from outside, if it can be had without waiting.
    pub fn try_admit(&self) -> Option<(TreeSlots, Permit)> {
        let tree = self.tree();
        let admitted = self.slots.lock().try_admit(&tree);
        admitted.then(|| (tree.clone(), Permit { owner: Some(tree) }))
    }

    /// The same, waiting in the line of the account.
    pub async fn admit(&self, standing: Standing) -> Result<(TreeSlots, Permit), QueueFull> {
        let tree = self.tree();
        let (wait, displaced) = {
            let mut state = self.slots.lock();
            if state.try_admit(&tree) {
                drop(state);
                return Ok((tree.clone(), Permit { owner: Some(tree) }));
            }
            let (wake, receiver) = oneshot::channel();
            let joined = state.enqueue_root(&tree, standing, wake).map_err(|_| QueueFull)?;
            (Wait { tree: tree.clone(), kind: Kind::Root, id: joined.id, receiver: Some(receiver) }, joined.displaced)
        };
        // That is how it learns of it.
        drop(displaced);
        let permit = wait.granted().await.ok_or(QueueFull)?;
        Ok((tree, permit))
    }

    fn tree(&self) -> TreeSlots {
        TreeSlots(Arc::new(Tree { account: self.clone(), counts: Mutex::default() }))
    }
}

impl TreeSlots {
    /// A slot for an invocation after the first. The caller has numbered it, at most 32 in all. Waits until one can be given
    /// without putting any chain's end at risk; it never fails.
    pub async fn hop(&self) -> Permit {
        let wait = {
            let mut state = self.slots().lock();
            // Waiting hops do not bar a newcomer that is safe: it may belong to the tree whose end they wait for.
            if state.try_hop(self) {
                None
            } else {
                let (wake, receiver) = oneshot::channel();
                let id = state.enqueue_hop(self, wake);
                Some(Wait { tree: self.clone(), kind: Kind::Hop, id, receiver: Some(receiver) })
            }
        };
        let Some(wait) = wait else { return Permit { owner: Some(self.clone()) } };
        match wait.granted().await {
            Some(permit) => permit,
            // A hop leaves its line only by being granted or given up, so the host itself is going away.
            None => std::future::pending().await,
        }
    }

    fn slots(&self) -> &Slots {
        &self.0.account.slots
    }

    fn number(&self) -> usize {
        self.0.account.number
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Root,
    Hop,
}

/// A place in a line. Dropping it gives the place up, and the slot back if it was granted meanwhile.
struct Wait {
    tree: TreeSlots,
    kind: Kind,
    id: u64,
    receiver: Option<oneshot::Receiver<Permit>>,
}

impl Wait {
    /// The slot, or none if another has taken the place in the line.
    async fn granted(mut self) -> Option<Permit> {
        let permit = self.receiver.as_mut()?.await.ok();
        self.receiver = None;
        permit
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.receiver.is_none() {
            return;
        }
        // Taken out of its line before the receiver goes, so that a slot is never sent to nobody. If it is not there any more, the permit is in the
        // channel, and goes with the receiver.
        let mut state = self.tree.slots().lock();
        let gone = match self.kind {
            Kind::Root => (state.remove_root(&self.tree, self.id), Vec::new()),
            Kind::Hop => {
                state.remove_hop(&self.tree, self.id);
                (None, state.grant())
            }
        };
        drop(state);
        drop(gone);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(tree) = self.owner.take() {
            let mut state = tree.slots().lock();
            state.give_back(&tree);
            let undelivered = state.grant();
            drop(state);
            drop(undelivered);
        }
    }
}

#[cfg(test)]
mod tests;
