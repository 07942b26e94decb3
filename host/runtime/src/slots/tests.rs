//! Chains of random shapes of several accounts on crowded pools: all of them end, whatever the order in which they run, and no account has more than its
//! share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod model;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;

/// A tree that makes as many of its 32 invocations as it gets to.
struct Shape {
    width: u32,
    turns: u32,
    numbered: AtomicU32,
}

impl Shape {
    fn number(&self) -> bool {
        self.numbered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < CHAIN_INVOCATIONS).then_some(n + 1)).is_ok()
    }
}

async fn work(turns: u32) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

/// One invocation that calls `width` others at once, each of which does the same.
fn invocation(tree: TreeSlots, shape: Arc<Shape>, permit: Permit) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let account = &tree.0.account;
        assert!(account.held() <= account.slots.account_total());
        work(shape.turns).await;
        let calls = (0..shape.width).filter(|_| shape.number()).map(|_| {
            let (tree, shape) = (tree.clone(), shape.clone());
            async move {
                let permit = tree.hop().await;
                invocation(tree, shape, permit).await;
            }
        });
        // Awaiting in order polls all at once, as a fan-out does.
        join_all(calls).await;
        work(shape.turns).await;
        drop(permit);
    })
}

async fn request(account: AccountSlots, width: u32, turns: u32, calls_max: u32) {
    let (tree, permit) = account.admit(Standing::Request).await.unwrap();
    let shape = Arc::new(Shape { width, turns, numbered: AtomicU32::new(CHAIN_INVOCATIONS - calls_max.min(RESERVE)) });
    invocation(tree, shape, permit).await;
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("a deadlock") });
}

async fn waiting(slots: &Slots, roots: usize, hops: usize) {
    while slots.waiting() != (roots, hops) {
        tokio::task::yield_now().await;
    }
}

fn accounts(slots: &Slots, count: usize) -> Vec<AccountSlots> {
    (0..count).map(|_| slots.account()).collect()
}

fn assert_idle(slots: &Slots) {
    assert_eq!((slots.free(), slots.waiting()), (slots.total(), (0, 0)));
    assert!(slots.lock().is_idle());
}

/// A pool, and what of it an account may have.
fn pools() -> impl Strategy<Value = (u32, u32)> {
    (32_u32..100).prop_flat_map(|total| (Just(total), 32..=total))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn chains_of_any_shape_end_on_any_pool(
        (total, share) in pools(),
        requests in proptest::collection::vec((0_usize..4, 1_u32..6, 0_u32..4, 0_u32..32), 1..120),
    ) {
        run(async move {
            let slots = Slots::with_share(total, share, 10_000);
            let accounts = accounts(&slots, 4);
            let mut running = JoinSet::new();
            for (account, width, turns, calls) in requests {
                running.spawn(request(accounts[account].clone(), width, turns, calls));
            }
            while let Some(done) = running.join_next().await {
                done.unwrap();
            }
            assert_idle(&slots);
        });
    }

    #[test]
    fn chains_that_are_cut_anywhere_return_what_they_held(
        (total, share) in pools(),
        requests in proptest::collection::vec((0_usize..4, 1_u32..6, 0_u32..4, 0_u32..200), 1..80),
    ) {
        run(async move {
            let slots = Slots::with_share(total, share, 10_000);
            let accounts = accounts(&slots, 4);
            let mut running = JoinSet::new();
            for (account, width, turns, cut_after) in requests {
                let account = accounts[account].clone();
                running.spawn(async move {
                    tokio::select! {
                        biased;
                        () = work(cut_after) => {}
                        () = request(account, width, turns, RESERVE) => {}
                    }
                });
            }
            while let Some(done) = running.join_next().await {
                done.unwrap();
            }
            assert_idle(&slots);
        });
    }

    #[test]
    fn a_quiet_account_is_admitted_while_another_floods(
        floods in proptest::collection::vec((1_u32..6, 0_u32..32), 1..200),
        quiet in proptest::collection::vec((1_u32..6, 0_u32..4, 0_u32..32), 1..4),
    ) {
        run(async move {
            let slots = Slots::new(SLOTS_SHARED_MIN, 10_000);
            let (loud, other) = (slots.account(), slots.account());
            let mut flood = JoinSet::new();
            for (width, calls) in floods {
                // They sleep for ever with all that they have.
                flood.spawn(request(loud.clone(), width, u32::MAX, calls));
            }
            work(100).await;
            for (width, turns, calls) in quiet {
                let (tree, permit) = other.try_admit().expect("half of the slots are for others");
                let shape = Arc::new(Shape { width, turns, numbered: AtomicU32::new(CHAIN_INVOCATIONS - calls.min(RESERVE)) });
                invocation(tree, shape, permit).await;
            }
            flood.shutdown().await;
            assert_idle(&slots);
        });
    }
}

#[test]
fn an_account_has_half_of_the_slots_unless_there_are_few() {
    let shares = [1, 32, 64, 127, 128, 129, 4_096].map(|total| Slots::new(total, 1)).map(|slots| (slots.total(), slots.account_total()));
    assert_eq!(shares, [(32, 32), (32, 32), (64, 64), (127, 127), (128, 64), (129, 64), (4_096, 2_048)]);
}

#[test]
fn a_request_is_admitted_only_beside_a_whole_chain() {
    run(async {
        let slots = Slots::new(64, 1);
        let account = slots.account();
        let mut admitted: Vec<_> = std::iter::from_fn(|| account.try_admit()).collect();
        // 31 slots stay free for the rest of one chain.
        assert_eq!((admitted.len(), slots.free()), (33, 31));
        let waits = tokio::spawn({
            let account = account.clone();
            async move { account.admit(Standing::Request).await.map(drop) }
        });
        waiting(&slots, 1, 0).await;
        assert!(account.admit(Standing::Request).await.is_err(), "the queue has one place");
        admitted.pop();
        assert_eq!(waits.await.unwrap(), Ok(()));
    });
}

#[test]
fn whoever_waits_for_its_own_share_bars_nobody() {
    run(async {
        let slots = Slots::new(128, 8);
        let (loud, other) = (slots.account(), slots.account());
        let mut held: Vec<_> = std::iter::from_fn(|| loud.try_admit()).collect();
        assert_eq!((held.len(), loud.held(), slots.free()), (33, 33, 95));
        let waits = tokio::spawn(async move { loud.admit(Standing::Request).await.map(drop) });
        waiting(&slots, 1, 0).await;
        let others: Vec<_> = std::iter::from_fn(|| other.try_admit()).collect();
        assert_eq!((others.len(), slots.waiting()), (33, (1, 0)));
        held.pop();
        assert_eq!(waits.await.unwrap(), Ok(()));
    });
}

/// Requests of these accounts, which tell their place in this order once they are admitted, and leave at once.
async fn queue(slots: &Slots, order: &[(&'static str, &AccountSlots, Standing)]) -> JoinSet<&'static str> {
    let mut queued = JoinSet::new();
    for (name, account, standing) in order {
        let (name, account, standing) = (*name, (*account).clone(), *standing);
        let before = slots.waiting().0;
        queued.spawn(async move { if account.admit(standing).await.is_ok() { name } else { "refused" } });
        waiting(slots, before + 1, 0).await;
    }
    queued
}

#[test]
fn accounts_take_turns() {
    run(async {
        let slots = Slots::new(32, 100);
        let (a, b, c) = (slots.account(), slots.account(), slots.account());
        let first = a.try_admit().unwrap();
        let request = Standing::Request;
        let order = [("a1", &a, request), ("a2", &a, request), ("a3", &a, request), ("b1", &b, request), ("b2", &b, request), ("c1", &c, request)];
        let mut queued = queue(&slots, &order).await;
        drop(first);
        let mut admitted = Vec::new();
        while let Some(name) = queued.join_next().await {
            admitted.push(name.unwrap());
        }
        // The account that had a slot is last.
        assert_eq!(admitted, ["b1", "c1", "a1", "b2", "a2", "a3"]);
        assert_idle(&slots);
    });
}

#[test]
fn a_full_queue_gives_up_the_newest_request_of_the_account_that_has_most() {
    run(async {
        let slots = Slots::new(32, 3);
        let (a, b) = (slots.account(), slots.account());
        let first = a.try_admit().unwrap();
        let request = Standing::Request;
        let mut loud = queue(&slots, &[("a1", &a, request), ("event", &a, Standing::Event), ("a2", &a, request), ("a3", &a, request)]).await;
        assert!(a.admit(request).await.is_err());
        let quiet = tokio::spawn({
            let b = b.clone();
            async move { b.admit(request).await.map(drop) }
        });
        assert_eq!(loud.join_next().await.unwrap().unwrap(), "refused");
        assert_eq!(slots.waiting(), (4, 0));
        drop(first);
        assert_eq!(quiet.await.unwrap(), Ok(()));
        let mut admitted = Vec::new();
        while let Some(name) = loud.join_next().await {
            admitted.push(name.unwrap());
        }
        assert_eq!(admitted, ["a1", "event", "a2"]);
        assert_idle(&slots);
    });
}

#[test]
fn sixty_thousand_waiting_hops_are_taken_down() {
    run(async {
        let slots = Slots::new(4_096, 1);
        let mut trees = Vec::new();
        for account in accounts(&slots, 3) {
            trees.extend(std::iter::from_fn(|| account.try_admit()));
        }
        let mut hops: Vec<_> = trees.iter().flat_map(|(tree, _)| (1..CHAIN_INVOCATIONS).map(|_| Box::pin(tree.hop()))).collect();
        let mut granted = Vec::new();
        hops.retain_mut(|hop| match hop.as_mut().now_or_never() {
            Some(permit) => {
                granted.push(permit);
                false
            }
            None => true,
        });
        assert!(hops.len() > 60_000 && slots.waiting() == (0, hops.len()), "{} wait", hops.len());
        // Those that came last go first, as it would cost a list most.
        while let Some(hop) = hops.pop() {
            drop(hop);
        }
        drop(hops);
        drop((trees, granted));
        assert_idle(&slots);
    });
}
