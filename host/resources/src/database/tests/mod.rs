//! What a database promises: what was answered is there, what failed is not, and nobody pays for the failure of another.
#![allow(clippy::unwrap_used)]

mod killed;
mod opening;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rusqlite::{Connection, Transaction};
use tempfile::TempDir;

use super::{Database, Error, Options};

const MARK: [u8; 4] = *b"test";
const MIGRATIONS: &[&str] = &["CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)"];

fn open(folder: &TempDir) -> Database {
    Database::open(&folder.path().join("test.db"), MIGRATIONS, Options::new(MARK)).unwrap()
}

fn insert(tx: &Transaction<'_>, text: &str) -> Result<i64, Error> {
    tx.prepare_cached("INSERT INTO notes (text) VALUES (?1)")?.execute([text])?;
    Ok(tx.last_insert_rowid())
}

fn count(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.query_row("SELECT count(*) FROM notes", [], |row| row.get(0))?)
}

fn texts(connection: &Connection) -> Result<Vec<String>, Error> {
    let mut statement = connection.prepare_cached("SELECT text FROM notes ORDER BY text")?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// Keeps the writer busy until the sender is dropped, so that what is written meanwhile becomes one group.
async fn hold_writer(database: &Database) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<(), Error>>) {
    let (release, released) = mpsc::channel::<()>();
    let (started, running) = tokio::sync::oneshot::channel();
    let database = database.clone();
    let held = tokio::spawn(async move {
        database
            .write(move |_| {
                started.send(()).unwrap();
                let _ = released.recv();
                Ok(())
            })
            .await
    });
    running.await.unwrap();
    (release, held)
}

/// Queues writes behind a held writer; they have all been sent when this returns.
async fn queued<T, F>(database: &Database, jobs: Vec<F>) -> Vec<tokio::task::JoinHandle<Result<T, Error>>>
where
    T: Send + 'static,
    F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
{
    let mut handles = Vec::new();
    for job in jobs {
        let before = database.0.writes.capacity();
        let database_of_task = database.clone();
        handles.push(tokio::spawn(async move { database_of_task.write(job).await }));
        while database.0.writes.capacity() == before {
            tokio::task::yield_now().await;
        }
    }
    handles
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_write_of_64_concurrent_callers_is_there_once_it_is_answered() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder);
    let callers = (0..64).map(|caller| {
        let database = database.clone();
        tokio::spawn(async move {
            for number in 0..20 {
                let text = format!("{caller}-{number}");
                let wanted = text.clone();
                database.write(move |tx| insert(tx, &text)).await.unwrap();
                let found = database.read(move |connection| Ok::<_, Error>(texts(connection)?.contains(&wanted))).await.unwrap();
                assert!(found, "a read that begins after an answer sees what was answered");
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    assert_eq!(database.read(count).await.unwrap(), 64 * 20);
    assert_eq!(database.counts().jobs, 64 * 20);
    assert!(database.counts().commits < 64 * 20, "some of them shared a commit: {:?}", database.counts());
}

#[tokio::test]
async fn writes_that_wait_together_are_one_commit() {
    let folder = TempDir::new().unwrap();
    let mut options = Options::new(MARK);
    // The writer is held for as long as this test needs, which must not end its group.
    options.group_time_max = Duration::from_secs(60);
    let database = Database::open(&folder.path().join("test.db"), MIGRATIONS, options).unwrap();
    let (release, held) = hold_writer(&database).await;
    let jobs = (0..100).map(|number| move |tx: &Transaction<'_>| insert(tx, &number.to_string())).collect();
    let writes = queued(&database, jobs).await;
    let before = database.counts();
    drop(release);
    held.await.unwrap().unwrap();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert_eq!(database.counts().commits, before.commits + 1);
    assert_eq!(database.counts().jobs, before.jobs + 101);
}

#[tokio::test]
async fn a_job_that_fails_or_panics_undoes_its_own_changes_and_no_others() {
    let folder = TempDir::new().unwrap();
    let mut options = Options::new(MARK);
    options.group_time_max = Duration::from_secs(60);
    let database = Database::open(&folder.path().join("test.db"), MIGRATIONS, options).unwrap();
    let (release, held) = hold_writer(&database).await;
    let jobs = (0..5)
        .map(|number| {
            move |tx: &Transaction<'_>| {
                insert(tx, &number.to_string())?;
                match number {
                    1 => insert(tx, "1"),
                    2 => panic!("a bug in job 2"),
                    3 => Err(Error::Undone),
                    _ => Ok(number),
                }
            }
        })
        .collect();
    let writes = queued(&database, jobs).await;
    drop(release);
    held.await.unwrap().unwrap();
    let mut answers = Vec::new();
    for write in writes {
        answers.push(write.await.unwrap());
    }
    assert_eq!(database.counts().commits, 1, "they were one group");
    assert!(matches!(answers[0], Ok(0)) && matches!(answers[4], Ok(4)));
    assert!(answers[1].as_ref().unwrap_err().to_string().contains("UNIQUE"), "{:?}", answers[1]);
    assert!(answers[2].as_ref().unwrap_err().to_string().contains("a bug in job 2"), "{:?}", answers[2]);
    assert!(matches!(answers[3], Err(Error::Undone)));
    assert_eq!(database.read(texts).await.unwrap(), ["0", "4"]);
}

#[tokio::test]
async fn a_job_that_ends_the_transaction_fails_its_group_and_leaves_the_writer_usable() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder);
    // As SQLite itself does after some errors.
    let undone = database.write(|tx| Ok::<_, Error>(tx.execute_batch("INSERT INTO notes (text) VALUES ('lost'); ROLLBACK")?)).await;
    assert!(matches!(undone, Err(Error::Undone)));
    database.write(|tx| insert(tx, "kept")).await.unwrap();
    assert_eq!(database.read(texts).await.unwrap(), ["kept"]);
}

#[tokio::test]
async fn a_full_disk_fails_what_does_not_fit_and_passes() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder);
    // SQLite takes a file that may not grow for a full disk.
    database.write(|tx| Ok::<_, Error>(tx.query_row("PRAGMA max_page_count = 8", [], |_| Ok(()))?)).await.unwrap();
    let text = "x".repeat(100_000);
    let large = text.clone();
    assert!(matches!(database.write(move |tx| insert(tx, &large)).await, Err(Error::Full | Error::Undone)));
    database.write(|tx| insert(tx, "small")).await.unwrap();
    database.write(|tx| Ok::<_, Error>(tx.query_row("PRAGMA max_page_count = 100000", [], |_| Ok(()))?)).await.unwrap();
    database.write(move |tx| insert(tx, &text)).await.unwrap();
    assert_eq!(database.read(count).await.unwrap(), 2);
}

#[tokio::test]
async fn a_write_whose_caller_has_gone_happens_wholly() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder);
    let (release, held) = hold_writer(&database).await;
    let writes = queued(&database, vec![|tx: &Transaction<'_>| insert(tx, "first").and_then(|_| insert(tx, "second"))]).await;
    writes.iter().for_each(tokio::task::JoinHandle::abort);
    drop(release);
    held.await.unwrap().unwrap();
    database.write(|tx| insert(tx, "third")).await.unwrap();
    assert_eq!(database.read(texts).await.unwrap(), ["first", "second", "third"]);
}

#[tokio::test]
async fn a_read_sees_one_moment_and_cannot_write() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder);
    let (started, running) = tokio::sync::oneshot::channel();
    let (go_on, proceed) = mpsc::channel::<()>();
    let reading = tokio::spawn({
        let database = database.clone();
        async move {
            database
                .read(move |connection| {
                    let before = count(connection)?;
                    started.send(()).unwrap();
                    let _ = proceed.recv();
                    Ok::<_, Error>((before, count(connection)?))
                })
                .await
        }
    });
    running.await.unwrap();
    database.write(|tx| insert(tx, "meanwhile")).await.unwrap();
    drop(go_on);
    assert_eq!(reading.await.unwrap().unwrap(), (0, 0));
    let written = database.read(|connection| Ok::<_, Error>(connection.execute("DELETE FROM notes", [])?)).await;
    assert!(written.unwrap_err().to_string().contains("readonly"));
    let panicked: Result<(), Error> = database.read(|_| panic!("a bug")).await;
    assert!(matches!(panicked, Err(Error::Panicked(_))));
    assert_eq!(database.read(count).await.unwrap(), 1);
}

#[tokio::test]
async fn closing_writes_what_is_queued_and_leaves_one_file() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder);
    let (release, held) = hold_writer(&database).await;
    let writes = queued(&database, vec![|tx: &Transaction<'_>| insert(tx, "queued")]).await;
    let closing = tokio::spawn({
        let database = database.clone();
        async move { database.close().await }
    });
    drop(release);
    held.await.unwrap().unwrap();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    closing.await.unwrap().unwrap();
    assert!(matches!(database.write(|tx| insert(tx, "late")).await, Err(Error::Closed)));
    assert!(matches!(database.read(count).await, Err(Error::Closed)));
    database.close().await.unwrap();
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["test.db"], "the log is copied and gone");
    assert_eq!(open(&folder).read(texts).await.unwrap(), ["queued"]);
}

#[tokio::test]
async fn the_log_does_not_grow_without_end_while_somebody_reads() {
    let folder = TempDir::new().unwrap();
    let mut options = Options::new(MARK);
    options.checkpoint_pages = 50;
    let database = Database::open(&folder.path().join("test.db"), MIGRATIONS, options).unwrap();
    for number in 0..400 {
        let text = format!("{number:0>20000}");
        database.write(move |tx| insert(tx, &text)).await.unwrap();
        database.read(count).await.unwrap();
    }
    let log = std::fs::metadata(folder.path().join("test.db-wal")).unwrap().len();
    assert!(log < 2 << 20, "the write-ahead log has {log} bytes after 8 MB of writes");
}

/// Prints how many small inserts a second are answered. Run it with `cargo test --release -p tovuk-resources -- --ignored --nocapture inserts`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn inserts_a_second() {
    for (callers, each) in [(1, 500), (64, 500), (1_024, 100)] {
        let folder = TempDir::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let database = open(&folder);
        let started = Instant::now();
        let tasks = (0..callers).map(|caller| {
            let database = database.clone();
            tokio::spawn(async move {
                for number in 0..each {
                    database.write(move |tx| insert(tx, &format!("{caller}-{number}"))).await.unwrap();
                }
            })
        });
        for task in join_all(tasks).await {
            task.unwrap();
        }
        let seconds = started.elapsed().as_secs_f64();
        let counts = database.counts();
        println!("{callers} callers: {:.0} inserts/s, {:.0} commits/s", counts.jobs as f64 / seconds, counts.commits as f64 / seconds);
    }
}
