//! What has expired is gone, and space comes back.

use std::time::Duration;

use super::*;
use crate::database::shards;

fn keeps(seconds: u32) -> PolicyChange {
    PolicyChange { retention_seconds: Some(seconds), ..PolicyChange::default() }
}

#[tokio::test]
async fn what_was_kept_for_long_enough_is_gone_at_once_and_counted_when_it_is_removed() {
    let (folder, clock, queues) = fresh(keeps(60)).await;
    queues.sweeper.0.abort();
    let sent = send(&queues, &["old", "delayed"]).await;
    queues.send(JOBS, vec![delayed("waits", 120)]).await.unwrap();
    let batch = take(&queues, JOBS, 1).await;
    let retried = take(&queues, JOBS, 1).await;
    retried.settle(Verdict::all(Rest::Retry(30))).await.unwrap();
    clock.advance(Duration::from_secs(59));
    send(&queues, &["new"]).await;
    clock.advance(Duration::from_secs(2));
    for swept in [false, true] {
        assert_eq!(bodies(&take(&queues, JOBS, 10).await), ["new"]);
        let listed = queues.list(JOBS, List::default()).await.unwrap().messages;
        assert_eq!(listed.len(), 1);
        if !swept {
            sweep::sweep(&queues.store).await.unwrap();
        }
    }
    assert_eq!(batch.settle(Verdict::all(Rest::Retry(0))).await.unwrap().gone, [sent[0]], "it expired while it was being delivered");
    clock.advance(Duration::from_secs(120));
    assert!(take(&queues, JOBS, 10).await.is_empty(), "also what waits longer than it is kept");
    queues.close().await.unwrap();
    // Also after a start, by itself.
    let queues = open(&folder, &clock).await;
    while queues.metrics(JOBS).await.unwrap().backlog.messages > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(queues.metrics(JOBS).await.unwrap().counters.expired, 4);
    queues.close().await.unwrap();
    assert_eq!(counted(folder.path()), 0);
}

#[tokio::test]
async fn a_longer_retention_brings_back_what_is_still_there() {
    let (_folder, clock, queues) = fresh(keeps(60)).await;
    queues.sweeper.0.abort();
    send(&queues, &["a"]).await;
    clock.advance(Duration::from_secs(61));
    assert!(take(&queues, JOBS, 10).await.is_empty());
    queues.update(JOBS, keeps(600)).await.unwrap();
    assert_eq!(acked(&queues, JOBS, 10).await, ["a"]);
}

#[tokio::test]
async fn the_sweeper_runs_when_time_passes_and_when_a_queue_is_dropped() {
    let (folder, clock, queues) = fresh(keeps(60)).await;
    for _ in 0..20 {
        queues.send(JOBS, vec![text("x".repeat(100)); 100]).await.unwrap();
    }
    clock.advance(Duration::from_secs(100));
    while queues.metrics(JOBS).await.unwrap().backlog.messages > 0 {
        tokio::task::yield_now().await;
    }
    queues.send(FAILED, vec![text("x"); 100]).await.unwrap();
    queues.drop_queue(SERVICE, FAILED).await.unwrap();
    let database = queues.store.shards.existing(SERVICE.0).unwrap();
    while database.read(rows::dropping).await.unwrap().is_some() {
        tokio::task::yield_now().await;
    }
    queues.close().await.unwrap();
    assert_eq!(counted(folder.path()), 0);
}

#[tokio::test]
async fn a_file_does_not_grow_while_messages_come_and_go_and_shrinks_after_a_backlog() {
    let (folder, clock, queues) = fresh(retries(1)).await;
    let database = queues.store.shards.existing(SERVICE.0).unwrap();
    let mut sizes = Vec::new();
    for round in 0..30 {
        for _ in 0..5 {
            queues.send(JOBS, (0..50).map(|number| text("x".repeat(number * 50 + round))).collect()).await.unwrap();
        }
        clock.advance(Duration::from_millis(500));
        while !acked(&queues, JOBS, 100).await.is_empty() {}
        sizes.push(database.read(shards::pages).await.unwrap().0);
    }
    assert!(sizes[29] <= sizes[2] * 5 / 4, "{sizes:?} pages");
    for _ in 0..300 {
        queues.send(JOBS, vec![text("x".repeat(100_000)); 2]).await.unwrap();
    }
    let before = database.read(shards::pages).await.unwrap().0;
    while !acked(&queues, JOBS, 100).await.is_empty() {}
    sweep::sweep(&queues.store).await.unwrap();
    let after = database.read(shards::pages).await.unwrap().0;
    assert!(before > 10_000 && after < before / 5, "{before} pages before, {after} after");
    queues.close().await.unwrap();
    assert_eq!(std::fs::metadata(folder.path().join("queue").join("03.db")).unwrap().len(), after * 4_096, "the file itself is shorter");
    assert_eq!(counted(folder.path()), 0);
}

#[tokio::test]
async fn what_has_expired_and_is_not_yet_removed_hides_nothing() {
    for consumer in [Consumer::Worker, Consumer::Pull] {
        let (folder, clock, queues) = fresh(PolicyChange { consumer: Some(consumer), ..keeps(60) }).await;
        queues.sweeper.0.abort();
        for _ in 0..30 {
            queues.send(JOBS, vec![delayed("old", 10); 10]).await.unwrap();
        }
        clock.advance(Duration::from_secs(55));
        queues.send(JOBS, vec![delayed("new", 6), delayed("new", 6)]).await.unwrap();
        clock.advance(Duration::from_secs(7));
        let found = match consumer {
            Consumer::Worker => take(&queues, JOBS, 1).await.messages().len(),
            Consumer::Pull => queues.pull(JOBS, Pull { messages: Some(1), visibility_seconds: None }).await.unwrap().messages.len(),
        };
        assert_eq!(found, 1);
        queues.close().await.unwrap();
        counted(folder.path());
    }
}

#[tokio::test]
async fn what_came_back_and_has_expired_does_not_let_others_pass() {
    let (_folder, clock, queues) = fresh(keeps(60)).await;
    queues.sweeper.0.abort();
    send(&queues, &["old"]).await;
    let old = take(&queues, JOBS, 10).await;
    clock.advance(Duration::from_secs(30));
    send(&queues, &["a", "b", "c"]).await;
    let batch = take(&queues, JOBS, 2).await;
    drop((old, batch));
    clock.advance(Duration::from_secs(31));
    assert_eq!(acked(&queues, JOBS, 2).await, ["a", "b"]);
}
