//! A process that is killed while it writes: what it was answered is there afterwards, whole. The process is this test program, run once more.

use futures::future::join_all;

use super::*;
use crate::killing::{run_until_killed, say};

const FOLDER: &str = "TOVUK_TEST_SQLITE_FOLDER";
/// How often it is killed; `TOVUK_TEST_KILLS` asks for more.
const KILLS: u64 = 4;

/// Writes until it is killed, and prints each number once it was answered; makes backups and restores the latest meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below, in a process of its own"]
async fn writes_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = Sqlites::open(std::path::Path::new(&folder), Clock::system()).unwrap();
    let writers = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0_u64.. {
                let outcome = if round % 3 == 0 {
                    let transaction = store.begin(NUMBER, free()).await.unwrap();
                    let outcome = transaction.query(sql_only("insert into t (body) values (hex(randomblob(100)))")).await.unwrap();
                    transaction.query(sql_only("insert into halves select max(id) from t")).await.unwrap();
                    transaction.commit().await.unwrap();
                    outcome
                } else {
                    let both = ["insert into t (body) values (hex(randomblob(100)))", "insert into halves select max(id) from t"];
                    store.batch(NUMBER, free(), both.map(sql_only).to_vec()).await.unwrap()
                };
                say(&format!("answered {}", outcome.results[0].last_insert_rowid));
            }
        })
    });
    let store = store.clone();
    let backups = tokio::spawn(async move {
        let first = store.backups(NUMBER).await.unwrap().first().map_or(1, |newest| newest.number + 1);
        for number in first.. {
            store.backup(NUMBER, number, free()).await.unwrap();
        }
    });
    join_all(writers.chain([backups])).await;
}

#[tokio::test]
async fn what_was_answered_survives_the_death_of_the_process() {
    let fixture = Fixture::new().await;
    fixture.run("create table t (id integer primary key autoincrement, body text)").await.unwrap();
    fixture.run("create table halves (id integer primary key)").await.unwrap();
    let Fixture { folder, store, .. } = fixture;
    drop(store);
    let kills = std::env::var("TOVUK_TEST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut answered = std::collections::BTreeSet::new();
    for kill in 0..kills {
        // At another moment each time.
        let before_kill = 20 + usize::try_from(kill * 37 % 150).unwrap();
        let variables = [(FOLDER, folder.path().as_os_str())];
        run_until_killed("sqlite::tests::killed::writes_until_killed", &variables, before_kill, |line| {
            let id = line.strip_prefix("answered ").map(|id| id.parse::<i64>().unwrap());
            answered.extend(id);
            id.is_some()
        });
        // Each start reads what the one before it left.
        let store = Sqlites::open(folder.path(), Clock::system()).unwrap();
        let checks = ["pragma integrity_check", "select (select count(*) from t) = (select count(*) from halves)"];
        let outcome = store.batch(NUMBER, free(), checks.map(sql_only).to_vec()).await.unwrap();
        assert_eq!(outcome.results[0].rows[0][0], text("ok"));
        assert_eq!(outcome.results[1].rows[0][0], Value::Integer(1), "what was not answered is there wholly or not at all");
        let mut rows = store.stream(NUMBER, free(), sql_only("select id from t")).await.unwrap();
        let mut stored = std::collections::BTreeSet::new();
        while let Some(piece) = rows.next().await.unwrap() {
            stored.extend(piece.iter().map(|row| match row[0] {
                Value::Integer(id) => id,
                _ => panic!("{row:?}"),
            }));
        }
        assert!(answered.is_subset(&stored), "{:?} were answered and are gone", answered.difference(&stored));
        // A backup that is listed is whole, and a restore of it puts it back.
        if let Some(newest) = store.backups(NUMBER).await.unwrap().first() {
            let bytes = std::fs::metadata(backup::find(&folder.path().join("sqlite/backups/7"), newest.number).unwrap()).unwrap().len();
            assert_eq!(bytes, newest.bytes);
        }
    }
    assert!(!answered.is_empty());
}
