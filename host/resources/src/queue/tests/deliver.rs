//! Sending, taking and settling.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn messages_come_in_their_order_and_leave_when_they_are_done_also_after_a_restart() {
    let (folder, clock, queues) = fresh(PolicyChange::default()).await;
    let sent = queues.send(JOBS, vec![text("a"), Send { encoding: Encoding::Base64, body: vec![0, 255].into(), ..Send::default() }]).await.unwrap();
    assert_eq!((sent.ids.len(), sent.bytes, sent.operations, sent.backlog), (2, 3, 2, Backlog { messages: 2, bytes: 3 }));
    let more = send(&queues, &["c", ""]).await;
    let batch = take(&queues, JOBS, 3).await;
    assert_eq!(bodies(&batch), ["a", "AP8=", "c"]);
    assert_eq!(ids(&batch), [sent.ids[0], sent.ids[1], more[0]]);
    let (message, now) = (&batch.messages()[1], clock.now_unix_ms());
    assert_eq!((message.attempts, message.encoding, &*message.body), (1, Encoding::Base64, &[0, 255][..]));
    assert!(message.sent_ms <= now && message.sent_ms + 60_000 > now);
    assert_eq!(bodies(&take(&queues, JOBS, 3).await), [""], "what is being delivered is not delivered twice, and this comes back at once");
    let settled = batch.settle(Verdict::all(Rest::Ack)).await.unwrap();
    assert_eq!(settled, Settled { acked: 3, operations: 3, ..Settled::default() });
    queues.close().await.unwrap();
    assert_eq!(counted(folder.path()), 1);
    let queues = open(&folder, &clock).await;
    assert_eq!(queues.active().await, [JOBS], "the backlog is found without being looked for");
    assert_eq!(acked(&queues, JOBS, 10).await, [""]);
    assert!(take(&queues, JOBS, 10).await.is_empty());
    let metrics = queues.metrics(JOBS).await.unwrap();
    assert_eq!((metrics.backlog, metrics.in_flight, metrics.counters.deliveries), (Backlog::default(), 0, 4));
    let next = send(&queues, &["d"]).await;
    assert!(next[0].sequence > more[1].sequence, "no id is given twice");
}

#[tokio::test]
async fn what_is_not_settled_comes_back_first_and_has_not_counted() {
    let (folder, clock, queues) = fresh(PolicyChange::default()).await;
    send(&queues, &["a", "b", "c", "d"]).await;
    let (first, second) = (take(&queues, JOBS, 2).await, take(&queues, JOBS, 1).await);
    assert_eq!(queues.metrics(JOBS).await.unwrap().in_flight, 3);
    drop(second);
    drop(first);
    let batch = take(&queues, JOBS, 10).await;
    assert_eq!(bodies(&batch), ["a", "b", "c", "d"]);
    assert!(batch.messages().iter().all(|message| message.attempts == 1));
    // Some of it, by name.
    let named = ids(&batch);
    let verdict = Verdict { ack: vec![named[0], named[1]], retry: vec![Retry { what: named[1], delay_seconds: Some(5) }], rest: Rest::Release };
    let settled = batch.settle(verdict).await.unwrap();
    assert_eq!((settled.acked, settled.retried), (1, 1), "who names a message twice gets it again");
    assert_eq!(acked(&queues, JOBS, 1).await, ["c"]);
    // A process that dies has not settled what it was delivering.
    let batch = take(&queues, JOBS, 1).await;
    std::mem::forget(batch);
    queues.close().await.unwrap();
    let queues = open(&folder, &clock).await;
    let batch = take(&queues, JOBS, 10).await;
    assert_eq!((bodies(&batch), batch.messages()[0].attempts), (vec!["d".to_owned()], 1));
}

#[tokio::test]
async fn a_message_that_waits_comes_at_its_time_and_not_before() {
    let (_folder, clock, queues) = fresh(PolicyChange { delivery_delay_seconds: Some(100), ..PolicyChange::default() }).await;
    let before = clock.now_unix_ms();
    queues.send(JOBS, vec![text("default"), delayed("now", 0), delayed("later", 3_600), delayed("sooner", 10)]).await.unwrap();
    assert_eq!(acked(&queues, JOBS, 10).await, ["now"], "0 is no delay, whatever the queue says");
    for (seconds, body) in [(10, "sooner"), (100, "default"), (3_600, "later")] {
        let due = queues.next_due(JOBS).await.unwrap().unwrap();
        assert!((before + seconds * 1_000..before + seconds * 1_000 + 5_000).contains(&due));
        assert!(take(&queues, JOBS, 10).await.is_empty());
        clock.advance(Duration::from_millis(due.saturating_sub(clock.now_unix_ms())));
        assert_eq!(acked(&queues, JOBS, 10).await, [body]);
    }
    assert_eq!(queues.next_due(JOBS).await.unwrap(), None);
}

#[tokio::test]
async fn a_message_fails_so_many_times_and_is_then_a_dead_letter() {
    let (folder, clock, queues) = fresh(retries(2)).await;
    send(&queues, &["poison", "fine"]).await;
    for attempt in 1..=3 {
        let batch = take(&queues, JOBS, 10).await;
        let poison = batch.messages().iter().find(|message| message.text() == "poison").unwrap();
        assert_eq!(poison.attempts, attempt);
        let retry = Verdict { ack: Vec::new(), retry: vec![Retry { what: poison.id, delay_seconds: Some(30) }], rest: Rest::Ack };
        let id = poison.id;
        let settled = batch.settle(retry).await.unwrap();
        if attempt < 3 {
            assert_eq!((settled.retried, settled.dead_lettered.len()), (1, 0));
            assert!(take(&queues, JOBS, 10).await.is_empty());
            clock.advance(Duration::from_secs(30));
        } else {
            assert_eq!((settled.retried, settled.dead_lettered[0].0, settled.operations), (0, id, 2));
            let dead = take(&queues, FAILED, 10).await;
            assert_eq!((bodies(&dead), dead.messages()[0].attempts, dead.messages()[0].id), (vec!["poison".into()], 1, settled.dead_lettered[0].1));
        }
    }
    let metrics = queues.metrics(JOBS).await.unwrap();
    let counters = Counters { deliveries: 4, retries: 2, dead_letters: 1, discarded: 0, expired: 0 };
    assert_eq!((metrics.counters, metrics.backlog.messages), (counters, 0));
    // Without a queue for them they are gone, and the answer says so.
    let policy = queues.update(JOBS, PolicyChange { dead_letter_queue: Some(None), max_retries: Some(0), ..PolicyChange::default() }).await.unwrap();
    assert_eq!(policy.dead_letter_queue, None);
    let sent = send(&queues, &["gone"]).await;
    let settled = take(&queues, JOBS, 1).await.settle(Verdict::all(Rest::Retry(0))).await.unwrap();
    assert_eq!((settled.discarded, settled.retried), (sent, 0));
    queues.close().await.unwrap();
    assert_eq!(counted(folder.path()), 1);
}

#[tokio::test]
async fn failing_messages_and_fresh_ones_leave_each_other_half_of_a_batch() {
    let (_folder, clock, queues) = fresh(retries(100)).await;
    queues.send(JOBS, (0..50).map(|number| text(format!("poison {number}"))).collect()).await.unwrap();
    take(&queues, JOBS, 50).await.settle(Verdict::all(Rest::Retry(0))).await.unwrap();
    queues.send(JOBS, (0..50).map(|number| text(format!("fresh {number}"))).collect()).await.unwrap();
    clock.advance(Duration::from_millis(1));
    for round in 0..10 {
        let batch = take(&queues, JOBS, 10).await;
        let retry: Vec<_> = batch.messages().iter().filter(|message| message.text().starts_with("poison")).map(|message| message.id).collect();
        assert_eq!((batch.messages().len(), retry.len()), (10, 5), "{round}");
        let retry = retry.into_iter().map(|what| Retry { what, delay_seconds: None }).collect();
        batch.settle(Verdict { ack: Vec::new(), retry, rest: Rest::Ack }).await.unwrap();
    }
    send(&queues, &["fresh", "fresh"]).await;
    let mut one_by_one = Vec::new();
    for _ in 0..4 {
        one_by_one.extend(acked(&queues, JOBS, 1).await);
    }
    assert_eq!(one_by_one.iter().filter(|body| *body == "fresh").count(), 2, "{one_by_one:?}");
}

#[tokio::test]
async fn a_batch_ends_before_it_is_too_large_and_can_be_filled_later() {
    let (_folder, _, queues) = fresh(PolicyChange::default()).await;
    for body in ["a", "b", "c"] {
        send(&queues, &[&body.repeat(100)]).await;
    }
    let mut batch = queues.take(JOBS, Take { messages: 10, bytes: 250 }).await.unwrap();
    assert_eq!((batch.messages().len(), batch.operations()), (2, 2));
    let large = queues.take(JOBS, Take { messages: 10, bytes: 1 }).await.unwrap();
    assert_eq!(large.messages().len(), 1, "a large one is delivered alone");
    assert!(batch.merge(large).is_ok());
    assert_eq!(batch.settle(Verdict::all(Rest::Ack)).await.unwrap().acked, 3);
}

#[tokio::test]
async fn whoever_waits_is_woken_by_what_can_be_taken() {
    let (_folder, clock, queues) = fresh(retries(0)).await;
    queues.active().await;
    let soon = async |future: &mut (dyn Future<Output = ()> + Unpin)| {
        for _ in 0..1_000 {
            if futures::poll!(&mut *future).is_ready() {
                return true;
            }
            tokio::task::yield_now().await;
        }
        false
    };
    queues.changed(JOBS).await.unwrap();
    queues.changed(FAILED).await.unwrap();
    let mut jobs = Box::pin(async { queues.changed(JOBS).await.unwrap() });
    let mut failed = Box::pin(async { queues.changed(FAILED).await.unwrap() });
    assert!(!soon(&mut jobs).await && !soon(&mut failed).await);
    send(&queues, &["a"]).await;
    jobs.await;
    assert!(!soon(&mut failed).await);
    take(&queues, JOBS, 1).await.settle(Verdict::all(Rest::Retry(0))).await.unwrap();
    failed.await;
    let mut active = queues.active().await;
    active.extend(if active.len() == 1 { queues.active().await } else { Vec::new() });
    assert_eq!(active, [JOBS, FAILED]);
    // Whoever is gone before the answer has sent all the same, and the dispatcher is told.
    let gone = queues.clone();
    drop(futures::poll!(Box::pin(async move { send(&gone, &["b"]).await })));
    queues.changed(JOBS).await.unwrap();
    assert_eq!(acked(&queues, JOBS, 1).await, ["b"]);
    clock.advance(Duration::from_secs(1));
}

#[tokio::test]
async fn many_that_wait_do_not_hide_those_that_are_ready() {
    let (_folder, _, queues) = fresh(PolicyChange::default()).await;
    for _ in 0..250 {
        send_patiently(&queues, JOBS, (0..100).map(|number| delayed(&number.to_string(), 3_600)).collect()).await;
    }
    send(&queues, &["ready"]).await;
    assert_eq!(acked(&queues, JOBS, 10).await, ["ready"]);
}

#[tokio::test]
async fn a_clock_that_was_ahead_and_comes_back_delays_a_message_by_a_day_at_most() {
    let (folder, ahead, queues) = fresh(PolicyChange::default()).await;
    ahead.advance(Duration::from_secs(30 * 86_400));
    queues.send(JOBS, vec![delayed("late", 60)]).await.unwrap();
    queues.close().await.unwrap();
    let clock = Clock::advanceable();
    let queues = open(&folder, &clock).await;
    assert!(take(&queues, JOBS, 1).await.is_empty());
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(acked(&queues, JOBS, 1).await, ["late"]);
}
