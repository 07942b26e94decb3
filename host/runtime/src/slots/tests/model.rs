//! Whatever is done in whatever order: the pools stay safe, and nobody waits who could be served. Both are asked of a plain model, in which a
//! tree is a claim, a number of slots and an account.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::super::*;

const ACCOUNTS: usize = 3;

type Waiting<T> = Pin<Box<dyn Future<Output = T>>>;
type Admitting = Waiting<Result<(TreeSlots, Permit), QueueFull>>;

#[derive(Clone, Debug)]
enum Step {
    Admit(usize),
    GiveUpRoot(usize),
    Hop(usize),
    GiveUpHop(usize),
    Return(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..ACCOUNTS).prop_map(Step::Admit),
        1 => any::<usize>().prop_map(Step::GiveUpRoot),
        12 => any::<usize>().prop_map(Step::Hop),
        2 => any::<usize>().prop_map(Step::GiveUpHop),
        3 => any::<usize>().prop_map(Step::Return),
    ]
}

/// What is known of a tree from outside.
#[derive(Clone, Copy, Debug)]
struct Seen {
    account: usize,
    claim: u32,
    held: u32,
}

struct World {
    slots: Slots,
    accounts: Vec<AccountSlots>,
    roots: Vec<(usize, Admitting)>,
    trees: Vec<TreeSlots>,
    hops: Vec<(TreeSlots, Waiting<Permit>)>,
    permits: Vec<Permit>,
}

fn poll<T>(waiting: &mut Waiting<T>) -> Option<T> {
    match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Takes out what is ready.
fn ready<K, T>(all: &mut Vec<(K, Waiting<T>)>) -> Vec<T> {
    let mut values = Vec::new();
    all.retain_mut(|(_, waiting)| poll(waiting).map(|value| values.push(value)).is_none());
    values
}

impl World {
    fn new(total: u32, share: u32) -> Self {
        let slots = Slots::with_share(total, share, 100);
        let accounts = (0..ACCOUNTS).map(|_| slots.account()).collect();
        Self { slots, accounts, roots: Vec::new(), trees: Vec::new(), hops: Vec::new(), permits: Vec::new() }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Admit(account) => {
                let slots = self.accounts[account].clone();
                self.roots.push((account, Box::pin(async move { slots.admit(Standing::Request).await })));
            }
            Step::GiveUpRoot(at) if !self.roots.is_empty() => drop(self.roots.swap_remove(at % self.roots.len())),
            Step::Hop(at) => {
                // Whoever calls holds a slot.
                let open: Vec<_> = self.trees.iter().filter(|tree| tree.counts().numbered < 32 && tree.counts().held > 0).collect();
                if !open.is_empty() {
                    let tree = open[at % open.len()].clone();
                    self.hops.push((tree.clone(), Box::pin(async move { tree.hop().await })));
                }
            }
            Step::GiveUpHop(at) if !self.hops.is_empty() => drop(self.hops.swap_remove(at % self.hops.len())),
            Step::Return(at) if !self.permits.is_empty() => drop(self.permits.swap_remove(at % self.permits.len())),
            _ => {}
        }
        for (tree, permit) in ready(&mut self.roots).into_iter().map(Result::unwrap) {
            self.trees.push(tree);
            self.permits.push(permit);
        }
        self.permits.extend(ready(&mut self.hops));
    }

    fn seen(&self, tree: &TreeSlots) -> Seen {
        let counts = tree.counts();
        Seen { account: tree.number(), claim: counts.filed().claim as u32, held: counts.held }
    }

    fn check(&self, total: u32, share: u32) {
        let trees: Vec<_> = self.trees.iter().map(|tree| self.seen(tree)).collect();
        let held: u32 = trees.iter().map(|tree| tree.held).sum();
        assert_eq!((self.slots.free(), held), (total - held, self.permits.len() as u32));
        assert_eq!(self.slots.waiting(), (self.roots.len(), self.hops.len()));
        assert!(is_safe(&trees, total, share), "{trees:?}");
        for (at, _) in self.trees.iter().enumerate().filter(|(_, tree)| !tree.counts().hops.is_empty()) {
            let mut granted = trees.clone();
            granted[at].claim -= 1;
            granted[at].held += 1;
            assert!(!is_safe(&granted, total, share), "{:?} could have a slot: {trees:?}", trees[at]);
        }
        for (account, _) in &self.roots {
            let own: u32 = trees.iter().filter(|tree| tree.account == *account).map(|tree| tree.held).sum();
            assert!(total - held <= RESERVE || share - own <= RESERVE, "{account} could begin a tree: {trees:?}");
        }
    }
}

/// Whether all trees can end one after the other: whichever can, ends, until none is left or none can. Both pools are asked at once.
fn is_safe(trees: &[Seen], total: u32, share: u32) -> bool {
    let held = |account: Option<usize>| trees.iter().filter(|tree| account.is_none_or(|own| tree.account == own)).map(|tree| tree.held).sum::<u32>();
    let Some(mut free) = total.checked_sub(held(None)) else { return false };
    let Some(mut own) = (0..ACCOUNTS).map(|account| share.checked_sub(held(Some(account)))).collect::<Option<Vec<_>>>() else { return false };
    let mut left: Vec<_> = trees.iter().filter(|tree| tree.held > 0 || tree.claim > 0).copied().collect();
    while let Some(at) = left.iter().position(|tree| tree.claim <= free && tree.claim <= own[tree.account]) {
        let ended = left.swap_remove(at);
        free += ended.held;
        own[ended.account] += ended.held;
    }
    left.is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn pools_stay_safe_and_nobody_waits_in_vain((total, share) in super::pools(), steps in proptest::collection::vec(step(), 1..400)) {
        let mut world = World::new(total, share);
        for step in steps {
            world.apply(step);
            // A tree that holds nothing and waits for nothing has ended.
            world.trees.retain(|tree| tree.counts().held > 0 || !tree.counts().hops.is_empty());
            world.check(total, share);
        }
        let World { slots, roots, hops, permits, .. } = world;
        drop((roots, hops, permits));
        super::assert_idle(&slots);
    }
}
