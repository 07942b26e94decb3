//! Random operations, side by side with maps: the answers are the same, also after time has passed and after a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const OBJECTS: [&str; 4] = ["a", "a/b", "ü", "b"];
const KEYS: [&str; 6] = ["a", "a/b", "a\0", "b", "ü", "~"];

/// What one call does.
#[derive(Clone, Debug)]
enum Step {
    Put { key: usize, length: usize },
    Delete { key: usize },
    Swap { key: usize, right: bool, absent: bool },
    Increment { key: usize, by: i64 },
    Keys { prefix: &'static str, limit: usize },
    SetAlarm { seconds: u32 },
    DeleteAlarm,
}

#[derive(Clone, Debug)]
enum Action {
    Call(Step),
    Session { steps: Vec<Step>, commit: bool },
    DeleteObject,
    Objects,
    Advance { seconds: u64 },
    Deliver { max: usize, outcome: u8 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    prop_oneof![
        6 => (key.clone(), prop_oneof![0..40_usize, 3_000..9_000_usize]).prop_map(|(key, length)| Step::Put { key, length }),
        3 => key.clone().prop_map(|key| Step::Delete { key }),
        3 => (key.clone(), any::<bool>(), any::<bool>()).prop_map(|(key, right, absent)| Step::Swap { key, right, absent }),
        4 => (key, -5..5_i64).prop_map(|(key, by)| Step::Increment { key, by }),
        3 => (prop::sample::select(vec!["", "a", "a/", "none"]), 1..8_usize).prop_map(|(prefix, limit)| Step::Keys { prefix, limit }),
        3 => (0..300_u32).prop_map(|seconds| Step::SetAlarm { seconds }),
        1 => Just(Step::DeleteAlarm),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        10 => step().prop_map(Action::Call),
        4 => (prop::collection::vec(step(), 1..8), any::<bool>()).prop_map(|(steps, commit)| Action::Session { steps, commit }),
        1 => Just(Action::DeleteObject),
        2 => Just(Action::Objects),
        2 => (1..400_u64).prop_map(|seconds| Action::Advance { seconds }),
        3 => (1..4_usize, 0..3_u8).prop_map(|(max, outcome)| Action::Deliver { max, outcome }),
        1 => Just(Action::Reopen),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ring {
    scheduled: u64,
    next: u64,
    retries: u32,
}

/// What one object should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    values: BTreeMap<String, Bytes>,
    alarm: Option<Ring>,
}

type Model = BTreeMap<&'static str, Held>;

impl Held {
    fn counts(&self) -> Counts {
        let bytes = self.values.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        Counts { values: self.values.len() as u64, bytes: bytes as u64 }
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        self.values.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }
}

/// Does a step in a session, and in what it should hold then.
async fn in_session(session: &mut Session, held: &mut Held, step: &Step) {
    match *step {
        Step::Put { key, length } => {
            let value = Bytes::from(vec![b'v'; length]);
            session.put(KEYS[key], value.clone()).await.unwrap();
            held.values.insert(KEYS[key].into(), value);
        }
        Step::Delete { key } => assert_eq!(session.delete(KEYS[key]).await.unwrap(), held.values.remove(KEYS[key]).is_some()),
        Step::Swap { key, right, absent } => {
            let found = held.values.get(KEYS[key]).cloned();
            let expected = if right { found.clone() } else { Some("never".into()) };
            let value = (!absent).then(|| Bytes::from("swapped"));
            let swapped = session.compare_and_set(KEYS[key], expected, value.clone()).await.unwrap();
            assert_eq!(swapped, Swapped { swapped: right, found });
            match value {
                _ if !right => {}
                Some(value) => drop(held.values.insert(KEYS[key].into(), value)),
                None => drop(held.values.remove(KEYS[key])),
            }
        }
        Step::Increment { key, by } => {
            let before = held.values.get(KEYS[key]).map_or(Some(0), |value| std::str::from_utf8(value).unwrap().parse::<i64>().ok());
            match (session.increment(KEYS[key], by).await, before) {
                (Ok(sum), Some(before)) => {
                    assert_eq!(sum, before + by);
                    held.values.insert(KEYS[key].into(), sum.to_string().into());
                }
                (Err(Error::NotInteger { .. }), None) => {}
                (answer, before) => panic!("{before:?} and {by} are {answer:?}"),
            }
        }
        Step::Keys { prefix, limit } => {
            let page = session.keys(List { prefix: prefix.into(), limit: Some(limit), cursor: None }).await.unwrap();
            let all = held.keys(prefix);
            assert_eq!(page.has_more, all.len() > limit);
            assert!(page.items.iter().map(|key| &key.name).eq(all.iter().take(limit)));
            assert!(page.items.iter().all(|key| held.values[&key.name].len() as u64 == key.value_bytes));
        }
        Step::SetAlarm { seconds } => {
            let at = session.set_alarm(Schedule::InSeconds(seconds)).await.unwrap();
            held.alarm = Some(Ring { scheduled: at, next: at, retries: 0 });
        }
        Step::DeleteAlarm => {
            session.delete_alarm().await.unwrap();
            held.alarm = None;
        }
    }
}

/// The same by calls that run by themselves.
async fn by_itself(state: &State, object: &str, held: &mut Held, step: &Step) {
    let target = target(object);
    match *step {
        Step::Put { key, length } => {
            let value = Bytes::from(vec![b'p'; length]);
            let answer = state.put(&target, KEYS[key], value.clone()).await.unwrap();
            held.values.insert(KEYS[key].into(), value);
            assert_eq!(answer.object, held.counts());
        }
        Step::Delete { key } => {
            let answer = state.delete_value(&target, KEYS[key]).await.unwrap();
            assert_eq!((answer.value, answer.object), (held.values.remove(KEYS[key]).is_some(), held.counts()));
        }
        Step::Keys { prefix, limit } => {
            let (mut found, mut cursor) = (Vec::new(), None);
            loop {
                let list = List { prefix: prefix.into(), limit: Some(limit), cursor };
                let page = state.keys(&target, list).await.unwrap().value;
                found.extend(page.items.into_iter().map(|key| key.name));
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(found, held.keys(prefix));
            for key in KEYS {
                assert_eq!(state.get(&target, key).await.unwrap().value.as_ref(), held.values.get(key));
            }
        }
        Step::SetAlarm { seconds } => {
            let at = state.set_alarm(&target, Schedule::InSeconds(seconds)).await.unwrap().value;
            held.alarm = Some(Ring { scheduled: at, next: at, retries: 0 });
        }
        Step::DeleteAlarm => assert_eq!(state.delete_alarm(&target).await.unwrap().value, held.alarm.take().is_some()),
        Step::Swap { .. } | Step::Increment { .. } => {
            let mut session = state.hold(&target).await.unwrap();
            in_session(&mut session, held, step).await;
            session.commit().unwrap().durable().await.unwrap();
        }
    }
}

async fn deliver(state: &State, clock: &Clock, model: &mut Model, max: usize, outcome: u8) {
    let before = clock.now_unix_ms();
    let due = |now: u64, model: &Model| model.values().filter(|held| held.alarm.is_some_and(|alarm| alarm.next <= now)).count();
    let at_least = due(before, model).min(max);
    let taken = state.take_due(max).await.unwrap();
    let now = clock.now_unix_ms();
    assert!((at_least..=due(now, model).min(max)).contains(&taken.len()));
    for alarm in taken {
        let held = model.get_mut(&*alarm.object).unwrap();
        let ring = held.alarm.unwrap();
        assert_eq!((alarm.scheduled_at, alarm.retry_count, alarm.is_retry), (ring.scheduled, ring.retries, ring.retries > 0));
        assert!(ring.next <= now);
        let outcome = [Outcome::Delivered, Outcome::Failed, Outcome::Refused { retry_at: now + 5_000 }][usize::from(outcome)];
        held.alarm = match (state.settle(&alarm, outcome).await.unwrap(), outcome) {
            (Settled::Done, Outcome::Delivered) => None,
            (Settled::Cleared, Outcome::Failed) if ring.retries == 6 => None,
            (Settled::Retry { at }, Outcome::Failed) if ring.retries < 6 => {
                assert!(at >= now + (2_000 << ring.retries) && at <= clock.now_unix_ms() + (2_000 << ring.retries));
                Some(Ring { next: at, retries: ring.retries + 1, ..ring })
            }
            (Settled::Retry { at }, Outcome::Refused { retry_at }) if at == retry_at => Some(Ring { next: at, ..ring }),
            (settled, outcome) => panic!("{ring:?} was {outcome:?} and is {settled:?}"),
        };
    }
}

async fn compare(state: &State, model: &Model) {
    let listed = state.objects(NAMESPACE, List::default()).await.unwrap().items;
    let expected = model.iter().filter(|(_, held)| **held != Held::default());
    let expected =
        expected.map(|(name, held)| ListedObject { name: (*name).to_owned(), counts: held.counts(), alarm: held.alarm.map(|alarm| alarm.scheduled) });
    let expected: Vec<_> = expected.collect();
    assert_eq!(listed, expected);
    let bytes = expected.iter().map(|object| object.counts.bytes).sum();
    assert_eq!(state.usage(NAMESPACE).await.unwrap(), Usage { objects: expected.len() as u64, bytes });
    assert_eq!(state.account_bytes(ACCOUNT), bytes);
    assert_eq!(state.next_due(), model.values().filter_map(|held| held.alarm).map(|alarm| alarm.next).min());
}

async fn run(actions: Vec<(usize, Action)>) {
    let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable());
    let options = Options { open_max: 2, threads: 2, ..Options::default() };
    let mut state = open_with(&folder, &clock, options.clone()).await;
    let mut model: Model = OBJECTS.iter().map(|object| (*object, Held::default())).collect();
    for (object, action) in actions {
        let object = OBJECTS[object];
        let held = model.get_mut(object).unwrap();
        match action {
            Action::Call(step) => by_itself(&state, object, held, &step).await,
            Action::Session { steps, commit } => {
                let (mut session, mut draft) = (state.hold(&target(object)).await.unwrap(), held.clone());
                for step in &steps {
                    in_session(&mut session, &mut draft, step).await;
                }
                if commit {
                    assert_eq!(session.commit().unwrap().durable().await.unwrap().object, draft.counts());
                    *held = draft;
                }
            }
            Action::DeleteObject => {
                let existed = std::mem::take(held) != Held::default();
                assert_eq!(state.delete_object(&target(object)).await.unwrap().value, existed);
            }
            Action::Objects => compare(&state, &model).await,
            Action::Advance { seconds } => drop(clock.advance(Duration::from_secs(seconds))),
            Action::Deliver { max, outcome } => deliver(&state, &clock, &mut model, max, outcome).await,
            Action::Reopen => {
                state.close().await.unwrap();
                state = open_with(&folder, &clock, options.clone()).await;
            }
        }
    }
    compare(&state, &model).await;
    state.close().await.unwrap();
    check(&folder);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn state_answers_like_maps(actions in prop::collection::vec((0..OBJECTS.len(), action()), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(actions));
    }
}
