//! Limits, at their edges and past them, and the code that says so.

use tovuk_kernel::limits::*;

use super::*;

async fn put_code(kv: &Kv, put: Put) -> Result<(), &'static str> {
    kv.put(NAMESPACE, put).await.map(drop).map_err(|error| error.code().code)
}

#[tokio::test]
async fn keys_have_1_to_512_bytes_and_are_no_path_segments() {
    let (_folder, _, kv) = fresh().await;
    let longest = "ü".repeat(KV_KEY_BYTES_MAX / 2);
    for key in ["a", "...", ". ", "a/../b", "/", " ", &longest] {
        assert_eq!(put_code(&kv, entry(key, "x")).await, Ok(()), "{key}");
        assert_eq!(value(&kv, key).await, Some("x".into()));
    }
    let too_long = format!("{longest}a");
    for key in ["", ".", "..", &too_long] {
        assert_eq!(put_code(&kv, entry(key, "x")).await, Err("kv_key_invalid"), "{key}");
        assert_eq!(kv.get(NAMESPACE, key).await.unwrap_err().code().code, "kv_key_invalid");
        assert_eq!(kv.delete(NAMESPACE, key).await.unwrap_err().code().code, "kv_key_invalid");
        assert_eq!(kv.bulk_get(NAMESPACE, vec![key.to_owned()]).await.unwrap_err().code().code, "kv_key_invalid");
    }
    assert!(kv.list(NAMESPACE, List { prefix: longest, ..List::default() }).await.unwrap().keys.len() == 1);
    assert_eq!(kv.list(NAMESPACE, List { prefix: too_long, ..List::default() }).await.unwrap_err().code().code, "kv_key_invalid");
}

#[tokio::test]
async fn values_have_25_mib_and_metadata_1024_bytes_of_json() {
    let (_folder, _, kv) = fresh().await;
    let largest = vec![1; KV_VALUE_BYTES_MAX];
    assert_eq!(put_code(&kv, entry("large", largest.clone())).await, Ok(()));
    assert!(value(&kv, "large").await.unwrap() == largest);
    assert_eq!(put_code(&kv, entry("large", vec![1; KV_VALUE_BYTES_MAX + 1])).await, Err("kv_value_too_large"));
    let metadata = |length: usize| Some(format!("\"{}\"", "x".repeat(length - 2)));
    assert_eq!(put_code(&kv, Put { metadata: metadata(KV_METADATA_BYTES_MAX), ..entry("a", "x") }).await, Ok(()));
    assert_eq!(put_code(&kv, Put { metadata: metadata(KV_METADATA_BYTES_MAX + 1), ..entry("a", "x") }).await, Err("kv_metadata_invalid"));
    for text in ["", "{", "{}x", "nul", "'a'"] {
        assert_eq!(put_code(&kv, Put { metadata: Some(text.to_owned()), ..entry("a", "x") }).await, Err("kv_metadata_invalid"), "{text}");
    }
    // A tower of brackets must not be a tower of calls.
    let tower = "[".repeat(512) + &"]".repeat(512);
    assert_eq!(put_code(&kv, Put { metadata: Some(tower), ..entry("a", "x") }).await, Err("kv_metadata_invalid"));
}

#[tokio::test]
async fn an_expiration_lies_30_seconds_ahead_and_the_ttl_wins() {
    let (_folder, clock, kv) = fresh().await;
    let put = |ttl_seconds, expiration| Put { ttl_seconds, expiration, ..entry("a", "x") };
    let now = || clock.now_unix_ms() / 1_000;
    assert_eq!(put_code(&kv, put(Some(30), None)).await, Ok(()));
    assert_eq!(put_code(&kv, put(None, Some(now() + 31))).await, Ok(()));
    for (ttl, expiration) in [(Some(0), None), (Some(29), None), (None, Some(now() + 29)), (None, Some(0)), (Some(29), Some(now() + 100))] {
        assert_eq!(put_code(&kv, put(ttl, expiration)).await, Err("kv_expiration_too_soon"), "{ttl:?} {expiration:?}");
    }
    let before = now();
    assert_eq!(put_code(&kv, put(Some(100), Some(1))).await, Ok(()), "only the ttl counts");
    let expiration = kv.get(NAMESPACE, "a").await.unwrap().unwrap().expiration.unwrap();
    assert!((before + 100..=now() + 101).contains(&expiration));
    assert_eq!(put_code(&kv, put(None, Some(KV_EXPIRATION_UNIX_MAX))).await, Ok(()));
    for (ttl, expiration) in [(Some(u64::MAX), None), (None, Some(u64::MAX)), (None, Some(KV_EXPIRATION_UNIX_MAX + 1))] {
        assert_eq!(put_code(&kv, put(ttl, expiration)).await, Err("invalid_request"));
    }
}

#[tokio::test]
async fn bulk_requests_have_100_or_10_000_keys_and_100_mb() {
    let (_folder, _, kv) = fresh().await;
    let keys = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
    let puts = |count: usize| keys(count).iter().map(|key| entry(key, "x")).collect::<Vec<_>>();
    assert_eq!(kv.bulk_put(NAMESPACE, puts(KV_BULK_WRITE_KEYS_MAX)).await.unwrap().usage.keys, 10_000);
    assert_eq!(kv.bulk_put(NAMESPACE, puts(KV_BULK_WRITE_KEYS_MAX + 1)).await.unwrap_err().code().code, "kv_bulk_too_large");
    assert_eq!(kv.bulk_get(NAMESPACE, keys(KV_BULK_READ_KEYS_MAX)).await.unwrap().iter().flatten().count(), 100);
    assert_eq!(kv.bulk_get(NAMESPACE, keys(KV_BULK_READ_KEYS_MAX + 1)).await.unwrap_err().code().code, "kv_bulk_too_large");
    assert_eq!(kv.bulk_delete(NAMESPACE, keys(KV_BULK_WRITE_KEYS_MAX + 1)).await.unwrap_err().code().code, "kv_bulk_too_large");
    assert_eq!(kv.bulk_delete(NAMESPACE, keys(KV_BULK_WRITE_KEYS_MAX)).await.unwrap().existed, 10_000);
    assert_eq!(kv.bulk_put(NAMESPACE, Vec::new()).await.unwrap().keys, 0);

    // The most that fits: four keys of one byte, and values that make up the rest.
    let value = bytes::Bytes::from(vec![1; KV_BULK_BYTES_MAX / 4 - 1]);
    let mut large: Vec<_> = keys(4).iter().map(|key| entry(key, value.clone())).collect();
    assert_eq!(kv.bulk_put(NAMESPACE, large.clone()).await.unwrap().bytes, KV_BULK_BYTES_MAX as u64);
    assert_eq!(kv.bulk_get(NAMESPACE, keys(4)).await.unwrap().iter().flatten().count(), 4);
    large[0].metadata = Some("1".to_owned());
    assert_eq!(kv.bulk_put(NAMESPACE, large).await.unwrap_err().code().code, "kv_bulk_too_large");
    let mut five = keys(4);
    five.push("0".to_owned());
    assert_eq!(kv.bulk_get(NAMESPACE, five).await.unwrap_err().code().code, "kv_bulk_too_large");
}

#[tokio::test]
async fn lists_have_1_to_1_000_keys_and_know_their_cursors() {
    let (_folder, _, kv) = fresh().await;
    kv.bulk_put(NAMESPACE, (0..1_001).map(|number| entry(&format!("k{number:04}"), "x")).collect()).await.unwrap();
    let list = |limit, cursor: Option<&str>, prefix: &str| List { prefix: prefix.to_owned(), limit, cursor: cursor.map(str::to_owned) };
    for limit in [0, KV_PAGE_KEYS_MAX + 1, usize::MAX] {
        assert_eq!(kv.list(NAMESPACE, list(Some(limit), None, "")).await.unwrap_err().code().code, "invalid_request");
    }
    let page = kv.list(NAMESPACE, list(Some(KV_PAGE_KEYS_MAX), None, "")).await.unwrap();
    assert_eq!((page.keys.len(), page.has_more), (1_000, true));
    let cursor = page.next_cursor.unwrap();
    let rest = kv.list(NAMESPACE, list(None, Some(&cursor), "k")).await.unwrap();
    assert_eq!((names(&rest), rest.has_more, &rest.next_cursor), (vec!["k1000"], false, &None));
    for cursor in ["", "k0001", "!", "/w", &format!("{cursor}="), &"YQ".repeat(1_000)] {
        let error = kv.list(NAMESPACE, list(None, Some(cursor), "")).await.unwrap_err();
        assert_eq!(error.code().code, "invalid_cursor", "{cursor}");
    }
    assert_eq!(kv.list(NAMESPACE, list(None, Some(&cursor), "other")).await.unwrap_err().code().code, "invalid_cursor");
}

#[tokio::test]
async fn an_account_has_no_more_than_it_may_in_all_its_namespaces_together() {
    let (folder, clock, kv) = fresh().await;
    let (first, second, others) = (Namespace(1), Namespace(2), Namespace(3));
    let (ada, bob) = (kv.for_service(1, 1, 1_000), kv.for_service(2, 2, 1_000));
    let sized = |key: &str, bytes: usize| entry(key, vec![1; bytes - key.len()]);
    ada.put(first, sized("a", 600)).await.unwrap();
    ada.put(second, sized("b", 400)).await.unwrap();
    let full = async |put: Put| ada.put(second, put).await.unwrap_err();
    assert_eq!(full(sized("c", 1)).await.code().code, "kv_storage_full");
    assert!(full(sized("c", 1)).await.to_string().contains("1001 bytes"), "{}", full(sized("c", 1)).await);
    assert_eq!(ada.increment(second, "n", 1).await.unwrap_err().code().code, "kv_storage_full");
    assert_eq!(value_in(&ada, second, "n").await, None, "nothing was written");
    bob.put(others, sized("a", 1_000)).await.unwrap();
    // What is replaced makes room for what replaces it.
    ada.bulk_put(second, vec![sized("b", 300), sized("c", 100)]).await.unwrap();
    assert_eq!(ada.bulk_put(second, vec![sized("b", 301), sized("d", 1)]).await.unwrap_err().code().code, "kv_storage_full");
    // Deleted and expired keys make room, and so does a namespace.
    ada.delete(second, "c").await.unwrap();
    ada.put(second, Put { ttl_seconds: Some(60), ..sized("c", 100) }).await.unwrap();
    assert!(matches!(full(sized("d", 100)).await, Error::AccountFull { bytes: 1_100, bytes_max: 1_000 }));
    clock.advance(Duration::from_secs(62));
    sweep::sweep(&kv.store).await.unwrap();
    ada.put(second, sized("d", 100)).await.unwrap();
    // Another plan is larger at once, and a smaller one takes nothing away.
    kv.for_service(1, 1, 1_001).put(second, sized("e", 1)).await.unwrap();
    ada.put(second, sized("d", 99)).await.unwrap();
    assert!(ada.put(second, sized("d", 101)).await.is_err());
    kv.close().await.unwrap();

    // What there is counts after a start as well.
    let kv = open(&folder, &clock).await;
    kv.own(vec![(first, 1, 1), (second, 1, 1), (others, 2, 2)]).await.unwrap();
    let ada = kv.for_service(1, 1, 1_000);
    assert!(matches!(ada.put(Namespace(4), sized("a", 1)).await.unwrap_err(), Error::AccountFull { bytes: 1_001, .. }));
    kv.drop_namespace(first).await.unwrap();
    ada.put(Namespace(4), sized("a", 600)).await.unwrap();
    assert!(ada.put(Namespace(4), sized("b", 1)).await.is_err());
}

async fn value_in(kv: &Kv, namespace: Namespace, key: &str) -> Option<bytes::Bytes> {
    kv.get(namespace, key).await.unwrap().map(|entry| entry.value.clone())
}
