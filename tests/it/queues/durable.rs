//! What is there after the host has ended, with and without a word: everything that was acknowledged, and as many attempts as before.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tovuk_tests::{Operator, Served, component, component_body, full_size};

use super::{QUEUES, config, messages, of, order, seen, send, until};
use crate::TOVUK;

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_the_host_cuts_off_when_it_ends_was_no_attempt() {
    let host = Operator::with(TOVUK, |config| config.drain_timeout = Duration::from_millis(50)).await;
    host.deploy(&host.token, "shop", "queue", config(&json!({"jobs": {"max_batch_timeout_seconds": 0, "max_retries": 0}}))).await;
    order(&host, "jobs", json!({"spin_ms": 600_000})).await;
    send(&host, "jobs", "x").await;
    assert_eq!(messages(&seen(&host, "jobs", 1).await), of(1, &["x"]));
    let host = host.restart_with(|config| config.drain_timeout = Duration::from_millis(50)).await;
    assert_eq!(messages(&seen(&host, "jobs", 2).await), of(1, &["x"]));
    order(&host, "jobs", json!({})).await;
    let host = host.restart_with(|config| config.drain_timeout = Duration::from_millis(50)).await;
    assert_eq!(messages(&seen(&host, "jobs", 3).await), of(1, &["x"]));
    until(&host, "jobs", |metrics| metrics["backlogCount"] == 0 && metrics["deadLetters"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_asked_to_end_lets_deliveries_finish() {
    let host = super::with_queues(json!({"jobs": {"max_batch_timeout_seconds": 0}})).await;
    order(&host, "jobs", json!({"spin_ms": 500})).await;
    send(&host, "jobs", "x").await;
    seen(&host, "jobs", 1).await;
    let host = host.restart().await;
    let metrics = until(&host, "jobs", |_| true).await;
    assert_eq!((&metrics["backlogCount"], &metrics["deliveries"]), (&json!(0), &json!(1)), "{metrics}");
}

/// What was acknowledged and what was delivered, over all lives of a host.
#[derive(Default)]
struct Known {
    sent: Mutex<HashSet<String>>,
}

const QUEUES_USED: [&str; 4] = ["q0", "q1", "q2", "q3"];

/// Sends batches until the host is gone.
async fn sending(known: Arc<Known>, api: SocketAddr, token: String, queue: &'static str, most: usize) {
    let batch = json!({"messages": vec![json!({"body": "x"}); 100]});
    loop {
        if known.sent.lock().unwrap().len() >= most {
            return;
        }
        let path = format!("{QUEUES}/{queue}/messages/batch");
        match Served::ask_at(api, &token, "POST", &path, Some(&batch)).await {
            Some(reply) if reply.status == 200 => {
                let answer = reply.json();
                known.sent.lock().unwrap().extend(answer["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()));
            }
            Some(reply) if reply.status == 429 => tokio::task::yield_now().await,
            Some(reply) => panic!("{} {}", reply.status, reply.text()),
            None => return,
        }
    }
}

/// How often each message was delivered, from what the worker has written down, and the most attempts of one.
async fn delivered(host: &Served) -> (HashMap<String, usize>, u64) {
    let (mut times, mut most) = (HashMap::new(), 0);
    for queue in QUEUES_USED {
        let keys = host.ok("GET", &format!("/v1/services/shop/kv/SEEN/keys?prefix={queue}%2F"), None).await;
        let keys: Vec<String> = keys["keys"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect();
        for keys in keys.chunks(100) {
            let read = host.ok("POST", "/v1/services/shop/kv/SEEN/bulk", Some(&json!({"keys": keys}))).await;
            for entry in read["values"].as_array().unwrap() {
                let seen: Value = serde_json::from_str(entry["value"].as_str().unwrap()).unwrap();
                for message in seen["event"]["messages"].as_array().unwrap() {
                    *times.entry(message["id"].as_str().unwrap().to_owned()).or_default() += 1;
                    most = most.max(message["attempts"].as_u64().unwrap());
                }
            }
        }
    }
    (times, most)
}

/// What waits in all queues together, and what is being delivered.
async fn waiting(host: &Served) -> u64 {
    let mut waiting = 0;
    for queue in QUEUES_USED {
        waiting += host.ok("GET", &format!("{QUEUES}/{queue}/metrics"), None).await["backlogCount"].as_u64().unwrap();
    }
    waiting
}

/// With `TOVUK_SOAK` 100 kills among a million messages, else a few.
#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_when_the_host_is_killed_and_few_come_twice() {
    let (kills, each) = if full_size() { (100, 17_000) } else { (10, 1_000) };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut host = Served::start(TOVUK, &data).await;
    let queue = json!({"max_batch_size": 100, "max_batch_timeout_seconds": 0, "max_retries": 0, "max_concurrency": 4});
    let queues: serde_json::Map<String, Value> = QUEUES_USED.iter().map(|name| ((*name).to_owned(), queue.clone())).collect();
    let made = host.ok("POST", "/v1/deploy", Some(&component_body("shop", &component("queue"), config(&queues.into()), ""))).await;
    assert_eq!(host.built(made["build_job"]["id"].as_str().unwrap()).await["status"], "succeeded");
    let known = Arc::new(Known::default());
    let mut random = fastrand::Rng::with_seed(0x7175_6575);
    // Batches that can be under way when the host is killed.
    let in_flight = QUEUES_USED.len() * 4 * 100;
    for kill in 1..=kills {
        let mut senders = tokio::task::JoinSet::new();
        for queue in QUEUES_USED {
            senders.spawn(sending(known.clone(), host.api, host.token.clone(), queue, kill * each));
        }
        let before = known.sent.lock().unwrap().len();
        let after = before + random.usize(each / 4..each);
        while known.sent.lock().unwrap().len() < after && !senders.is_empty() {
            tokio::select! {
                biased;
                Some(sender) = senders.join_next() => sender.unwrap(),
                () = tokio::task::yield_now() => {}
            }
        }
        host.program.signal(Signal::KILL);
        host.program.ended().await;
        while let Some(sender) = senders.join_next().await {
            sender.unwrap();
        }
        host = Served::start(TOVUK, &data).await;
    }
    while waiting(&host).await > 0 {
        tokio::task::yield_now().await;
    }
    let (times, most) = delivered(&host).await;
    let sent = known.sent.lock().unwrap().clone();
    let lost = sent.iter().filter(|id| !times.contains_key(*id)).count();
    let twice: usize = times.values().map(|times| times - 1).sum();
    println!("{} messages, {kills} kills: {lost} lost, {twice} came again", sent.len());
    assert_eq!((lost, most), (0, 1), "a delivery that was cut off is no attempt");
    assert!(twice <= kills * in_flight, "{twice} came again; {} were under way at most", kills * in_flight);
}
