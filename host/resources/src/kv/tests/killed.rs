//! A process that is killed while it writes: what it was answered is there afterwards. The process is this test program, run once more.

use std::collections::HashMap;

use futures::future::join_all;

use super::*;
use crate::killing::{run_until_killed, say};

const FOLDER: &str = "TOVUK_TEST_KV_FOLDER";
const ROUND: &str = "TOVUK_TEST_KV_ROUND";
const ROUNDS: u64 = 5;
const CALLERS: usize = 8;
const KEYS_OF_CALLER: u64 = 20;
const KEYS_OF_BULK: usize = 50;
const ANSWERS_BEFORE_KILL: usize = 200;

/// The number of a write, greater than those of earlier rounds.
fn numbered(round: u64, write: u64) -> u64 {
    round * 1_000_000 + write
}

/// Write number n of a caller goes to this key. Every seventh removes it.
fn key(caller: usize, number: u64) -> String {
    format!("{caller}-{}", number % KEYS_OF_CALLER)
}

fn removes(number: u64) -> bool {
    number.is_multiple_of(7)
}

/// Long enough to have a row of its own, or not.
fn text(number: u64) -> String {
    format!("{number}:{}", "x".repeat(usize::try_from(number % 5).unwrap() * 400))
}

fn number(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).unwrap();
    text.split_once(':').unwrap().0.parse().unwrap()
}

/// Writes until it is killed, and prints the number of each write once it was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below, in a process of its own"]
async fn writes_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let kv = shared(Kv::open(std::path::Path::new(&folder), Clock::system()).await.unwrap());
    let callers = (0..CALLERS).map(|caller| {
        let kv = kv.clone();
        tokio::spawn(async move {
            for write in 1.. {
                let number = numbered(round, write);
                if caller == 0 {
                    let bulk = (0..KEYS_OF_BULK).map(|key| entry(&format!("bulk-{key}"), text(number)));
                    kv.bulk_put(NAMESPACE, bulk.collect()).await.unwrap();
                } else if removes(number) {
                    kv.delete(NAMESPACE, &key(caller, number)).await.unwrap();
                } else {
                    kv.put(NAMESPACE, entry(&key(caller, number), text(number))).await.unwrap();
                }
                say(&format!("answered {caller} {number}"));
            }
        })
    });
    join_all(callers).await;
}

/// Runs the writer until it is killed. Returns the last number of each caller that was answered.
fn killed(folder: &std::path::Path, round: u64) -> HashMap<usize, u64> {
    let (round, mut last) = (round.to_string(), HashMap::new());
    let variables = [(FOLDER, folder.as_os_str()), (ROUND, round.as_ref())];
    run_until_killed("kv::tests::killed::writes_until_killed", &variables, ANSWERS_BEFORE_KILL, |line| {
        let Some((caller, number)) = line.strip_prefix("answered ").and_then(|line| line.split_once(' ')) else { return false };
        last.insert(caller.parse().unwrap(), number.parse().unwrap());
        true
    });
    last
}

#[tokio::test]
async fn what_was_answered_survives_the_death_of_the_process() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("kv");
    for round in 1..=ROUNDS {
        let answered = killed(&path, round);
        let kv = Kv::open(&path, Clock::system()).await.unwrap();
        for (&caller, &last) in answered.iter().filter(|(caller, _)| **caller != 0) {
            // The last writes to each key that were answered in this round, and the one that may have been on its way.
            for answered in (numbered(round, 1)..=last).rev().take(usize::try_from(KEYS_OF_CALLER).unwrap()) {
                let key = key(caller, answered);
                let found = value(&kv, &key).await.map(|value| number(&value));
                let next = last + 1;
                let on_its_way = super::killed::key(caller, next) == key && found == (!removes(next)).then_some(next);
                let wanted = (!removes(answered)).then_some(answered);
                assert!(on_its_way || found == wanted, "{key}: {answered} of {last} was answered, and {found:?} is there");
            }
        }
        let bulk = kv.bulk_get(NAMESPACE, (0..KEYS_OF_BULK).map(|key| format!("bulk-{key}")).collect()).await.unwrap();
        let numbers: Vec<_> = bulk.iter().map(|entry| entry.as_ref().map(|entry| number(&entry.value))).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] == pair[1]), "a bulk request is there wholly or not at all: {numbers:?}");
        if let Some(&last) = answered.get(&0) {
            assert!(numbers[0].is_some_and(|number| number == last || number == last + 1));
        }
        kv.close().await.unwrap();
        assert!(counted(&folder).iter().all(|(_, said, found)| said == found), "usage is that of what is there");
    }
}
