//! Interactive transactions and streams: they hold what they need for a bounded time and leave nothing open.

use std::time::Duration;

use tovuk_kernel::limits::{SQLITE_TRANSACTION_IDLE_MS_MAX, SQLITE_TRANSACTION_MS_MAX};

use super::*;

#[tokio::test]
async fn a_transaction_sees_its_own_changes_and_others_see_them_after_the_commit() {
    let fixture = Fixture::with_notes(1).await;
    let transaction = fixture.store.begin(NUMBER, free()).await.unwrap();
    transaction.query(sql_only("insert into notes (author) values ('x')")).await.unwrap();
    let own = transaction.query(sql_only("select count(*) from notes")).await.unwrap();
    assert_eq!(own.results[0].rows[0][0], Value::Integer(2));
    assert_eq!(fixture.count("notes").await, 1);
    assert!(matches!(transaction.query(sql_only("insert into notes (id) values (1)")).await, Err(Error::Constraint(_))));
    transaction.query(sql_only("insert into notes (author) values ('y')")).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(fixture.count("notes").await, 3);
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_and_the_next_writer_goes_on() {
    let fixture = Fixture::with_notes(1).await;
    let transaction = fixture.store.begin(NUMBER, free()).await.unwrap();
    transaction.query(sql_only("delete from notes")).await.unwrap();
    drop(transaction);
    fixture.run("insert into notes (author) values ('x')").await.unwrap();
    assert_eq!(fixture.count("notes").await, 2);
}

#[tokio::test]
async fn an_abandoned_transaction_ends_and_says_why() {
    let fixture = Fixture::with_notes(1).await;
    let transaction = fixture.store.begin(NUMBER, free()).await.unwrap();
    transaction.query(sql_only("delete from notes")).await.unwrap();
    let store = fixture.store.clone();
    let waits = tokio::spawn(async move { store.query(NUMBER, free(), sql_only("insert into notes (author) values ('x')")).await });
    tokio::task::yield_now().await;
    fixture.clock.advance(Duration::from_millis(SQLITE_TRANSACTION_IDLE_MS_MAX));
    waits.await.unwrap().unwrap();
    assert!(matches!(transaction.query(sql_only("select 1")).await, Err(Error::Ended(_))));
    assert!(matches!(transaction.commit().await, Err(Error::Ended(_))));
    assert_eq!(fixture.count("notes").await, 2);
}

#[tokio::test]
async fn a_busy_transaction_ends_too() {
    let fixture = Fixture::with_notes(1).await;
    let transaction = fixture.store.begin(NUMBER, free()).await.unwrap();
    let step = Duration::from_millis(SQLITE_TRANSACTION_IDLE_MS_MAX - 1_000);
    let steps = u64::from(u32::try_from(SQLITE_TRANSACTION_MS_MAX).unwrap()) / (SQLITE_TRANSACTION_IDLE_MS_MAX - 1_000) + 1;
    for _ in 0..steps {
        let _ = transaction.query(sql_only("update notes set body = 'y'")).await;
        fixture.clock.advance(step);
    }
    fixture.run("insert into notes (author) values ('x')").await.unwrap();
    assert!(matches!(transaction.commit().await, Err(Error::Ended(_))));
    assert_eq!(fixture.value("select body from notes where id = 1").await, text("body"));
}

#[tokio::test]
async fn a_statement_beyond_its_budget_ends_the_transaction() {
    let fixture = Fixture::with_notes(1).await;
    let transaction = fixture.store.begin(NUMBER, Allowance { vm_steps: 10_000, ..free() }).await.unwrap();
    transaction.query(sql_only("delete from notes")).await.unwrap();
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
    assert!(matches!(transaction.query(sql_only(endless)).await, Err(Error::Budget(_))));
    assert!(matches!(transaction.query(sql_only("select 1")).await, Err(Error::Ended(_))));
    assert_eq!(fixture.count("notes").await, 1);
}

#[tokio::test]
async fn a_commit_checks_deferred_references() {
    let fixture = Fixture::with_notes(1).await;
    fixture.run("create table t (note integer references notes (id) deferrable initially deferred)").await.unwrap();
    let transaction = fixture.store.begin(NUMBER, free()).await.unwrap();
    transaction.query(sql_only("insert into t values (99)")).await.unwrap();
    assert!(matches!(transaction.commit().await, Err(Error::Constraint(_))));
    assert_eq!(fixture.count("t").await, 0);
}

#[tokio::test]
async fn a_large_result_streams_in_pieces_of_one_state() {
    let fixture = Fixture::with_notes(40_000).await;
    let mut rows = fixture.store.stream(NUMBER, free(), sql_only("select id, author, hex(zeroblob(200)) as filler from notes")).await.unwrap();
    assert_eq!(rows.columns()[..], ["id", "author", "filler"]);
    fixture.run("delete from notes where id > 5").await.unwrap();
    let (mut seen, mut pieces) = (0, 0);
    while let Some(piece) = rows.next().await.unwrap() {
        for row in piece.iter() {
            seen += 1;
            assert_eq!(row[0], Value::Integer(seen));
        }
        let bytes: usize = piece.iter().flatten().map(Value::size).sum();
        assert!(bytes < 2 * tovuk_kernel::limits::SQLITE_CHUNK_BYTES, "{bytes}");
        pieces += 1;
    }
    assert_eq!((seen, rows.counts().rows_read), (40_000, 40_000));
    assert!(pieces > 50, "{pieces}");
    assert_eq!(fixture.count("notes").await, 5);
    assert!(matches!(fixture.store.stream(NUMBER, free(), sql_only("delete from notes")).await, Err(Error::Forbidden(_))));
}

#[tokio::test]
async fn a_stream_has_budgets_and_an_end() {
    let fixture = Fixture::with_notes(20_000).await;
    let select = || sql_only("select id, author, hex(zeroblob(200)) as filler from notes");
    let mut rows = fixture.store.stream(NUMBER, Allowance { vm_steps: 60_000, ..free() }, select()).await.unwrap();
    let error = loop {
        match rows.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it is within its budget"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Budget(Budget::Steps(_))), "{error}");
    // All readers are taken, and come back when they are dropped or abandoned.
    let mut streams = Vec::new();
    for _ in 0..tovuk_kernel::limits::SQLITE_READERS_MAX {
        streams.push(fixture.store.stream(NUMBER, free(), select()).await.unwrap());
    }
    let store = fixture.store.clone();
    let waits = tokio::spawn(async move { store.query(NUMBER, free(), sql_only("select 1")).await });
    tokio::task::yield_now().await;
    streams.pop();
    waits.await.unwrap().unwrap();
    fixture.clock.advance(Duration::from_millis(SQLITE_TRANSACTION_IDLE_MS_MAX));
    let readers = fixture.store.slot(NUMBER).readers.clone();
    while readers.available_permits() < tovuk_kernel::limits::SQLITE_READERS_MAX {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.count("notes").await, 20_000);
    let mut abandoned = streams.remove(0);
    abandoned.next().await.unwrap();
    assert!(matches!(abandoned.next().await, Err(Error::Ended(_))));
}
