//! A process that is killed while it delivers: ticks that have succeeded do not come again, and all others do. The process is this test program, run once
//! more, on a clock that it moves ahead itself.

use std::collections::HashSet;

use super::*;
use crate::killing::{run_until_killed, say};

const FOLDER: &str = "TOVUK_TEST_CRON_FOLDER";
const FROM: &str = "TOVUK_TEST_CRON_FROM";
const ROUNDS: u64 = 5;
const TRIGGERS: i64 = 10;
const LINES_BEFORE_KILL: usize = 120;

/// Delivers until it is killed, and prints each tick before and after it was settled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below, in a process of its own"]
async fn delivers_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let clock = Clock::advanceable_at(std::env::var(FROM).unwrap().parse().unwrap());
    let crons = Crons::open(&Path::new(&folder).join("cron.db"), clock.clone()).await.unwrap();
    for number in 0..TRIGGERS {
        crons.create(SERVICE, TriggerNumber(number), "often", "* * * * *").await.unwrap();
    }
    loop {
        let ticks = crons.due(7).await.unwrap();
        if ticks.is_empty() {
            clock.advance(MINUTE);
        }
        for tick in ticks {
            let named = format!("{} {} {}", tick.trigger().number.0, tick.scheduled_ms(), clock.now_unix_ms());
            say(&format!("came {named}"));
            tick.succeeded(None).await.unwrap();
            say(&format!("done {named}"));
        }
    }
}

#[tokio::test]
async fn what_has_succeeded_does_not_come_again_after_the_death_of_the_process() {
    let folder = TempDir::new().unwrap();
    let (mut done, mut open_before, mut from) = (HashSet::new(), HashSet::new(), START);
    for _ in 0..ROUNDS {
        let (begin, mut came) = (from.to_string(), HashSet::new());
        let variables = [(FOLDER, folder.path().as_os_str()), (FROM, begin.as_ref())];
        run_until_killed("cron::tests::killed::delivers_until_killed", &variables, LINES_BEFORE_KILL, |line| {
            let words: Vec<_> = line.split(' ').collect();
            let [kind @ ("came" | "done"), number, scheduled, now] = words[..] else { return false };
            let tick = (number.to_owned(), scheduled.to_owned());
            from = now.parse::<u64>().unwrap();
            if kind == "came" {
                assert!(!done.contains(&tick), "{line} has succeeded before");
                came.insert(tick);
            } else {
                done.insert(tick);
            }
            true
        });
        // All but one of those that were on their way when the process died have come in this round.
        let lost = open_before.difference(&done).count();
        assert!(lost <= 1, "{lost} ticks did not come again");
        open_before = came.difference(&done).cloned().collect();
        assert!(open_before.len() <= 1);
    }
    let crons = Crons::open(&folder.path().join("cron.db"), Clock::advanceable_at(from)).await.unwrap();
    for number in 0..TRIGGERS {
        let history = crons.history(TriggerNumber(number)).await.unwrap();
        let scheduled: HashSet<_> = history.iter().map(|run| run.scheduled_ms).collect();
        assert_eq!(scheduled.len(), history.len(), "a tick is there once");
    }
}
