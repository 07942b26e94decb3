//! Measurements, which are printed and prove nothing. Run them with
//! `cargo test --release -p tovuk-resources -- --ignored --nocapture state::tests::measured --test-threads 1`. `TOVUK_STATE_FOLDER` says on which file system.

use std::time::{Duration, Instant};

use futures::future::join_all;

use super::*;

const SECONDS: Duration = Duration::from_secs(5);

fn folder() -> TempDir {
    TempDir::new_in(std::env::var("TOVUK_STATE_FOLDER").unwrap_or(env!("CARGO_MANIFEST_DIR").to_owned())).unwrap()
}

fn resident_mib() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    (pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096) >> 20
}

async fn opened(folder: &TempDir) -> State {
    State::open(&folder.path().join("state"), Clock::system()).await.unwrap()
}

/// Commits a second of one row each, on one plain file by one thread.
fn raw_commits_a_second(folder: &TempDir) -> f64 {
    let connection = Connection::open(folder.path().join("raw.db")).unwrap();
    let settings = "PRAGMA journal_mode = wal; PRAGMA synchronous = full; CREATE TABLE n (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;";
    connection.execute_batch(settings).unwrap();
    let (started, mut commits) = (Instant::now(), 0_u32);
    while started.elapsed() < SECONDS {
        connection.prepare_cached("INSERT OR REPLACE INTO n VALUES ('n', ?1)").unwrap().execute([commits]).unwrap();
        commits += 1;
    }
    f64::from(commits) / started.elapsed().as_secs_f64()
}

/// Increments a second by so many callers, each with one at a time.
async fn increments_a_second(state: &State, callers: usize, objects: usize, by_sessions: bool) -> f64 {
    for object in 0..objects {
        put(state, &object.to_string(), "n", "0").await;
    }
    let started = Instant::now();
    let tasks = (0..callers).map(|caller| {
        let (state, target) = (state.clone(), target(&(caller % objects).to_string()));
        tokio::spawn(async move {
            let mut done = 0_u64;
            while started.elapsed() < SECONDS {
                if by_sessions {
                    let mut session = state.hold(&target).await.unwrap();
                    let value = session.get("n").await.unwrap().unwrap();
                    let value: u64 = std::str::from_utf8(&value).unwrap().parse().unwrap();
                    session.put("n", (value + 1).to_string().into()).await.unwrap();
                    session.commit().unwrap().durable().await.unwrap();
                } else {
                    state.increment(&target, "n", 1).await.unwrap();
                }
                done += 1;
            }
            done
        })
    });
    let done: u64 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    done as f64 / started.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn increments_of_a_hot_object_and_of_many() {
    let folder = folder();
    let state = opened(&folder).await;
    let raw = raw_commits_a_second(&folder);
    println!("raw commits of one file: {raw:.0}/s");
    for (callers, objects, by_sessions) in
        [(1, 1, false), (64, 1, false), (256, 1, false), (64, 1, true), (256, 1, true), (256, 64, false), (256, 64, true)]
    {
        let rate = increments_a_second(&state, callers, objects, by_sessions).await;
        let how = if by_sessions { "sessions" } else { "increments" };
        println!("  {callers} callers, {objects} objects: {rate:.0} {how}/s, {:.2} of raw", rate / raw);
    }
    state.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn ten_thousand_objects_in_turn() {
    let objects = std::env::var("TOVUK_STATE_OBJECTS").map_or(10_000, |objects| objects.parse().unwrap());
    let folder = folder();
    let state = opened(&folder).await;
    println!("{} MiB resident", resident_mib());
    for what in ["new", "again", "and again"] {
        let started = Instant::now();
        let tasks = (0..64).map(|caller| {
            let state = state.clone();
            tokio::spawn(async move {
                for number in (caller..objects).step_by(64) {
                    state.increment(&target(&number.to_string()), "n", 1).await.unwrap();
                }
            })
        });
        join_all(tasks).await.into_iter().for_each(Result::unwrap);
        let seconds = started.elapsed().as_secs_f64();
        let (mib, open, in_use) = (resident_mib(), state.0.shared.files_open(), state.0.shared.in_use());
        println!("{objects} objects {what}: {seconds:.1} s, {mib} MiB resident, {open} files open, {in_use} objects in memory");
    }
    let started = Instant::now();
    let usage = state.usage(NAMESPACE).await.unwrap();
    println!("{usage:?} in {} ms", started.elapsed().as_millis());
    let started = Instant::now();
    state.close().await.unwrap();
    println!("closed in {} ms", started.elapsed().as_millis());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_hundred_thousand_alarms() {
    let alarms = std::env::var("TOVUK_STATE_ALARMS").map_or(100_000, |alarms| alarms.parse().unwrap());
    let folder = folder();
    let state = opened(&folder).await;
    let started = Instant::now();
    let tasks = (0..256).map(|caller| {
        let state = state.clone();
        tokio::spawn(async move {
            for number in (caller..alarms).step_by(256) {
                state.set_alarm(&target(&number.to_string()), Schedule::At(1)).await.unwrap();
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(Result::unwrap);
    println!("set: {:.0}/s, {} MiB resident", alarms as f64 / started.elapsed().as_secs_f64(), resident_mib());
    let started = Instant::now();
    while state.next_due().is_some() {
        let taken = state.take_due(500).await.unwrap();
        join_all(taken.iter().map(|alarm| state.settle(alarm, Outcome::Delivered)))
            .await
            .into_iter()
            .for_each(|settled| assert_eq!(settled.unwrap(), Settled::Done));
    }
    println!("taken and settled: {:.0}/s", alarms as f64 / started.elapsed().as_secs_f64());
    state.close().await.unwrap();
}
