//! Settings, lists, counts, and queues that are dropped.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn settings_have_defaults_and_ranges_and_are_kept() {
    let (folder, clock, queues) = fresh(PolicyChange::default()).await;
    let policy = queues.policy(JOBS).unwrap();
    assert_eq!(*policy, Policy::default());
    assert_eq!((policy.max_batch_size, policy.max_batch_timeout_seconds, policy.max_retries, policy.retention_seconds), (10, 5, 3, 345_600));
    let none = PolicyChange::default;
    let refused = [
        PolicyChange { max_batch_size: Some(0), ..none() },
        PolicyChange { max_batch_size: Some(101), ..none() },
        PolicyChange { max_batch_timeout_seconds: Some(61), ..none() },
        PolicyChange { max_retries: Some(101), ..none() },
        PolicyChange { retention_seconds: Some(59), ..none() },
        PolicyChange { retention_seconds: Some(1_209_601), ..none() },
        PolicyChange { visibility_timeout_seconds: Some(0), ..none() },
        PolicyChange { visibility_timeout_seconds: Some(43_201), ..none() },
        PolicyChange { delivery_delay_seconds: Some(86_401), ..none() },
        PolicyChange { max_concurrency: Some(0), ..none() },
        PolicyChange { max_concurrency: Some(251), ..none() },
    ];
    for change in refused {
        assert_eq!(queues.update(JOBS, change.clone()).await.unwrap_err().code().code, "queue_policy_invalid", "{change:?}");
    }
    assert_eq!(queues.update(JOBS, none()).await.unwrap_err().code().code, "invalid_request");
    let change = PolicyChange {
        max_batch_size: Some(100),
        max_batch_timeout_seconds: Some(0),
        max_retries: Some(0),
        retention_seconds: Some(1_209_600),
        visibility_timeout_seconds: Some(43_200),
        delivery_delay_seconds: Some(86_400),
        max_concurrency: Some(1),
        dead_letter_queue: Some(Some(FAILED)),
        consumer: Some(Consumer::Pull),
    };
    let changed = queues.update(JOBS, change).await.unwrap();
    queues.close().await.unwrap();
    let queues = open(&folder, &clock).await;
    assert_eq!(*queues.policy(JOBS).unwrap(), changed);
    let again = queues.create(SERVICE, JOBS, PolicyChange { max_retries: Some(1), ..none() }).await.unwrap();
    assert_eq!(again, Policy { max_retries: 1, ..changed }, "asking again changes what is there");
    assert!(matches!(queues.create(Service(SERVICE.0 + 16), JOBS, none()).await, Err(Error::Dropped)), "a queue stays its service's");
    assert!(matches!(queues.update(Queue(99), PolicyChange { max_retries: Some(1), ..none() }).await, Err(Error::Dropped)));
}

#[tokio::test]
async fn dead_letters_stay_in_the_service_and_go_round_in_no_circle() {
    let (_folder, _, queues) = fresh(retries(3)).await;
    let to = |queue| PolicyChange { dead_letter_queue: Some(Some(queue)), ..PolicyChange::default() };
    let (third, other) = (Queue(9), Queue(10));
    queues.create(Service(SERVICE.0 + 16), other, PolicyChange::default()).await.unwrap();
    queues.create(SERVICE, third, to(JOBS)).await.unwrap();
    for (queue, target) in [(JOBS, JOBS), (FAILED, FAILED), (FAILED, JOBS), (FAILED, third), (JOBS, other), (JOBS, Queue(99)), (other, JOBS)] {
        assert_eq!(queues.update(queue, to(target)).await.unwrap_err().code().code, "queue_dead_letter_refused", "{queue} {target}");
    }
    assert_eq!(queues.policy(FAILED).unwrap().dead_letter_queue, None);
}

#[tokio::test]
async fn changes_hold_for_messages_that_are_being_delivered() {
    let (_folder, _, queues) = fresh(retries(5)).await;
    send(&queues, &["a"]).await;
    let batch = take(&queues, JOBS, 1).await;
    queues.update(JOBS, retries(0)).await.unwrap();
    assert_eq!(batch.settle(Verdict::all(Rest::Retry(0))).await.unwrap().dead_lettered.len(), 1);
    send(&queues, &["b"]).await;
    let batch = take(&queues, JOBS, 1).await;
    queues.update(JOBS, PolicyChange { dead_letter_queue: Some(None), ..PolicyChange::default() }).await.unwrap();
    assert_eq!(batch.settle(Verdict::all(Rest::Retry(0))).await.unwrap().discarded.len(), 1);
}

#[tokio::test]
async fn a_dropped_queue_is_gone_for_all_operations_and_its_neighbours_stay() {
    let (folder, clock, queues) = fresh(retries(0)).await;
    for _ in 0..20 {
        queues.send(FAILED, vec![text("x".repeat(1_000)); 100]).await.unwrap();
    }
    send(&queues, &["a"]).await;
    let in_flight = take(&queues, FAILED, 10).await;
    assert_eq!(queues.drop_queue(SERVICE, FAILED).await.unwrap(), Backlog { messages: 2_000, bytes: 2_000_000 });
    assert_eq!(in_flight.settle(Verdict::all(Rest::Ack)).await.unwrap().gone.len(), 10, "whoever is late is not in error");
    for restarted in [false, true] {
        let queues = if restarted { open(&folder, &clock).await } else { queues.clone() };
        assert!(matches!(queues.send(FAILED, vec![text("x")]).await, Err(Error::Dropped)));
        assert!(matches!(queues.take(FAILED, Take { messages: 1, bytes: 1 }).await.err(), Some(Error::Dropped)));
        assert!(matches!(queues.list(FAILED, List::default()).await, Err(Error::Dropped)));
        assert!(matches!(queues.metrics(FAILED).await, Err(Error::Dropped)));
        assert!(matches!(queues.create(SERVICE, FAILED, PolicyChange::default()).await, Err(Error::Dropped)));
        assert_eq!(queues.drop_queue(SERVICE, FAILED).await.unwrap(), Backlog::default(), "asking twice is no error");
        assert_eq!(queues.policy(JOBS).unwrap().dead_letter_queue, None, "what sent there does not any more");
        assert_eq!(bodies(&take(&queues, JOBS, 10).await), ["a"]);
        sweep::sweep(&queues.store).await.unwrap();
        queues.close().await.unwrap();
    }
    assert_eq!(counted(folder.path()), 1);
    let queues = open(&folder, &clock).await;
    assert_eq!(queues.drop_queue(SERVICE, Queue(55)).await.unwrap(), Backlog::default(), "also one that was never made");
    assert!(matches!(queues.create(SERVICE, Queue(55), PolicyChange::default()).await, Err(Error::Dropped)));
}

#[tokio::test]
async fn a_list_shows_what_is_there_page_by_page_and_takes_nothing() {
    let (_folder, clock, queues) = fresh(PolicyChange::default()).await;
    let sent = send(&queues, &["a", "b", "c"]).await;
    queues.send(JOBS, vec![delayed("d", 60)]).await.unwrap();
    let batch = take(&queues, JOBS, 1).await;
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = queues.list(JOBS, List { limit: Some(3), cursor }).await.unwrap();
        assert_eq!(page.has_more, page.next_cursor.is_some());
        found.extend(page.messages);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let states: Vec<_> = found.iter().map(|listed| (listed.message.text(), listed.state, listed.due_ms.is_some())).collect();
    let expected = [("a", State::InFlight, false), ("b", State::Ready, false), ("c", State::Ready, false), ("d", State::Delayed, true)];
    assert_eq!(states, expected.map(|(body, state, due)| (body.to_owned(), state, due)));
    assert_eq!(found[1].message.id, sent[1]);
    drop(batch);
    assert_eq!(acked(&queues, JOBS, 10).await, ["a", "b", "c"]);
    for cursor in ["", "x", "8-1", "7-01"] {
        let error = queues.list(JOBS, List { limit: None, cursor: Some(cursor.into()) }).await.unwrap_err();
        assert_eq!(error.code().code, "invalid_cursor", "{cursor}");
    }
    for limit in [0, 1_001] {
        assert_eq!(queues.list(JOBS, List { limit: Some(limit), cursor: None }).await.unwrap_err().code().code, "invalid_request");
    }
    // A page of large bodies ends early.
    for _ in 0..40 {
        queues.send(JOBS, vec![text("x".repeat(127_900))]).await.unwrap();
    }
    clock.advance(Duration::from_secs(5));
    let (mut pages, mut messages, mut count) = (queues.pages(JOBS, None), 0, 0);
    while let Some(page) = pages.next().await {
        messages += page.unwrap().messages.len();
        count += 1;
    }
    assert_eq!((messages, count), (41, 2));
    let metrics = queues.metrics(JOBS).await.unwrap();
    assert_eq!((metrics.backlog.messages, metrics.backlog.bytes), (41, 40 * 127_900 + 1));
    assert!((5_000..60_000).contains(&metrics.oldest_age_ms));
}
