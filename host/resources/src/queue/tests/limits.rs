//! Limits, at their edges and past them, and the code that says so.

use std::time::Duration;

use tovuk_kernel::limits::*;

use super::*;

async fn code(queues: &Queues, sends: Vec<Send>) -> Result<(), &'static str> {
    queues.send(JOBS, sends).await.map(drop).map_err(|error| error.code().code)
}

fn bytes(count: usize) -> Send {
    Send { body: vec![1; count].into(), encoding: Encoding::Base64, delay_seconds: None }
}

#[tokio::test]
async fn bodies_have_127_900_bytes_and_batches_100_messages_and_256_kb() {
    let (_folder, _, queues) = fresh(PolicyChange::default()).await;
    let sent = queues.send(JOBS, vec![bytes(QUEUE_BODY_BYTES_MAX)]).await.unwrap();
    assert_eq!((sent.bytes, sent.operations), (127_900, 2));
    assert_eq!(take(&queues, JOBS, 1).await.messages()[0].body.len(), 127_900);
    assert_eq!(code(&queues, vec![bytes(QUEUE_BODY_BYTES_MAX + 1)]).await, Err("queue_message_too_large"));
    assert_eq!(queues.send(JOBS, vec![bytes(64_000), bytes(64_001), bytes(0)]).await.unwrap().operations, 4);
    assert_eq!(code(&queues, vec![bytes(127_900), bytes(127_900), bytes(200)]).await, Ok(()));
    assert_eq!(code(&queues, vec![bytes(127_900), bytes(127_900), bytes(201)]).await, Err("queue_batch_too_large"));
    assert_eq!(code(&queues, vec![bytes(2_560); QUEUE_SEND_MESSAGES_MAX]).await, Ok(()));
    assert_eq!(code(&queues, vec![bytes(0); QUEUE_SEND_MESSAGES_MAX + 1]).await, Err("queue_batch_too_large"));
    assert_eq!(code(&queues, Vec::new()).await, Err("invalid_request"));
    assert_eq!(
        code(&queues, vec![Send { encoding: Encoding::Text, ..bytes(1) }, Send { encoding: Encoding::Text, body: vec![0xff].into(), ..bytes(1) }])
            .await,
        Err("invalid_request")
    );
    assert!(matches!(Send::from_text("a$".into(), Encoding::Base64, None), Err(Error::Base64(_))));
    assert_eq!(Send::from_text("AP8=".into(), Encoding::Base64, None).unwrap().body.as_ref(), [0, 255]);
    assert!(matches!(Encoding::named("hex"), Err(Error::Encoding(_))));
}

#[tokio::test]
async fn delays_have_24_hours() {
    let (_folder, _, queues) = fresh(retries(3)).await;
    assert_eq!(code(&queues, vec![delayed("a", QUEUE_DELAY_SECONDS_MAX)]).await, Ok(()));
    assert_eq!(code(&queues, vec![text("b"), delayed("a", QUEUE_DELAY_SECONDS_MAX + 1)]).await, Err("invalid_request"));
    // A worker that asks for more gets the most, because its batch has to end.
    send(&queues, &["c"]).await;
    let before = queues.store.now();
    take(&queues, JOBS, 1).await.settle(Verdict::all(Rest::Retry(u32::MAX))).await.unwrap();
    let page = queues.list(JOBS, List::default()).await.unwrap();
    let due = page.messages.last().unwrap().due_ms.unwrap() as i64;
    assert!((before + 86_400_000..before + 86_460_000).contains(&due));
}

#[tokio::test]
async fn a_queue_takes_5_000_messages_a_second_and_says_when_to_come_again() {
    let (_folder, clock, queues) = fresh(PolicyChange::default()).await;
    let mut sent = 0;
    let refused = loop {
        match queues.send(JOBS, vec![text("x"); 100]).await {
            Ok(_) => sent += 100,
            Err(error) => break error,
        }
    };
    assert!((5_000..25_000).contains(&sent), "{sent}");
    assert_eq!((refused.code().code, refused.code().status), ("queue_rate_exceeded", 429));
    let wait = refused.retry_after().unwrap();
    assert!(wait <= Duration::from_millis(20), "{wait:?}");
    clock.advance(wait);
    assert_eq!(code(&queues, vec![text("x"); 100]).await, Ok(()));
    assert_eq!(queues.send(FAILED, vec![text("x")]).await.unwrap().ids.len(), 1, "each queue has its own");
}

#[tokio::test]
async fn a_queue_holds_25_gb_and_takes_dead_letters_beyond() {
    let (_folder, _, queues) = fresh(retries(0)).await;
    send(&queues, &["poison"]).await;
    let database = queues.store.shards.existing(SERVICE.0).unwrap();
    // As if so much were there.
    let fill = "UPDATE queues SET bytes = 24999999795 - messages * 100";
    database.write(move |tx| Ok::<_, Error>(tx.execute(fill, [])?)).await.unwrap();
    assert_eq!(code(&queues, vec![text("12345")]).await, Ok(()));
    // Two that have no body have 200 bytes.
    assert_eq!(code(&queues, vec![text(""), text("")]).await, Err("queue_backlog_full"));
    assert_eq!(code(&queues, vec![text("")]).await, Ok(()));
    let full = queues.send(JOBS, vec![text("1")]).await.unwrap_err();
    assert_eq!((full.code().code, full.code().retryable), ("queue_backlog_full", true));
    assert!(full.to_string().starts_with("25000000000 bytes"), "{full}");
    queues.send(FAILED, vec![text("12345")]).await.unwrap();
    queues.send(FAILED, vec![text("")]).await.unwrap();
    assert!(queues.send(FAILED, vec![text("1")]).await.is_err());
    let settled = take(&queues, JOBS, 1).await.settle(Verdict::all(Rest::Retry(0))).await.unwrap();
    assert_eq!(settled.dead_lettered.len(), 1);
}

#[tokio::test]
async fn batches_that_are_taken_have_1_to_100_messages() {
    let (_folder, _, queues) = fresh(PolicyChange::default()).await;
    for messages in [0, 101, usize::MAX] {
        let error = queues.take(JOBS, Take { messages, bytes: 1_000 }).await.err().unwrap();
        assert_eq!(error.code().code, "invalid_request");
    }
    queues.send(JOBS, vec![text("x"); 100]).await.unwrap();
    queues.send(JOBS, vec![text("x"); 100]).await.unwrap();
    assert_eq!(take(&queues, JOBS, 100).await.messages().len(), 100);
}

#[tokio::test]
async fn ids_and_leases_are_read_as_they_were_written() {
    let id = MessageId { queue: Queue(31), sequence: 1 << 41 };
    assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
    let lease = Lease { id, secret: 255 };
    assert_eq!(lease.to_string().parse::<Lease>().unwrap(), lease);
    for text in ["", "-", "1f", "1f-", "-1f-1", "1F-1", "01-1", "1f-g", "1f-1-", "1f-ffffffffffffffff"] {
        assert!(text.parse::<MessageId>().is_err(), "{text}");
        assert!(text.parse::<Lease>().is_err(), "{text}");
    }
    assert!("1f-1-ff".parse::<Lease>().is_err());
}
