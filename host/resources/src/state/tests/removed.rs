//! What is deleted is gone at once, stays so, and gives its space back.

use super::*;

#[tokio::test]
async fn a_deleted_object_is_gone_with_its_file_and_can_be_made_anew() {
    let (folder, clock, state) = fresh().await;
    put(&state, "a", "key", vec![1; 10_000]).await;
    put(&state, "b", "key", "x").await;
    state.set_alarm(&target("a"), Schedule::InSeconds(5)).await.unwrap();
    assert!(state.delete_object(&target("a")).await.unwrap().value);
    assert!(!state.delete_object(&target("a")).await.unwrap().value);
    assert_eq!((get(&state, "a", "key").await, state.next_due()), (None, None));
    assert_eq!(objects(&state).await, ["b"]);
    put(&state, "a", "other", "y").await;
    assert_eq!(keys(&state, "a").await, ["other"]);
    upkeep::remove(&state.0.shared).await.unwrap();
    assert_eq!(files(&folder, NAMESPACE), 2);
    state.close().await.unwrap();
    check(&folder);
    let state = open(&folder, &clock).await;
    assert_eq!((keys(&state, "a").await, state.account_bytes(ACCOUNT)), (vec!["other".to_owned()], 6 + 4));
}

#[tokio::test]
async fn an_object_that_was_emptied_is_not_said_to_have_existed() {
    let (_folder, _clock, state) = fresh().await;
    put(&state, "a", "key", "x").await;
    assert_eq!(objects(&state).await, ["a"]);
    assert!(state.delete_value(&target("a"), "key").await.unwrap().value);
    assert!(!state.delete_object(&target("a")).await.unwrap().value);
}

#[tokio::test]
async fn a_dropped_namespace_is_refused_and_removed_and_its_neighbour_stays() {
    let (folder, clock, state) = fresh().await;
    let neighbour = Target { namespace: Namespace(NAMESPACE.0 + 8), ..target("a") };
    state.put(&neighbour, "key", "x".into()).await.unwrap();
    for number in 0..100 {
        put(&state, &number.to_string(), "key", vec![1; 100]).await;
    }
    state.set_alarm(&target("alarm"), Schedule::InSeconds(0)).await.unwrap();
    let mut session = state.hold(&target("1")).await.unwrap();
    session.put("key", "y".into()).await.unwrap();
    assert_eq!(state.drop_namespace(NAMESPACE).await.unwrap(), Usage { objects: 101, bytes: 10_300 });
    assert!(matches!(session.commit(), Err(Error::Dropped)));
    upkeep::remove(&state.0.shared).await.unwrap();
    assert_eq!((files(&folder, NAMESPACE), files(&folder, neighbour.namespace)), (0, 1));
    for restarted in [false, true] {
        let state = if restarted { open(&folder, &clock).await } else { state.clone() };
        assert!(matches!(state.get(&target("1"), "key").await, Err(Error::Dropped)));
        assert!(matches!(state.put(&target("new"), "key", "x".into()).await, Err(Error::Dropped)));
        assert!(matches!(state.set_alarm(&target("new"), Schedule::InSeconds(1)).await, Err(Error::Dropped)));
        assert!(matches!(state.hold(&target("1")).await, Err(Error::Dropped)));
        assert!(matches!(state.delete_object(&target("1")).await, Err(Error::Dropped)));
        assert!(matches!(state.objects(NAMESPACE, List::default()).await, Err(Error::Dropped)));
        assert!(matches!(state.usage(NAMESPACE).await, Err(Error::Dropped)));
        assert_eq!(state.drop_namespace(NAMESPACE).await.unwrap(), Usage::default(), "asking twice is no error");
        assert_eq!(state.take_due(10).await.unwrap(), []);
        assert_eq!(state.next_due(), None);
        assert_eq!(state.get(&neighbour, "key").await.unwrap().value.unwrap(), "x");
        assert_eq!(state.account_bytes(ACCOUNT), 4);
        upkeep::remove(&state.0.shared).await.unwrap();
        state.close().await.unwrap();
    }
    assert!(!folder.path().join("state").join(NAMESPACE.to_string()).exists());
    check(&folder);
}

#[tokio::test]
async fn the_file_of_an_object_shrinks_when_much_was_deleted() {
    let (folder, clock, state) = fresh().await;
    for number in 0..20 {
        put(&state, "a", &number.to_string(), vec![1; 200_000]).await;
    }
    let large = std::fs::metadata(path(&state)).unwrap().len();
    for number in 1..20 {
        state.delete_value(&target("a"), &number.to_string()).await.unwrap();
    }
    let path = path(&state);
    state.close().await.unwrap();
    let small = std::fs::metadata(path).unwrap().len();
    assert!(large > 3_000_000 && small < 300_000, "{large} bytes before, {small} after");
    check(&folder);
    let state = open(&folder, &clock).await;
    assert_eq!(get(&state, "a", "0").await.unwrap(), vec![1; 200_000]);
}

fn path(state: &State) -> std::path::PathBuf {
    let handle = state.handle(&target("a")).unwrap();
    let incarnation = handle.memory().incarnation.unwrap();
    file::path_of(&handle.shared.folder, NAMESPACE, "a", incarnation)
}

#[tokio::test]
async fn what_nobody_has_counts_for_nobody_and_does_not_ring() {
    let (folder, clock, state) = fresh().await;
    for number in 1..=4 {
        let of = Target { namespace: Namespace(number), account: number, ..target("room") };
        state.put(&of, "key", "value".into()).await.unwrap();
        state.set_alarm(&of, Schedule::At(1)).await.unwrap();
    }
    let bytes = state.account_bytes(1);
    state.drop_namespace(Namespace(4)).await.unwrap();
    state.close().await.unwrap();
    let state = open(&folder, &clock).await;
    assert_eq!(state.account_bytes(2), bytes);
    // The second one has another account now, the third one none, and the tenth was never written to.
    let owners = [(1, 1), (2, 9), (4, 4), (10, 1)].map(|(number, account)| (Namespace(number), account, account));
    assert_eq!(state.own(owners.to_vec()).await.unwrap(), [Namespace(4)]);
    assert_eq!([1, 2, 3, 4, 9].map(|account| state.account_bytes(account)), [bytes, 0, 0, 0, bytes]);
    let mut rung: Vec<_> = state.take_due(100).await.unwrap().into_iter().map(|alarm| alarm.namespace.0).collect();
    rung.sort_unstable();
    assert_eq!((rung, state.take_due(100).await.unwrap().len()), (vec![1, 2], 0));
    state.put(&Target { namespace: Namespace(10), account: 1, ..target("room") }, "key", "value".into()).await.unwrap();
    assert!(state.account_bytes(1) > bytes);
    state.close().await.unwrap();
    // It is somebody's again.
    let state = open(&folder, &clock).await;
    assert_eq!(state.own(vec![(Namespace(3), 3, 3)]).await.unwrap(), []);
    assert_eq!((state.account_bytes(3), state.take_due(100).await.unwrap().len()), (bytes, 1));
}
