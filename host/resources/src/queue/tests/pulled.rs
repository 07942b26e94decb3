//! Queues that clients pull from.

use std::time::Duration;

use super::*;

fn pull_queue(max_retries: u32) -> PolicyChange {
    PolicyChange { consumer: Some(Consumer::Pull), ..retries(max_retries) }
}

async fn pull(queues: &Queues, messages: usize) -> Vec<(Lease, Message)> {
    queues.pull(JOBS, Pull { messages: Some(messages), visibility_seconds: None }).await.unwrap().messages
}

fn texts(pulled: &[(Lease, Message)]) -> Vec<String> {
    pulled.iter().map(|(_, message)| message.text()).collect()
}

#[tokio::test]
async fn who_pulls_has_the_messages_for_a_time_and_settles_them_by_lease() {
    let (folder, clock, queues) = fresh(pull_queue(3)).await;
    assert_eq!(queues.take(JOBS, Take { messages: 1, bytes: 1 }).await.err().unwrap().code().code, "queue_consumer_mismatch");
    assert_eq!(queues.pull(FAILED, Pull::default()).await.unwrap_err().code().code, "queue_consumer_mismatch");
    send(&queues, &["a", "b", "c", "d", "e", "f"]).await;
    let first = queues.pull(JOBS, Pull::default()).await.unwrap();
    assert_eq!((texts(&first.messages).concat(), first.operations, first.backlog.messages), ("abcde".into(), 5, 6));
    assert_eq!(texts(&pull(&queues, 100).await), ["f"]);
    assert_eq!(queues.metrics(JOBS).await.unwrap().in_flight, 6);
    let leases: Vec<Lease> = first.messages.iter().map(|(lease, _)| *lease).collect();
    let retry = Retry { what: leases[1], delay_seconds: Some(5) };
    let answer = queues.settle_leases(JOBS, vec![leases[0], leases[2]], vec![retry]).await.unwrap();
    assert_eq!((answer.settled.acked, answer.settled.retried, answer.refused.len()), (2, 1, 0));
    assert_eq!(queues.settle_leases(JOBS, vec![leases[0]], Vec::new()).await.unwrap().refused, [leases[0]]);
    // Leases survive a restart.
    queues.close().await.unwrap();
    let queues = open(&folder, &clock).await;
    assert!(pull(&queues, 10).await.is_empty());
    clock.advance(Duration::from_secs(6));
    let again = pull(&queues, 10).await;
    assert_eq!((texts(&again).concat(), again[0].1.attempts), ("b".into(), 2));
    clock.advance(Duration::from_secs(25));
    // Its time is over, but nobody else has it.
    assert_eq!(queues.settle_leases(JOBS, vec![leases[3]], Vec::new()).await.unwrap().settled.acked, 1);
    assert_eq!(texts(&pull(&queues, 10).await), ["e", "f"]);
    assert_eq!(queues.settle_leases(JOBS, vec![leases[4]], Vec::new()).await.unwrap().refused, [leases[4]], "somebody else has it now");
    queues.close().await.unwrap();
    assert_eq!(counted(folder.path()), 3);
}

#[tokio::test]
async fn what_was_pulled_too_often_is_a_dead_letter() {
    let (folder, clock, queues) = fresh(pull_queue(1)).await;
    send(&queues, &["forgotten", "refused"]).await;
    for attempt in 1..=2 {
        let pulled = pull(&queues, 10).await;
        assert_eq!((pulled.len(), pulled[0].1.attempts), (2, attempt));
        let refused = pulled.iter().find(|(_, message)| message.text() == "refused").unwrap().0;
        let answer = queues.settle_leases(JOBS, Vec::new(), vec![Retry { what: refused, delay_seconds: None }]).await.unwrap();
        assert_eq!((answer.settled.retried, answer.settled.dead_lettered.len()), (u64::from(attempt == 1), usize::from(attempt == 2)));
        clock.advance(Duration::from_secs(31));
    }
    send(&queues, &["next"]).await;
    let pulled = queues.pull(JOBS, Pull::default()).await.unwrap();
    assert_eq!((texts(&pulled.messages).concat(), pulled.settled.dead_lettered.len(), pulled.operations), ("next".into(), 1, 3));
    assert_eq!(acked(&queues, FAILED, 10).await, ["refused", "forgotten"]);
    queues.close().await.unwrap();
    assert_eq!(counted(folder.path()), 1);
}

#[tokio::test]
async fn pulls_have_their_limits() {
    let (_folder, _, queues) = fresh(pull_queue(3)).await;
    for messages in [0, 101] {
        let error = queues.pull(JOBS, Pull { messages: Some(messages), visibility_seconds: None }).await.unwrap_err();
        assert_eq!(error.code().code, "invalid_request");
    }
    for seconds in [0, 43_201] {
        let error = queues.pull(JOBS, Pull { messages: None, visibility_seconds: Some(seconds) }).await.unwrap_err();
        assert_eq!(error.code().code, "invalid_request");
    }
    queues.pull(JOBS, Pull { messages: Some(100), visibility_seconds: Some(43_200) }).await.unwrap();
    let lease = Lease { id: MessageId { queue: JOBS, sequence: 1 }, secret: 1 };
    assert_eq!(queues.settle_leases(JOBS, vec![lease], Vec::new()).await.unwrap().refused, [lease]);
    assert!(queues.settle_leases(JOBS, Vec::new(), Vec::new()).await.is_err());
    assert!(queues.settle_leases(JOBS, vec![lease; 101], Vec::new()).await.is_err());
    assert!(queues.settle_leases(FAILED, vec![lease], Vec::new()).await.is_err());
    let late = Retry { what: lease, delay_seconds: Some(86_401) };
    assert!(queues.settle_leases(JOBS, Vec::new(), vec![late]).await.is_err());
}

#[tokio::test]
async fn the_consumer_can_change_while_messages_are_on_their_way() {
    let (_folder, clock, queues) = fresh(retries(3)).await;
    send(&queues, &["a", "b", "c"]).await;
    let batch = take(&queues, JOBS, 1).await;
    let consumer = |consumer| PolicyChange { consumer: Some(consumer), ..PolicyChange::default() };
    queues.update(JOBS, consumer(Consumer::Pull)).await.unwrap();
    let pulled = pull(&queues, 2).await;
    assert_eq!(texts(&pulled), ["a", "b"], "at least once: it may be delivered here too");
    assert_eq!(batch.settle(Verdict::all(Rest::Ack)).await.unwrap().acked, 1);
    queues.update(JOBS, consumer(Consumer::Worker)).await.unwrap();
    assert_eq!(acked(&queues, JOBS, 10).await, ["c"]);
    clock.advance(Duration::from_secs(31));
    assert_eq!(acked(&queues, JOBS, 10).await, ["b"]);
    assert!(take(&queues, JOBS, 10).await.is_empty());
}

#[tokio::test]
async fn what_clients_hold_is_counted_without_what_only_waits() {
    let (_folder, clock, queues) = fresh(pull_queue(3)).await;
    send(&queues, &["a", "b", "c"]).await;
    let waiting = (0..100).map(|_| delayed("later", 10)).collect();
    queues.send(JOBS, waiting).await.unwrap();
    let held = pull(&queues, 2).await;
    assert_eq!(queues.metrics(JOBS).await.unwrap().in_flight, 2);
    queues.settle_leases(JOBS, vec![held[0].0], vec![Retry { what: held[1].0, delay_seconds: Some(60) }]).await.unwrap();
    assert_eq!(queues.metrics(JOBS).await.unwrap().in_flight, 0, "what is put back is held by nobody");
    pull(&queues, 1).await;
    assert_eq!(queues.metrics(JOBS).await.unwrap().in_flight, 1);
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(queues.metrics(JOBS).await.unwrap().in_flight, 0, "leases run out");
    let plan = queues.store.shards.existing(SERVICE.0).unwrap().read(|connection| {
        let sql = "EXPLAIN QUERY PLAN SELECT 1 FROM messages INDEXED BY messages_lease WHERE queue = 1 AND due > 1 AND lease IS NOT NULL";
        Ok::<_, Error>(connection.query_row(sql, [], |row| row.get::<_, String>(3))?)
    });
    assert!(plan.await.unwrap().contains("COVERING INDEX messages_lease (queue=? AND due>?"));
}
