//! Many at once: what readers see of a key, from memory or from disk, is one order of events, and no write is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use futures::future::join_all;

use super::*;

const KEYS: usize = 4;
const WRITES: u64 = 150;

/// What is known of one key. Its write number n puts n, or removes the key if n is divisible by five.
#[derive(Default)]
struct Known {
    begun: AtomicU64,
    answered: AtomicU64,
    /// The latest number that any reader has seen.
    seen: AtomicU64,
}

async fn write(kv: &Kv, number: usize, known: &Known) {
    let key = number.to_string();
    for write in 1..=WRITES {
        known.begun.store(write, SeqCst);
        if write.is_multiple_of(5) {
            kv.delete(NAMESPACE, &key).await.unwrap();
        } else if number.is_multiple_of(2) {
            kv.put(NAMESPACE, entry(&key, write.to_string())).await.unwrap();
        } else {
            kv.bulk_put(NAMESPACE, vec![entry("beside", "x"), entry(&key, write.to_string())]).await.unwrap();
        }
        known.answered.store(write, SeqCst);
    }
}

async fn read(kv: &Kv, number: usize, known: &Known) {
    let earliest = known.answered.load(SeqCst).max(known.seen.load(SeqCst));
    let found = match fastrand::bool() {
        true => value(kv, &number.to_string()).await,
        false => kv.bulk_get(NAMESPACE, vec![number.to_string()]).await.unwrap().pop().unwrap().map(|entry| entry.value.clone()),
    };
    let latest = known.begun.load(SeqCst);
    match found {
        Some(value) => {
            let write: u64 = std::str::from_utf8(&value).unwrap().parse().unwrap();
            assert!((earliest..=latest).contains(&write), "key {number}: saw {write}, and it was between {earliest} and {latest}");
            known.seen.fetch_max(write, SeqCst);
        }
        None => {
            let removed = (earliest..=latest).any(|write| write.is_multiple_of(5));
            assert!(removed, "key {number}: saw nothing, and it was between {earliest} and {latest}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_key_is_linearizable_under_concurrent_readers_and_writers() {
    let (_folder, _, kv) = fresh().await;
    let kv = shared(kv);
    let known: Arc<Vec<Known>> = Arc::new((0..KEYS).map(|_| Known::default()).collect());
    let done = Arc::new(AtomicBool::new(false));
    let readers = (0..6).map(|_| {
        let (kv, known, done) = (kv.clone(), known.clone(), done.clone());
        tokio::spawn(async move {
            let mut reads = 0_u64;
            while !done.load(SeqCst) {
                let number = fastrand::usize(0..KEYS);
                read(&kv, number, &known[number]).await;
                reads += 1;
                // Reads from memory do not wait for anything, and writers have to come to their turn.
                tokio::task::yield_now().await;
            }
            reads
        })
    });
    let readers: Vec<_> = readers.collect();
    let writers = (0..KEYS).map(|number| {
        let (kv, known) = (kv.clone(), known.clone());
        tokio::spawn(async move { write(&kv, number, &known[number]).await })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    done.store(true, SeqCst);
    let reads: u64 = join_all(readers).await.into_iter().map(Result::unwrap).sum();
    assert!(reads > WRITES, "{reads} reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_write_of_64_concurrent_callers_is_lost() {
    let (folder, _, kv) = fresh().await;
    let kv = shared(kv);
    let callers = (0..64).map(|caller| {
        let kv = kv.clone();
        tokio::spawn(async move {
            for number in 0..20 {
                let (key, text) = (format!("{caller}-{number}"), format!("value of {caller}-{number}"));
                assert_eq!(value(&kv, &key).await, None);
                kv.put(NAMESPACE, entry(&key, text.clone())).await.unwrap();
                assert_eq!(value(&kv, &key).await, Some(text.into()), "whoever was answered reads what they wrote");
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    assert_eq!(kv.usage(NAMESPACE).await.unwrap().keys, 64 * 20);
    kv.close().await.unwrap();
    assert!(counted(&folder).iter().all(|(_, said, found)| said == found && said.keys == 64 * 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_reads_from_a_namespace_after_its_drop_was_answered() {
    let (_folder, _, kv) = fresh().await;
    let kv = shared(kv);
    for number in 0..20 {
        let namespace = Namespace(number);
        kv.put(namespace, entry("key", "x")).await.unwrap();
        let dropped = Arc::new(AtomicBool::new(false));
        let readers = (0..4).map(|_| {
            let (kv, dropped) = (kv.clone(), dropped.clone());
            tokio::spawn(async move {
                let mut gone = false;
                while !gone {
                    let known = dropped.load(SeqCst);
                    gone = kv.get(namespace, "key").await.is_err();
                    assert!(gone || !known, "the namespace was read after it was dropped");
                    tokio::task::yield_now().await;
                }
                assert!(kv.get(namespace, "key").await.is_err(), "it does not come back");
            })
        });
        let readers: Vec<_> = readers.collect();
        kv.drop_namespace(namespace).await.unwrap();
        dropped.store(true, SeqCst);
        for reader in join_all(readers).await {
            reader.unwrap();
        }
    }
}

#[tokio::test]
async fn a_write_whose_caller_has_gone_happens_wholly_and_is_seen() {
    let (_folder, _, kv) = fresh().await;
    kv.put(NAMESPACE, entry("key", "old")).await.unwrap();
    assert_eq!(value(&kv, "key").await, Some("old".into()), "it is in memory now");
    let put = tokio::spawn({
        let kv = kv.clone();
        async move { kv.put(NAMESPACE, entry("key", "new")).await }
    });
    tokio::task::yield_now().await;
    put.abort();
    let _ = put.await;
    // Writes are done in order.
    kv.put(NAMESPACE, entry("other", "x")).await.unwrap();
    let once = value(&kv, "key").await;
    for _ in 0..100 {
        assert_eq!(value(&kv, "key").await, once);
    }
}

#[tokio::test]
async fn an_account_waits_behind_little_of_what_another_writes() {
    let (_folder, _, kv) = fresh().await;
    let other = Namespace(NAMESPACE.0 + 16);
    let done = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (ada, bob) = (kv.for_service(1, 1, u64::MAX), kv.for_service(2, 2, u64::MAX));
    let bulks = (0..12).map(|bulk| {
        let (ada, done) = (ada.clone(), done.clone());
        tokio::spawn(async move {
            let puts = (0..5_000).map(|number| entry(&format!("{bulk}-{number}"), "x")).collect();
            ada.bulk_put(NAMESPACE, puts).await.unwrap();
            done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        })
    });
    let bulks: Vec<_> = bulks.collect();
    while done.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    for number in 0..3 {
        let before = done.load(std::sync::atomic::Ordering::Relaxed);
        bob.put(other, entry(&number.to_string(), "x")).await.unwrap();
        bob.increment(other, "n", 1).await.unwrap();
        let meanwhile = done.load(std::sync::atomic::Ordering::Relaxed) - before;
        assert!(meanwhile <= 4, "{meanwhile} bulk requests of another account went before two writes");
    }
    futures::future::join_all(bulks).await.into_iter().for_each(Result::unwrap);
    assert_eq!(kv.usage(NAMESPACE).await.unwrap().keys, 60_000);
}
