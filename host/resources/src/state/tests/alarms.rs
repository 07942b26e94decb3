//! One alarm for each object, delivered when it is due, again when that failed, and forgotten when it has failed too often.

use std::time::Duration;

use super::*;

const START: u64 = 1_900_000_000_000;

/// A store whose clock stands at a round time, more or less.
async fn at_start() -> (TempDir, Clock, State) {
    let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable_at(START));
    let state = open(&folder, &clock).await;
    (folder, clock, state)
}

async fn set(state: &State, object: &str, seconds: u32) -> u64 {
    state.set_alarm(&target(object), Schedule::InSeconds(seconds)).await.unwrap().value
}

async fn alarm(state: &State, object: &str) -> Option<u64> {
    state.alarm(&target(object)).await.unwrap().value.map(|alarm| alarm.scheduled_at)
}

#[tokio::test]
async fn an_alarm_is_replaced_removed_and_delivered_when_it_is_due() {
    let (folder, clock, state) = at_start().await;
    assert_eq!(state.next_due(), None);
    let first = set(&state, "a", 60).await;
    assert!((START + 60_000..START + 120_000).contains(&first));
    let second = set(&state, "a", 30).await;
    assert!(second < first);
    assert_eq!((alarm(&state, "a").await, state.next_due()), (Some(second), Some(second)));
    set(&state, "b", 20).await;
    assert!(state.delete_alarm(&target("b")).await.unwrap().value);
    assert!(!state.delete_alarm(&target("b")).await.unwrap().value);
    assert_eq!(state.next_due(), Some(second));
    assert_eq!(objects(&state).await, ["a"], "an alarm makes an object");
    assert_eq!(files(&folder, NAMESPACE), 0, "which needs no file");
    assert_eq!(state.take_due(10).await.unwrap(), []);
    // What has passed is due now.
    state.set_alarm(&target("c"), Schedule::At(5)).await.unwrap();
    state.wait_due().await;
    let taken = state.take_due(10).await.unwrap();
    assert_eq!((taken.len(), &*taken[0].object, taken[0].scheduled_at), (1, "c", 5));
    assert_eq!(alarm(&state, "c").await, None, "it is being delivered");
    assert_eq!(state.settle(&taken[0], Outcome::Delivered).await.unwrap(), Settled::Done);
    assert_eq!(state.settle(&taken[0], Outcome::Delivered).await.unwrap(), Settled::Superseded);
    let waiter = tokio::spawn({
        let state = state.clone();
        async move { state.wait_due().await }
    });
    tokio::task::yield_now().await;
    clock.advance(Duration::from_secs(31));
    waiter.await.unwrap();
    let taken = state.take_due(10).await.unwrap();
    assert_eq!((&*taken[0].object, taken[0].retry_count, taken[0].is_retry), ("a", 0, false));
    // It was not reported, so it is due again after a restart, and that counts as no attempt.
    state.close().await.unwrap();
    let state = open(&folder, &clock).await;
    let taken = state.take_due(10).await.unwrap();
    assert_eq!((&*taken[0].object, taken[0].scheduled_at, taken[0].retry_count), ("a", second, 0));
    state.settle(&taken[0], Outcome::Delivered).await.unwrap();
    assert_eq!((state.next_due(), objects(&state).await.len()), (None, 0));
    state.close().await.unwrap();
    check(&folder);
}

#[tokio::test]
async fn failures_are_tried_again_after_doubling_waits_six_times() {
    let (_folder, clock, state) = at_start().await;
    set(&state, "a", 0).await;
    for retries in 0..=6_u32 {
        state.wait_due().await;
        let taken = state.take_due(1).await.unwrap();
        assert_eq!((taken[0].retry_count, taken[0].is_retry), (retries, retries > 0));
        // The host itself did not deliver it: no attempt.
        let now = clock.now_unix_ms();
        let refused = state.settle(&taken[0], Outcome::Refused { retry_at: now }).await.unwrap();
        assert_eq!(refused, Settled::Retry { at: now });
        let taken = state.take_due(1).await.unwrap();
        assert_eq!(taken[0].retry_count, retries);
        let before = clock.now_unix_ms();
        match state.settle(&taken[0], Outcome::Failed).await.unwrap() {
            Settled::Retry { at } => {
                let wait = 2_000 << retries;
                assert!(retries < 6 && (before + wait..=clock.now_unix_ms() + wait).contains(&at));
                let info = state.alarm(&target("a")).await.unwrap().value.unwrap();
                assert_eq!((info.next_at, info.retry_count), (at, retries + 1));
                clock.advance(Duration::from_millis(wait));
            }
            settled => assert_eq!((settled, retries), (Settled::Cleared, 6)),
        }
    }
    assert_eq!((alarm(&state, "a").await, state.next_due()), (None, None));
}

#[tokio::test]
async fn an_alarm_that_is_set_while_one_is_delivered_stands_and_waits_for_it() {
    let (_folder, clock, state) = at_start().await;
    for outcome in [Outcome::Delivered, Outcome::Failed, Outcome::Refused { retry_at: 0 }] {
        set(&state, "a", 0).await;
        let taken = state.take_due(1).await.unwrap();
        let again = set(&state, "a", 1).await;
        assert_eq!(alarm(&state, "a").await, Some(again));
        clock.advance(Duration::from_secs(2));
        assert_eq!(state.take_due(1).await.unwrap(), [], "two alarms of one object are not delivered side by side");
        assert_eq!(state.settle(&taken[0], outcome).await.unwrap(), Settled::Superseded);
        let taken = state.take_due(1).await.unwrap();
        assert_eq!((taken[0].scheduled_at, taken[0].retry_count), (again, 0));
        // And one that is removed is not tried again.
        state.delete_alarm(&target("a")).await.unwrap();
        assert_eq!(state.settle(&taken[0], outcome).await.unwrap(), Settled::Superseded);
        assert_eq!(state.next_due(), None);
        assert_eq!(objects(&state).await.len(), 0);
    }
    // An object that is deleted and made anew has nothing to do with the alarm of the former.
    set(&state, "a", 0).await;
    let taken = state.take_due(1).await.unwrap();
    state.delete_object(&target("a")).await.unwrap();
    let again = set(&state, "a", 50).await;
    assert_eq!(state.settle(&taken[0], Outcome::Delivered).await.unwrap(), Settled::Superseded);
    assert_eq!(alarm(&state, "a").await, Some(again));
}

#[tokio::test]
async fn the_longest_overdue_come_first_and_no_more_than_asked_for() {
    let (_folder, clock, state) = at_start().await;
    for number in 0..100_u32 {
        set(&state, &format!("{number}"), 100 - number).await;
    }
    clock.advance(Duration::from_secs(200));
    let first = state.take_due(30).await.unwrap();
    let numbers: Vec<u32> = first.iter().map(|alarm| alarm.object.parse().unwrap()).collect();
    assert_eq!(numbers, (70..100).rev().collect::<Vec<_>>());
    assert_eq!(state.take_due(1_000).await.unwrap().len(), 70);
    assert_eq!(state.take_due(1_000).await.unwrap(), []);
    assert_eq!(state.next_due(), None);
}

#[tokio::test]
async fn values_and_alarm_change_together_when_the_host_dies_between_two_commits() {
    let (folder, clock, state) = at_start().await;
    put(&state, "a", "key", "x").await;
    let handle = state.handle(&target("a")).unwrap();
    let incarnation = handle.memory().incarnation.unwrap();
    // The first of two commits, and then nothing any more.
    let note = file::AlarmNote { generation: handle.shared.catalogue.existing(NAMESPACE).unwrap().number(), due: Some(START + 1) };
    let changes = [("key".into(), Some(Bytes::from("yy")))];
    let batch = file::Batch { namespace: NAMESPACE, object: "a", changes: &changes, counts: Counts { values: 1, bytes: 5 }, alarm: Some(note) };
    handle.file(incarnation, true).unwrap().as_mut().unwrap().commit(&batch).unwrap();
    handle.file(incarnation, true).unwrap().take().unwrap().abandon();
    state.0.shared.catalogue.close().await.unwrap();
    let state = open(&folder, &clock).await;
    assert_eq!((get(&state, "a", "key").await.unwrap(), alarm(&state, "a").await), ("yy".into(), Some(START + 1)));
    assert_eq!(state.usage(NAMESPACE).await.unwrap(), Usage { objects: 1, bytes: 5 });
    // A later change is not taken back by the note, which is still in the file.
    put(&state, "a", "key", "zz").await;
    assert!(state.delete_alarm(&target("a")).await.unwrap().value);
    let handle = state.handle(&target("a")).unwrap();
    let incarnation = handle.memory().incarnation.unwrap();
    handle.file(incarnation, true).unwrap().take().unwrap().abandon();
    state.0.shared.catalogue.close().await.unwrap();
    let state = open(&folder, &clock).await;
    assert_eq!((get(&state, "a", "key").await.unwrap(), alarm(&state, "a").await), ("zz".into(), None));
}

#[tokio::test]
async fn a_part_of_the_catalogue_that_fails_keeps_no_other_alarms_from_ringing() {
    let (_folder, _, state) = at_start().await;
    for number in 1..=8 {
        let of = Target { namespace: Namespace(number), ..target("a") };
        state.set_alarm(&of, Schedule::At(START)).await.unwrap();
    }
    state.0.shared.catalogue.existing(Namespace(3)).unwrap().database.close().await.unwrap();
    // Whichever shard is the first to be asked.
    let mut taken: Vec<_> = state.take_due(3).await.unwrap();
    taken.extend(state.take_due(100).await.unwrap());
    assert_eq!(taken.len(), 7);
    for _ in 0..8 {
        assert!(state.take_due(100).await.is_err());
    }
    for alarm in taken {
        assert_eq!(state.settle(&alarm, Outcome::Delivered).await.unwrap(), Settled::Done);
    }
}

/// Lets the catalogue take no alarms, or take them again.
async fn refuse_alarms(state: &State, refuse: bool) {
    let sql = if refuse {
        "CREATE TRIGGER refuse BEFORE UPDATE OF generation ON objects BEGIN SELECT raise(abort, 'refused'); END"
    } else {
        "DROP TRIGGER refuse"
    };
    let database = state.0.shared.catalogue.existing(NAMESPACE).unwrap().database.clone();
    database.write(move |tx| Ok::<_, Error>(tx.execute_batch(sql)?)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_stand_do_so_with_their_alarm_though_the_catalogue_could_not_be_told() {
    let (folder, clock, state) = at_start().await;
    for round in 0..4 {
        let object = format!("room{round}");
        put(&state, &object, "key", "x").await;
        refuse_alarms(&state, true).await;
        let mut session = state.hold(&target(&object)).await.unwrap();
        session.put("key", "yy".into()).await.unwrap();
        let due = session.set_alarm(Schedule::InSeconds(60)).await.unwrap();
        assert!(session.commit().unwrap().durable().await.is_err());
        assert_eq!((get(&state, &object, "key").await.unwrap(), alarm(&state, &object).await), ("yy".into(), Some(due)));
        // Nothing is written on top of what is owed.
        assert!(state.put(&target(&object), "key", "z".into()).await.is_err());
        refuse_alarms(&state, false).await;
        match round {
            // It is paid by the next commit, by closing the file, later by itself, or never where the object is deleted.
            0 => drop(put(&state, &object, "key", "zz").await),
            1 => tokio::task::block_in_place(|| state.0.shared.close_all()),
            2 => {
                while state.handle(&target(&object)).unwrap().memory().owed.is_some() {
                    clock.advance(Duration::from_millis(1));
                    tokio::task::yield_now().await;
                }
            }
            _ => assert!(state.delete_object(&target(&object)).await.unwrap().value),
        }
        let listed = state.objects(NAMESPACE, List { prefix: object.clone(), ..List::default() }).await.unwrap().items;
        let alarms: Vec<_> = listed.iter().map(|object| object.alarm).collect();
        assert_eq!(alarms, if round < 3 { vec![Some(due)] } else { vec![] }, "round {round}");
    }
    state.close().await.unwrap();
    check(&folder);
    let state = open(&folder, &clock).await;
    assert_eq!((get(&state, "room1", "key").await.unwrap(), objects(&state).await.len()), ("yy".into(), 3));
}
