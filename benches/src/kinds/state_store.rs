//! The store of State without doors: increments of a hot object and of many beside plain commits in the same run, and what many objects take.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::limits::Plan;
use tovuk_resources::database::rusqlite::Connection;
use tovuk_resources::state::{Holds, Namespace, State, Target};

use super::kv::Rows;
use crate::machine;
use crate::output::number;

fn target(object: u64) -> Target {
    Target { namespace: Namespace(1), object: object.to_string().into(), account: 1, plan: Plan::Pro, holds: Holds::default() }
}

/// Commits of one row each, on one plain file by one thread: the time of each, in µs, and how many there were in a second.
fn raw(folder: &Path, duration: Duration) -> anyhow::Result<(Vec<f64>, f64)> {
    let connection = Connection::open(folder.join("raw.db"))?;
    let settings = "PRAGMA journal_mode = wal; PRAGMA synchronous = full; CREATE TABLE n (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;";
    connection.execute_batch(settings)?;
    let (began, mut us) = (Instant::now(), Vec::new());
    while began.elapsed() < duration {
        let started = Instant::now();
        connection.prepare_cached("INSERT OR REPLACE INTO n VALUES ('n', ?1)")?.execute([us.len().to_string()])?;
        us.push(started.elapsed().as_secs_f64() * 1e6);
    }
    let per_s = us.len() as f64 / began.elapsed().as_secs_f64();
    Ok((us, per_s))
}

/// What a caller does to an object.
#[derive(Clone, Copy)]
enum By {
    Increments,
    Sessions,
}

/// Increments by so many callers, each with one at a time.
async fn callers(state: &State, callers: u64, objects: u64, by: By, duration: Duration) -> anyhow::Result<(Vec<f64>, f64)> {
    let began = Instant::now();
    let tasks = (0..callers).map(|caller| {
        let (state, target) = (state.clone(), target(caller % objects));
        tokio::spawn(async move {
            let mut us = Vec::new();
            while began.elapsed() < duration {
                let started = Instant::now();
                match by {
                    By::Increments => drop(state.increment(&target, "n", 1).await?),
                    By::Sessions => {
                        let mut session = state.hold(&target).await?;
                        session.increment("n", 1).await?;
                        session.commit()?.durable().await?;
                    }
                }
                us.push(started.elapsed().as_secs_f64() * 1e6);
            }
            anyhow::Ok(us)
        })
    });
    let mut all = Vec::new();
    for us in try_join_all(tasks).await? {
        all.append(&mut us?);
    }
    let per_s = all.len() as f64 / began.elapsed().as_secs_f64();
    Ok((all, per_s))
}

/// Increments of a hot object and of 64.
pub async fn increments(folder: &Path, duration: Duration, rows: &mut Rows) -> anyhow::Result<String> {
    std::fs::create_dir_all(folder)?;
    let state = State::open(&folder.join("state"), Clock::system()).await?;
    let (us, raw_per_s) = raw(folder, duration)?;
    rows.add("plain commits, one thread", us, raw_per_s)?;
    let mut facts = String::new();
    for (number_of, objects) in [(1, 1), (64, 1), (256, 1), (256, 64)] {
        for (what, by) in [("increments", By::Increments), ("sessions", By::Sessions)] {
            let (us, per_s) = callers(&state, number_of, objects, by, duration).await?;
            rows.add(format!("{what}, {number_of} callers, {objects} objects"), us, per_s)?;
            if objects > 1 {
                facts.push_str(&format!("{number_of} callers over {objects} objects: {} of the plain rate by {what}.\n", number(per_s / raw_per_s)));
            }
        }
    }
    state.close().await?;
    Ok(facts)
}

/// So many objects, each used three times within a minute.
pub async fn many(folder: &Path, objects: u64) -> anyhow::Result<String> {
    let state = State::open(&folder.join("state"), Clock::system()).await?;
    let resident = || machine::process_rss_kib(rustix::process::getpid()).unwrap_or_default() >> 10;
    let mut facts = format!("{} MiB are resident before.\n", resident());
    for what in ["made", "used again", "used once more"] {
        let began = Instant::now();
        let tasks = (0..64).map(|caller| {
            let state = state.clone();
            tokio::spawn(async move {
                for object in (caller..objects).step_by(64) {
                    state.increment(&target(object), "n", 1).await?;
                }
                anyhow::Ok(())
            })
        });
        for done in try_join_all(tasks).await? {
            done?;
        }
        facts.push_str(&format!("{objects} objects {what} in {} s, then {} MiB.\n", number(began.elapsed().as_secs_f64()), resident()));
    }
    state.close().await?;
    Ok(facts)
}
