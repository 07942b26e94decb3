//! Triggers, their ticks, and how those end.

use super::*;

#[tokio::test]
async fn a_trigger_ticks_at_its_time_and_once() {
    let (folder, clock, crons) = fresh().await;
    let trigger = crons.create(SERVICE, NIGHTLY, "nightly", "*/5 * * * *").await.unwrap();
    let first = START - 30_000 + 300_000;
    assert_eq!((trigger.next_ms, crons.next_due().await.unwrap()), (Some(first), Some(first)));
    assert!(none(&crons).await);
    advance_to(&clock, first);
    let tick = one(&crons).await;
    assert_eq!((tick.scheduled_ms(), tick.attempt(), tick.is_manual()), (first, 1, false));
    assert_eq!((tick.trigger().name.as_str(), tick.trigger().service, tick.trigger().expression.as_str()), ("nightly", SERVICE, "*/5 * * * *"));
    assert!(none(&crons).await, "it is being delivered");
    assert_eq!(crons.history(NIGHTLY).await.unwrap()[0].outcome, Outcome::Running);
    tick.succeeded(Some("200".into())).await.unwrap();
    assert_eq!(crons.next_due().await.unwrap(), Some(first + 300_000));
    crons.close().await.unwrap();
    let crons = open(&folder, &clock).await;
    assert!(none(&crons).await, "a tick that has succeeded does not come again");
    let run = &crons.history(NIGHTLY).await.unwrap()[0];
    assert_eq!((run.outcome, run.attempts, run.detail.as_deref(), run.scheduled_ms), (Outcome::Ok, 1, Some("200"), first));
    assert!(run.ended_ms.unwrap() >= run.started_ms.unwrap() && run.started_ms.unwrap() >= first);
}

#[tokio::test]
async fn what_was_missed_makes_one_tick_and_what_was_being_delivered_comes_again() {
    let (folder, clock, crons) = fresh().await;
    crons.create(SERVICE, NIGHTLY, "nightly", "0 * * * *").await.unwrap();
    crons.create(SERVICE, TriggerNumber(8), "rare", "0 0 1 1 *").await.unwrap();
    clock.advance(Duration::from_secs(3_600));
    std::mem::forget(one(&crons).await);
    crons.close().await.unwrap();
    clock.advance(Duration::from_secs(10 * 3_600));
    let crons = open(&folder, &clock).await;
    let ticks = crons.due(10).await.unwrap();
    let times: Vec<_> = ticks.iter().map(|tick| (tick.scheduled_ms(), tick.attempt())).collect();
    assert_eq!(times, [(START + 3_570_000, 1), (START - 30_000 + 11 * 3_600_000, 1)], "the last of ten that were missed");
    for tick in ticks {
        tick.succeeded(None).await.unwrap();
    }
    assert!(none(&crons).await);
    assert_eq!(crons.get(NIGHTLY).await.unwrap().next_ms, Some(START - 30_000 + 12 * 3_600_000));
}

#[tokio::test]
async fn a_failed_tick_is_tried_again_after_1_2_and_4_minutes() {
    let (_folder, clock, crons) = fresh().await;
    crons.create(SERVICE, NIGHTLY, "nightly", "0 13 * * *").await.unwrap();
    advance_to(&clock, START - 30_000 + 3_600_000);
    for (attempt, minutes) in [(1, 1), (2, 2), (3, 4)] {
        let tick = one(&crons).await;
        assert_eq!(tick.attempt(), attempt);
        let before = clock.now_unix_ms();
        let due = tick.failed(Some(format!("500 {attempt}"))).await.unwrap().unwrap();
        assert!((before + minutes * 60_000..before + minutes * 60_000 + 5_000).contains(&due));
        assert_eq!(crons.next_due().await.unwrap(), Some(due));
        assert!(none(&crons).await);
        advance_to(&clock, due);
    }
    let tick = one(&crons).await;
    assert_eq!(tick.failed(Some("500 4".into())).await.unwrap(), None);
    let run = crons.history(NIGHTLY).await.unwrap().remove(0);
    assert_eq!((run.outcome, run.attempts, run.detail.as_deref()), (Outcome::Failed, 4, Some("500 4")));
    assert!(none(&crons).await);
}

#[tokio::test]
async fn what_the_host_refuses_does_not_count() {
    let (_folder, clock, crons) = fresh().await;
    crons.create(SERVICE, NIGHTLY, "nightly", "0 13 * * *").await.unwrap();
    advance_to(&clock, START - 30_000 + 3_600_000);
    for round in 0..10 {
        drop(one(&crons).await);
        assert_eq!(crons.next_due().await.unwrap(), Some(0));
        crons.changed().await;
        let before = clock.now_unix_ms();
        let due = one(&crons).await.hold(Some("no".into())).await.unwrap().unwrap();
        let wait = (1_000 << round.min(10)).min(60_000);
        assert!((before + wait..before + wait + 900).contains(&due), "{round}: {}", due - before);
        assert_eq!(crons.history(NIGHTLY).await.unwrap()[0].detail.as_deref(), Some("no"));
        assert!(none(&crons).await);
        advance_to(&clock, due);
    }
    let tick = one(&crons).await;
    assert_eq!(tick.attempt(), 1);
    assert!(tick.failed(None).await.unwrap().is_some());
}

#[tokio::test]
async fn ticks_may_overlap() {
    let (_folder, clock, crons) = fresh().await;
    crons.create(SERVICE, NIGHTLY, "nightly", "* * * * *").await.unwrap();
    clock.advance(MINUTE);
    let first = one(&crons).await;
    clock.advance(MINUTE);
    let second = one(&crons).await;
    assert_eq!(second.scheduled_ms(), first.scheduled_ms() + 60_000);
}

#[tokio::test]
async fn triggers_are_changed_paused_run_and_dropped() {
    let (folder, clock, crons) = fresh().await;
    crons.create(SERVICE, NIGHTLY, "nightly", "* * * * *").await.unwrap();
    assert_eq!(crons.create(SERVICE, NIGHTLY, "nightly", "0 0 * * *").await.unwrap().expression, "0 0 * * *", "asking again changes it");
    assert!(matches!(crons.create(Service(4), NIGHTLY, "nightly", "0 0 * * *").await, Err(Error::Dropped)));
    assert_eq!(crons.update(NIGHTLY, "* * *").await.unwrap_err().code().code, "cron_expression_invalid");
    assert_eq!(crons.update(NIGHTLY, "*/15 * * * *").await.unwrap().next_ms, Some(START - 30_000 + 900_000));
    assert_eq!(crons.next_times(NIGHTLY).await.unwrap(), [1, 2, 3, 4, 5].map(|nth| START - 30_000 + nth * 900_000));
    clock.advance(Duration::from_secs(900));
    assert!(one(&crons).await.failed(None).await.unwrap().is_some());
    // What waits to be tried again is canceled.
    let paused = crons.enable(NIGHTLY, false).await.unwrap();
    assert_eq!((paused.enabled, paused.next_ms, crons.next_due().await.unwrap()), (false, None, None));
    clock.advance(Duration::from_secs(3_600));
    assert!(none(&crons).await);
    assert_eq!(crons.history(NIGHTLY).await.unwrap()[0].outcome, Outcome::Canceled);
    let run = crons.run_now(NIGHTLY).await.unwrap();
    let tick = one(&crons).await;
    assert_eq!((tick.run(), tick.is_manual()), (run, true));
    assert!(tick.failed(None).await.unwrap().is_some(), "what somebody has asked for is tried again also while paused");
    let resumed = crons.enable(NIGHTLY, true).await.unwrap();
    assert!(resumed.next_ms.unwrap() > clock.now_unix_ms(), "what was missed while paused is not made up for");
    assert_eq!(crons.list(SERVICE).await.unwrap(), [resumed]);
    assert_eq!(crons.list(Service(4)).await.unwrap(), []);
    clock.advance(Duration::from_secs(900));
    let running = crons.due(10).await.unwrap();
    assert_eq!(running.iter().map(Tick::is_manual).collect::<Vec<_>>(), [true, false]);
    crons.drop_trigger(SERVICE, NIGHTLY).await.unwrap();
    for tick in running {
        tick.succeeded(None).await.unwrap();
    }
    for _ in 0..2 {
        let crons = open(&folder, &clock).await;
        assert!(none(&crons).await);
        assert!(matches!(crons.get(NIGHTLY).await, Err(Error::Dropped)));
        assert!(matches!(crons.history(NIGHTLY).await, Err(Error::Dropped)));
        assert!(matches!(crons.run_now(NIGHTLY).await, Err(Error::Dropped)));
        assert!(matches!(crons.create(SERVICE, NIGHTLY, "nightly", "* * * * *").await, Err(Error::Dropped)));
        crons.drop_trigger(SERVICE, NIGHTLY).await.unwrap();
        crons.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_tick_that_is_held_while_its_trigger_is_paused_is_canceled() {
    let (_folder, clock, crons) = fresh().await;
    crons.create(SERVICE, NIGHTLY, "nightly", "* * * * *").await.unwrap();
    clock.advance(MINUTE);
    let tick = one(&crons).await;
    crons.enable(NIGHTLY, false).await.unwrap();
    assert_eq!(tick.hold(None).await.unwrap(), None);
    assert_eq!((crons.next_due().await.unwrap(), crons.history(NIGHTLY).await.unwrap()[0].outcome), (None, Outcome::Canceled));
}

#[tokio::test]
async fn what_was_held_is_due_at_once_when_what_held_it_may_be_over() {
    let (_folder, clock, crons) = fresh().await;
    let run = crons.create(SERVICE, NIGHTLY, "nightly", "0 0 * * *").await.map(|trigger| crons.run_now(trigger.number)).unwrap().await.unwrap();
    for _ in 0..8 {
        let due = one(&crons).await.hold(None).await.unwrap().unwrap();
        advance_to(&clock, due);
    }
    let due = one(&crons).await.hold(None).await.unwrap().unwrap();
    assert!(due > clock.now_unix_ms() + 50_000);
    crons.changed().await;
    crons.retry_held().await.unwrap();
    crons.changed().await;
    let tick = one(&crons).await;
    assert_eq!((tick.run(), tick.attempt()), (run, 1));
    // A failure is no refusal: its wait is not cut short.
    tick.failed(None).await.unwrap();
    crons.retry_held().await.unwrap();
    assert!(none(&crons).await);
}

#[tokio::test]
async fn of_ticks_that_nobody_takes_the_last_stays() {
    let (_folder, clock, crons) = fresh().await;
    crons.create(SERVICE, NIGHTLY, "nightly", "* * * * *").await.unwrap();
    let mut waits = Vec::new();
    for _ in 0..150 {
        clock.advance(MINUTE);
        for tick in crons.due(10).await.unwrap() {
            let now = clock.now_unix_ms();
            waits.extend(tick.hold(None).await.unwrap().map(|due| due.saturating_sub(now) / 1_000));
        }
    }
    assert!(waits.is_sorted() && waits.ends_with(&[60, 60, 60]), "a later tick waits as long as those before it: {waits:?}");
    let history = crons.history(NIGHTLY).await.unwrap();
    let waiting: Vec<_> = history.iter().filter(|run| run.outcome == Outcome::Waiting).collect();
    assert!(waiting.len() == 1 && waiting[0].id == history[0].id, "{waiting:?}");
    assert_eq!((history[1].outcome, history[1].detail.as_deref()), (Outcome::Canceled, Some("a later tick has taken its place")));
    let rows = |connection: &database::rusqlite::Connection| {
        Ok::<_, Error>(connection.query_row("SELECT count(*) FROM runs", [], |row| row.get::<_, i64>(0))?)
    };
    assert!(crons.0.database.read(rows).await.unwrap() <= 101);
    clock.advance(MINUTE);
    let ticks = crons.due(10).await.unwrap();
    assert!(ticks.len() <= 2 && ticks.iter().all(|tick| tick.attempt() == 1));
}

#[tokio::test]
async fn a_trigger_that_is_made_again_as_it_is_misses_nothing() {
    let (_folder, clock, crons) = fresh().await;
    let made = crons.create(SERVICE, NIGHTLY, "nightly", "* * * * *").await.unwrap();
    clock.advance(MINUTE);
    assert_eq!(crons.create(SERVICE, NIGHTLY, "nightly", "* * * * *").await.unwrap(), made);
    assert_eq!(one(&crons).await.scheduled_ms(), made.next_ms.unwrap());
    assert_eq!((crons.all().await.unwrap(), crons.highest().await.unwrap()), (vec![(SERVICE, NIGHTLY)], NIGHTLY.0));
    crons.drop_trigger(SERVICE, TriggerNumber(9)).await.unwrap();
    assert_eq!((crons.all().await.unwrap(), crons.highest().await.unwrap()), (vec![(SERVICE, NIGHTLY)], 9));
}

#[tokio::test]
async fn so_many_ticks_of_one_trigger_can_be_asked_for() {
    let (_folder, _, crons) = fresh().await;
    crons.create(SERVICE, NIGHTLY, "nightly", "0 0 * * *").await.unwrap();
    for _ in 0..100 {
        crons.run_now(NIGHTLY).await.unwrap();
    }
    assert_eq!(crons.run_now(NIGHTLY).await.unwrap_err().code().code, "too_many_requests");
    crons.due(1).await.unwrap().remove(0).succeeded(None).await.unwrap();
    crons.run_now(NIGHTLY).await.unwrap();
}

#[tokio::test]
async fn the_history_keeps_the_latest_runs() {
    let (_folder, clock, crons) = fresh().await;
    crons.create(SERVICE, NIGHTLY, "nightly", "* * * * *").await.unwrap();
    for _ in 0..105 {
        clock.advance(MINUTE);
        one(&crons).await.succeeded(None).await.unwrap();
    }
    let history = crons.history(NIGHTLY).await.unwrap();
    assert_eq!(history.len(), 100);
    assert!(history.windows(2).all(|pair| pair[0].scheduled_ms == pair[1].scheduled_ms + 60_000));
    let rows = |connection: &database::rusqlite::Connection| {
        Ok::<_, Error>(connection.query_row("SELECT count(*) FROM runs", [], |row| row.get::<_, i64>(0))?)
    };
    assert_eq!(crons.0.database.read(rows).await.unwrap(), 100);
}

#[tokio::test]
async fn whoever_waits_is_told_when_something_may_be_due_sooner() {
    let (_folder, _clock, crons) = fresh().await;
    crons.create(SERVICE, NIGHTLY, "nightly", "0 0 * * *").await.unwrap();
    crons.changed().await;
    let gone = crons.clone();
    // Also by somebody who does not wait for the answer.
    drop(futures::poll!(Box::pin(async move { gone.run_now(NIGHTLY).await })));
    crons.changed().await;
    assert!(one(&crons).await.is_manual());
    // Who gives up taking has taken nothing.
    crons.run_now(NIGHTLY).await.unwrap();
    drop(futures::poll!(Box::pin(crons.due(10))));
    loop {
        let ticks = crons.due(10).await.unwrap();
        if let Some(tick) = ticks.into_iter().find(|tick| tick.run() == 2) {
            break tick.succeeded(None).await.unwrap();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_has_waited_with_a_tick_learns_that_nobody_wants_it_any_more() {
    let (_folder, clock, crons) = fresh().await;
    let dropped = TriggerNumber(8);
    crons.create(SERVICE, NIGHTLY, "nightly", "* * * * *").await.unwrap();
    crons.create(SERVICE, dropped, "dropped", "* * * * *").await.unwrap();
    crons.run_now(NIGHTLY).await.unwrap();
    clock.advance(MINUTE);
    let ticks = crons.due(10).await.unwrap();
    assert_eq!(ticks.len(), 3);
    for tick in &ticks {
        assert!(tick.is_wanted().await.unwrap());
    }
    crons.enable(NIGHTLY, false).await.unwrap();
    crons.drop_trigger(SERVICE, dropped).await.unwrap();
    for tick in ticks {
        let asked_for = tick.is_manual();
        assert_eq!(tick.is_wanted().await.unwrap(), asked_for, "{:?}", tick.trigger());
        assert_eq!(tick.hold(None).await.unwrap().is_some(), asked_for);
    }
    let outcomes: Vec<_> = crons.history(NIGHTLY).await.unwrap().iter().map(|run| (run.manual, run.outcome)).collect();
    assert_eq!(outcomes, [(false, Outcome::Canceled), (true, Outcome::Waiting)]);
}

#[tokio::test]
async fn a_clock_that_was_ahead_and_comes_back_delays_nothing_for_long() {
    let (folder, ahead, crons) = fresh().await;
    crons.create(SERVICE, NIGHTLY, "nightly", "*/5 * * * *").await.unwrap();
    ahead.advance(24 * 60 * MINUTE);
    one(&crons).await.failed(None).await.unwrap();
    // The clock goes on while this runs.
    let waits = async |crons: &Crons, next: UnixMs, due: UnixMs| {
        let found = crons.history(NIGHTLY).await.unwrap()[0].due_ms.unwrap();
        assert_eq!(crons.get(NIGHTLY).await.unwrap().next_ms, Some(next));
        assert!((due..due + 20_000).contains(&found), "{found} is not {due}");
    };
    let day = 24 * 60 * 60_000;
    let next = START - START % 60_000 + 5 * 60_000;
    waits(&crons, next + day, START + day + 60_000).await;
    crons.close().await.unwrap();
    let clock = Clock::advanceable_at(START);
    let crons = open(&folder, &clock).await;
    waits(&crons, next, START + 240_000).await;
    advance_to(&clock, START + 260_000);
    assert_eq!(one(&crons).await.attempt(), 2);
    advance_to(&clock, next);
    let tick = crons.due(10).await.unwrap().into_iter().find(|tick| tick.scheduled_ms() == next).unwrap();
    tick.succeeded(None).await.unwrap();
}
