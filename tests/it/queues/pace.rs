//! How fast: batches of a queue at a time, and messages of a queue in a second.

use std::sync::Arc;

use serde_json::json;
use tovuk_tests::Operator;

use super::{QUEUES, order, send_all, until, with_queues};

/// Sends so many messages that each are a batch of their own.
async fn fill(host: &Operator, queue: &str, batches: usize) {
    for _ in 0..batches {
        send_all(host, queue, &["x"; 100]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_goes_at_a_time_while_there_is_a_backlog_and_less_after_failures() {
    let host = with_queues(json!({"jobs": {"max_batch_size": 1, "max_batch_timeout_seconds": 0, "max_retries": 100}})).await;
    let target = |metrics: &serde_json::Value| metrics["consumerConcurrencyTarget"].as_u64().unwrap();
    order(&host, "jobs", json!({"quiet": true, "spin_ms": 2})).await;
    fill(&host, "jobs", 10).await;
    let risen = until(&host, "jobs", |metrics| target(metrics) >= 4).await;
    assert!(risen["consumerConcurrency"].as_u64().unwrap() <= target(&risen), "{risen}");
    order(&host, "jobs", json!({"quiet": true, "status": 500})).await;
    until(&host, "jobs", |metrics| target(metrics) == 1 && metrics["backlogCount"] != 0).await;
    // A queue goes no faster than it is let.
    host.ok("PUT", &format!("{QUEUES}/jobs"), Some(json!({"maxConcurrency": 2}))).await;
    order(&host, "jobs", json!({"quiet": true, "spin_ms": 2})).await;
    until(&host, "jobs", |metrics| target(metrics) == 2).await;
    fill(&host, "jobs", 2).await;
    let metrics = until(&host, "jobs", |metrics| metrics["consumerConcurrency"] == 2).await;
    assert_eq!(target(&metrics), 2, "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_takes_so_many_messages_a_second_and_says_when_to_come_again() {
    let host = Arc::new(with_queues(json!({"jobs": {"consumer": "pull"}, "other": {"consumer": "pull"}})).await);
    let batch = json!({"messages": vec![json!({"body": "x"}); 100]});
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (host, batch) = (host.clone(), batch.clone());
        senders.spawn(async move {
            loop {
                let reply = host.ask("POST", &format!("{QUEUES}/jobs/messages/batch"), Some(batch.clone())).await;
                if reply.status != 200 {
                    return reply;
                }
            }
        });
    }
    // One alone may be too slow to meet the limit.
    let refused = senders.join_next().await.unwrap().unwrap();
    senders.shutdown().await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str(), refused.headers["retry-after"].to_str().unwrap()),
        (429, "queue_rate_exceeded", "1")
    );
    assert_eq!(host.ask("POST", &format!("{QUEUES}/other/messages/batch"), Some(batch.clone())).await.status, 200, "the limit is each queue's own");
    host.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(host.ask("POST", &format!("{QUEUES}/jobs/messages/batch"), Some(batch)).await.status, 200);
}
