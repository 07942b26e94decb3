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
