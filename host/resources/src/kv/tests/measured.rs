//! Measurements, which are printed and prove nothing. Run them with
//! `TOVUK_KV_KEYS=200000 cargo test --release -p tovuk-resources -- --ignored --nocapture measured`. With `TOVUK_KV_FOLDER` on a file system in
//! memory they show what is left when the disk costs nothing.

use std::fs::metadata;
use std::time::Instant;

use futures::future::join_all;

use super::*;

const WRITERS: usize = 64;
const SECONDS: Duration = Duration::from_secs(6);
const VALUE_BYTES: usize = 256;

fn keys_from_environment() -> u64 {
    std::env::var("TOVUK_KV_KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(200_000)
}

/// Key number n. The order of keys has nothing to do with that of their numbers.
fn key(number: u64) -> String {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("session:{:016x}", mixed ^ (mixed >> 29))
}

fn folder() -> TempDir {
    TempDir::new_in(std::env::var("TOVUK_KV_FOLDER").unwrap_or(env!("CARGO_MANIFEST_DIR").to_owned())).unwrap()
}

fn random_value() -> bytes::Bytes {
    let mut value = vec![0; VALUE_BYTES];
    fastrand::fill(&mut value);
    value.into()
}

fn resident_mib() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    (pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096) >> 20
}

fn length_mib(path: &Path) -> u64 {
    metadata(path).map_or(0, |file| file.len() >> 20)
}

/// Puts a second by 64 callers, each with one put at a time.
async fn puts_a_second(kv: &Kv, number: impl Fn(usize, u64) -> u64 + Send + Sync + Copy + 'static) -> f64 {
    let before = kv.store.shards.existing(NAMESPACE.0).unwrap().counts();
    let started = Instant::now();
    let tasks = (0..WRITERS).map(|writer| {
        let kv = kv.clone();
        tokio::spawn(async move {
            let mut puts = 0;
            while started.elapsed() < SECONDS {
                kv.put(NAMESPACE, entry(&key(number(writer, puts)), random_value())).await.unwrap();
                puts += 1;
            }
            puts
        })
    });
    let puts: u64 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    let after = kv.store.shards.existing(NAMESPACE.0).unwrap().counts();
    println!("    {:.1} puts per commit", (after.jobs - before.jobs) as f64 / (after.commits - before.commits) as f64);
    puts as f64 / started.elapsed().as_secs_f64()
}

/// The same commits on a plain ordered table: 64 rows each, one thread, no counting, nothing beside it.
fn raw_puts_a_second(path: &Path, keys: u64, number: impl Fn(u64) -> u64) -> f64 {
    let mut connection = Connection::open(path).unwrap();
    connection.set_prepared_statement_cache_capacity(16);
    let settings = "PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4000;
        CREATE TABLE IF NOT EXISTS entries (namespace INTEGER, key BLOB, value BLOB, PRIMARY KEY (namespace, key)) WITHOUT ROWID;";
    connection.execute_batch(settings).unwrap();
    let put = |tx: &rusqlite::Transaction<'_>, key: &str| {
        let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO entries VALUES (1, ?1, ?2)").unwrap();
        insert.execute(rusqlite::params![key.as_bytes(), &*random_value()]).unwrap();
    };
    let empty: bool = connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM entries)", [], |row| row.get(0)).unwrap();
    let mut sorted: Vec<String> = if empty { (0..keys).map(key).collect() } else { Vec::new() };
    sorted.sort_unstable();
    for chunk in sorted.chunks(10_000) {
        let tx = connection.transaction().unwrap();
        chunk.iter().for_each(|key| put(&tx, key));
        tx.commit().unwrap();
    }
    let (started, mut puts) = (Instant::now(), 0);
    while started.elapsed() < SECONDS {
        let tx = connection.transaction().unwrap();
        for _ in 0..WRITERS {
            put(&tx, &key(number(puts)));
            puts += 1;
        }
        tx.commit().unwrap();
    }
    puts as f64 / started.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn puts_of_64_writers_beside_a_plain_table() {
    let keys = keys_from_environment();
    let folder = folder();
    let kv = open(&folder, &Clock::system()).await;
    let mut sorted: Vec<String> = (0..keys).map(key).collect();
    sorted.sort_unstable();
    let started = Instant::now();
    for chunk in sorted.chunks(10_000) {
        kv.bulk_put(NAMESPACE, chunk.iter().map(|key| entry(key, random_value())).collect()).await.unwrap();
    }
    drop(sorted);
    let (file, raw) = (folder.path().join("kv").join("07.db"), folder.path().join("raw.db"));
    println!("{keys} keys: loaded by bulk puts at {:.0}/s; {} MiB on disk", keys as f64 / started.elapsed().as_secs_f64(), length_mib(&file));
    for (what, fresh) in [("overwriting", false), ("new keys", true)] {
        let plain = raw_puts_a_second(&raw, keys, |put| if fresh { keys + put } else { fastrand::u64(0..keys) });
        let ours = puts_a_second(&kv, move |writer, put| if fresh { keys + put * WRITERS as u64 + writer as u64 } else { fastrand::u64(0..keys) });
        let ours = ours.await;
        println!("  {what}: {ours:.0} puts/s; plain table {plain:.0}/s; ratio {:.2}", ours / plain);
        println!("    resident {} MiB, file {} MiB, plain {} MiB", resident_mib(), length_mib(&file), length_mib(&raw));
    }
    kv.close().await.unwrap();
    println!("  closed: {} MiB", length_mib(&file));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn gets_from_memory_and_from_disk() {
    const HOT: u64 = 1_000;
    let keys = keys_from_environment().min(200_000);
    let folder = folder();
    let kv = open(&folder, &Clock::system()).await;
    for chunk in (0..keys).collect::<Vec<_>>().chunks(10_000) {
        let put = |number: &u64| Put { expiration: Some(4_000_000_000), ..entry(&key(*number), random_value()) };
        kv.bulk_put(NAMESPACE, chunk.iter().map(put).collect()).await.unwrap();
    }
    let hot: Vec<String> = (0..HOT).map(key).collect();
    for key in &hot {
        assert!(value(&kv, key).await.is_some());
    }
    let rounds = 1_000;
    let started = Instant::now();
    for _ in 0..rounds {
        for key in &hot {
            assert!(kv.get(NAMESPACE, key).await.unwrap().is_some());
        }
    }
    println!("hot get: {} ns", started.elapsed().as_nanos() / (rounds * u128::from(HOT)));
    let started = Instant::now();
    let cold = 20_000;
    for number in 0..cold {
        assert!(value(&kv, &key(HOT + number)).await.is_some());
    }
    println!("cold get: {} ns", started.elapsed().as_nanos() / u128::from(cold));
    let started = Instant::now();
    let (mut pages, mut listed) = (kv.pages(NAMESPACE, String::new(), None), 0);
    while let Some(page) = pages.next().await {
        listed += page.unwrap().keys.len();
    }
    println!("list: {listed} keys in {} ms", started.elapsed().as_millis());
}
