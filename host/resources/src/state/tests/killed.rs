//! A process that is killed while it writes and delivers: what it was answered is there afterwards, and every alarm rings. The process is this test
//! program, run once more.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use futures::future::join_all;

use super::*;
use crate::killing::{full_size, run_until_killed, say};

const FOLDER: &str = "TOVUK_TEST_STATE_FOLDER";
const ROUND: &str = "TOVUK_TEST_STATE_ROUND";
const CALLERS: usize = 8;
const OBJECTS: u64 = 30;

/// Fewer files than objects, so that it is killed while files are closed too.
fn options() -> Options {
    Options { open_max: 12, threads: 4, ..Options::default() }
}

/// Runs a test of this program until it has said so many lines, and returns them.
fn killed(test: &str, folder: &Path, round: u64, lines_max: usize) -> Vec<Vec<String>> {
    let (round, mut said) = (round.to_string(), Vec::new());
    let variables = [(FOLDER, folder.as_os_str()), (ROUND, round.as_ref())];
    run_until_killed(&format!("state::tests::killed::{test}"), &variables, lines_max, |line| {
        let words = line.strip_prefix("answered ").map(|line| line.split(' ').map(str::to_owned).collect());
        let counts = words.is_some();
        said.extend(words);
        counts
    });
    said
}

async fn opened(folder: &Path) -> State {
    State::open_with(folder, Clock::system(), options()).await.unwrap()
}

fn from_environment() -> Option<(std::ffi::OsString, u64)> {
    Some((std::env::var_os(FOLDER)?, std::env::var(ROUND).unwrap().parse().unwrap()))
}

/// Each caller counts in objects of its own, in two keys at once and by sessions, and empties one now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by a test below, in a process of its own"]
async fn writes_until_killed() {
    let Some((folder, round)) = from_environment() else { return };
    let state = opened(Path::new(&folder)).await;
    let callers = (0..CALLERS).map(|caller| {
        let state = state.clone();
        tokio::spawn(async move {
            for number in round * 1_000_000.. {
                let object = target(&format!("{caller}-{}", number % OBJECTS));
                let value = Bytes::from(format!("{number}:{}", "x".repeat(usize::try_from(number % 7).unwrap() * 300)));
                if number.is_multiple_of(5) {
                    state.write(&object, ["a", "b"].map(|key| Change::Delete { key: key.into() }).into()).await.unwrap();
                } else if number.is_multiple_of(2) {
                    state.write(&object, ["a", "b"].map(|key| Change::Put { key: key.into(), value: value.clone() }).into()).await.unwrap();
                } else {
                    let mut session = state.hold(&object).await.unwrap();
                    session.put("a", value.clone()).await.unwrap();
                    session.put("b", value).await.unwrap();
                    session.set_alarm(Schedule::At(4_000_000_000_000 + number)).await.unwrap();
                    session.commit().unwrap().durable().await.unwrap();
                }
                say(&format!("answered {caller} {number}"));
            }
        })
    });
    join_all(callers).await;
}

fn number(value: Option<Bytes>) -> Option<u64> {
    value.map(|value| std::str::from_utf8(&value).unwrap().split_once(':').unwrap().0.parse().unwrap())
}

#[tokio::test]
async fn what_was_answered_survives_the_death_of_the_process() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state");
    for round in 1..=4_u64 {
        let mut last = HashMap::new();
        for line in killed("writes_until_killed", &path, round, 300) {
            last.insert(line[0].clone(), line[1].parse::<u64>().unwrap());
        }
        let state = opened(&path).await;
        for (caller, last) in last {
            for answered in (round * 1_000_000..=last).rev().take(usize::try_from(OBJECTS).unwrap()) {
                let object = format!("{caller}-{}", answered % OBJECTS);
                let (a, b) = (number(get(&state, &object, "a").await), number(get(&state, &object, "b").await));
                assert_eq!(a, b, "a write is there wholly or not at all");
                let stored = |number: u64| (!number.is_multiple_of(5)).then_some(number);
                let next = last + 1;
                let on_its_way = next % OBJECTS == answered % OBJECTS && a == stored(next);
                assert!(on_its_way || a == stored(answered), "{object}: {answered} of {last} was answered, and {a:?} is there");
                if a.is_some_and(|a| !a.is_multiple_of(2)) {
                    let alarm = state.alarm(&target(&object)).await.unwrap().value.unwrap();
                    assert_eq!(Some(alarm.scheduled_at), a.map(|a| 4_000_000_000_000 + a), "values and alarm change together");
                }
            }
        }
        assert_eq!(state.usage(NAMESPACE).await.unwrap().bytes, state.account_bytes(ACCOUNT));
        state.close().await.unwrap();
        check(&folder);
    }
}

/// Sets alarms that are due at once, and delivers what is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by a test below, in a process of its own"]
async fn rings_until_killed() {
    let Some((folder, round)) = from_environment() else { return };
    let state = opened(Path::new(&folder)).await;
    let setting = (0..CALLERS).map(|caller| {
        let state = state.clone();
        tokio::spawn(async move {
            for number in 0_u64.. {
                let object = format!("{round}-{caller}-{number}");
                if number.is_multiple_of(10) {
                    let mut session = state.hold(&target(&object)).await.unwrap();
                    session.put("key", "x".into()).await.unwrap();
                    session.set_alarm(Schedule::InSeconds(0)).await.unwrap();
                    session.commit().unwrap().durable().await.unwrap();
                } else {
                    state.set_alarm(&target(&object), Schedule::InSeconds(0)).await.unwrap();
                }
                say(&format!("answered set {object}"));
            }
        })
    });
    let setting: Vec<_> = setting.collect();
    loop {
        state.wait_due().await;
        for alarm in state.take_due(20).await.unwrap() {
            say(&format!("answered rung {}", alarm.object));
            state.settle(&alarm, Outcome::Delivered).await.unwrap();
        }
        assert!(setting.iter().all(|setting| !setting.is_finished()));
    }
}

/// With `TOVUK_SOAK` about 100,000 alarms and 20 deaths, else a few.
#[tokio::test]
async fn no_alarm_is_lost_when_the_process_dies() {
    let (rounds, lines) = if full_size() { (20, 7_000) } else { (3, 600) };
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state");
    let (mut set, mut rung, mut again) = (HashSet::new(), HashSet::new(), 0);
    for round in 1..=rounds {
        for line in killed("rings_until_killed", &path, round, lines) {
            match line[0].as_str() {
                "set" => assert!(set.insert(line[1].clone())),
                _ => again += usize::from(!rung.insert(line[1].clone())),
            }
        }
    }
    let state = opened(&path).await;
    while state.next_due().is_some() {
        let alarms = state.take_due(1_000).await.unwrap();
        let settled = join_all(alarms.iter().map(|alarm| state.settle(alarm, Outcome::Delivered))).await;
        settled.into_iter().for_each(|settled| assert_eq!(settled.unwrap(), Settled::Done));
        again += alarms.into_iter().filter(|alarm| !rung.insert(alarm.object.to_string())).count();
    }
    state.close().await.unwrap();
    check(&folder);
    let lost: Vec<_> = set.difference(&rung).collect();
    println!("{} alarms were set, {} rang, {again} of them again", set.len(), rung.len());
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), set.len());
    assert!(again <= usize::try_from(rounds).unwrap() * 20, "no more than were in delivery ring again: {again}");
}
