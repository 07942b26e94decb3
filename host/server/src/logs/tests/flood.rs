//! More than can be written: nobody waits, memory is bounded, and every lost line is counted.

use std::sync::mpsc;
use std::time::Instant;

use tovuk_resources::database;

use super::*;

/// Keeps the database from writing until the sender is dropped.
async fn hold_database(logs: &Logs) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<(), database::Error>>) {
    let (release, released) = mpsc::channel::<()>();
    let (started, running) = tokio::sync::oneshot::channel();
    let database = logs.0.store.database.clone();
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

/// The lines that were written, and those that were lost, as the log itself tells.
async fn written_and_lost(logs: &Logs, name: &str) -> (u64, u64) {
    let (mut written, mut lost, mut cursor) = (0, 0, None);
    loop {
        let page = read(logs, name, 1_000, cursor.as_deref()).await;
        for line in &page.lines {
            match line.stream {
                "system" => lost += line.message.split(' ').next().unwrap().parse::<u64>().unwrap(),
                _ => written += 1,
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return (written, lost);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_into_a_database_that_stands_still_waits_for_nothing_and_loses_only_what_it_says() {
    let folder = TempDir::new().unwrap();
    let logs = open(folder.path());
    let config = logs.0.store.config.clone();
    let (release, held) = hold_database(&logs).await;
    const THREADS: usize = 4;
    const LINES: usize = 50_000;
    // Returns while nothing at all can be written.
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let sink = logs.sink();
            std::thread::spawn(move || {
                for number in 0..LINES {
                    sink.line(line("loud", format!("line {number}")));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let (lines, bytes) = logs.sink().waiting();
    assert!(lines <= config.queue_lines_max[1] && bytes <= config.queue_bytes_max[1], "{lines} lines and {bytes} bytes wait");
    logs.sink().line(line("quiet", "there is room for others"));
    drop(release);
    held.await.unwrap().unwrap();
    logs.flush().await;
    // The count of what was lost meanwhile may come in a batch of its own.
    logs.flush().await;
    assert_eq!(messages(&logs, "quiet").await, ["there is room for others"]);
    let (written, lost) = written_and_lost(&logs, "loud").await;
    assert_eq!(written + lost, (THREADS * LINES) as u64);
    assert_eq!(written, config.queue_lines_max[1] as u64);
    assert_eq!(logs.sink().waiting(), (0, 0));
}

#[tokio::test]
async fn long_lines_are_bounded_by_their_bytes_and_all_services_together() {
    let folder = TempDir::new().unwrap();
    let config = Config { queue_lines_max: [50, 20], queue_bytes_max: [100_000, 60_000], ..Config::default() };
    let logs = Logs::open_with(folder.path(), Clock::advanceable(), config).unwrap();
    let (release, held) = hold_database(&logs).await;
    for _ in 0..10 {
        logs.sink().line(line("long", "x".repeat(20_000)));
    }
    assert_eq!(logs.sink().waiting().0, 2);
    for other in 0..10 {
        for _ in 0..10 {
            logs.sink().line(line(&format!("other {other}"), ""));
        }
    }
    assert_eq!(logs.sink().waiting().0, 50);
    drop(release);
    held.await.unwrap().unwrap();
    logs.flush().await;
    assert_eq!(written_and_lost(&logs, "long").await, (2, 8));
    let mut all = (0, 0);
    for other in 0..10 {
        let (written, lost) = written_and_lost(&logs, &format!("other {other}")).await;
        all = (all.0 + written, all.1 + lost);
    }
    assert_eq!(all, (48, 52));
}

#[tokio::test]
async fn lines_that_a_full_disk_refuses_are_counted_and_told_when_there_is_room() {
    let folder = TempDir::new().unwrap();
    let logs = open(folder.path());
    logs.append(vec![line("service_1", "before")]).await.unwrap();
    let limit_pages = |pages: u32| {
        let database = logs.0.store.database.clone();
        async move {
            let sql = format!("PRAGMA max_page_count = {pages}");
            database.write(move |tx| Ok::<_, database::Error>(tx.query_row(&sql, [], |_| Ok(()))?)).await.unwrap();
        }
    };
    limit_pages(20).await;
    for _ in 0..7 {
        logs.sink().line(line("service_1", "x".repeat(100_000)));
    }
    logs.flush().await;
    for _ in 0..3 {
        logs.sink().line(line("service_1", "y".repeat(100_000)));
    }
    logs.flush().await;
    assert_eq!(logs.0.store.failures.load(std::sync::atomic::Ordering::Relaxed), 2);
    limit_pages(100_000).await;
    logs.sink().line(line("service_1", "after"));
    logs.flush().await;
    assert_eq!(messages(&logs, "service_1").await, ["before", "after", "10 lines were dropped: more came than could be written"]);
}

/// Prints what a flood costs whoever makes it, and how much of it is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn lines_a_second() {
    let folder = TempDir::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let logs = open(folder.path());
    logs.sink().set_secrets(&service("service_0"), (0..20).map(|_| ("NAME", "a value of some length"))).unwrap();
    let started = Instant::now();
    let threads: Vec<_> = (0..2)
        .map(|thread| {
            let sink = logs.sink();
            std::thread::spawn(move || {
                let mut longest = std::time::Duration::ZERO;
                for number in 0..1_000_000 {
                    let before = Instant::now();
                    sink.line(line(
                        &format!("service_{thread}"),
                        format!("line {number} of about a hundred bytes, as a worker would write it for its author to read"),
                    ));
                    longest = longest.max(before.elapsed());
                }
                longest
            })
        })
        .collect();
    let longest: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let offered = started.elapsed().as_secs_f64();
    logs.flush().await;
    let total = started.elapsed().as_secs_f64();
    logs.flush().await;
    let mut all = (0, 0);
    for thread in 0..2 {
        let (written, lost) = written_and_lost(&logs, &format!("service_{thread}")).await;
        all = (all.0 + written, all.1 + lost);
    }
    println!("offered {:.0}/s, written {:.0}/s, {} written, {} lost, longest call {longest:?}", 2e6 / offered, all.0 as f64 / total, all.0, all.1);
}
