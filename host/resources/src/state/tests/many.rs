//! Many objects: few files are open, few are in memory, and the catalogue is exact all the same.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_files_are_open_however_many_objects_are_in_use() {
    let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable());
    let options = Options { open_max: 16, threads: 4, ..Options::default() };
    let state = open_with(&folder, &clock, options.clone()).await;
    for round in 0..3_u64 {
        let callers = (0..8_u64).map(|caller| {
            let state = state.clone();
            tokio::spawn(async move {
                for number in 0..25 {
                    let object = format!("{}", caller * 25 + number);
                    assert_eq!(state.increment(&target(&object), "n", 1).await.unwrap().value, i64::try_from(round).unwrap() + 1);
                    assert_eq!(get(&state, &format!("never-{object}"), "n").await, None);
                    assert!(state.0.shared.files_open() <= 16 + 2 * 4);
                }
            })
        });
        futures::future::join_all(callers).await.into_iter().for_each(Result::unwrap);
        assert!(state.0.shared.in_use() <= 16 + 2 * 4, "{} objects in memory", state.0.shared.in_use());
        assert_eq!(state.usage(NAMESPACE).await.unwrap(), Usage { objects: 200, bytes: 400 });
    }
    state.close().await.unwrap();
    check(&folder);
    let state = open_with(&folder, &clock, options).await;
    assert_eq!(objects(&state).await.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_emptied_filled_closed_and_deleted_at_the_same_time() {
    let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable());
    let state = open_with(&folder, &clock, Options { open_max: 2, threads: 4, ..Options::default() }).await;
    let callers = (0..4_u64).map(|caller| {
        let state = state.clone();
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(caller);
            // Each has keys of its own, in objects that all use; only one deletes any.
            let mut values = std::collections::HashMap::new();
            for number in 0..300_u64 {
                let (object, key) = (random.u8(0..6).to_string(), format!("{caller}-{}", random.u8(0..2)));
                let place = (object.clone(), key.clone());
                assert_eq!(get(&state, &object, &key).await, values.get(&place).cloned(), "{place:?}");
                if random.bool() {
                    let value = Bytes::from(number.to_string());
                    put(&state, &object, &key, value.clone()).await;
                    values.insert(place, value);
                } else {
                    state.delete_value(&target(&object), &key).await.unwrap();
                    values.remove(&place);
                }
                if caller == 0 {
                    state.delete_object(&target("deleted")).await.unwrap();
                    put(&state, "deleted", "key", "x").await;
                    state.usage(NAMESPACE).await.unwrap();
                }
            }
            values
        })
    });
    let mut expected = 0;
    for values in futures::future::join_all(callers).await {
        for ((object, key), value) in values.unwrap() {
            assert_eq!(get(&state, &object, &key).await.unwrap(), value);
            expected += key.len() + value.len();
        }
    }
    assert_eq!(state.usage(NAMESPACE).await.unwrap().bytes, expected as u64 + 4);
    assert_eq!(state.account_bytes(ACCOUNT), expected as u64 + 4);
    state.close().await.unwrap();
    check(&folder);
}

#[tokio::test]
async fn those_who_list_at_the_same_time_share_one_look_at_what_is_in_memory() {
    let (_folder, _, state) = fresh().await;
    put(&state, "room", "key", "x").await;
    let listing = {
        // The look cannot end before all have asked.
        let handle = state.handle(&target("room")).unwrap();
        let memory = handle.memory();
        let mut listing: Vec<_> = (0..100).map(|_| Box::pin(state.usage(NAMESPACE))).collect();
        for usage in &mut listing {
            assert!(usage.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending());
        }
        assert_eq!(state.0.shared.telling.begun(NAMESPACE), Some(1));
        drop(memory);
        listing
    };
    let most = futures::future::join_all(listing).await;
    assert!(most.into_iter().all(|usage| usage.unwrap() == Usage { objects: 1, bytes: 4 }));
    assert_eq!(state.0.shared.telling.begun(NAMESPACE), None);
    put(&state, "room", "key", "xx").await;
    assert_eq!(state.usage(NAMESPACE).await.unwrap().bytes, 5);
}
