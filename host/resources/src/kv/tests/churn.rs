//! Space comes back: files do not grow without bound while keys come and go, and shrink when much has gone.

use super::*;
use crate::database::shards;

/// Pages of the file that the namespace is in, and how many of them are free.
async fn pages(kv: &Kv) -> (u64, u64) {
    kv.store.shards.existing(NAMESPACE.0).unwrap().read(shards::pages).await.unwrap()
}

#[tokio::test]
async fn a_file_stays_as_large_as_what_is_in_it_while_keys_are_overwritten_deleted_and_expire() {
    let (folder, clock, kv) = fresh().await;
    let mut random = fastrand::Rng::with_seed(3);
    let mut sizes = Vec::new();
    for round in 0..12 {
        let fill = |key: String, random: &mut fastrand::Rng| {
            // Short ones, long ones, and ones with pages of their own.
            let length = [20, 300, 2_000, 9_000][random.usize(0..4)] + random.usize(0..40);
            entry(&key, vec![round; length])
        };
        let expiring = (0..1_000).map(|_| Put { ttl_seconds: Some(60), ..fill(format!("e{:016x}", random.u64(..)), &mut random) });
        kv.bulk_put(NAMESPACE, expiring.collect()).await.unwrap();
        let kept: Vec<_> = (0..1_000).map(|number| fill(format!("k{number}"), &mut random)).collect();
        kv.bulk_put(NAMESPACE, kept).await.unwrap();
        let deleted: Vec<_> = (0..500).map(|_| format!("k{}", random.u32(0..1_000))).collect();
        kv.bulk_delete(NAMESPACE, deleted).await.unwrap();
        clock.advance(Duration::from_secs(120));
        sweep::sweep(&kv.store).await.unwrap();
        assert!(kv.usage(NAMESPACE).await.unwrap().keys <= 1_000);
        sizes.push(pages(&kv).await.0);
    }
    let (settled, last) = (sizes[2], sizes[11]);
    assert!(last <= settled * 5 / 4, "{sizes:?} pages");
    let used = kv.usage(NAMESPACE).await.unwrap().bytes / 4_096;
    assert!(last <= used * 3, "{last} pages for {used} pages of data");
    kv.close().await.unwrap();
    assert!(counted(&folder).iter().all(|(_, said, found)| said == found));
}

#[tokio::test]
async fn dropping_a_namespace_gives_its_space_back_to_the_file_system() {
    let (folder, clock, kv) = fresh().await;
    kv.put(Namespace(NAMESPACE.0 + 16), entry("stays", vec![1; 10_000])).await.unwrap();
    for part in 0..4 {
        let puts = (0..2_500).map(|number| entry(&format!("{part}-{number}"), vec![2; 4_000])).collect();
        kv.bulk_put(NAMESPACE, puts).await.unwrap();
    }
    let before = pages(&kv).await.0;
    kv.drop_namespace(NAMESPACE).await.unwrap();
    sweep::sweep(&kv.store).await.unwrap();
    let (after, free) = pages(&kv).await;
    assert!(before > 10_000 && after < before / 5, "{before} pages before, {after} after, {free} of them free");
    let file = folder.path().join("kv").join("07.db");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), after * 4_096, "the file itself is shorter, though nothing else is written");
    assert_eq!(std::fs::metadata(file.with_extension("db-wal")).unwrap().len(), 0, "and all of it is there");
    kv.close().await.unwrap();
    counted(&folder);
    let kv = open(&folder, &clock).await;
    assert_eq!(kv.get(Namespace(NAMESPACE.0 + 16), "stays").await.unwrap().unwrap().value.len(), 10_000);
}

#[tokio::test]
async fn the_sweeper_runs_by_itself_when_time_passes_and_when_a_namespace_is_dropped() {
    let (_folder, clock, kv) = fresh().await;
    let other = Namespace(8);
    kv.bulk_put(NAMESPACE, (0..600).map(|number| Put { ttl_seconds: Some(60), ..entry(&number.to_string(), "x") }).collect()).await.unwrap();
    kv.put(other, entry("key", "x")).await.unwrap();
    clock.advance(Duration::from_secs(120));
    while kv.usage(NAMESPACE).await.unwrap() != Usage::default() {
        tokio::task::yield_now().await;
    }
    kv.drop_namespace(other).await.unwrap();
    let left = |connection: &Connection| Ok::<_, Error>(connection.query_row("SELECT count(*) FROM dropping", [], |row| row.get::<_, i64>(0))?);
    while kv.store.shards.existing(other.0).unwrap().read(left).await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
}
