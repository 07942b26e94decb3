//! Who has slots and who waits for them, and who is next.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::oneshot;

use super::pool::{CLAIMS, Pool};
use super::{Counts, Permit, TreeSlots};
use crate::lines::{Full, Joined, Lines, Standing};

/// All that changes, under one lock.
pub(super) struct State {
    pool: Pool,
    accounts: Vec<Account>,
    /// Per claim: the lines of accounts that could have a slot as far as their own pool goes, by the oldest hop in each.
    ready: [BTreeMap<u64, usize>; CLAIMS],
    hops_waiting: usize,
    last_hop: u64,
    roots: Lines<usize, Root>,
    /// Accounts whose next request could have a slot as far as their own pool goes, in the order of their turns. One whose requests went away
    /// stays until its turn comes.
    turns: VecDeque<usize>,
}

struct Account {
    pool: Pool,
    /// Trees with waiting hops, by their claim.
    hops: BTreeMap<usize, HopLine>,
    /// It stands in `turns`.
    has_turn: bool,
}

/// Trees of one account and claim that have waiting hops, by the oldest of those.
#[derive(Default)]
struct HopLine {
    trees: BTreeMap<u64, TreeSlots>,
    /// What stands in `ready` for it.
    ready: Option<u64>,
}

/// A request that waits.
pub(super) struct Root {
    tree: TreeSlots,
    wake: oneshot::Sender<Permit>,
}

impl State {
    pub fn new(total: u32, queue_max: usize) -> Self {
        Self {
            pool: Pool::new(total),
            accounts: Vec::new(),
            ready: std::array::from_fn(|_| BTreeMap::new()),
            hops_waiting: 0,
            last_hop: 0,
            roots: Lines::new(queue_max),
            turns: VecDeque::new(),
        }
    }

    pub fn add_account(&mut self, total: u32) -> usize {
        self.accounts.push(Account { pool: Pool::new(total), hops: BTreeMap::new(), has_turn: false });
        self.accounts.len() - 1
    }

    pub fn free(&self) -> u32 {
        self.pool.free
    }

    pub fn account_free(&self, account: usize) -> u32 {
        self.accounts.get(account).map_or(0, |account| account.pool.free)
    }

    pub fn waiting(&self) -> (usize, usize) {
        (self.roots.len(), self.hops_waiting)
    }

    /// Changes a tree, and where it stands.
    fn change<R>(&mut self, tree: &TreeSlots, change: impl FnOnce(&mut Counts) -> R) -> R {
        let mut counts = tree.counts();
        let oldest = |counts: &Counts| counts.hops.first_key_value().map(|(id, _)| *id);
        let (before, stood) = (counts.filed(), oldest(&counts));
        let changed = change(&mut counts);
        let (after, stands) = (counts.filed(), oldest(&counts));
        drop(counts);
        let Some(account) = self.accounts.get_mut(tree.number()) else { return changed };
        self.pool.refile(before, after);
        account.pool.refile(before, after);
        if (before.claim, stood) != (after.claim, stands) {
            if let (Some(id), Some(line)) = (stood, account.hops.get_mut(&before.claim)) {
                line.trees.remove(&id);
            }
            if let Some(id) = stands {
                account.hops.entry(after.claim).or_default().trees.insert(id, tree.clone());
            }
        }
        if !account.hops.is_empty() {
            account.show_ready(tree.number(), &mut self.ready);
        }
        if self.roots.len() > 0 && !account.has_turn && account.pool.admits() && self.roots.first(tree.number()).is_some() {
            account.has_turn = true;
            self.turns.push_back(tree.number());
        }
        changed
    }

    /// Gives a request its slot if nobody was there before it.
    pub fn try_admit(&mut self, tree: &TreeSlots) -> bool {
        // Where the host could give a slot, nobody who could have it waits.
        let admits = self.pool.admits() && self.turns.is_empty() && self.accounts.get(tree.number()).is_some_and(|account| account.pool.admits());
        if admits {
            self.begin(tree);
        }
        admits
    }

    fn begin(&mut self, tree: &TreeSlots) {
        self.change(tree, |counts| {
            counts.numbered = 1;
            counts.held = 1;
        });
    }

    /// Lets a request wait. Whoever has to make room for it is to be dropped once the lock is released.
    pub fn enqueue_root(&mut self, tree: &TreeSlots, standing: Standing, wake: oneshot::Sender<Permit>) -> Result<Joined<usize, Root>, Full> {
        let joined = self.roots.join(tree.number(), standing, Root { tree: tree.clone(), wake })?;
        // Gives it its turn, if its account may have one.
        self.change(tree, |_| ());
        Ok(joined)
    }

    pub fn remove_root(&mut self, tree: &TreeSlots, id: u64) -> Option<Root> {
        self.roots.remove(tree.number(), id)
    }

    /// Gives a hop its slot if both pools can.
    pub fn try_hop(&mut self, tree: &TreeSlots) -> bool {
        // A hop that waits has a number less to come, so its tree's claim is what it was before.
        let claim = tree.counts().filed().claim;
        let gives = self.pool.gives(claim) && self.accounts.get(tree.number()).is_some_and(|account| account.pool.gives(claim));
        if gives {
            self.change(tree, |counts| {
                counts.numbered += 1;
                counts.held += 1;
            });
        }
        gives
    }

    /// Lets a hop wait, and returns its number.
    pub fn enqueue_hop(&mut self, tree: &TreeSlots, wake: oneshot::Sender<Permit>) -> u64 {
        self.last_hop += 1;
        self.hops_waiting += 1;
        let id = self.last_hop;
        self.change(tree, |counts| {
            counts.numbered += 1;
            counts.hops.insert(id, wake);
        });
        id
    }

    pub fn remove_hop(&mut self, tree: &TreeSlots, id: u64) {
        if self.change(tree, |counts| counts.hops.remove(&id)).is_some() {
            self.hops_waiting -= 1;
        }
    }

    pub fn give_back(&mut self, tree: &TreeSlots) {
        self.change(tree, |counts| counts.held -= 1);
    }

    /// Grants whatever can be granted now. What could not be delivered is to be dropped once the lock is released.
    pub fn grant(&mut self) -> Vec<Permit> {
        let mut undelivered = Vec::new();
        while let Some(tree) = self.next_hop() {
            let granted = self.change(&tree, |counts| {
                counts.held += 1;
                counts.hops.pop_first()
            });
            self.hops_waiting -= 1;
            if let Some((_, wake)) = granted {
                deliver(tree, wake, &mut undelivered);
            }
        }
        while self.pool.admits() {
            let Some(number) = self.turns.pop_front() else { break };
            let Some(account) = self.accounts.get_mut(number) else { continue };
            account.has_turn = false;
            if !account.pool.admits() {
                continue;
            }
            if let Some(Root { tree, wake }) = self.roots.remove_first(number) {
                // This also gives the account its next turn, behind all others.
                self.begin(&tree);
                deliver(tree, wake, &mut undelivered);
            }
        }
        undelivered
    }

    /// The tree of the oldest hop that can be granted.
    fn next_hop(&self) -> Option<TreeSlots> {
        if self.hops_waiting == 0 {
            return None;
        }
        let heads = self.ready.iter().enumerate().take(self.pool.reach() + 1);
        let heads = heads.filter_map(|(claim, lines)| lines.first_key_value().map(|(id, account)| (*id, claim, *account)));
        let (id, claim, account) = heads.min()?;
        self.accounts.get(account)?.hops.get(&claim)?.trees.get(&id).cloned()
    }
}

impl Account {
    /// Shows the heads of those of its lines that its own pool can give a slot to.
    fn show_ready(&mut self, number: usize, ready: &mut [BTreeMap<u64, usize>; CLAIMS]) {
        let reach = self.pool.reach();
        for (claim, line) in &mut self.hops {
            let head = line.trees.first_key_value().filter(|_| *claim <= reach).map(|(id, _)| *id);
            if let Some(lines) = ready.get_mut(*claim).filter(|_| head != line.ready) {
                if let Some(id) = line.ready {
                    lines.remove(&id);
                }
                if let Some(id) = head {
                    lines.insert(id, number);
                }
                line.ready = head;
            }
        }
        self.hops.retain(|_, line| !line.trees.is_empty());
    }
}

fn deliver(tree: TreeSlots, wake: oneshot::Sender<Permit>, undelivered: &mut Vec<Permit>) {
    if let Err(permit) = wake.send(Permit { owner: Some(tree) }) {
        undelivered.push(permit);
    }
}

#[cfg(test)]
impl State {
    /// The accounts' pools, and whether nothing is left anywhere.
    pub fn is_idle(&self) -> bool {
        let accounts = self.accounts.iter().all(|account| account.pool.is_empty() && account.hops.is_empty());
        accounts && self.pool.is_empty() && self.ready.iter().all(BTreeMap::is_empty) && self.waiting() == (0, 0)
    }
}
