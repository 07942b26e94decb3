//! What is kept, how long, and what goes first.

use std::time::Duration;

use super::*;
use crate::logs::retention::prune;

fn small() -> Config {
    // About a hundred lines of a hundred bytes for a service, and three such services.
    Config { service_bytes_max: 23_000, total_bytes_max: 60_000, ..Config::default() }
}

fn lines(name: &str, count: usize) -> Vec<Line> {
    (0..count).map(|number| line(name, format!("{number:0100}"))).collect()
}

async fn bytes_kept(logs: &Logs) -> (i64, i64) {
    let count = |connection: &tovuk_resources::database::rusqlite::Connection| {
        let sql = "SELECT coalesce((SELECT sum(bytes) FROM services), 0), coalesce((SELECT sum(octet_length(message) + 128) FROM lines), 0)";
        Ok::<_, tovuk_resources::database::Error>(connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
    };
    let (told, there) = logs.0.store.database.read(count).await.unwrap();
    assert_eq!(told, there, "the sums that services are judged by are those of their lines");
    assert_eq!(told, logs.0.store.total_bytes.load(std::sync::atomic::Ordering::Relaxed));
    (told, there)
}

/// Waits for the background task, which says nothing when it is done.
async fn until_kept(logs: &Logs, bytes_max: i64) {
    while logs.0.store.total_bytes.load(std::sync::atomic::Ordering::Relaxed) > bytes_max {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn lines_are_kept_for_their_time_and_removed_after_it_without_being_asked() {
    let folder = TempDir::new().unwrap();
    let clock = Clock::advanceable();
    // A pass that has just begun looks at the time before the clock was advanced; the next one is not to take a minute.
    let config = Config { prune_every: Duration::from_millis(20), ..Config::default() };
    let logs = Logs::open_with(folder.path(), clock.clone(), config).unwrap();
    logs.append(lines("service_1", 5_000)).await.unwrap();
    clock.advance(Duration::from_secs(4 * 24 * 3600));
    logs.append(vec![line("service_1", "later")]).await.unwrap();
    prune(&logs.0.store).await.unwrap();
    assert_eq!(bytes_kept(&logs).await.0, 5_000 * 228 + 133);
    clock.advance(Duration::from_secs(4 * 24 * 3600));
    until_kept(&logs, 133).await;
    assert_eq!(messages(&logs, "service_1").await, ["later"]);
    assert_eq!(bytes_kept(&logs).await.0, 133);
}

#[tokio::test]
async fn a_service_that_writes_too_much_loses_its_own_oldest_lines() {
    let folder = TempDir::new().unwrap();
    let logs = Logs::open_with(folder.path(), Clock::advanceable(), small()).unwrap();
    logs.append(lines("quiet", 20)).await.unwrap();
    logs.append(lines("loud", 10_000)).await.unwrap();
    until_kept(&logs, 20 * 228 + 23_000).await;
    prune(&logs.0.store).await.unwrap();
    assert_eq!(messages(&logs, "quiet").await.len(), 20);
    let loud = messages(&logs, "loud").await;
    assert!((80..=100).contains(&loud.len()), "{}", loud.len());
    assert_eq!(loud.last().unwrap(), &format!("{:0100}", 9_999));
    bytes_kept(&logs).await;
}

#[tokio::test]
async fn when_all_together_is_too_much_whoever_has_most_loses_first() {
    let folder = TempDir::new().unwrap();
    let logs = Logs::open_with(folder.path(), Clock::advanceable(), small()).unwrap();
    logs.append(lines("quiet", 20)).await.unwrap();
    for name in ["a", "b", "c"] {
        logs.append(lines(name, 95)).await.unwrap();
    }
    prune(&logs.0.store).await.unwrap();
    assert!(bytes_kept(&logs).await.0 <= 60_000);
    assert_eq!(messages(&logs, "quiet").await.len(), 20);
}

#[tokio::test]
async fn a_deleted_service_has_no_lines_at_once_and_takes_no_room_later() {
    let folder = TempDir::new().unwrap();
    let logs = open(folder.path());
    logs.append(lines("service_1", 9_000)).await.unwrap();
    logs.append(lines("service_2", 10)).await.unwrap();
    logs.sink().line(line("service_1", "queued before"));
    logs.delete_service(&service("service_1")).await.unwrap();
    assert!(messages(&logs, "service_1").await.is_empty());
    logs.sink().line(line("service_1", "of its last invocation"));
    logs.append(vec![line("service_1", "of its last build")]).await.unwrap();
    logs.flush().await;
    assert!(messages(&logs, "service_1").await.is_empty());
    until_kept(&logs, 10 * 228).await;
    prune(&logs.0.store).await.unwrap();
    assert_eq!(bytes_kept(&logs).await.0, 10 * 228);
    let services: i64 = logs
        .0
        .store
        .database
        .read(|connection| Ok::<_, tovuk_resources::database::Error>(connection.query_row("SELECT count(*) FROM services", [], |row| row.get(0))?))
        .await
        .unwrap();
    assert_eq!(services, 1);
}
