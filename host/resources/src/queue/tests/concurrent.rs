//! Many at a time: senders, consumers and those who give up, beside each other. Every message that was answered is delivered, and settled once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::Poll;

use futures::future::join_all;

use super::*;

const SENDERS: usize = 8;
const SENDS: usize = 60;
const CONSUMERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_message_is_delivered_and_settled_once_whoever_gives_up_meanwhile() {
    let (folder, _, queues) = fresh(retries(100)).await;
    let (done, sent) = (Arc::new(Mutex::new(HashSet::new())), Arc::new(AtomicUsize::new(0)));
    let ended = Arc::new(AtomicBool::new(false));
    let senders = (0..SENDERS).map(|sender| {
        let (queues, sent) = (queues.clone(), sent.clone());
        tokio::spawn(async move {
            for number in 0..SENDS {
                let delay_seconds = number.is_multiple_of(4).then_some(1);
                let sends = vec![Send { delay_seconds, ..text(format!("{sender}-{number}")) }; 1 + number % 3];
                sent.fetch_add(send_patiently(&queues, JOBS, sends).await.len(), Ordering::SeqCst);
            }
        })
    });
    let consumers: Vec<_> = (0..CONSUMERS)
        .map(|_| {
            let (queues, done, ended) = (queues.clone(), done.clone(), ended.clone());
            tokio::spawn(async move {
                while !ended.load(Ordering::SeqCst) {
                    // Now and then somebody gives up while taking.
                    let mut taking = Box::pin(take(&queues, JOBS, fastrand::usize(1..20)));
                    let batch = match futures::poll!(&mut taking) {
                        Poll::Ready(batch) => batch,
                        Poll::Pending if fastrand::u8(..8) == 0 => continue,
                        Poll::Pending => taking.await,
                    };
                    if batch.is_empty() {
                        queues.store.clock.advance(Duration::from_millis(100));
                        tokio::task::yield_now().await;
                        continue;
                    }
                    let named = ids(&batch);
                    match fastrand::u8(..4) {
                        0 => drop(batch),
                        1 => drop(batch.settle(Verdict::all(Rest::Retry(fastrand::u32(..2)))).await.unwrap()),
                        _ => {
                            assert!(batch.settle(Verdict::all(Rest::Ack)).await.unwrap().gone.is_empty());
                            let mut done = done.lock().unwrap();
                            assert!(named.into_iter().all(|id| done.insert(id)), "settled once");
                        }
                    }
                }
            })
        })
        .collect();
    join_all(senders).await.into_iter().for_each(Result::unwrap);
    while queues.metrics(JOBS).await.unwrap().backlog.messages > 0 {
        assert!(!consumers.iter().any(tokio::task::JoinHandle::is_finished), "a consumer has failed");
        tokio::task::yield_now().await;
    }
    ended.store(true, Ordering::SeqCst);
    join_all(consumers).await.into_iter().for_each(Result::unwrap);
    assert_eq!(done.lock().unwrap().len(), sent.load(Ordering::SeqCst));
    queues.close().await.unwrap();
    assert_eq!(counted(folder.path()), 0);
}
