//! Every limit is checked, at its edge.

use tovuk_kernel::limits::{STATE_ALARM_UNIX_MS_MAX, STATE_BATCH_CHANGES_MAX, STATE_ENTRY_BYTES_MAX, STATE_KEY_BYTES_MAX, STATE_PAGE_KEYS_MAX};

use super::*;

fn code<T>(result: Result<T, Error>) -> &'static str {
    result.map(drop).unwrap_err().code().code
}

#[tokio::test]
async fn keys_values_and_lists_have_their_limits() {
    let (_folder, _, state) = fresh().await;
    let long = "k".repeat(STATE_KEY_BYTES_MAX);
    let room = target("room");
    put(&state, &long, &long, "x").await;
    for bad in ["", ".", "..", &format!("{long}k")] {
        assert_eq!(code(state.put(&room, bad, "x".into()).await), "state_key_invalid");
        assert_eq!(code(state.get(&room, bad).await), "state_key_invalid");
        assert_eq!(code(state.put(&target(bad), "key", "x".into()).await), "state_key_invalid");
        assert_eq!(code(state.hold(&target(bad)).await), "state_key_invalid");
        assert_eq!(code(state.set_alarm(&target(bad), Schedule::InSeconds(1)).await), "state_key_invalid");
    }
    put(&state, "room", "key", vec![0; STATE_ENTRY_BYTES_MAX - 3]).await;
    let large = Bytes::from(vec![0; STATE_ENTRY_BYTES_MAX - 2]);
    assert_eq!(code(state.put(&room, "key", large.clone()).await), "state_value_too_large");
    assert_eq!(code(state.compare_and_set(&room, "key", None, Some(large.clone())).await), "state_value_too_large");
    assert_eq!(code(state.hold(&room).await.unwrap().put("key", large).await), "state_value_too_large");
    let changes = |count: usize| (0..count).map(|number| Change::Put { key: number.to_string(), value: "x".into() }).collect::<Vec<_>>();
    state.write(&room, changes(STATE_BATCH_CHANGES_MAX)).await.unwrap();
    assert_eq!(code(state.write(&room, changes(STATE_BATCH_CHANGES_MAX + 1)).await), "state_batch_too_large");
    let heavy = (0..17).map(|number| Change::Put { key: number.to_string(), value: vec![0; 2_000_000].into() }).collect();
    assert_eq!(code(state.write(&room, heavy).await), "state_batch_too_large");
    for limit in [0, STATE_PAGE_KEYS_MAX + 1] {
        let list = List { limit: Some(limit), ..List::default() };
        assert_eq!(code(state.keys(&room, list.clone()).await), "invalid_request");
        assert_eq!(code(state.objects(NAMESPACE, list).await), "invalid_request");
    }
    let list = List { cursor: Some("no cursor".into()), ..List::default() };
    assert_eq!(code(state.keys(&room, list).await), "invalid_cursor");
    let late = Schedule::At(STATE_ALARM_UNIX_MS_MAX + 1);
    assert_eq!(code(state.set_alarm(&room, late).await), "state_alarm_invalid");
}

#[tokio::test]
async fn a_session_cannot_make_the_host_hold_more_than_it_may() {
    let (_folder, _, state) = fresh().await;
    let mut session = state.hold(&target("room")).await.unwrap();
    let mut fitted = 0;
    let refused = loop {
        match session.put(&fitted.to_string(), vec![0; 2_000_000].into()).await {
            Ok(()) => fitted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((fitted, refused.code().code), (16, "state_batch_too_large"));
    drop(session);
    assert_eq!(state.account_bytes(ACCOUNT), 0);
}

#[tokio::test]
async fn a_session_holds_what_it_changes_last_and_no_more() {
    let (_folder, _, state) = fresh().await;
    put(&state, "room", "old", "x").await;
    let mut session = state.hold(&target("room")).await.unwrap();
    for number in 0..40 {
        session.put("key", vec![number; 1 << 20].into()).await.unwrap();
        session.put("old", vec![number; 1 << 20].into()).await.unwrap();
        // What is not there is no change.
        assert!(!session.delete(&format!("none{number}")).await.unwrap());
    }
    assert!(session.delete("old").await.unwrap());
    for number in 0..15 {
        session.put(&number.to_string(), vec![0; 2 << 20].get(10..).unwrap().to_vec().into()).await.unwrap();
    }
    let answer = session.commit().unwrap().durable().await.unwrap();
    assert_eq!(answer.object.values, 16);
}

/// Memory of so many bytes.
struct Room(std::sync::atomic::AtomicU64);

impl crate::memory::Memory for Room {
    fn take(&self, bytes: u64) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

#[tokio::test]
async fn the_keys_that_a_session_changes_count_as_memory_of_the_host() {
    let (_folder, _, state) = fresh().await;
    let mut session = state.hold(&target("room")).await.unwrap();
    session.count_in(Box::new(Room(300.into())));
    session.put("a", "1".into()).await.unwrap();
    session.put("b", "1".into()).await.unwrap();
    session.put("b", "2".into()).await.unwrap();
    assert_eq!(code(session.put("c", "1".into()).await), "host_busy");
    session.put("a", "2".into()).await.unwrap();
    assert_eq!(session.commit().unwrap().durable().await.unwrap().object, Counts { values: 2, bytes: 4 });
}

#[tokio::test]
async fn objects_and_accounts_hold_no_more_than_their_plan_allows() {
    let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable());
    let options = Options { object_bytes: |_| 1_000, account_bytes: |_| 1_500, threads: 2, ..Options::default() };
    let state = open_with(&folder, &clock, options.clone()).await;
    put(&state, "a", "key", vec![0; 997]).await;
    assert!(matches!(state.put(&target("a"), "b", Bytes::new()).await, Err(Error::ObjectFull { used: 1_000, more: 1, max: 1_000 })));
    put(&state, "a", "key", vec![0; 990]).await;
    put(&state, "b", "key", vec![0; 504]).await;
    assert_eq!(state.account_bytes(ACCOUNT), 1_500);
    let error = state.put(&target("b"), "x", Bytes::new()).await.unwrap_err();
    assert!(matches!(error, Error::AccountFull { used: 1_500, more: 1, max: 1_500 }));
    assert_eq!(error.code().code, "state_storage_full");
    // The same in a session; what it does not keep is given back.
    let mut session = state.hold(&target("b")).await.unwrap();
    assert!(session.put("x", "y".into()).await.is_err());
    assert!(session.delete("key").await.unwrap());
    session.put("key", vec![0; 400].into()).await.unwrap();
    drop(session);
    assert_eq!(state.account_bytes(ACCOUNT), 1_500);
    // Another account has its own.
    let other = Target { namespace: Namespace(8), account: 4, ..target("b") };
    state.put(&other, "key", vec![0; 900].into()).await.unwrap();
    assert!(state.delete_value(&target("a"), "key").await.unwrap().value);
    assert_eq!(state.account_bytes(ACCOUNT), 507);
    put(&state, "c", "key", vec![0; 900].to_vec()).await;
    state.close().await.unwrap();
    let state = open_with(&folder, &clock, options).await;
    assert_eq!((state.account_bytes(ACCOUNT), state.account_bytes(4)), (1_410, 903));
    state.drop_namespace(NAMESPACE).await.unwrap();
    assert_eq!((state.account_bytes(ACCOUNT), state.account_bytes(4)), (0, 903));
}

#[tokio::test]
async fn a_list_without_a_limit_comes_in_pages_and_ends() {
    let (_folder, _, state) = fresh().await;
    for part in 0..101 {
        let changes = (0..1_000).map(|number| Change::Put { key: format!("{part:03}-{number:03}"), value: "x".into() });
        state.write(&target("room"), changes.collect()).await.unwrap();
    }
    let (mut pages, mut keys, mut last) = (state.key_pages(&target("room"), "0".into(), None), 0, None);
    while let Some(page) = pages.next().await {
        let page = page.unwrap().value;
        keys += page.items.len();
        last = Some(page);
    }
    assert_eq!((keys, last.unwrap().next_cursor), (100_000, None), "only those that begin with a 0");
    let (mut pages, mut last) = (state.key_pages(&target("room"), String::new(), None), None);
    while let Some(page) = pages.next().await {
        last = page.unwrap().value.next_cursor;
    }
    let rest = state.keys(&target("room"), List { cursor: last, ..List::default() }).await.unwrap().value;
    assert_eq!((rest.items.len(), rest.items[0].name.as_str(), rest.has_more), (1_000, "100-000", false));
    let mut objects = state.object_pages(NAMESPACE, String::new(), None);
    assert_eq!(objects.next().await.unwrap().unwrap().items.len(), 1);
    assert!(objects.next().await.is_none());
}
