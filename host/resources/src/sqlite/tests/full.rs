//! A full database and a full disk: an error, nothing half written, and work goes on once there is room, without a restart.

use std::process::Command;

use super::*;

#[tokio::test]
async fn a_database_at_its_limit_refuses_and_goes_on_when_rows_are_deleted() {
    let fixture = Fixture::with_notes(100).await;
    let small = Allowance { database_bytes: 200 << 10, ..free() };
    let write = |sql: &str| fixture.store.query(NUMBER, small, sql_only(sql));
    let mut rows = 100;
    let error = loop {
        match write("insert into notes (body) values (hex(randomblob(2000)))").await {
            Ok(outcome) => {
                rows += 1;
                assert!(outcome.storage_bytes <= 200 << 10);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.code().code, "sqlite_storage_full", "{error}");
    assert_eq!(fixture.count("notes").await, rows);
    assert!(matches!(write("update notes set body = hex(zeroblob(2000))").await, Err(Error::StorageFull(_))));
    write("delete from notes where id > 100").await.unwrap();
    write("pragma incremental_vacuum").await.unwrap();
    assert!(fixture.store.storage(NUMBER).await.unwrap() < 100 << 10, "space comes back");
    write("insert into notes (body) values ('x')").await.unwrap();
    // A larger plan is larger at once.
    fixture.run("insert into notes (body) select hex(zeroblob(2000)) from notes").await.unwrap();
    assert_eq!(fixture.value("pragma integrity_check").await, text("ok"));
}

#[tokio::test]
async fn an_account_has_no_more_than_it_may_in_all_its_databases_and_backups() {
    let fixture = Fixture::with_notes(10).await;
    let other = NUMBER + 1;
    fixture.store.create(other).await.unwrap();
    let ada = fixture.store.for_service(1, 1);
    let small = Allowance { account_bytes: 300 << 10, ..free() };
    let grow = "insert into notes (body) values (hex(randomblob(2000)))";
    let all = async || ada.storage(NUMBER).await.unwrap() + ada.storage(other).await.unwrap();
    ada.query(other, small, sql_only("create table notes (id integer primary key, body text)")).await.unwrap();
    let mut writes = 0;
    let error = loop {
        match ada.query([NUMBER, other][writes % 2], small, sql_only(grow)).await {
            Ok(_) => writes += 1,
            Err(error) => break error,
        }
        assert!(all().await <= small.account_bytes);
    };
    assert!(matches!(error, Error::AccountFull(bytes) if bytes == small.account_bytes), "{error}");
    assert_eq!(error.code().code, "sqlite_storage_full");
    assert!(writes > 40, "{writes} before it was full");
    // By no other way: a batch, a transaction, a migration, a backup.
    let batch = vec![sql_only("insert into notes (body) values (hex(zeroblob(20000)))"); 2];
    assert!(matches!(ada.batch(other, small, batch).await, Err(Error::AccountFull(_))));
    let transaction = ada.begin(other, small).await.unwrap();
    assert!(matches!(transaction.query(sql_only("insert into notes (body) values (hex(zeroblob(20000)))")).await, Err(Error::AccountFull(_))));
    drop(transaction);
    let migration = Migration { name: "1".into(), sql: "create table more as select hex(zeroblob(20000))".into() };
    assert_eq!(ada.migrate(other, small, vec![migration]).await.unwrap_err().code().code, "sqlite_storage_full");
    assert!(matches!(ada.backup(other, 1, small).await, Err(Error::AccountFull(_))));
    // Another account has its own, another plan is larger at once.
    fixture.store.create(other + 1).await.unwrap();
    fixture.store.for_service(2, 2).query(other + 1, small, sql_only("create table t (id)")).await.unwrap();
    ada.backup(other, 1, free()).await.unwrap();
    assert!(matches!(ada.query(NUMBER, small, sql_only(grow)).await, Err(Error::AccountFull(_))));

    // What there is counts after a start as well, and what goes makes room.
    ada.close().await;
    let store = Sqlites::open(fixture.folder.path(), Clock::advanceable()).unwrap();
    store.own(vec![(NUMBER, 1, 1), (other, 1, 1), (other + 1, 2, 2)]).await.unwrap();
    let ada = store.for_service(1, 1);
    assert!(matches!(ada.query(NUMBER, small, sql_only(grow)).await, Err(Error::AccountFull(_))));
    ada.delete_backup(other, 1).await.unwrap();
    ada.delete(other).await.unwrap();
    for _ in 0..20 {
        ada.query(NUMBER, small, sql_only(grow)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_rolled_back_does_not_count_for_the_account() {
    let fixture = Fixture::with_notes(10).await;
    let ada = fixture.store.for_service(1, 1);
    let small = Allowance { account_bytes: 300 << 10, ..free() };
    let grow = "insert into notes (body) values (hex(zeroblob(50000)))";
    for _ in 0..5 {
        let transaction = ada.begin(NUMBER, small).await.unwrap();
        transaction.query(sql_only(grow)).await.unwrap();
        transaction.rollback().await.unwrap();
        let failing = [grow, "insert into nothing values (1)"].map(sql_only).to_vec();
        assert!(matches!(ada.batch(NUMBER, small, failing).await, Err(Error::Query(_))));
    }
    ada.query(NUMBER, small, sql_only(grow)).await.unwrap();
}

/// A file system of its own, unmounted at the end.
struct Tmpfs(TempDir);

impl Tmpfs {
    /// None where mounting is not allowed.
    fn new(kib: u32) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let size = format!("size={kib}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_an_error_and_is_over_when_there_is_room() {
    let Some(disk) = Tmpfs::new(4_096) else { return };
    let store = Sqlites::open(disk.0.path(), Clock::advanceable()).unwrap();
    store.create(NUMBER).await.unwrap();
    let run = |sql: &str| store.query(NUMBER, free(), sql_only(sql));
    run("create table t (id integer primary key, body blob)").await.unwrap();
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let mut written = 0;
    let error = loop {
        match run("insert into t (body) values (randomblob(20000))").await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code().code, "storage_failed", "{error:?}");
    assert!(matches!(error, Error::DiskFull), "{error:?}");
    let count = || async { run("select count(*) from t").await.unwrap().results[0].rows[0][0].clone() };
    assert_eq!(count().await, Value::Integer(written));
    assert!(store.backup(NUMBER, 1, free()).await.is_err());
    assert!(store.backups(NUMBER).await.unwrap().is_empty());
    std::fs::remove_file(ballast).unwrap();
    run("insert into t (body) values (randomblob(20000))").await.unwrap();
    assert_eq!(count().await, Value::Integer(written + 1));
    assert_eq!(run("pragma integrity_check").await.unwrap().results[0].rows[0][0], text("ok"));
}
