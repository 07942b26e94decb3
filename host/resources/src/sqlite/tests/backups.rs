//! Backups hold one state, restores put it back as a whole, and what is no whole backup is refused.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use rusqlite::Connection;

use super::*;

impl Fixture {
    /// The file of a backup.
    fn backup_path(&self, number: u64) -> PathBuf {
        let folder = self.folder.path().join("sqlite/backups").join(NUMBER.to_string());
        backup::find(&folder, number).unwrap()
    }

    async fn refused(&self, number: u64, because: &str) {
        let before = self.value("select group_concat(body) from notes").await;
        let error = self.store.restore(NUMBER, number, 900, free()).await.unwrap_err();
        assert_eq!(error.code().code, "sqlite_backup_refused", "{error}");
        assert!(error.to_string().contains(because), "{error}");
        assert_eq!(self.value("select group_concat(body) from notes").await, before);
        let left = fs::read_dir(self.folder.path().join("sqlite"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().contains("restore"));
        assert_eq!(left.count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_under_writes_is_of_one_state() {
    let fixture = Fixture::with_notes(20_000).await;
    let store = fixture.store.clone();
    let writes = tokio::spawn(async move {
        for _ in 0..200 {
            let both = ["insert into notes (body) values ('x')", "update notes set author = id where id = (select max(id) from notes)"];
            store.batch(NUMBER, free(), both.map(sql_only).to_vec()).await.unwrap();
        }
    });
    for number in 1..=5 {
        let made = fixture.store.backup(NUMBER, number, free()).await.unwrap();
        let path = fixture.backup_path(number);
        assert_eq!(
            (made.bytes, made.kind, fs::metadata(&path).unwrap().mode() & 0o777),
            (fs::metadata(&path).unwrap().len(), BackupKind::Manual, 0o600)
        );
        let copy = fixture.folder.path().join("copy.db");
        fs::copy(&path, &copy).unwrap();
        let copy = Connection::open(copy).unwrap();
        let halves: i64 = copy.query_row("select count(*) from notes where id > 20000 and author is not id", [], |row| row.get(0)).unwrap();
        let whole: String = copy.query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!((halves, whole.as_str()), (0, "ok"));
    }
    writes.await.unwrap();
    let listed = fixture.store.backups(NUMBER).await.unwrap();
    assert_eq!(listed.iter().map(|backup| backup.number).collect::<Vec<_>>(), [5, 4, 3, 2, 1]);
    let bytes: u64 = listed.iter().map(|backup| backup.bytes).sum();
    assert!(fixture.store.storage(NUMBER).await.unwrap() > bytes);
}

#[tokio::test]
async fn a_restore_brings_back_what_was_and_keeps_what_is() {
    let fixture = Fixture::with_notes(100).await;
    fixture.store.backup(NUMBER, 1, free()).await.unwrap();
    fixture.run("delete from notes where id > 10").await.unwrap();
    fixture.run("create table later (x)").await.unwrap();
    let snapshot = fixture.store.restore(NUMBER, 1, 2, free()).await.unwrap();
    assert_eq!((snapshot.number, snapshot.kind), (2, BackupKind::PreRestore));
    assert_eq!(fixture.count("notes").await, 100);
    assert!(matches!(fixture.run("select * from later").await, Err(Error::Query(_))));
    fixture.run("insert into notes (body) values ('after')").await.unwrap();
    fixture.store.restore(NUMBER, 2, 3, free()).await.unwrap();
    assert_eq!((fixture.count("notes").await, fixture.count("later").await), (10, 0));
    fixture.store.restore(NUMBER, 3, 4, free()).await.unwrap();
    assert_eq!(fixture.count("notes").await, 101);
    assert!(matches!(fixture.store.restore(NUMBER, 99, 5, free()).await, Err(Error::BackupNotFound)));
    assert!(matches!(fixture.store.restore(NUMBER, 1, 2, free()).await, Err(Error::Query(_))));
    assert!(matches!(fixture.store.backup(NUMBER, 2, free()).await, Err(Error::Query(_))));
    // Another start finds the same.
    drop(fixture.store);
    let store = Sqlites::open(fixture.folder.path(), fixture.clock.clone()).unwrap();
    let outcome = store.query(NUMBER, free(), sql_only("select count(*) from notes")).await.unwrap();
    assert_eq!(outcome.results[0].rows[0][0], Value::Integer(101));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_and_writers_meet_one_database_or_the_other() {
    let fixture = Fixture::with_notes(500).await;
    fixture.run("update notes set body = 'old'").await.unwrap();
    fixture.store.backup(NUMBER, 1, free()).await.unwrap();
    fixture.run("update notes set body = 'new'").await.unwrap();
    let work: Vec<_> = (0..6)
        .map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    let kinds = store.query(NUMBER, free(), sql_only("select count(distinct body) from notes where id <= 500")).await.unwrap();
                    assert_eq!(kinds.results[0].rows[0][0], Value::Integer(1));
                    store.query(NUMBER, free(), sql_only("insert into notes (body) values ('more')")).await.unwrap();
                }
            })
        })
        .collect();
    for restore in 0..5 {
        fixture.store.restore(NUMBER, 1, 10 + restore, free()).await.unwrap();
    }
    for task in work {
        task.await.unwrap();
    }
    assert_eq!(fixture.value("pragma integrity_check").await, text("ok"));
}

#[tokio::test]
async fn the_newest_thirty_are_kept() {
    let fixture = Fixture::with_notes(1).await;
    for number in 1..=33 {
        fixture.store.backup(NUMBER, number, free()).await.unwrap();
    }
    let numbers: Vec<_> = fixture.store.backups(NUMBER).await.unwrap().iter().map(|backup| backup.number).collect();
    assert_eq!(numbers, (4..=33).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn truncated_inflated_and_foreign_backups_are_refused() {
    let fixture = Fixture::with_notes(2_000).await;
    for number in 1..=7 {
        fixture.store.backup(NUMBER, number, free()).await.unwrap();
    }
    let open = |number| fs::OpenOptions::new().write(true).open(fixture.backup_path(number)).unwrap();
    open(1).set_len(8_192).unwrap();
    fixture.refused(1, "its size is not what it says").await;
    open(2).set_len(10).unwrap();
    fixture.refused(2, "no database").await;
    open(3).set_len(10 << 40).unwrap();
    fixture.refused(3, "the database may have").await;
    open(4).write_all(&[0; 16]).unwrap();
    fixture.refused(4, "no database").await;
    // Whole pages of something else, with a header that is right.
    let mut bytes = fs::read(fixture.backup_path(5)).unwrap();
    bytes[4_096..20_480].fill(0x5a);
    fs::write(fixture.backup_path(5), &bytes).unwrap();
    fixture.refused(5, "").await;
    let mut small = fs::read(fixture.backup_path(6)).unwrap();
    small.truncate(50_000);
    fs::write(fixture.backup_path(6), &small).unwrap();
    fixture.refused(6, "size").await;
    let connection = Connection::open(fixture.backup_path(7)).unwrap();
    connection.execute_batch("pragma journal_mode = delete; create virtual table evil using fts4(body); pragma journal_mode = wal;").unwrap();
    drop(connection);
    fixture.refused(7, "evil").await;
}

#[tokio::test]
async fn a_restore_that_was_cut_off_has_happened_or_has_not() {
    let fixture = Fixture::with_notes(10).await;
    fixture.store.backup(NUMBER, 1, free()).await.unwrap();
    drop(fixture.store);
    let folder = fixture.folder.path().join("sqlite");
    let backups = folder.join("backups").join(NUMBER.to_string());
    let reopen = async || {
        let store = Sqlites::open(fixture.folder.path(), fixture.clock.clone()).unwrap();
        store.query(NUMBER, free(), sql_only("insert into notes (body) values ('x')")).await.unwrap();
        store.backups(NUMBER).await.unwrap().len()
    };
    // Cut off after the link: the snapshot is the database itself and may not stay.
    fs::hard_link(folder.join("7.db"), backups.join(".pre-2-5-prerestore.db")).unwrap();
    fs::write(folder.join("7.2.restore"), "half").unwrap();
    assert_eq!(reopen().await, 1);
    assert_eq!(fs::metadata(folder.join("7.db")).unwrap().nlink(), 1);
    assert!(!folder.join("7.2.restore").exists());
    // Cut off after the swap: it is what was there before.
    fs::copy(fixture.folder.path().join("sqlite/7.db"), backups.join(".pre-3-5-prerestore.db")).unwrap();
    assert_eq!(reopen().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_have_room_beside_their_database_and_no_more() {
    let fixture = Fixture::with_notes(1_000).await;
    let size = fixture.store.storage(NUMBER).await.unwrap();
    let allowance = Allowance { storage_bytes: 3 * size + 4_096, ..free() };
    let backup = |backup| fixture.store.backup(NUMBER, backup, allowance);
    // At a time: only as many as fit are made.
    let made = futures::future::join_all((1..=4).map(backup)).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 2);
    let error = backup(5).await.unwrap_err();
    assert_eq!((error.code().code, error.to_string().contains("delete a backup first")), ("sqlite_storage_full", true), "{error}");
    let listed = fixture.store.backups(NUMBER).await.unwrap();
    assert_eq!(fixture.store.storage(NUMBER).await.unwrap(), 3 * size);
    // A restore is possible all the same, again and again, and what somebody has asked for stays.
    for restore in 10..14 {
        fixture.store.restore(NUMBER, listed[0].number, restore, allowance).await.unwrap();
        let snapshots: Vec<_> = fixture.store.backups(NUMBER).await.unwrap().iter().map(|backup| backup.number).collect();
        assert_eq!(snapshots, [restore, listed[0].number, listed[1].number]);
    }
    assert_eq!(fixture.store.storage(NUMBER).await.unwrap(), 4 * size);
    // One that is deleted makes room.
    for number in [13, listed[1].number] {
        assert_eq!(fixture.store.delete_backup(NUMBER, number).await.unwrap(), size);
        assert!(matches!(fixture.store.delete_backup(NUMBER, number).await, Err(Error::BackupNotFound)));
    }
    assert_eq!(backup(20).await.unwrap().bytes, size);
    assert!(matches!(backup(21).await, Err(Error::BackupsFull { .. })));
}

#[tokio::test]
async fn the_oldest_makes_room_for_the_thirty_first() {
    let fixture = Fixture::with_notes(1).await;
    let size = fixture.store.storage(NUMBER).await.unwrap();
    let allowance = Allowance { storage_bytes: 31 * size, ..free() };
    for number in 1..=32 {
        fixture.store.backup(NUMBER, number, allowance).await.unwrap();
    }
}
