//! What may be seen of State objects: a value and an alarm, which sessions change together.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tovuk_kernel::limits::Plan;
use tovuk_resources::state::{AlarmInfo, DueAlarm, Error, Holds, Namespace, Outcome, Schedule, Settled, Target};

use super::{Died, Done, World, seen};

const OBJECTS: usize = 8;
const RETRIES: u32 = 6;
const RETRY_MS: u64 = 2_000;

/// An alarm that is set.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Alarm {
    scheduled: u64,
    /// It is delivered from a time between these two on.
    from: (u64, u64),
    failed: u32,
}

/// What an object can hold.
#[derive(Clone, Debug, PartialEq)]
struct Object {
    value: Option<u32>,
    alarm: Option<Alarm>,
}

pub struct Model {
    objects: BTreeMap<usize, Vec<Object>>,
    /// Alarms that are being delivered, and whether they were set anew or removed since.
    held: BTreeMap<usize, (DueAlarm, bool)>,
    written: u32,
}

fn target(object: usize) -> Target {
    // Two namespaces, which are in different files.
    let namespace = Namespace(i64::try_from(object % 2).unwrap() + 1);
    Target { namespace, object: format!("object-{object}").into(), account: 1, plan: Plan::Pro, holds: Holds::default() }
}

fn number(alarm: &DueAlarm) -> usize {
    alarm.object.rsplit_once('-').unwrap().1.parse().unwrap()
}

/// The handler of these never succeeds.
fn is_poison(object: usize) -> bool {
    object == 3
}

impl Model {
    pub fn new() -> Self {
        let nothing = vec![Object { value: None, alarm: None }];
        Self { objects: (0..OBJECTS).map(|object| (object, nothing.clone())).collect(), held: BTreeMap::new(), written: 0 }
    }

    pub async fn step(&mut self, world: &mut World) -> Done {
        let object = world.rng.usize(..OBJECTS);
        match world.rng.u32(..20) {
            0..5 => self.set(world, object).await,
            5..8 => self.session(world, object).await,
            8 => self.delete(world, object).await,
            9 => self.look(world, object).await,
            10..13 => self.take(world, 3).await.map(drop),
            13..18 => self.settle(world).await,
            _ => self.exhaust(world).await,
        }
    }

    /// Takes a change of an object over; without an answer, both are possible.
    fn changed<T>(&mut self, object: usize, answer: Result<T, Died>, change: impl Fn(&mut Object)) -> Result<T, Died> {
        let possible = self.objects.get_mut(&object).unwrap();
        let mut next = possible.clone();
        next.iter_mut().for_each(change);
        match answer {
            Ok(_) => *possible = next,
            Err(Died) => possible.extend(next),
        }
        possible.dedup();
        answer
    }

    fn supersede(&mut self, object: usize) {
        if let Some((_, superseded)) = self.held.get_mut(&object) {
            *superseded = true;
        }
    }

    async fn set(&mut self, world: &mut World, object: usize) -> Done {
        let seconds = world.rng.u32(..600);
        world.tell(format!("alarm {object} is set in {seconds} s"));
        let before = world.now();
        let answer = world.said(world.stores.state.set_alarm(&target(object), Schedule::InSeconds(seconds)).await);
        let latest = world.now() + u64::from(seconds) * 1_000;
        let from = answer.as_ref().map_or((before, latest), |answer| (answer.value, answer.value));
        assert!(answer.is_err() || (before + u64::from(seconds) * 1_000..=latest).contains(&from.0), "alarm {object} is set for {from:?}");
        let alarm = Alarm { scheduled: from.0, from, failed: 0 };
        self.changed(object, answer, |state| state.alarm = Some(alarm))?;
        self.supersede(object);
        Ok(())
    }

    /// A session writes a value and sets or removes the alarm: both or neither.
    async fn session(&mut self, world: &mut World, object: usize) -> Done {
        self.written += 1;
        let value = self.written;
        let at = (world.rng.u32(..4) > 0).then(|| world.now() + world.rng.u64(..900_000));
        world.tell(format!("object {object} gets {value} and the alarm {at:?}"));
        let answer = world.said(write(world, object, value, at).await);
        self.changed(object, answer, |state| {
            *state = Object { value: Some(value), alarm: at.map(|at| Alarm { scheduled: at, from: (at, at), failed: 0 }) };
        })?;
        self.supersede(object);
        Ok(())
    }

    async fn delete(&mut self, world: &mut World, object: usize) -> Done {
        world.tell(format!("alarm {object} is removed"));
        let answer = world.said(world.stores.state.delete_alarm(&target(object)).await.map(|answer| answer.value));
        let before = self.objects[&object].clone();
        let was_set = self.changed(object, answer, |state| state.alarm = None)?;
        // One that is being delivered is none, unless it was set anew.
        let delivered = self.held.get(&object).is_some_and(|(_, superseded)| !superseded);
        let fits = |state: &Object| (state.alarm.is_some() && !delivered) == was_set;
        assert!(before.iter().any(fits), "an alarm of {object} was removed: {was_set}, and what could be was {before:?}");
        self.supersede(object);
        Ok(())
    }

    /// What is there is what can be.
    async fn look(&mut self, world: &mut World, object: usize) -> Done {
        let value = world.said(world.stores.state.get(&target(object), "value").await)?.value;
        let value: Option<u32> = value.map(|value| std::str::from_utf8(&value).unwrap().parse().unwrap());
        let alarm = world.said(world.stores.state.alarm(&target(object)).await)?.value;
        let delivered = self.held.get(&object).is_some_and(|(_, superseded)| !superseded);
        let fits = |state: &Object| {
            let same = match (&state.alarm, &alarm) {
                (None, None) => true,
                (Some(expected), Some(AlarmInfo { next_at, retry_count, .. })) => {
                    (expected.from.0..=expected.from.1).contains(next_at) && expected.failed == *retry_count
                }
                _ => false,
            };
            state.value == value && (same || delivered && alarm.is_none())
        };
        seen(self.objects.get_mut(&object).unwrap(), &format!("object {object} with {value:?} and {alarm:?}"), fits);
        Ok(())
    }

    async fn take(&mut self, world: &mut World, most: usize) -> Result<bool, Died> {
        let alarms = world.said(world.stores.state.take_due(most).await)?;
        let after = world.now();
        world.tell(format!("took {:?}", alarms.iter().map(number).collect::<Vec<_>>()));
        for alarm in &alarms {
            let object = number(alarm);
            assert_eq!(alarm.is_retry, alarm.retry_count > 0);
            let fits = |state: &Object| {
                state.alarm.is_some_and(|set| {
                    let scheduled = set.scheduled == alarm.scheduled_at || set.from.0 != set.from.1 && set.failed == 0;
                    scheduled && set.failed == alarm.retry_count && set.from.0 <= after
                })
            };
            seen(self.objects.get_mut(&object).unwrap(), &format!("{alarm:?} at {after}"), fits);
            assert!(self.held.insert(object, (alarm.clone(), false)).is_none(), "alarm {object} is delivered twice at a time");
        }
        Ok(!alarms.is_empty())
    }

    /// Takes all that is due. What does not come is not due.
    async fn exhaust(&mut self, world: &mut World) -> Done {
        let before = world.now();
        while self.take(world, 100).await? {}
        for (object, possible) in self.objects.iter_mut().filter(|(object, _)| !self.held.contains_key(object)) {
            let is_due = |state: &Object| state.alarm.is_some_and(|alarm| alarm.from.1 <= before);
            seen(possible, &format!("no alarm {object} at {before}"), |state| !is_due(state));
        }
        Ok(())
    }

    async fn settle(&mut self, world: &mut World) -> Done {
        let objects: Vec<_> = self.held.keys().copied().collect();
        if objects.is_empty() {
            return Ok(());
        }
        let object = objects[world.rng.usize(..objects.len())];
        let outcome = match world.rng.u32(..10) {
            0..5 if !is_poison(object) => Outcome::Delivered,
            0..8 => Outcome::Failed,
            _ => Outcome::Refused { retry_at: world.now() + world.rng.u64(..60_000) },
        };
        self.settle_as(world, object, outcome).await
    }

    async fn settle_as(&mut self, world: &mut World, object: usize, outcome: Outcome) -> Done {
        let (alarm, superseded) = self.held.remove(&object).unwrap();
        let failed = alarm.retry_count;
        world.tell(format!("alarm {object} after {failed}: {outcome:?}"));
        let before = world.now();
        let answer = world.said(world.stores.state.settle(&alarm, outcome).await);
        let wait = RETRY_MS << failed;
        let from = (before + wait, world.now() + wait);
        if superseded {
            assert!(answer? == Settled::Superseded, "what was set anew stands");
            return Ok(());
        }
        let scheduled = alarm.scheduled_at;
        let (next, fits): (_, fn(Settled) -> bool) = match outcome {
            Outcome::Delivered => (None, |settled| settled == Settled::Done),
            Outcome::Failed if failed >= RETRIES => (None, |settled| settled == Settled::Cleared),
            Outcome::Failed => (Some(Alarm { scheduled, from, failed: failed + 1 }), |settled| matches!(settled, Settled::Retry { .. })),
            Outcome::Refused { retry_at } => {
                (Some(Alarm { scheduled, from: (retry_at, retry_at), failed }), |settled| matches!(settled, Settled::Retry { .. }))
            }
        };
        let settled = self.changed(object, answer, |state| state.alarm = next)?;
        assert!(fits(settled), "{outcome:?} of alarm {object} after {failed}: {settled:?}");
        if let (Settled::Retry { at }, Some(next)) = (settled, next) {
            assert!((next.from.0..=next.from.1).contains(&at), "alarm {object} rings again at {at} and not in {:?}", next.from);
        }
        Ok(())
    }

    /// What was being delivered is due again.
    pub fn died(&mut self) {
        self.held.clear();
    }

    /// Values and alarms are what they were, or what they were about to be.
    pub async fn reopened(&mut self, world: &mut World) -> Done {
        for object in 0..OBJECTS {
            self.look(world, object).await?;
        }
        Ok(())
    }

    /// Lets all handlers succeed but one, until no alarm is left.
    pub async fn end(&mut self, world: &mut World) -> Done {
        for round in 0..10 {
            world.clock.advance(Duration::from_secs(900));
            self.exhaust(world).await?;
            for object in self.held.keys().copied().collect::<Vec<_>>() {
                let outcome = if is_poison(object) { Outcome::Failed } else { Outcome::Delivered };
                self.settle_as(world, object, outcome).await?;
            }
            let left: Vec<_> = self.objects.iter().filter(|(_, possible)| possible.iter().any(|state| state.alarm.is_some())).collect();
            assert!(round == 0 || left.iter().all(|(object, _)| is_poison(**object)), "alarms are left: {left:?}");
            if left.is_empty() {
                assert_eq!(world.stores.state.next_due(), None);
                for object in 0..OBJECTS {
                    self.look(world, object).await?;
                }
                return Ok(());
            }
        }
        panic!("alarms are left: {:?}", self.objects);
    }
}

/// Writes a value and an alarm together.
async fn write(world: &World, object: usize, value: u32, at: Option<u64>) -> Result<(), Error> {
    let mut session = world.stores.state.hold(&target(object)).await?;
    session.put("value", Bytes::from(value.to_string())).await?;
    match at {
        Some(at) => drop(session.set_alarm(Schedule::At(at)).await?),
        None => drop(session.delete_alarm().await?),
    }
    session.commit()?.durable().await.map(drop)
}
