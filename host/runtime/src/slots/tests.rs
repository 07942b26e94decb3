//! Chains of random shapes on crowded pools: all of them end, whatever the order in which they run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::atomic::{AtomicU32, Ordering};

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
fn invocation(slots: TreeSlots, shape: Arc<Shape>, permit: Permit) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        work(shape.turns).await;
        let calls = (0..shape.width).filter(|_| shape.number()).map(|_| {
            let (slots, shape) = (slots.clone(), shape.clone());
            async move {
                let permit = slots.hop().await;
                invocation(slots, shape, permit).await;
            }
        });
        // Awaiting in order polls all at once, as a fan-out does.
        join_all(calls).await;
        work(shape.turns).await;
        drop(permit);
    })
}

async fn request(slots: Slots, width: u32, turns: u32, calls_max: u32) {
    let (tree, permit) = slots.admit().await.unwrap();
    let shape = Arc::new(Shape { width, turns, numbered: AtomicU32::new(CHAIN_INVOCATIONS - calls_max.min(RESERVE)) });
    invocation(tree, shape, permit).await;
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(60), future).await.expect("a deadlock") });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn chains_of_any_shape_end_on_any_pool(total in 32_u32..80, requests in proptest::collection::vec((1_u32..6, 0_u32..4, 0_u32..32), 1..120)) {
        run(async move {
            let slots = Slots::new(total, 10_000);
            let mut running = JoinSet::new();
            for (width, turns, calls) in requests {
                running.spawn(request(slots.clone(), width, turns, calls));
            }
            while let Some(done) = running.join_next().await {
                done.unwrap();
            }
            assert_eq!(slots.free(), total);
            assert_eq!(slots.waiting(), (0, 0));
            let state = slots.lock();
            assert!(state.trees.iter().chain(&state.held).all(|count| *count == 0));
        });
    }

    #[test]
    fn chains_that_are_cut_anywhere_return_what_they_held(total in 32_u32..64, requests in proptest::collection::vec((1_u32..6, 0_u32..4, 0_u32..200), 1..80)) {
        run(async move {
            let slots = Slots::new(total, 10_000);
            let mut running = JoinSet::new();
            for (width, turns, cut_after) in requests {
                let slots = slots.clone();
                running.spawn(async move {
                    tokio::select! {
                        biased;
                        () = work(cut_after) => {}
                        () = request(slots, width, turns, RESERVE) => {}
                    }
                });
            }
            while let Some(done) = running.join_next().await {
                done.unwrap();
            }
            assert_eq!(slots.free(), total);
            assert_eq!(slots.waiting(), (0, 0));
            let state = slots.lock();
            assert!(state.trees.iter().chain(&state.held).all(|count| *count == 0));
        });
    }
}

#[test]
fn a_request_is_admitted_only_beside_a_whole_chain() {
    run(async {
        let slots = Slots::new(64, 1);
        let mut admitted = Vec::new();
        while let Ok(Ok(granted)) = tokio::time::timeout(std::time::Duration::ZERO, slots.admit()).await {
            admitted.push(granted);
        }
        // 31 slots stay free for the rest of one chain.
        assert_eq!((admitted.len(), slots.free()), (33, 31));
        let waiting = tokio::spawn({
            let slots = slots.clone();
            async move { slots.admit().await.map(drop) }
        });
        while slots.waiting().0 == 0 {
            tokio::task::yield_now().await;
        }
        assert!(slots.admit().await.is_err(), "the queue has one place");
        admitted.pop();
        assert_eq!(waiting.await.unwrap(), Ok(()));
    });
}
