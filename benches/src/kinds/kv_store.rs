//! The store of KV without doors: writers beside a plain table in the same run, what gets and lists cost, and how its files grow and shrink.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use tovuk_kernel::clock::Clock;
use tovuk_resources::database::rusqlite::{Connection, Transaction, params};
use tovuk_resources::kv::{Kv, Namespace, Put, Usage};

use super::kv::Rows;
use crate::machine;
use crate::output::{number, table};

const NAMESPACE: Namespace = Namespace(7);
const WRITERS: usize = 64;
const VALUE_BYTES: usize = 256;

/// Key number n. The order of keys has nothing to do with that of their numbers.
fn key(number: u64) -> String {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("session:{:016x}", mixed ^ (mixed >> 29))
}

/// Bytes that no compression would shrink.
fn value(number: u64) -> Bytes {
    let mut state = number | 1;
    let mut value = Vec::with_capacity(VALUE_BYTES);
    while value.len() < VALUE_BYTES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.into()
}

fn put(number: u64, seed: u64) -> Put {
    Put { key: key(number), value: value(seed), ..Put::default() }
}

/// Which key comes next. Overwriting goes through those that are there, in no order.
fn next(fresh: bool, keys: u64, writer: u64, put: u64) -> u64 {
    let nth = put * WRITERS as u64 + writer;
    if fresh { keys + nth } else { nth.wrapping_mul(0x9E37_79B9_7F4A_7C15) % keys }
}

/// Bytes of the files of a folder whose names end so.
fn folder_bytes(folder: &Path, end: &str) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter(|file| file.file_name().to_string_lossy().ends_with(end)).filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

fn mib(bytes: u64) -> String {
    number(bytes as f64 / f64::from(1 << 20))
}

/// Puts by 64 callers at so many keys: overwriting, and new ones; each beside the same on a plain table.
pub async fn writers(folder: &Path, keys: u64, seconds: u64, rows: &mut Rows) -> anyhow::Result<String> {
    let _ = std::fs::remove_dir_all(folder);
    let files = folder.join("kv");
    let kv = Kv::open(&files, Clock::system()).await?;
    let mut numbers: Vec<u64> = (0..keys).collect();
    numbers.sort_by_cached_key(|number| key(*number));
    let began = Instant::now();
    for chunk in numbers.chunks(10_000) {
        kv.bulk_put(NAMESPACE, chunk.iter().map(|number| put(*number, *number)).collect()).await?;
    }
    let loaded = began.elapsed().as_secs_f64();
    let mut plain = Plain::open(folder.join("plain.db"), &numbers)?;
    drop(numbers);
    let mut facts = format!(
        "{keys} keys were loaded by bulk puts at {} a second: {} MiB on disk, {} MiB in the plain table.\n",
        number(keys as f64 / loaded),
        mib(folder_bytes(&files, "")),
        mib(plain.bytes()),
    );
    let seconds = Duration::from_secs(seconds);
    for (what, fresh) in [("overwriting", false), ("new keys", true)] {
        let before = kv.counts();
        let (us, per_s) = puts(&kv, seconds, move |writer, put| next(fresh, keys, writer, put)).await?;
        let after = kv.counts();
        let batch = (after.jobs - before.jobs) as f64 / (after.commits - before.commits).max(1) as f64;
        rows.add(format!("{keys} keys, {what}"), us, per_s)?;
        let (us, plain_per_s) = plain.puts(seconds, batch.round().max(1.0) as u64, |put| next(fresh, keys, 0, put))?;
        rows.add(format!("{keys} keys, {what}, plain table"), us, plain_per_s)?;
        facts.push_str(&format!(
            "\n{what}: {} puts a commit, {} of the plain table's rate; {} MiB on disk, {} MiB in the plain table.\n",
            number(batch),
            number(per_s / plain_per_s),
            mib(folder_bytes(&files, "")),
            mib(plain.bytes()),
        ));
    }
    reads(&kv, keys, rows).await?;
    let resident = machine::process_rss_kib(rustix::process::getpid()).unwrap_or_default();
    kv.close().await?;
    facts.push_str(&format!("\nClosed: {} MiB. VmRSS of this process, which holds both: {} MiB.\n", mib(folder_bytes(&files, "")), resident >> 10));
    Ok(facts)
}

/// What 64 callers do without pause: the time of each put, in µs, and how many there were in a second.
async fn puts(kv: &Kv, duration: Duration, number: impl Fn(u64, u64) -> u64 + Send + Copy + 'static) -> anyhow::Result<(Vec<f64>, f64)> {
    let began = Instant::now();
    let tasks = (0..WRITERS as u64).map(|writer| {
        let kv = kv.clone();
        tokio::spawn(async move {
            let mut us = Vec::new();
            while began.elapsed() < duration {
                let nth = us.len() as u64;
                let put = put(number(writer, nth), nth);
                let started = Instant::now();
                kv.put(NAMESPACE, put).await?;
                us.push(started.elapsed().as_secs_f64() * 1e6);
            }
            anyhow::Ok(us)
        })
    });
    let mut all = Vec::new();
    for us in futures::future::try_join_all(tasks).await? {
        all.append(&mut us?);
    }
    let per_s = all.len() as f64 / began.elapsed().as_secs_f64();
    Ok((all, per_s))
}

/// Gets from memory and from the file, and lists.
async fn reads(kv: &Kv, keys: u64, rows: &mut Rows) -> anyhow::Result<()> {
    const HOT: u64 = 1_000;
    let hot: Vec<String> = (0..HOT.min(keys)).map(key).collect();
    let mut timed = async |what: &str, names: &mut dyn Iterator<Item = String>| {
        let (began, mut us) = (Instant::now(), Vec::new());
        for name in names {
            let started = Instant::now();
            kv.get(NAMESPACE, &name).await?.context("a key is missing")?;
            us.push(started.elapsed().as_secs_f64() * 1e6);
        }
        let per_s = us.len() as f64 / began.elapsed().as_secs_f64();
        rows.add(format!("{keys} keys, {what}"), us, per_s)
    };
    for name in &hot {
        kv.get(NAMESPACE, name).await?;
    }
    timed("hot get", &mut hot.iter().cycle().take(500_000).cloned()).await?;
    timed("cold get", &mut (HOT..keys.min(HOT + 20_000)).map(key)).await?;
    let (began, mut us, mut pages) = (Instant::now(), Vec::new(), kv.pages(NAMESPACE, String::new(), None));
    loop {
        let started = Instant::now();
        let Some(page) = pages.next().await else { break };
        page?;
        us.push(started.elapsed().as_secs_f64() * 1e6);
    }
    let per_s = us.len() as f64 / began.elapsed().as_secs_f64();
    rows.add(format!("{keys} keys, a page of 1,000"), us, per_s)
}

/// A plain ordered table with the settings of the store: one thread, no counting, nothing beside it.
struct Plain {
    path: PathBuf,
    connection: Connection,
}

impl Plain {
    fn open(path: PathBuf, numbers: &[u64]) -> anyhow::Result<Self> {
        let mut connection = Connection::open(&path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4000;
            CREATE TABLE entries (namespace INTEGER, key BLOB, value BLOB, PRIMARY KEY (namespace, key)) WITHOUT ROWID;",
        )?;
        for chunk in numbers.chunks(10_000) {
            let tx = connection.transaction()?;
            for number in chunk {
                Self::put(&tx, *number, *number)?;
            }
            tx.commit()?;
        }
        Ok(Self { path, connection })
    }

    fn put(tx: &Transaction<'_>, number: u64, seed: u64) -> anyhow::Result<()> {
        let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO entries VALUES (1, ?1, ?2)")?;
        insert.execute(params![key(number).as_bytes(), &*value(seed)])?;
        Ok(())
    }

    /// Commits of so many puts each: the time of each commit, in µs, and puts in a second.
    fn puts(&mut self, duration: Duration, batch: u64, number: impl Fn(u64) -> u64) -> anyhow::Result<(Vec<f64>, f64)> {
        let (began, mut us, mut puts) = (Instant::now(), Vec::new(), 0);
        while began.elapsed() < duration {
            let started = Instant::now();
            let tx = self.connection.transaction()?;
            for _ in 0..batch {
                Self::put(&tx, number(puts), puts)?;
                puts += 1;
            }
            tx.commit()?;
            us.push(started.elapsed().as_secs_f64() * 1e6);
        }
        Ok((us, puts as f64 / began.elapsed().as_secs_f64()))
    }

    fn bytes(&self) -> u64 {
        let bytes = |path: &Path| path.metadata().map_or(0, |file| file.len());
        bytes(&self.path) + bytes(&self.path.with_extension("db-wal"))
    }
}

/// Keys that come and go: in each round half of the new ones expire, half are deleted, and those that stay are overwritten. In the end the namespace is
/// dropped.
pub async fn churn(folder: &Path, rounds: u32) -> anyhow::Result<String> {
    const EACH: u64 = 50_000;
    let clock = Clock::advanceable();
    let mut kv = Kv::open(folder, clock.clone()).await?;
    let mut rows = Vec::new();
    let mut row = |what: String, usage: Usage| {
        let (files, logs) = (folder_bytes(folder, ".db"), folder_bytes(folder, ".db-wal"));
        rows.push(vec![what, usage.keys.to_string(), mib(usage.bytes), mib(files), mib(logs)]);
    };
    let kept: Vec<u64> = (0..EACH).collect();
    for chunk in kept.chunks(10_000) {
        kv.bulk_put(NAMESPACE, chunk.iter().map(|number| put(*number, *number)).collect()).await?;
    }
    row("before".to_owned(), kv.usage(NAMESPACE).await?);
    for round in 1..=u64::from(rounds) {
        let first = round * 2 * EACH;
        let numbers: Vec<u64> = (first..first + EACH).collect();
        for chunk in numbers.chunks(10_000) {
            let expiring = chunk.iter().map(|number| Put { ttl_seconds: Some(60), ..put(*number, round) });
            kv.bulk_put(NAMESPACE, expiring.collect()).await?;
            kv.bulk_put(NAMESPACE, chunk.iter().map(|number| put(number + EACH, round)).collect()).await?;
            kv.bulk_put(NAMESPACE, chunk.iter().map(|number| put(number % EACH, round)).collect()).await?;
        }
        row(format!("round {round}, full"), kv.usage(NAMESPACE).await?);
        for chunk in numbers.chunks(10_000) {
            kv.bulk_delete(NAMESPACE, chunk.iter().map(|number| key(number + EACH)).collect()).await?;
        }
        clock.advance(Duration::from_secs(120));
        while kv.usage(NAMESPACE).await?.keys > EACH {
            Clock::system().sleep(Duration::from_millis(10)).await;
        }
        swept(&kv).await;
        // A file is cut when the log is copied into it, which closing does at once.
        kv.close().await?;
        kv = Kv::open(folder, clock.clone()).await?;
        row(format!("round {round}, deleted and expired"), kv.usage(NAMESPACE).await?);
    }
    kv.drop_namespace(NAMESPACE).await?;
    swept(&kv).await;
    kv.close().await?;
    row("dropped and closed".to_owned(), Usage::default());
    Ok(table(&["when", "keys", "MiB in them", "MiB of files", "MiB of logs"], &rows))
}

/// Waits until the sweep has nothing left to do: it looks every ten seconds, and has nothing when nothing was committed for two.
async fn swept(kv: &Kv) {
    let (mut last, mut same) = (kv.counts().commits, 0);
    while same < 200 {
        Clock::system().sleep(Duration::from_millis(10)).await;
        let commits = kv.counts().commits;
        same = if commits == last { same + 1 } else { 0 };
        last = commits;
    }
}
