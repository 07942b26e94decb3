//! A session has the object for itself, is undone unless it is committed, and lets the next one in before its commit is on disk.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;

/// Looks once at what is awaited.
fn polled<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// An object as what is within a session sees it.
fn within(session: &Session, object: &str) -> Target {
    Target { holds: session.holds().clone(), ..target(object) }
}

#[tokio::test]
async fn a_session_sees_its_own_writes_and_is_undone_when_it_is_dropped() {
    let (folder, clock, state) = fresh().await;
    put(&state, "room", "a", "1").await;
    put(&state, "room", "c", "1").await;
    for commit in [false, true] {
        let mut session = state.hold(&target("room")).await.unwrap();
        session.put("b", "2".into()).await.unwrap();
        assert!(session.delete("a").await.unwrap());
        assert_eq!(session.increment("n", 5).await.unwrap(), 5);
        assert_eq!(session.get("b").await.unwrap().unwrap(), "2");
        assert_eq!(session.get("a").await.unwrap(), None);
        assert!(session.compare_and_set("c", Some("1".into()), Some("2".into())).await.unwrap().swapped);
        let listed = session.keys(List { limit: Some(2), ..List::default() }).await.unwrap();
        assert_eq!((listed.items.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), listed.has_more), (vec!["b", "c"], true));
        let at = session.set_alarm(Schedule::InSeconds(60)).await.unwrap();
        assert_eq!(session.alarm().await.unwrap().unwrap().scheduled_at, at);
        if commit {
            let answer = session.commit().unwrap().durable().await.unwrap();
            assert_eq!((answer.rows_written, answer.object), (5, Counts { values: 3, bytes: 6 }));
            assert_eq!(keys(&state, "room").await, ["b", "c", "n"]);
            assert_eq!(state.alarm(&target("room")).await.unwrap().value.unwrap().scheduled_at, at);
        } else {
            drop(session);
            assert_eq!(keys(&state, "room").await, ["a", "c"]);
            assert_eq!(get(&state, "room", "c").await.unwrap(), "1");
            assert_eq!(state.alarm(&target("room")).await.unwrap().value, None);
        }
    }
    state.close().await.unwrap();
    check(&folder);
    let state = open(&folder, &clock).await;
    assert_eq!(keys(&state, "room").await, ["b", "c", "n"]);
    assert!(state.alarm(&target("room")).await.unwrap().value.is_some());
}

#[tokio::test]
async fn the_next_session_builds_on_what_is_not_on_disk_yet() {
    let (_folder, _, state) = fresh().await;
    let mut committing = Vec::new();
    for number in 1..=100 {
        let mut session = state.hold(&target("room")).await.unwrap();
        assert_eq!(session.increment("n", 1).await.unwrap(), number);
        committing.push(session.commit().unwrap());
    }
    for committing in committing {
        committing.durable().await.unwrap();
    }
    assert_eq!(get(&state, "room", "n").await.unwrap(), "100");
}

#[tokio::test]
async fn whoever_waits_is_let_in_in_order_or_goes_after_ten_seconds() {
    let (_folder, clock, state) = fresh().await;
    let session = state.hold(&target("room")).await.unwrap();
    // Another object does not wait.
    put(&state, "other", "a", "1").await;
    let waiting: Vec<_> = (0..3)
        .map(|number: u32| {
            let state = state.clone();
            tokio::spawn(
                async move { state.write(&target("room"), vec![Change::Put { key: "last".into(), value: number.to_string().into() }]).await },
            )
        })
        .collect();
    let held = state.clone();
    let holding = tokio::spawn(async move { held.hold(&target("room")).await.map(drop) });
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    clock.advance(Duration::from_millis(9_000));
    tokio::task::yield_now().await;
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    drop(session);
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    holding.await.unwrap().unwrap();
    assert_eq!(get(&state, "room", "last").await.unwrap(), "2");
    let _session = state.hold(&target("room")).await.unwrap();
    let (one, two) = (state.clone(), state.clone());
    let late = [
        tokio::spawn(async move { one.get(&target("room"), "last").await.map(drop) }),
        tokio::spawn(async move { two.hold(&target("room")).await.map(drop) }),
    ];
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    clock.advance(Duration::from_secs(11));
    for late in late {
        assert_eq!(late.await.unwrap().unwrap_err().code().code, "state_object_busy");
    }
}

#[tokio::test]
async fn no_more_wait_for_an_object_than_may() {
    use tovuk_kernel::limits::STATE_WAITING_MAX;
    let (_folder, _, state) = fresh().await;
    let session = state.hold(&target("room")).await.unwrap();
    for round in 0..2 {
        let room = target("room");
        let mut waiting: Vec<_> = (0..STATE_WAITING_MAX).map(|_| Box::pin(state.get(&room, "a"))).collect();
        for waiting in &mut waiting {
            assert!(futures::poll!(waiting).is_pending(), "round {round}");
        }
        let crowded = state.get(&target("room"), "a").await.unwrap_err();
        assert!(matches!(crowded, Error::Crowded));
        // They go, and their places are free.
    }
    drop(session);
    put(&state, "room", "a", "1").await;
}

#[tokio::test]
async fn what_would_wait_for_itself_is_refused_at_once() {
    let (_folder, _, state) = fresh().await;
    let first = state.hold(&target("a")).await.unwrap();
    assert!(matches!(state.hold(&within(&first, "a")).await, Err(Error::Deadlock)));
    assert!(matches!(state.get(&within(&first, "a"), "key").await, Err(Error::Deadlock)));
    let second = state.hold(&target("b")).await.unwrap();
    let third = state.hold(&target("c")).await.unwrap();
    let (room_b, room_c) = (within(&first, "b"), within(&second, "c"));
    let mut one = Box::pin(state.hold(&room_b));
    let mut two = Box::pin(state.hold(&room_c));
    assert!(futures::poll!(&mut one).is_pending());
    assert!(futures::poll!(&mut two).is_pending());
    // The first waits for the second, and the second for the third.
    let refused = state.hold(&within(&third, "a")).await.map(drop).unwrap_err();
    assert_eq!(refused.code().code, "state_deadlock");
    drop(third);
    drop(two.await.unwrap());
    drop(second);
    drop(one.await.unwrap());
    drop(first);
    assert!(state.0.shared.waits.is_empty());
    drop(state.hold(&target("a")).await.unwrap());
}

#[tokio::test]
async fn what_is_called_by_another_is_part_of_it_and_what_is_called_beside_it_is_not() {
    let (_folder, _, state) = fresh().await;
    let outer = state.hold(&target("outer")).await.unwrap();
    let inner = state.hold(&within(&outer, "inner")).await.unwrap();
    for object in ["outer", "inner"] {
        assert!(matches!(state.hold(&within(&inner, object)).await, Err(Error::Deadlock)), "{object}");
    }
    // A second call within the outer one waits for the first, which goes on without it.
    let beside_target = within(&outer, "inner");
    let mut beside = Box::pin(state.hold(&beside_target));
    assert!(futures::poll!(&mut beside).is_pending());
    // Another one waits for the outer call and is not waited for by anybody.
    let other = state.hold(&target("other")).await.unwrap();
    let waits = within(&other, "outer");
    let mut waiting = Box::pin(state.hold(&waits));
    assert!(futures::poll!(&mut waiting).is_pending());
    assert!(matches!(state.hold(&within(&inner, "other")).await, Err(Error::Deadlock)));
    drop(inner);
    drop(beside.await.unwrap());
    drop(outer);
    drop(waiting.await.unwrap());
    drop(other);
    assert!(state.0.shared.waits.is_empty());
}

#[tokio::test]
async fn an_atomic_write_in_a_session_leaves_nothing_after_an_error() {
    let folder = TempDir::new().unwrap();
    let state = open_with(&folder, &Clock::advanceable(), Options { threads: 2, object_bytes: |_| 20, ..Options::default() }).await;
    let mut session = state.hold(&target("room")).await.unwrap();
    session.put("a", "1".into()).await.unwrap();
    let put = |key: &str, value: &str| Change::Put { key: key.to_owned(), value: value.to_owned().into() };
    let changes = vec![put("a", "2"), put("b", "12"), put("c", "1234567890123456")];
    assert_eq!(session.write(changes).await.unwrap_err().code().code, "state_storage_full");
    assert_eq!(session.get("a").await.unwrap().unwrap(), "1");
    assert_eq!(session.get("b").await.unwrap(), None);
    let changes = vec![Change::Expect { key: "a".into(), value: Some("2".into()) }, put("b", "12")];
    assert_eq!(session.write(changes).await.unwrap(), Written::Refused("a".into()));
    assert_eq!(session.write(vec![put("b", "12"), Change::Delete { key: "a".into() }]).await.unwrap(), Written::All);
    let answer = session.commit().unwrap().durable().await.unwrap();
    assert_eq!(answer.object, Counts { values: 1, bytes: 3 });
    assert_eq!((keys(&state, "room").await, state.account_bytes(ACCOUNT)), (vec!["b".to_owned()], 3));
}

#[tokio::test]
async fn a_session_that_was_cancelled_in_an_operation_gives_the_object_back() {
    let (_folder, _, state) = fresh().await;
    put(&state, "room", "a", "1").await;
    let mut session = state.hold(&target("room")).await.unwrap();
    session.put("a", "2".into()).await.unwrap();
    {
        let handle = state.handle(&target("room")).unwrap();
        let _somebody_else_reads = handle.file_if_free().unwrap();
        let mut reading = Box::pin(session.get("b"));
        assert!(polled(&mut reading).is_pending());
    }
    assert_eq!(get(&state, "room", "a").await.unwrap(), "1");
    assert!(matches!(session.get("a").await, Err(Error::Ended)));
    assert!(matches!(session.commit(), Err(Error::Ended)));
}

#[tokio::test]
async fn what_was_built_on_a_commit_that_failed_fails_too() {
    let (_folder, _, state) = fresh().await;
    put(&state, "room", "a", "1").await;
    // The file goes away under the store: the next commit finds another one in its place.
    let handle = state.handle(&target("room")).unwrap();
    let incarnation = handle.memory().incarnation.unwrap();
    let path = file::path_of(&handle.shared.folder, NAMESPACE, "room", incarnation);
    let mut first = state.hold(&target("room")).await.unwrap();
    first.put("a", "2".into()).await.unwrap();
    let room = target("room");
    let (first, mut second) = {
        let mut file = handle.file_if_free().unwrap();
        file.take().unwrap().close().unwrap();
        file::remove(&path).unwrap();
        std::fs::write(&path, b"this is no database, and long enough to be looked at as one ...................................").unwrap();
        // While the file cannot be reached, which is as long as a commit can take, the next one has the object and sees what is not on disk.
        let first = first.commit().unwrap();
        let Poll::Ready(Ok(mut second)) = polled(&mut Box::pin(state.hold(&room))) else { panic!("it waits") };
        let Poll::Ready(Ok(Some(value))) = polled(&mut Box::pin(second.get("a"))) else { panic!("it waits") };
        assert_eq!(value, "2");
        (first, second)
    };
    assert!(first.durable().await.is_err());
    assert!(matches!(second.put("b", "3".into()).await, Err(Error::Undone)));
    assert!(matches!(second.commit(), Err(Error::Undone)));
    assert_eq!(state.account_bytes(ACCOUNT), 2);
    // Other objects are not concerned.
    put(&state, "other", "a", "1").await;
}

#[tokio::test]
async fn what_a_session_has_read_is_on_disk_before_it_answers_though_it_changes_nothing() {
    let (_folder, _, state) = fresh().await;
    put(&state, "room", "a", "1").await;
    let handle = state.handle(&target("room")).unwrap();
    let (room, mut first) = (target("room"), state.hold(&target("room")).await.unwrap());
    first.put("a", "2".into()).await.unwrap();
    let (mut first, mut abandoned) = {
        let _no_commit_gets_to_the_file = handle.file_if_free().unwrap();
        let first = first.commit().unwrap();
        let Poll::Ready(Ok(mut second)) = polled(&mut Box::pin(state.hold(&room))) else { panic!("it waits") };
        let Poll::Ready(Ok(Some(value))) = polled(&mut Box::pin(second.get("a"))) else { panic!("it waits") };
        assert_eq!(value, "2");
        let Poll::Ready(Ok(())) = polled(&mut Box::pin(second.put("a", "3".into()))) else { panic!("it waits") };
        let (mut first, mut abandoned) = (Box::pin(first.durable()), Box::pin(second.abandon().unwrap().durable()));
        // The next one has the object already.
        let Poll::Ready(Ok(third)) = polled(&mut Box::pin(state.hold(&room))) else { panic!("it waits") };
        drop(third);
        assert!(polled(&mut first).is_pending() && polled(&mut abandoned).is_pending());
        (first, abandoned)
    };
    first.as_mut().await.unwrap();
    abandoned.as_mut().await.unwrap();
    assert_eq!((get(&state, "room", "a").await.unwrap(), state.account_bytes(ACCOUNT)), ("2".into(), 2));
    // Nothing is waited for where nothing is being written.
    let mut session = state.hold(&room).await.unwrap();
    session.put("b", "3".into()).await.unwrap();
    assert_eq!(session.abandon().unwrap().durable().await.unwrap().object, Counts { values: 1, bytes: 2 });
    assert_eq!(state.account_bytes(ACCOUNT), 2);
}
