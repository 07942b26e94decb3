//! What State promises: what was answered is there and as it was written, calls of one object run one after the other, alarms ring at least once, and
//! nothing beyond a limit comes in.
#![allow(clippy::unwrap_used)]

mod alarms;
mod killed;
mod limits;
mod many;
mod measured;
mod model;
mod removed;
mod sessions;

use tempfile::TempDir;

use super::*;
use crate::database::rusqlite::Connection;

const NAMESPACE: Namespace = Namespace(7);
const ACCOUNT: i64 = 3;

fn target(object: &str) -> Target {
    Target { namespace: NAMESPACE, object: object.into(), account: ACCOUNT, plan: Plan::Free, holds: Holds::default() }
}

async fn open_with(folder: &TempDir, clock: &Clock, options: Options) -> State {
    State::open_with(&folder.path().join("state"), clock.clone(), options).await.unwrap()
}

async fn open(folder: &TempDir, clock: &Clock) -> State {
    open_with(folder, clock, Options { threads: 4, ..Options::default() }).await
}

/// A store that nothing was written to, with its clock.
async fn fresh() -> (TempDir, Clock, State) {
    let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable());
    let state = open(&folder, &clock).await;
    (folder, clock, state)
}

async fn put(state: &State, object: &str, key: &str, value: impl Into<Bytes>) -> Answer<()> {
    state.put(&target(object), key, value.into()).await.unwrap()
}

async fn get(state: &State, object: &str, key: &str) -> Option<Bytes> {
    state.get(&target(object), key).await.unwrap().value
}

async fn keys(state: &State, object: &str) -> Vec<String> {
    let page = state.keys(&target(object), List::default()).await.unwrap().value;
    page.items.into_iter().map(|key| key.name).collect()
}

async fn objects(state: &State) -> Vec<String> {
    state.objects(NAMESPACE, List::default()).await.unwrap().items.into_iter().map(|object| object.name).collect()
}

/// Files of objects that are there.
fn files(folder: &TempDir, namespace: Namespace) -> usize {
    let Ok(folders) = std::fs::read_dir(folder.path().join("state").join(namespace.to_string())) else { return 0 };
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "db")).count()
}

/// Checks a closed store: every file is whole and says what the catalogue says.
fn check(folder: &TempDir) {
    let root = folder.path().join("state");
    for number in 0..8 {
        let path = root.join(format!("{number:02}.db"));
        if !path.exists() {
            continue;
        }
        let catalogue = Connection::open(&path).unwrap();
        let text = |connection: &Connection, sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(text(&catalogue, "PRAGMA integrity_check"), "ok");
        assert_eq!(catalogue.query_row("SELECT count(*) FROM objects WHERE dirty IS NOT NULL", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
        let sql = "SELECT count(*) FROM namespaces WHERE NOT dropped AND (objects, bytes) IS NOT (SELECT
            coalesce(sum(vals > 0 OR next IS NOT NULL), 0), coalesce(sum(bytes), 0) FROM objects WHERE namespace = number)";
        assert_eq!(catalogue.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "namespaces are counted right");
        let mut select = catalogue.prepare("SELECT namespace, key, incarnation, vals, bytes FROM objects").unwrap();
        let mut rows = select.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let (namespace, key): (i64, Vec<u8>) = (row.get(0).unwrap(), row.get(1).unwrap());
            let said: (i64, i64) = (row.get(3).unwrap(), row.get(4).unwrap());
            let Some(incarnation) = row.get::<_, Option<i64>>(2).unwrap() else {
                assert_eq!(said, (0, 0));
                continue;
            };
            let path = file::path_of(&root, Namespace(namespace), std::str::from_utf8(&key).unwrap(), incarnation);
            let object = Connection::open(&path).unwrap();
            assert_eq!(text(&object, "PRAGMA integrity_check"), "ok");
            let two = |sql: &str| object.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap();
            assert_eq!(said, two("SELECT vals, bytes FROM about"));
            assert_eq!(said, two("SELECT count(*), coalesce(sum(length(key) + length(value)), 0) FROM entries"));
        }
    }
}

#[tokio::test]
async fn what_was_put_is_there_after_a_restart() {
    let (folder, clock, state) = fresh().await;
    for (key, length) in [("empty", 0), ("short", 60), ("a/b c?ü\0", 5_000), ("large", (2 << 20) - 5)] {
        let answer = put(&state, "room-1", key, vec![7; length]).await;
        assert_eq!((answer.rows_read, answer.rows_written), (0, 1));
    }
    put(&state, "room-2", "short", "other").await;
    assert!(state.delete_value(&target("room-2"), "short").await.unwrap().value);
    assert!(!state.delete_value(&target("room-2"), "short").await.unwrap().value);
    for restarted in [false, true] {
        let state = if restarted { open(&folder, &clock).await } else { state.clone() };
        for (key, length) in [("empty", 0), ("short", 60), ("a/b c?ü\0", 5_000), ("large", (2 << 20) - 5)] {
            assert_eq!(get(&state, "room-1", key).await.unwrap(), vec![7; length]);
        }
        assert_eq!(keys(&state, "room-1").await, ["a/b c?ü\0", "empty", "large", "short"]);
        assert_eq!(get(&state, "room-2", "short").await, None);
        assert_eq!(get(&state, "never", "short").await, None);
        assert_eq!(objects(&state).await, ["room-1"]);
        let usage = state.usage(NAMESPACE).await.unwrap();
        assert_eq!(usage.objects, 1);
        assert_eq!(usage.bytes, state.account_bytes(ACCOUNT));
        assert_eq!(usage.bytes, state.get(&target("room-1"), "x").await.unwrap().object.bytes);
        state.close().await.unwrap();
        check(&folder);
        assert_eq!(files(&folder, NAMESPACE), 1 + usize::from(!restarted), "the file of an empty object goes");
        assert!(matches!(state.get(&target("room-1"), "short").await, Err(Error::Database(_))));
    }
}

#[tokio::test]
async fn compare_and_set_increment_and_atomic_writes() {
    let (_folder, _, state) = fresh().await;
    let room = target("room");
    let swapped = state.compare_and_set(&room, "lock", None, Some("a".into())).await.unwrap().value;
    assert_eq!(swapped, Swapped { swapped: true, found: None });
    let refused = state.compare_and_set(&room, "lock", None, Some("b".into())).await.unwrap();
    assert_eq!(refused.value, Swapped { swapped: false, found: Some("a".into()) });
    assert_eq!((refused.rows_read, refused.rows_written), (1, 0));
    assert!(state.compare_and_set(&room, "lock", Some("a".into()), None).await.unwrap().value.swapped);
    assert_eq!(get(&state, "room", "lock").await, None);
    for sum in 1..=3 {
        assert_eq!(state.increment(&room, "n", 1).await.unwrap().value, sum);
    }
    assert_eq!(get(&state, "room", "n").await.unwrap(), "3");
    put(&state, "room", "max", i64::MAX.to_string()).await;
    assert!(matches!(state.increment(&room, "max", 1).await, Err(Error::Overflow { .. })));
    put(&state, "room", "text", "many").await;
    let error = state.increment(&room, "text", 1).await.unwrap_err();
    assert_eq!(error.code().code, "state_not_integer");
    let key = |name: &str| name.to_owned();
    let transfer = |expected: &str| {
        vec![
            Change::Expect { key: key("n"), value: Some(expected.to_owned().into()) },
            Change::Put { key: key("n"), value: "2".into() },
            Change::Put { key: key("m"), value: "1".into() },
            Change::Delete { key: key("text") },
            Change::Expect { key: key("absent"), value: None },
        ]
    };
    assert_eq!(state.write(&room, transfer("4")).await.unwrap().value, Written::Refused(key("n")));
    assert_eq!(keys(&state, "room").await, ["max", "n", "text"]);
    let written = state.write(&room, transfer("3")).await.unwrap();
    assert_eq!((written.value, written.rows_read, written.rows_written), (Written::All, 2, 3));
    assert_eq!(keys(&state, "room").await, ["m", "max", "n"]);
}

#[tokio::test]
async fn lists_are_in_byte_order_and_in_pages() {
    let (_folder, _, state) = fresh().await;
    let names = ["a", "a/b", "a/c", "a\0", "b", "ü", "~", "\u{10ffff}"];
    for name in names {
        put(&state, "object", name, name).await;
        put(&state, name, "key", "x").await;
    }
    let mut sorted = names;
    sorted.sort_unstable();
    for prefix in ["", "a", "a/", "none"] {
        let expected: Vec<_> = sorted.iter().filter(|name| name.starts_with(prefix)).collect();
        for limit in 1..4 {
            let (mut found, mut of_objects, mut cursor, mut of_objects_cursor) = (Vec::new(), Vec::new(), None, None);
            loop {
                let list = |cursor| List { prefix: prefix.to_owned(), limit: Some(limit), cursor };
                let page = state.keys(&target("object"), list(cursor)).await.unwrap().value;
                let objects = state.objects(NAMESPACE, list(of_objects_cursor)).await.unwrap();
                found.extend(page.items.into_iter().map(|key| key.name));
                of_objects.extend(objects.items.into_iter().map(|object| object.name).filter(|name| name != "object"));
                (cursor, of_objects_cursor) = (page.next_cursor, objects.next_cursor);
                assert_eq!(page.has_more, cursor.is_some());
                if cursor.is_none() && of_objects_cursor.is_none() {
                    break;
                }
                // The one that is through begins anew, which does no harm at its end.
                cursor = cursor
                    .or_else(|| Some(base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, format!("{prefix}\u{10ffff}\u{10ffff}"))));
                of_objects_cursor = of_objects_cursor.or_else(|| cursor.clone());
            }
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{prefix} by {limit}");
            assert!(expected.iter().all(|name| of_objects.iter().any(|found| found == **name)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_one_object_are_serial_and_share_commits() {
    let (_folder, _, state) = fresh().await;
    let callers = (0..64).map(|_| {
        let state = state.clone();
        tokio::spawn(async move {
            let mut seen = Vec::new();
            for _ in 0..20 {
                seen.push(state.increment(&target("hot"), "n", 1).await.unwrap().value);
            }
            seen
        })
    });
    let mut seen: Vec<_> = futures::future::join_all(callers).await.into_iter().flat_map(Result::unwrap).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=64 * 20).collect::<Vec<_>>());
    assert_eq!(get(&state, "hot", "n").await.unwrap(), "1280");
}
