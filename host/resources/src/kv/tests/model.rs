//! Random operations, side by side with a map: the answers are the same, also after time has passed, after a sweep and after a restart.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The first two are in one file.
const NAMESPACES: [Namespace; 3] = [Namespace(1), Namespace(17), Namespace(2)];
const KEYS: [&str; 8] = ["a", "a/b", "a/c", "a\0", "b", "ü", "~", "\u{10ffff}"];

#[derive(Clone, Debug)]
enum Step {
    Put { key: usize, length: usize, metadata: bool, ttl: Option<u64> },
    BulkPut { keys: Vec<(usize, usize)> },
    Delete { key: usize },
    BulkDelete { keys: Vec<usize> },
    Increment { key: usize, delta: i64 },
    Get { key: usize },
    BulkGet { keys: Vec<usize> },
    List { prefix: &'static str, limit: usize },
    Advance { seconds: u64 },
    Sweep,
    Drop,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    let length = prop_oneof![0..100_usize, 4_000..10_000_usize];
    let ttl = prop_oneof![2 => Just(None), 1 => (30..200_u64).prop_map(Some)];
    prop_oneof![
        8 => (key.clone(), length.clone(), any::<bool>(), ttl).prop_map(|(key, length, metadata, ttl)| Step::Put { key, length, metadata, ttl }),
        2 => prop::collection::vec((key.clone(), length), 0..5).prop_map(|keys| Step::BulkPut { keys }),
        3 => key.clone().prop_map(|key| Step::Delete { key }),
        1 => prop::collection::vec(key.clone(), 0..5).prop_map(|keys| Step::BulkDelete { keys }),
        3 => (key.clone(), -1_000..1_000_i64).prop_map(|(key, delta)| Step::Increment { key, delta }),
        8 => key.clone().prop_map(|key| Step::Get { key }),
        2 => prop::collection::vec(key, 0..8).prop_map(|keys| Step::BulkGet { keys }),
        4 => (prop::sample::select(vec!["", "a", "a/", "ü", "none"]), 1..6_usize).prop_map(|(prefix, limit)| Step::List { prefix, limit }),
        3 => (1..100_u64).prop_map(|seconds| Step::Advance { seconds }),
        1 => Just(Step::Sweep),
        1 => prop::bool::weighted(0.3).prop_map(|drop| if drop { Step::Drop } else { Step::Sweep }),
        1 => Just(Step::Reopen),
    ]
}

type Stored = (Vec<u8>, Option<String>, Option<u64>);

/// What should be there. A namespace of none was dropped.
struct Model {
    namespaces: BTreeMap<Namespace, Option<BTreeMap<String, Stored>>>,
    written: u8,
}

impl Model {
    fn forget_expired(&mut self, clock: &Clock) {
        let now_ms = clock.now_unix_ms();
        for keys in self.namespaces.values_mut().flatten() {
            keys.retain(|_, (_, _, expiration)| types::is_live(*expiration, now_ms));
        }
    }

    fn value(&mut self, length: usize) -> Vec<u8> {
        self.written = self.written.wrapping_add(1);
        vec![self.written; length]
    }
}

fn stored(entry: Option<Arc<Entry>>) -> Option<Stored> {
    entry.map(|entry| (entry.value.to_vec(), entry.metadata.as_deref().map(str::to_owned), entry.expiration))
}

/// Waits for the beginning of a second, so that none ends in the middle of a comparison.
fn settle(clock: &Clock) {
    let ms = clock.now_unix_ms() % 1_000;
    if ms > 500 {
        clock.advance(Duration::from_millis(1_000 - ms));
    }
}

async fn write(kv: &Kv, clock: &Clock, model: &mut Model, namespace: Namespace, step: Step) {
    let now_ms = clock.now_unix_ms();
    let expiration = |ttl: Option<u64>| ttl.map(|ttl| now_ms / 1_000 + ttl);
    let puts: Vec<Put> = match &step {
        Step::Put { key, length, metadata, ttl } => {
            let metadata = metadata.then(|| format!("{{\"n\": {length}}}"));
            // As a point in time, which does not depend on when the operation looks at the clock; ttl has a test of its own.
            let expiration = expiration(ttl.map(|ttl| ttl + 1));
            vec![Put { metadata, expiration, ..entry(KEYS[*key], model.value(*length)) }]
        }
        Step::BulkPut { keys } => keys.iter().map(|(key, length)| entry(KEYS[*key], model.value(*length))).collect(),
        _ => Vec::new(),
    };
    let keys: Vec<usize> = match &step {
        Step::Delete { key } => vec![*key],
        Step::BulkDelete { keys } => keys.clone(),
        _ => Vec::new(),
    };
    let Some(expected) = model.namespaces.get_mut(&namespace).unwrap() else {
        assert!(matches!(kv.bulk_put(namespace, puts).await, Err(Error::Dropped)));
        return;
    };
    if let Step::Increment { key, delta } = step {
        let (value, metadata, expiration) = expected.get(KEYS[key]).cloned().unwrap_or((b"0".to_vec(), None, None));
        let sum = std::str::from_utf8(&value).ok().and_then(|text| text.parse::<i64>().ok()).and_then(|number| number.checked_add(delta));
        assert_eq!(kv.increment(namespace, KEYS[key], delta).await.ok(), sum);
        if let Some(sum) = sum {
            expected.insert(KEYS[key].to_owned(), (sum.to_string().into_bytes(), metadata, expiration));
        }
    } else if matches!(step, Step::Put { .. } | Step::BulkPut { .. }) {
        for put in &puts {
            expected.insert(put.key.clone(), (put.value.to_vec(), put.metadata.clone(), put.expiration));
        }
        assert_eq!(kv.bulk_put(namespace, puts.clone()).await.unwrap().keys, puts.len() as u64);
    } else {
        let existed = keys.iter().filter(|key| expected.remove(KEYS[**key]).is_some()).count();
        let keys = keys.into_iter().map(|key| KEYS[key].to_owned()).collect();
        assert_eq!(kv.bulk_delete(namespace, keys).await.unwrap().existed, existed as u64);
    }
}

async fn read(kv: &Kv, model: &Model, namespace: Namespace, step: Step) {
    let Some(expected) = &model.namespaces[&namespace] else {
        assert!(matches!(kv.get(namespace, "a").await, Err(Error::Dropped)));
        assert!(matches!(kv.list(namespace, List::default()).await, Err(Error::Dropped)));
        return;
    };
    match step {
        Step::Get { key } => {
            let found = stored(kv.get(namespace, KEYS[key]).await.unwrap());
            assert_eq!(found.as_ref(), expected.get(KEYS[key]), "{}", KEYS[key]);
        }
        Step::BulkGet { keys } => {
            let found = kv.bulk_get(namespace, keys.iter().map(|key| KEYS[*key].to_owned()).collect()).await.unwrap();
            let found: Vec<_> = found.into_iter().map(stored).collect();
            let expected: Vec<_> = keys.iter().map(|key| expected.get(KEYS[*key]).cloned()).collect();
            assert_eq!(found, expected);
        }
        Step::List { prefix, limit } => {
            let (mut found, mut cursor) = (Vec::new(), None);
            loop {
                let page = kv.list(namespace, List { prefix: prefix.to_owned(), limit: Some(limit), cursor }).await.unwrap();
                found.extend(page.keys.into_iter().map(|key| (key.name, key.metadata, key.expiration)));
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            let keys = expected.iter().filter(|(key, _)| key.starts_with(prefix));
            let expected: Vec<_> = keys.map(|(key, (_, metadata, expiration))| (key.clone(), metadata.clone(), *expiration)).collect();
            assert_eq!(found, expected);
        }
        _ => {}
    }
}

async fn check_usage(kv: &Kv, model: &Model) {
    for (namespace, expected) in &model.namespaces {
        let Some(expected) = expected else { continue };
        let size = |(key, (value, metadata, _)): (&String, &Stored)| key.len() + value.len() + metadata.as_ref().map_or(0, String::len);
        let bytes = expected.iter().map(size).sum::<usize>() as u64;
        assert_eq!(kv.usage(*namespace).await.unwrap(), Usage { keys: expected.len() as u64, bytes });
    }
}

async fn run(steps: Vec<(usize, Step)>) {
    let (folder, clock, mut kv) = fresh().await;
    let mut model = Model { namespaces: NAMESPACES.iter().map(|namespace| (*namespace, Some(BTreeMap::new()))).collect(), written: 0 };
    for (namespace, step) in steps {
        let namespace = NAMESPACES[namespace];
        settle(&clock);
        model.forget_expired(&clock);
        match step {
            Step::Put { .. } | Step::BulkPut { .. } | Step::Delete { .. } | Step::BulkDelete { .. } | Step::Increment { .. } => {
                write(&kv, &clock, &mut model, namespace, step).await;
            }
            Step::Get { .. } | Step::BulkGet { .. } | Step::List { .. } => read(&kv, &model, namespace, step).await,
            Step::Advance { seconds } => drop(clock.advance(Duration::from_secs(seconds))),
            Step::Sweep => {
                sweep::sweep(&kv.store).await.unwrap();
                check_usage(&kv, &model).await;
            }
            Step::Drop => {
                kv.drop_namespace(namespace).await.unwrap();
                model.namespaces.insert(namespace, None);
            }
            Step::Reopen => {
                kv.close().await.unwrap();
                kv = open(&folder, &clock).await;
            }
        }
    }
    kv.close().await.unwrap();
    assert!(counted(&folder).iter().all(|(_, said, found)| said == found || found.keys > 0 && said == &Usage::default()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn kv_answers_like_a_map(steps in prop::collection::vec((0..NAMESPACES.len(), step()), 1..80)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
