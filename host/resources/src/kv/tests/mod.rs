//! What KV promises: what was answered is there and as it was written, what has expired is not, and nothing beyond a limit comes in.
#![allow(clippy::unwrap_used)]

mod churn;
mod concurrent;
mod killed;
mod limits;
mod measured;
mod model;
mod update;

use std::sync::Arc;

use tempfile::TempDir;
use tovuk_kernel::clock::Clock;

use super::*;
use crate::database::rusqlite::Connection;

const NAMESPACE: Namespace = Namespace(7);

async fn open(folder: &TempDir, clock: &Clock) -> Kv {
    Kv::open(&folder.path().join("kv"), clock.clone()).await.unwrap()
}

/// A store that nothing was written to, with its clock.
async fn fresh() -> (TempDir, Clock, Kv) {
    let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable());
    let kv = open(&folder, &clock).await;
    (folder, clock, kv)
}

fn entry(key: &str, value: impl Into<bytes::Bytes>) -> Put {
    Put { key: key.to_owned(), value: value.into(), ..Put::default() }
}

async fn value(kv: &Kv, key: &str) -> Option<bytes::Bytes> {
    kv.get(NAMESPACE, key).await.unwrap().map(|entry| entry.value.clone())
}

fn names(page: &Page) -> Vec<&str> {
    page.keys.iter().map(|key| key.name.as_str()).collect()
}

/// Checks a closed store's file, and returns what it says of each namespace beside what is in it.
fn counted(folder: &TempDir) -> Vec<(i64, Usage, Usage)> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder.path().join("kv")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "db") {
            continue;
        }
        let connection = Connection::open(&path).unwrap();
        let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok", "{}", path.display());
        let orphans = "SELECT (SELECT count(*) FROM long_values) - (SELECT count(long) FROM entries)";
        assert_eq!(connection.query_row(orphans, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "a value belongs to one key");
        let sql = "SELECT number, keys, bytes, (SELECT count(*) FROM entries WHERE namespace = number),
            (SELECT coalesce(sum(length(key) + coalesce(length(CAST(metadata AS BLOB)), 0) + length(coalesce(entries.value, long_values.value))), 0)
             FROM entries LEFT JOIN long_values ON id = long WHERE namespace = number) FROM namespaces";
        let mut statement = connection.prepare(sql).unwrap();
        let number = |row: &rusqlite::Row<'_>, at: usize| row.get::<_, i64>(at).map(|number| u64::try_from(number).unwrap());
        let rows = statement.query_map([], |row| {
            let said = Usage { keys: number(row, 1)?, bytes: number(row, 2)? };
            Ok((row.get(0)?, said, Usage { keys: number(row, 3)?, bytes: number(row, 4)? }))
        });
        found.extend(rows.unwrap().map(Result::unwrap));
    }
    found
}

#[tokio::test]
async fn what_was_put_is_there_after_a_restart_with_all_that_belongs_to_it() {
    let (folder, clock, kv) = fresh().await;
    let expiration = clock.now_unix_ms() / 1_000 + 3_600;
    for (key, length) in [("empty", 0), ("short", 64), ("longer", 65), ("a/b c?ü\0", 5_000), ("large", 3 << 20)] {
        let put = Put { metadata: Some("{\"kind\": \"x\"}".into()), expiration: Some(expiration), ..entry(key, vec![7; length]) };
        let written = kv.put(NAMESPACE, put).await.unwrap();
        assert_eq!((written.keys, written.bytes), (1, (key.len() + length + 13) as u64));
    }
    for restarted in [false, true] {
        let kv = if restarted { open(&folder, &clock).await } else { kv.clone() };
        for (key, length) in [("empty", 0), ("short", 64), ("longer", 65), ("a/b c?ü\0", 5_000), ("large", 3 << 20)] {
            let found = kv.get(NAMESPACE, key).await.unwrap().unwrap();
            assert_eq!((found.value.len(), found.metadata.as_deref(), found.expiration), (length, Some("{\"kind\": \"x\"}"), Some(expiration)));
            assert!(found.value.iter().all(|byte| *byte == 7));
        }
        let other = kv.get(Namespace(NAMESPACE.0 + 16), "short").await.unwrap();
        assert_eq!(other, None, "another namespace of the same file");
        kv.close().await.unwrap();
    }
    assert!(counted(&folder).iter().all(|(_, said, found)| said == found));
}

#[tokio::test]
async fn values_change_between_short_and_long_and_nothing_is_left_behind() {
    let (folder, _, kv) = fresh().await;
    for length in [10, 1_000, 1_000, 20, 0, 100_000, 64, 65] {
        for metadata in [None, Some("1".to_owned()), Some("2".to_owned())] {
            kv.put(NAMESPACE, Put { metadata: metadata.clone(), ..entry("key", vec![length as u8; length]) }).await.unwrap();
            let found = kv.get(NAMESPACE, "key").await.unwrap().unwrap();
            assert_eq!((found.value.len(), found.metadata.as_deref()), (length, metadata.as_deref()));
            let usage = kv.usage(NAMESPACE).await.unwrap();
            assert_eq!((usage.keys, usage.bytes), (1, (3 + length + metadata.map_or(0, |text| text.len())) as u64));
        }
    }
    assert_eq!(kv.delete(NAMESPACE, "key").await.unwrap(), Deleted { keys: 1, existed: 1, usage: Usage::default() });
    assert_eq!(kv.delete(NAMESPACE, "key").await.unwrap(), Deleted { keys: 1, existed: 0, usage: Usage::default() });
    assert_eq!(value(&kv, "key").await, None);
    kv.close().await.unwrap();
    assert_eq!(counted(&folder), [(NAMESPACE.0, Usage::default(), Usage::default())]);
}

#[tokio::test]
async fn a_list_is_in_byte_order_and_can_be_walked_page_by_page() {
    let (_folder, _, kv) = fresh().await;
    assert_eq!(kv.list(NAMESPACE, List::default()).await.unwrap(), Page { keys: Vec::new(), has_more: false, next_cursor: None });
    let keys = ["a", "a/1", "a/10", "a/2", "a\0", "b", "z", "Ä", "\u{10ffff}", "\u{10ffff}x"];
    kv.bulk_put(NAMESPACE, keys.iter().map(|key| entry(key, *key)).collect()).await.unwrap();
    kv.put(Namespace(NAMESPACE.0 + 16), entry("other", "x")).await.unwrap();
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    assert_eq!(names(&kv.list(NAMESPACE, List::default()).await.unwrap()), sorted);
    for (prefix, limit) in [("", 1), ("", 3), ("", 10), ("", 11), ("a", 2), ("a/", 3), ("a/1", 1), ("\u{10ffff}", 1), ("none", 5)] {
        let wanted: Vec<_> = sorted.iter().copied().filter(|key| key.starts_with(prefix)).collect();
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let list = List { prefix: prefix.to_owned(), limit: Some(limit), cursor };
            let page = kv.list(NAMESPACE, list).await.unwrap();
            assert_eq!(page.has_more, page.next_cursor.is_some());
            assert_eq!(page.has_more, found.len() + page.keys.len() < wanted.len(), "{prefix} {limit}");
            found.extend(page.keys.into_iter().map(|key| key.name));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, wanted);
    }
}

#[tokio::test]
async fn a_list_without_a_limit_ends_after_100_000_keys_and_can_be_gone_on_with() {
    let (_folder, _, kv) = fresh().await;
    for hundred in 0..11 {
        let puts = (0..10_000).map(|number| entry(&format!("{:06}", hundred * 10_000 + number), "x")).collect();
        kv.bulk_put(NAMESPACE, puts).await.unwrap();
    }
    let (mut pages, mut found, mut last) = (kv.pages(NAMESPACE, String::new(), None), Vec::new(), None);
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        found.extend(page.keys.iter().map(|key| key.name.clone()));
        last = page.next_cursor;
    }
    assert_eq!(found.len(), 100_000);
    assert_eq!((found[0].as_str(), found[99_999].as_str()), ("000000", "099999"));
    let rest = kv.pages(NAMESPACE, String::new(), last).next().await.unwrap().unwrap();
    assert_eq!(rest.keys[0].name, "100000");
}

#[tokio::test]
async fn a_bulk_request_happens_wholly_or_not_at_all() {
    let (_folder, _, kv) = fresh().await;
    kv.put(NAMESPACE, entry("b", "old")).await.unwrap();
    let puts = vec![entry("a", "1"), entry("b", "2"), entry("b", "3"), entry("..", "4")];
    assert!(matches!(kv.bulk_put(NAMESPACE, puts.clone()).await, Err(Error::Key { .. })));
    assert_eq!((value(&kv, "a").await, value(&kv, "b").await), (None, Some("old".into())));
    let written = kv.bulk_put(NAMESPACE, puts[..3].to_vec()).await.unwrap();
    assert_eq!(written, Written { keys: 3, bytes: 6, usage: Usage { keys: 2, bytes: 4 } });
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    for _ in 0..2 {
        let found = kv.bulk_get(NAMESPACE, keys(&["b", "c", "a", "b"])).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|entry| entry.map(|entry| entry.value.clone())).collect();
        assert_eq!(found, [Some("3".into()), None, Some("1".into()), Some("3".into())]);
    }
    assert!(matches!(kv.bulk_delete(NAMESPACE, keys(&["a", ""])).await, Err(Error::Key { .. })));
    let deleted = kv.bulk_delete(NAMESPACE, keys(&["a", "c", "a"])).await.unwrap();
    assert_eq!(deleted, Deleted { keys: 3, existed: 1, usage: Usage { keys: 1, bytes: 2 } });
    assert_eq!(value(&kv, "a").await, None);
}

#[tokio::test]
async fn what_has_expired_is_gone_at_once_and_does_not_come_back() {
    let (_folder, clock, kv) = fresh().await;
    kv.put(NAMESPACE, Put { ttl_seconds: Some(60), ..entry("ttl", "x") }).await.unwrap();
    kv.put(NAMESPACE, Put { ttl_seconds: Some(600), ..entry("later", "x") }).await.unwrap();
    kv.put(NAMESPACE, entry("ever", "x")).await.unwrap();
    clock.advance(Duration::from_secs(58));
    assert!(value(&kv, "ttl").await.is_some() && value(&kv, "later").await.is_some());
    clock.advance(Duration::from_secs(4));
    for swept in [false, true] {
        assert_eq!(value(&kv, "ttl").await, None, "also where it was in memory");
        assert_eq!(kv.bulk_get(NAMESPACE, vec!["ttl".to_owned()]).await.unwrap(), [None]);
        assert_eq!(names(&kv.list(NAMESPACE, List::default()).await.unwrap()), ["ever", "later"]);
        assert_eq!(kv.delete(NAMESPACE, "gone").await.unwrap().existed, 0);
        if !swept {
            sweep::sweep(&kv.store).await.unwrap();
        }
    }
    assert_eq!(kv.usage(NAMESPACE).await.unwrap(), Usage { keys: 2, bytes: 11 });
    kv.put(NAMESPACE, entry("ttl", "new")).await.unwrap();
    assert_eq!(value(&kv, "ttl").await, Some("new".into()), "an expired key can be written anew");
}

#[tokio::test]
async fn a_dropped_namespace_is_gone_for_all_operations_and_its_neighbours_stay() {
    let (folder, clock, kv) = fresh().await;
    let neighbour = Namespace(NAMESPACE.0 + 16);
    let puts: Vec<_> = (0..1_500).map(|number| entry(&number.to_string(), vec![1; number])).collect();
    let usage = kv.bulk_put(NAMESPACE, puts).await.unwrap().usage;
    kv.put(neighbour, entry("key", "x")).await.unwrap();
    assert!(value(&kv, "700").await.is_some());
    assert_eq!(kv.drop_namespace(NAMESPACE).await.unwrap(), usage);
    for restarted in [false, true] {
        let kv = if restarted { open(&folder, &clock).await } else { kv.clone() };
        assert!(matches!(kv.get(NAMESPACE, "700").await, Err(Error::Dropped)));
        assert!(matches!(kv.put(NAMESPACE, entry("700", "x")).await, Err(Error::Dropped)));
        assert!(matches!(kv.delete(NAMESPACE, "700").await, Err(Error::Dropped)));
        assert!(matches!(kv.list(NAMESPACE, List::default()).await, Err(Error::Dropped)));
        assert!(matches!(kv.usage(NAMESPACE).await, Err(Error::Dropped)));
        assert_eq!(kv.drop_namespace(NAMESPACE).await.unwrap(), Usage::default(), "asking twice is no error");
        assert_eq!(kv.get(neighbour, "key").await.unwrap().unwrap().value, "x");
        sweep::sweep(&kv.store).await.unwrap();
        kv.close().await.unwrap();
    }
    let expected = [(NAMESPACE.0, Usage::default(), Usage::default()), (neighbour.0, Usage { keys: 1, bytes: 4 }, Usage { keys: 1, bytes: 4 })];
    assert_eq!(counted(&folder), expected);
    let never_written = open(&folder, &clock).await;
    assert_eq!(never_written.drop_namespace(Namespace(3)).await.unwrap(), Usage::default());
    assert!(matches!(never_written.put(Namespace(3), entry("a", "x")).await, Err(Error::Dropped)));
}

#[tokio::test]
async fn what_many_have_expired_costs_a_list_is_bounded() {
    let (_folder, clock, kv) = fresh().await;
    for part in 0..3 {
        let puts = (0..10_000).map(|number| Put { ttl_seconds: Some(60), ..entry(&format!("{part}{number:05}"), "x") }).collect();
        kv.bulk_put(NAMESPACE, puts).await.unwrap();
    }
    kv.put(NAMESPACE, entry("last", "x")).await.unwrap();
    kv.sweeper.0.abort();
    clock.advance(Duration::from_secs(100));
    let first = kv.list(NAMESPACE, List::default()).await.unwrap();
    assert!(first.keys.is_empty() && first.has_more);
    let second = kv.list(NAMESPACE, List { cursor: first.next_cursor, ..List::default() }).await.unwrap();
    assert_eq!((names(&second), second.has_more), (vec!["last"], false));
}

#[tokio::test]
async fn closed_is_closed() {
    let (_folder, _, kv) = fresh().await;
    kv.put(NAMESPACE, entry("key", "x")).await.unwrap();
    kv.close().await.unwrap();
    let error = kv.put(NAMESPACE, entry("key", "y")).await.unwrap_err();
    assert_eq!(error.code().code, "storage_failed");
    assert!(kv.get(NAMESPACE, "key").await.is_err());
}

/// Holds the store alive while it is used by tasks.
fn shared(kv: Kv) -> Arc<Kv> {
    Arc::new(kv)
}
