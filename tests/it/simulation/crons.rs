//! What may be seen of cron: each tick is known by its trigger and time, or was asked for, and waits for its next delivery or is done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tovuk_resources::cron::{Outcome, Service, Tick, TriggerNumber};

use super::{Died, Done, World, seen};

const SERVICE: Service = Service(5);
/// Every so many minutes. The last one's handler never succeeds.
const TRIGGERS: [(i64, u64); 3] = [(1, 30), (2, 60), (3, 20)];
const FAILING: i64 = 3;
const EVERY: [u64; 4] = [10, 20, 30, 60];
const MINUTE_MS: u64 = 60_000;
const RETRIES: u32 = 3;
const HOLD_MS_MAX: u64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// A trigger and a time.
    Scheduled(i64, u64),
    /// A run that somebody has asked for, of a trigger.
    Manual(i64, i64),
}

/// What a tick can be.
#[derive(Clone, Debug, PartialEq)]
enum Run {
    Done,
    /// It is delivered from a time between these two on; so often it has failed and was refused in a row.
    Waits {
        from: (u64, u64),
        failed: u32,
        refused: u32,
    },
}

struct Trigger {
    every: u64,
    enabled: bool,
    /// Since when it ticks so: a time between these two.
    since: (u64, u64),
}

/// What was being changed when the stores died.
enum Change {
    Enable(i64, bool, u64),
    Every(i64, u64, u64),
}

pub struct Model {
    triggers: BTreeMap<i64, Trigger>,
    runs: BTreeMap<Key, Vec<Run>>,
    held: Vec<Tick>,
    /// Ticks that were given back and are known to the store's memory only.
    returned: BTreeSet<Key>,
    /// Since when ticks may have been made that nobody was told of.
    made_since: Option<u64>,
    /// Runs that were asked for and not answered.
    unanswered: BTreeMap<i64, u32>,
    changing: Option<Change>,
    /// What was being delivered then.
    held_then: BTreeSet<Key>,
}

fn expression(every: u64) -> String {
    if every == 60 { "0 * * * *".to_owned() } else { format!("*/{every} * * * *") }
}

fn key(tick: &Tick) -> Key {
    let number = tick.trigger().number.0;
    if tick.is_manual() { Key::Manual(number, tick.run()) } else { Key::Scheduled(number, tick.scheduled_ms()) }
}

fn trigger_of(key: Key) -> i64 {
    match key {
        Key::Scheduled(number, _) | Key::Manual(number, _) => number,
    }
}

impl Model {
    pub async fn new(world: &World) -> Self {
        let mut triggers = BTreeMap::new();
        for (number, every) in TRIGGERS {
            let before = world.now();
            world.stores.crons.create(SERVICE, TriggerNumber(number), "trigger", &expression(every)).await.unwrap();
            triggers.insert(number, Trigger { every, enabled: true, since: (before, world.now()) });
        }
        Self {
            triggers,
            runs: BTreeMap::new(),
            held: Vec::new(),
            returned: BTreeSet::new(),
            made_since: None,
            unanswered: BTreeMap::new(),
            changing: None,
            held_then: BTreeSet::new(),
        }
    }

    pub async fn step(&mut self, world: &mut World) -> Done {
        let number = TRIGGERS[world.rng.usize(..TRIGGERS.len())].0;
        match world.rng.u32(..20) {
            0..6 => self.take(world, 4).await.map(drop),
            6..14 => self.settle(world).await,
            14 => self.enable(world, number).await,
            15 => self.update(world, number).await,
            16 => self.run_now(world, number).await,
            _ => self.exhaust(world).await,
        }
    }

    fn is_held(&self, wanted: Key) -> bool {
        self.held.iter().any(|tick| key(tick) == wanted)
    }

    async fn take(&mut self, world: &mut World, most: usize) -> Result<bool, Died> {
        let before = world.now();
        let taken = world.said(world.stores.crons.due(most).await);
        let after = world.now();
        let Ok(ticks) = taken else {
            // What was taken and not told is delivered again.
            for (key, possible) in &mut self.runs {
                again(*key, possible, |from| from.0 <= after);
            }
            self.made_since = Some(self.made_since.map_or(before, |since| since.min(before)));
            return Err(Died);
        };
        for tick in &ticks {
            let key = key(tick);
            assert!(!self.is_held(key), "{key:?} is delivered twice at a time");
            self.returned.remove(&key);
            if !self.runs.contains_key(&key) {
                self.made(key, before, after);
            }
            let what = format!("delivery {} of {key:?} at {after}", tick.attempt());
            let fits = |run: &Run| matches!(run, Run::Waits { from, failed, .. } if failed + 1 == tick.attempt() && from.0 <= after);
            seen(self.runs.get_mut(&key).unwrap(), &what, fits);
        }
        world.tell(format!("took {:?}", ticks.iter().map(key).collect::<Vec<_>>()));
        let some = !ticks.is_empty();
        self.held.extend(ticks);
        Ok(some)
    }

    /// A tick that nobody has heard of before.
    fn made(&mut self, key: Key, before: u64, after: u64) {
        let from = match key {
            Key::Scheduled(number, time) => {
                let trigger = &self.triggers[&number];
                let every = trigger.every * MINUTE_MS;
                assert!(time % (10 * MINUTE_MS) == 0 && time <= after, "{key:?} at {after}");
                let earliest = self.made_since.unwrap_or(before);
                // Of times that were missed the last one ticks. One that was made before the stores died was made by the expression of that time.
                let next = time + if self.made_since.is_some() { 60 * MINUTE_MS } else { every };
                assert!(next > earliest, "{key:?} was missed, and others after it, at {before}");
                time
            }
            Key::Manual(number, _) => {
                let unanswered = self.unanswered.get_mut(&number).filter(|count| **count > 0);
                *unanswered.unwrap_or_else(|| panic!("nobody has asked for {key:?}")) -= 1;
                0
            }
        };
        self.runs.insert(key, vec![Run::Waits { from: (from, after), failed: 0, refused: 0 }]);
    }

    /// Takes all that is due. What does not come is not due, and no time was left out.
    async fn exhaust(&mut self, world: &mut World) -> Done {
        let before = world.now();
        while self.take(world, 100).await? {}
        for (&key, possible) in &mut self.runs {
            if !self.held.iter().any(|tick| self::key(tick) == key) {
                let what = format!("no delivery of {key:?} at {before}");
                seen(possible, &what, |run| !matches!(run, Run::Waits { from, .. } if from.1 <= before));
            }
        }
        for (number, trigger) in self.triggers.iter().filter(|(_, trigger)| trigger.enabled) {
            let last = before - before % (trigger.every * MINUTE_MS);
            let ticked = self.runs.contains_key(&Key::Scheduled(*number, last));
            assert!(ticked || last <= trigger.since.1, "trigger {number} has not ticked for {last}, and it is {before}");
        }
        self.made_since = None;
        Ok(())
    }

    async fn settle(&mut self, world: &mut World) -> Done {
        if self.held.is_empty() {
            return Ok(());
        }
        let tick = self.held.remove(world.rng.usize(..self.held.len()));
        let key = key(&tick);
        match world.rng.u32(..10) {
            0..5 if trigger_of(key) != FAILING => self.succeeded(world, tick).await,
            0..7 => self.failed(world, tick).await,
            7..9 => self.refused(world, tick).await,
            _ => {
                world.tell(format!("{key:?} is given back"));
                self.returned.insert(key);
                Ok(())
            }
        }
    }

    /// Takes an answer over; without one, both are possible.
    fn answered(&mut self, key: Key, next: Run, has_answered: bool) {
        let possible = self.runs.get_mut(&key).unwrap();
        if has_answered {
            *possible = vec![next];
        } else {
            recover(key, possible);
            possible.push(next);
        }
    }

    async fn succeeded(&mut self, world: &mut World, tick: Tick) -> Done {
        let key = key(&tick);
        world.tell(format!("{key:?} succeeds"));
        let answer = world.said(tick.succeeded(None).await);
        self.answered(key, Run::Done, answer.is_ok());
        answer
    }

    fn is_wanted(&self, key: Key) -> bool {
        matches!(key, Key::Manual(..)) || self.triggers[&trigger_of(key)].enabled
    }

    async fn failed(&mut self, world: &mut World, tick: Tick) -> Done {
        let (key, failed) = (key(&tick), tick.attempt() - 1);
        world.tell(format!("{key:?} fails after {failed}"));
        let before = world.now();
        let answer = world.said(tick.failed(None).await);
        let wait = MINUTE_MS << failed;
        let from = (before + wait, world.now() + wait);
        let ends = failed >= RETRIES || !self.is_wanted(key);
        let next = if ends { Run::Done } else { Run::Waits { from, failed: failed + 1, refused: 0 } };
        self.answered(key, next, answer.is_ok());
        let due = answer?;
        assert!(due.is_some() != ends && due.is_none_or(|due| (from.0..=from.1).contains(&due)), "{key:?} is due at {due:?} and not in {from:?}");
        Ok(())
    }

    async fn refused(&mut self, world: &mut World, tick: Tick) -> Done {
        let (key, failed) = (key(&tick), tick.attempt() - 1);
        world.tell(format!("{key:?} is refused"));
        let before = world.now();
        let answer = world.said(tick.hold(None).await);
        let after = world.now();
        let wanted = self.is_wanted(key);
        let mut certain = self.runs[&key].len() == 1;
        let own =
            self.runs[&key].iter().filter_map(|run| if let Run::Waits { refused, .. } = run { Some(*refused) } else { None }).max().unwrap_or(0);
        // Others of the same trigger that no worker has seen and that wait because they were refused.
        let others = if failed == 0 && wanted { self.others(key) } else { Vec::new() };
        let is_replaced = others.iter().any(|(other, _)| *other > key);
        let mut refused = own;
        for (other, times) in others.into_iter().filter(|(other, _)| *other < key) {
            refused = refused.max(times);
            let possible = self.runs.get_mut(&other).unwrap();
            certain &= possible.len() == 1;
            if answer.is_ok() && possible.len() == 1 {
                *possible = vec![Run::Done];
            } else {
                possible.push(Run::Done);
            }
        }
        let wait = |refused: u32| (1_000_u64 << refused.min(16)).min(HOLD_MS_MAX);
        if let (Ok(Some(due)), false) = (&answer, certain) {
            // How long it waits says how often it was refused, as far as that matters.
            refused = (0..7).rev().find(|refused| *due >= before + wait(*refused)).unwrap_or(0);
        }
        let from = (before + 1_000, after + HOLD_MS_MAX);
        let next = match &answer {
            Ok(Some(due)) => Run::Waits { from: (*due, *due), failed, refused: refused + 1 },
            Ok(None) => Run::Done,
            Err(Died) => Run::Waits { from, failed, refused: refused + 1 },
        };
        self.answered(key, next, answer.is_ok());
        if answer.is_err() && (!wanted || is_replaced) {
            self.runs.get_mut(&key).unwrap().push(Run::Done);
        }
        if let Some(due) = answer? {
            let range = if certain { before + wait(refused)..=after + wait(refused) } else { from.0..=from.1 };
            assert!(wanted && range.contains(&due), "{key:?} was refused {refused} times: {due} after {before}");
        } else {
            assert!(!wanted || is_replaced, "{key:?} is not delivered again");
        }
        Ok(())
    }

    /// Ticks of the same trigger that may wait unseen, and how often they were refused.
    fn others(&self, key: Key) -> Vec<(Key, u32)> {
        let Key::Scheduled(number, _) = key else { return Vec::new() };
        let others = self.runs.range(Key::Scheduled(number, 0)..=Key::Scheduled(number, u64::MAX));
        let others = others.filter(|(other, _)| **other != key && !self.is_held(**other) && !self.returned.contains(other));
        let times = |possible: &[Run]| {
            possible.iter().find_map(|run| if let Run::Waits { failed: 0, refused: times @ 1.., .. } = run { Some(*times) } else { None })
        };
        others.filter_map(|(other, possible)| Some((*other, times(possible)?))).collect()
    }

    async fn enable(&mut self, world: &mut World, number: i64) -> Done {
        let enabled = world.rng.u32(..4) > 0;
        world.tell(format!("trigger {number} is {}", if enabled { "resumed" } else { "paused" }));
        let before = world.now();
        self.changing = Some(Change::Enable(number, enabled, before));
        world.said(world.stores.crons.enable(TriggerNumber(number), enabled).await)?;
        self.changing = None;
        let held = self.held.iter().map(key).chain(self.returned.iter().copied()).collect();
        self.enabled(number, enabled, (before, world.now()), &held);
        Ok(())
    }

    /// `held` are those that were being delivered, which are not canceled.
    fn enabled(&mut self, number: i64, enabled: bool, at: (u64, u64), held: &BTreeSet<Key>) {
        let Some(trigger) = self.triggers.get_mut(&number).filter(|trigger| trigger.enabled != enabled) else { return };
        (trigger.enabled, trigger.since) = (enabled, at);
        if enabled {
            return;
        }
        for (_, possible) in self.runs.iter_mut().filter(|(key, _)| trigger_of(**key) == number && !held.contains(key)) {
            possible.iter_mut().for_each(|run| *run = Run::Done);
        }
        if let Some(unanswered) = self.unanswered.get_mut(&number) {
            *unanswered = 0;
        }
    }

    async fn update(&mut self, world: &mut World, number: i64) -> Done {
        let every = EVERY[world.rng.usize(..EVERY.len())];
        world.tell(format!("trigger {number} ticks every {every} minutes"));
        let before = world.now();
        self.changing = Some(Change::Every(number, every, before));
        world.said(world.stores.crons.update(TriggerNumber(number), &expression(every)).await)?;
        self.changing = None;
        self.every(number, every, (before, world.now()));
        Ok(())
    }

    fn every(&mut self, number: i64, every: u64, at: (u64, u64)) {
        if let Some(trigger) = self.triggers.get_mut(&number).filter(|trigger| trigger.every != every) {
            (trigger.every, trigger.since) = (every, at);
        }
    }

    async fn run_now(&mut self, world: &mut World, number: i64) -> Done {
        world.tell(format!("trigger {number} is run"));
        let answer = world.said(world.stores.crons.run_now(TriggerNumber(number)).await);
        let after = world.now();
        match answer {
            Ok(run) => {
                let waits = Run::Waits { from: (0, after), failed: 0, refused: 0 };
                assert!(self.runs.insert(Key::Manual(number, run), vec![waits]).is_none());
                Ok(())
            }
            Err(Died) => {
                *self.unanswered.entry(number).or_default() += 1;
                Err(Died)
            }
        }
    }

    /// What was being delivered is delivered again.
    pub fn died(&mut self) {
        self.held_then = self.held.drain(..).map(|tick| key(&tick)).chain(std::mem::take(&mut self.returned)).collect();
        for key in &self.held_then {
            recover(*key, self.runs.get_mut(key).unwrap());
        }
    }

    /// What was being changed has been or has not.
    pub async fn reopened(&mut self, world: &World) -> Done {
        let Some(change) = &self.changing else { return Ok(()) };
        let (Change::Enable(number, ..) | Change::Every(number, ..)) = *change;
        let found = world.said(world.stores.crons.get(TriggerNumber(number)).await)?;
        match self.changing.take() {
            Some(Change::Enable(_, enabled, before)) if found.enabled == enabled => {
                let held = std::mem::take(&mut self.held_then);
                self.enabled(number, enabled, (before, world.now()), &held);
            }
            Some(Change::Every(_, every, before)) if found.expression == expression(every) => self.every(number, every, (before, world.now())),
            _ => {}
        }
        Ok(())
    }

    /// Lets all handlers succeed, and looks at the history.
    pub async fn end(&mut self, world: &mut World) -> Done {
        for _ in 0..3 {
            world.clock.advance(Duration::from_secs(10 * 60));
            self.exhaust(world).await?;
            for tick in std::mem::take(&mut self.held) {
                self.succeeded(world, tick).await?;
            }
        }
        let left: Vec<_> = self.runs.iter().filter(|(_, possible)| possible.iter().any(|run| *run != Run::Done)).collect();
        assert!(left.is_empty(), "ticks are left: {left:?}");
        for (number, _) in TRIGGERS {
            let history = world.said(world.stores.crons.history(TriggerNumber(number)).await)?;
            let open: Vec<_> = history.iter().filter(|run| matches!(run.outcome, Outcome::Waiting | Outcome::Running)).collect();
            assert!(open.is_empty(), "{open:?}");
            let times: BTreeSet<_> = history.iter().filter(|run| !run.manual).map(|run| run.scheduled_ms).collect();
            assert_eq!(times.len(), history.iter().filter(|run| !run.manual).count(), "each time ticks once");
        }
        Ok(())
    }
}

/// The time from which a tick is due that was given out when the stores died, and nothing says any more that it was refused.
fn recovered(key: Key, run: &Run) -> Run {
    let time = if let Key::Scheduled(_, time) = key { time } else { 0 };
    match run {
        Run::Waits { failed, .. } => Run::Waits { from: (time, time), failed: *failed, refused: 0 },
        Run::Done => Run::Done,
    }
}

/// A tick was given out when the stores died.
fn recover(key: Key, possible: &mut Vec<Run>) {
    possible.iter_mut().for_each(|run| *run = recovered(key, run));
    possible.dedup();
}

/// A tick may have been given out when the stores died.
fn again(key: Key, possible: &mut Vec<Run>, fits: impl Fn(&(u64, u64)) -> bool) {
    let waits = possible.iter().filter(|run| matches!(run, Run::Waits { from, .. } if fits(from)));
    let more: Vec<_> = waits.map(|run| recovered(key, run)).filter(|run| !possible.contains(run)).collect();
    possible.extend(more);
}
