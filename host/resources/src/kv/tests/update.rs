//! Writes that depend on what is there: none is lost, and nothing else changes.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_increments_none_is_lost() {
    let (_folder, _, kv) = fresh().await;
    let tasks = (0..8).map(|_| {
        let kv = kv.clone();
        tokio::spawn(async move {
            let mut last = 0;
            for _ in 0..50 {
                let now = kv.increment(NAMESPACE, "n", 3).await.unwrap();
                assert!(now > last);
                last = now;
            }
        })
    });
    futures::future::join_all(tasks).await.into_iter().for_each(Result::unwrap);
    assert_eq!(value(&kv, "n").await.unwrap(), "1200");
    assert_eq!(kv.usage(NAMESPACE).await.unwrap(), Usage { keys: 1, bytes: 5 });
    assert_eq!(kv.increment(NAMESPACE, "n", -1_300).await.unwrap(), -100);
}

#[tokio::test]
async fn metadata_and_expiration_stay_and_what_has_expired_is_not_there() {
    let (_folder, clock, kv) = fresh().await;
    kv.put(NAMESPACE, Put { ttl_seconds: Some(60), metadata: Some("1".into()), ..entry("n", "41") }).await.unwrap();
    let before = kv.get(NAMESPACE, "n").await.unwrap().unwrap();
    assert_eq!(kv.increment(NAMESPACE, "n", 1).await.unwrap(), 42);
    let after = kv.get(NAMESPACE, "n").await.unwrap().unwrap();
    assert_eq!((&after.value[..], &after.metadata, after.expiration), (&b"42"[..], &before.metadata, before.expiration));
    clock.advance(Duration::from_secs(62));
    assert_eq!(kv.increment(NAMESPACE, "n", 1).await.unwrap(), 1);
    let anew = kv.get(NAMESPACE, "n").await.unwrap().unwrap();
    assert_eq!((&anew.metadata, anew.expiration), (&None, None));
}

#[tokio::test]
async fn what_is_no_number_stays_as_it_is() {
    let (_folder, _, kv) = fresh().await;
    for text in ["", "x", "1.5", "9223372036854775807", "12345678901234567890"] {
        kv.put(NAMESPACE, entry("n", text)).await.unwrap();
        assert_eq!(kv.increment(NAMESPACE, "n", 1).await.unwrap_err().code().code, "invalid_request", "{text}");
        assert_eq!(value(&kv, "n").await.unwrap(), text);
    }
    assert_eq!(kv.increment(NAMESPACE, "..", 1).await.unwrap_err().code().code, "kv_key_invalid");
}

#[tokio::test]
async fn a_swap_happens_only_if_nobody_wrote_meanwhile() {
    let (_folder, _, kv) = fresh().await;
    let tag = async || Tag::of(kv.get(NAMESPACE, "k").await.unwrap().as_deref());
    let absent = tag().await;
    assert_eq!(kv.swap(NAMESPACE, "k", absent.clone(), "a".into()).await.unwrap(), Ok(()));
    let found = kv.swap(NAMESPACE, "k", absent, "b".into()).await.unwrap().unwrap_err();
    assert_eq!(found, tag().await);
    assert_eq!(value(&kv, "k").await.unwrap(), "a");
    assert_eq!(kv.swap(NAMESPACE, "k", found, "b".into()).await.unwrap(), Ok(()));
    assert_eq!(value(&kv, "k").await.unwrap(), "b");
    let large = vec![0; (25 << 20) + 1];
    assert_eq!(kv.swap(NAMESPACE, "k", tag().await, large.into()).await.unwrap_err().code().code, "kv_value_too_large");
    kv.drop_namespace(NAMESPACE).await.unwrap();
    assert!(matches!(kv.swap(NAMESPACE, "k", Tag::of(None), "c".into()).await, Err(Error::Dropped)));
    assert!(matches!(kv.increment(NAMESPACE, "k", 1).await, Err(Error::Dropped)));
}

#[tokio::test]
async fn a_long_value_is_no_number_and_is_not_read_to_find_out() {
    let (_folder, clock, kv) = fresh().await;
    for (length, ttl_seconds) in [(32, None), (33, None), (20 << 20, Some(60))] {
        kv.put(NAMESPACE, Put { ttl_seconds, ..entry("n", "0".repeat(length - 1) + "7") }).await.unwrap();
        let added = kv.increment(NAMESPACE, "n", 1).await;
        match length {
            32 => assert_eq!(added.unwrap(), 8),
            _ => assert_eq!(added.unwrap_err().code().code, "invalid_request"),
        }
    }
    // A value that cannot be read shows that nobody tries to.
    let broken = |tx: &rusqlite::Transaction<'_>| Ok::<_, Error>(tx.execute("UPDATE entries SET long = -1 WHERE key = CAST('n' AS BLOB)", [])?);
    kv.store.shards.existing(NAMESPACE.0).unwrap().write(broken).await.unwrap();
    assert!(matches!(kv.increment(NAMESPACE, "n", 1).await, Err(Error::Number { .. })));
    clock.advance(Duration::from_secs(62));
    assert_eq!(kv.increment(NAMESPACE, "n", 1).await.unwrap(), 1, "what has expired is not there, however long it is");
}
