//! Queries and batches: what they answer, what they cost, and that a batch is one transaction.

use std::collections::BTreeMap;

use futures::future::join_all;

use super::*;

#[tokio::test]
async fn parameters_are_positional_or_named_and_their_number_has_to_fit() {
    let fixture = Fixture::new().await;
    let query = |sql: &str, params: Params| fixture.store.query(NUMBER, free(), Statement { sql: sql.to_owned(), params });
    let row = |outcome: Outcome| outcome.results[0].rows[0].to_vec();
    let two = || Params::Positional(vec![Value::Integer(1), text("x")]);
    assert_eq!(row(query("select ?2, ?1", two()).await.unwrap()), [text("x"), Value::Integer(1)]);
    let named = |names: [&str; 2]| Params::Named(BTreeMap::from(names.map(|name| (name.to_owned(), text(name)))));
    assert_eq!(row(query("select :a, @b, :a", named(["a", "@b"])).await.unwrap()), [text("a"), text("@b"), text("a")]);
    for (sql, params) in [
        ("select ?1", two()),
        ("select ?, ?, ?", two()),
        ("select :a", named(["a", "b"])),
        ("select :c", named(["a", "b"])),
        ("select ?", named(["a", "b"])),
    ] {
        assert!(matches!(query(sql, params).await, Err(Error::Query(_))), "{sql}");
    }
}

#[tokio::test]
async fn an_answer_has_columns_counts_and_the_last_rowid() {
    let fixture = Fixture::with_notes(10).await;
    let outcome = fixture.run("insert into notes (author, body) values ('a', 'b'), ('c', 'd')").await.unwrap();
    assert_eq!((outcome.counts.rows_written, outcome.results[0].last_insert_rowid), (2, 12));
    let outcome = fixture.run("select n.id, m.id, n.author from notes n join notes m using (id) where n.id = 3").await.unwrap();
    assert_eq!(outcome.results[0].columns[..], ["id", "id:2", "author"]);
    let json = serde_json::to_value(&outcome).unwrap();
    assert_eq!(json["results"][0]["rows"], serde_json::json!([{"id": 3, "id:2": 3, "author": "author 3"}]));
    for key in ["rowsRead", "rowsWritten", "vmSteps", "fullscanSteps", "storageBytes", "durationMs", "nextActions"] {
        assert!(json.get(key).is_some(), "{key} in {json}");
    }
    assert!(outcome.storage_bytes >= 8_192, "{}", outcome.storage_bytes);
    assert_eq!(fixture.store.storage(NUMBER).await.unwrap(), outcome.storage_bytes);
}

#[tokio::test]
async fn rows_read_are_those_that_were_visited() {
    let fixture = Fixture::with_notes(5_000).await;
    let by_key = fixture.run("select * from notes where id = 17").await.unwrap().counts;
    assert_eq!((by_key.rows_read, by_key.fullscan_steps), (1, 0));
    let scan = fixture.run("select * from notes where author = 'author 17'").await.unwrap();
    assert_eq!(scan.counts.rows_read, 5_000);
    assert!(scan.counts.fullscan_steps >= 4_999 && scan.counts.vm_steps > 5_000, "{:?}", scan.counts);
    // Again, with a statement that was kept.
    assert_eq!(fixture.run("select * from notes where author = 'author 17'").await.unwrap().counts.rows_read, 5_000);
    // A count of all rows visits pages and no rows; the trigger's rows count too.
    assert!(fixture.run("update notes set body = 'x' where id <= 100").await.unwrap().counts.rows_read >= 100);
}

#[tokio::test]
async fn a_scan_is_told_with_the_index_that_would_help() {
    let fixture = Fixture::with_notes(5_000).await;
    let slow = fixture.run("select body from notes as n where n.author = 'author 17' order by id").await.unwrap();
    assert_eq!(slow.next_actions, ["this query scanned 5,000 rows of notes; `create index notes_author on notes (author)` would help"]);
    fixture.run("create index notes_author on notes (author)").await.unwrap();
    assert!(fixture.run("select body from notes as n where n.author = 'author 17' order by id").await.unwrap().next_actions.is_empty());
}

#[tokio::test]
async fn a_batch_is_kept_wholly_or_not_at_all() {
    let fixture = Fixture::with_notes(1).await;
    let batch = |last: &str| {
        let statements = ["insert into notes values (2, 'a', 'b')", "select count(*) from notes", last];
        fixture.store.batch(NUMBER, free(), statements.map(sql_only).to_vec())
    };
    let Err(Error::Constraint(text)) = batch("insert into notes values (1, 'a', 'b')").await else { panic!() };
    assert_eq!(&*text, "statement 3: UNIQUE constraint failed: notes.id");
    assert!(matches!(batch("selec").await, Err(Error::Query(_))));
    assert_eq!(fixture.count("notes").await, 1);
    let outcome = batch("insert into notes values (3, 'a', 'b')").await.unwrap();
    assert_eq!((outcome.results[1].rows[0][0].clone(), outcome.counts.rows_written), (Value::Integer(2), 2));
    assert!(matches!(fixture.store.batch(NUMBER, free(), Vec::new()).await, Err(Error::Query(_))));
    assert!(matches!(fixture.run("select 1; select 2").await, Err(Error::Query(_))));
    assert!(matches!(fixture.run(" -- nothing").await, Err(Error::Query(_))));
    // What begins like a read may write.
    fixture.run("with n as (select 4) insert into notes select *, 'a', 'b' from n").await.unwrap();
    assert_eq!(fixture.count("notes").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_share_commits_and_a_failure_is_its_own() {
    let fixture = Fixture::new().await;
    fixture.run("create table t (id integer primary key, of integer references t (id) deferrable initially deferred)").await.unwrap();
    let writes = (1..=200_i64).map(|id| {
        let store = fixture.store.clone();
        // Some break the primary key, some a reference that is checked at the end only.
        let params = match id % 10 {
            0 => [Value::Integer(-1), Value::Null],
            5 => [Value::Integer(id), Value::Integer(1_000_000)],
            _ => [Value::Integer(id), Value::Integer(id)],
        };
        tokio::spawn(async move { (id, store.query(NUMBER, free(), Statement::new("insert into t values (?, ?)", params)).await) })
    });
    let mut first_of_same = 0;
    for result in join_all(writes).await {
        let (id, result) = result.unwrap();
        match id % 10 {
            0 => first_of_same += usize::from(result.is_ok()),
            5 => assert!(matches!(result, Err(Error::Constraint(_))), "{id}: {result:?}"),
            _ => drop(result.unwrap()),
        }
    }
    assert_eq!(first_of_same, 1);
    assert_eq!(fixture.count("t").await, 161);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_one_state_and_all_that_was_answered() {
    let fixture = Fixture::with_notes(1).await;
    let reads = (0..8).map(|_| {
        let store = fixture.store.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                let same = ["select count(*) from notes", "select max(id) from notes"].map(sql_only).to_vec();
                let outcome = store.batch(NUMBER, free(), same).await.unwrap();
                assert_eq!(outcome.results[0].rows, outcome.results[1].rows);
            }
        })
    });
    let reads: Vec<_> = reads.collect();
    for id in 2..50 {
        fixture.store.query(NUMBER, free(), Statement::new("insert into notes values (?, 'a', 'b')", [Value::Integer(id)])).await.unwrap();
        assert_eq!(fixture.count("notes").await, id);
    }
    for read in join_all(reads).await {
        read.unwrap();
    }
}

#[tokio::test]
async fn a_deleted_database_is_gone_and_one_that_never_was_is_not_found() {
    let fixture = Fixture::with_notes(1_000).await;
    fixture.store.backup(NUMBER, 1, free()).await.unwrap();
    let bytes = fixture.store.storage(NUMBER).await.unwrap();
    assert_eq!(fixture.store.delete(NUMBER).await.unwrap(), bytes);
    assert!(matches!(fixture.run("select 1").await, Err(Error::NotFound)));
    assert!(matches!(fixture.run("create table t (x)").await, Err(Error::NotFound)));
    assert_eq!(fixture.store.delete(NUMBER).await.unwrap(), 0);
    assert!(matches!(fixture.store.query(99, free(), sql_only("select 1")).await, Err(Error::NotFound)));
    assert!(matches!(fixture.store.backups(99).await, Err(Error::NotFound)));
    let left: Vec<_> = std::fs::read_dir(fixture.folder.path().join("sqlite")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["backups"]);
}
