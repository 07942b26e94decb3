//! What may be seen of queues: each message is in one of them, with so many deliveries that have failed and a time before which it does not come, or gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use tovuk_resources::queue::{Batch, MessageId, Policy, PolicyChange, Queue, Rest, Retry, Send, Service, Settled, Take, Verdict};

use super::{Died, Done, World, seen};

const JOBS: Queue = Queue(1);
/// Takes the dead letters of `JOBS`, and has a consumer itself.
const FAILED: Queue = Queue(2);
/// In another file.
const OTHER: Queue = Queue(3);
const QUEUES: [(Service, Queue); 3] = [(Service(5), JOBS), (Service(5), FAILED), (Service(6), OTHER)];
const RETENTION_SECONDS: u32 = 14 * 24 * 3_600;
const DELAY_SECONDS_MAX: u32 = 600;

/// Where a message can be.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    /// It is done, was discarded, or never came in.
    Gone,
    /// It waits, from a time between these two on.
    In { queue: Queue, from: (u64, u64), failed: u32 },
}

/// What a handler says of one message.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Ack,
    Retry(u32),
    Release,
}

pub struct Model {
    messages: BTreeMap<u32, Vec<Place>>,
    policies: BTreeMap<Queue, Policy>,
    held: Vec<Batch>,
}

/// The number of a message, which is its body.
fn number(body: &[u8]) -> u32 {
    std::str::from_utf8(body).unwrap().parse().unwrap()
}

/// No handler ever succeeds with one of these.
fn is_poison(number: u32) -> bool {
    number % 7 == 3
}

impl Model {
    pub async fn new(world: &World) -> Self {
        let mut policies = BTreeMap::new();
        for (service, queue) in QUEUES {
            let change = PolicyChange { retention_seconds: Some(RETENTION_SECONDS), max_retries: Some(2), ..PolicyChange::default() };
            policies.insert(queue, world.stores.queues.create(service, queue, change).await.unwrap());
        }
        let change = PolicyChange { dead_letter_queue: Some(Some(FAILED)), ..PolicyChange::default() };
        policies.insert(JOBS, world.stores.queues.update(JOBS, change).await.unwrap());
        Self { messages: BTreeMap::new(), policies, held: Vec::new() }
    }

    pub async fn step(&mut self, world: &mut World) -> Done {
        let queue = QUEUES[world.rng.usize(..QUEUES.len())].1;
        match world.rng.u32(..20) {
            0..6 => self.send(world, queue).await,
            6..11 => self.take(world, queue, 1 + world.rng.clone().usize(..8)).await.map(drop),
            11..17 => self.settle(world).await,
            17 => self.change(world).await,
            _ => self.exhaust(world, queue).await,
        }
    }

    async fn send(&mut self, world: &mut World, queue: Queue) -> Done {
        let first = self.messages.len() as u32;
        let count = world.rng.u32(1..6);
        let delays: Vec<_> = (0..count).map(|_| if world.rng.bool() { None } else { Some(world.rng.u32(..DELAY_SECONDS_MAX)) }).collect();
        let sends = delays.iter().zip(first..).map(|(delay, number)| Send {
            body: Bytes::from(number.to_string()),
            delay_seconds: *delay,
            ..Send::default()
        });
        world.tell(format!("send {first} and {} more to {queue}, after {delays:?} s", count - 1));
        let before = world.now();
        let sent = world.said(world.stores.queues.send(queue, sends.collect()).await);
        let after = world.now();
        for (delay, number) in delays.iter().zip(first..) {
            let wait = u64::from(delay.unwrap_or(0)) * 1_000;
            let there = Place::In { queue, from: (before + wait, after + wait), failed: 0 };
            // All or none; that they are told apart later is for those that are seen to say.
            self.messages.insert(number, if sent.is_ok() { vec![there] } else { vec![Place::Gone, there] });
        }
        sent.map(drop)
    }

    fn is_held(&self, number: u32) -> bool {
        self.held.iter().flat_map(Batch::messages).any(|message| self::number(&message.body) == number)
    }

    /// Takes a batch, compares it, and holds it. Returns whether there was any.
    async fn take(&mut self, world: &mut World, queue: Queue, messages: usize) -> Result<bool, Died> {
        let batch = world.said(world.stores.queues.take(queue, Take { messages, bytes: 1 << 20 }).await)?;
        let after = world.now();
        for message in batch.messages() {
            let number = number(&message.body);
            assert!(!self.is_held(number), "message {number} is delivered twice at a time");
            let what = format!("delivery {} of message {number} from queue {queue} at {after}", message.attempts);
            let fits = |place: &Place| matches!(place, Place::In { queue: of, from, failed } if *of == queue && failed + 1 == message.attempts && from.0 <= after);
            seen(self.messages.get_mut(&number).unwrap(), &what, fits);
        }
        let numbers: Vec<_> = batch.messages().iter().map(|message| self::number(&message.body)).collect();
        world.tell(format!("took {numbers:?} from {queue}"));
        let some = !batch.is_empty();
        if some {
            self.held.push(batch);
        }
        Ok(some)
    }

    /// Takes all that is there. What does not come is not there.
    async fn exhaust(&mut self, world: &mut World, queue: Queue) -> Done {
        let before = world.now();
        while self.take(world, queue, 100).await? {}
        let held: BTreeSet<_> = self.held.iter().flat_map(Batch::messages).map(|message| self::number(&message.body)).collect();
        for (number, possible) in self.messages.iter_mut().filter(|(number, _)| !held.contains(number)) {
            let what = format!("no message {number} in queue {queue} at {before}");
            seen(possible, &what, |place| !matches!(place, Place::In { queue: of, from, .. } if *of == queue && from.1 <= before));
        }
        Ok(())
    }

    /// A handler ends: it does all of it, fails, does a part, or was never called.
    async fn settle(&mut self, world: &mut World) -> Done {
        if self.held.is_empty() {
            return Ok(());
        }
        let batch = self.held.remove(world.rng.usize(..self.held.len()));
        let delay = if world.rng.bool() { 0 } else { world.rng.u32(..DELAY_SECONDS_MAX) };
        let rest = match world.rng.u32(..8) {
            0..3 => Fate::Ack,
            3..5 => Fate::Retry(delay),
            5..7 => [Fate::Ack, Fate::Retry(delay)][world.rng.usize(..2)],
            _ => Fate::Release,
        };
        if rest == Fate::Release && world.rng.bool() {
            world.tell("a batch is dropped".to_owned());
            return Ok(());
        }
        let partly = world.rng.bool() && rest != Fate::Release;
        let fates: Vec<_> = batch
            .messages()
            .iter()
            .map(|message| {
                let own = if partly { [Fate::Ack, Fate::Retry(world.rng.u32(..DELAY_SECONDS_MAX))][world.rng.usize(..2)] } else { rest };
                let poisoned = own == Fate::Ack && is_poison(number(&message.body));
                (message.id, number(&message.body), if poisoned { Fate::Retry(delay) } else { own })
            })
            .collect();
        self.settle_as(world, batch, fates, rest).await
    }

    async fn settle_as(&mut self, world: &mut World, batch: Batch, fates: Vec<(MessageId, u32, Fate)>, rest: Fate) -> Done {
        let queue = batch.queue();
        let mut verdict = Verdict::all(match rest {
            Fate::Ack => Rest::Ack,
            Fate::Retry(delay) => Rest::Retry(delay),
            Fate::Release => Rest::Release,
        });
        for (id, _, fate) in fates.iter().filter(|(_, _, fate)| *fate != rest) {
            match fate {
                Fate::Ack => verdict.ack.push(*id),
                Fate::Retry(delay) => verdict.retry.push(Retry { what: *id, delay_seconds: Some(*delay) }),
                Fate::Release => {}
            }
        }
        world.tell(format!(
            "settle {:?} of {queue}: {} acks, {} retries, and the rest {:?}",
            fates.len(),
            verdict.ack.len(),
            verdict.retry.len(),
            verdict.rest
        ));
        let before = world.now();
        let settled = world.said(batch.settle(verdict).await);
        let after = world.now();
        let policy = &self.policies[&queue];
        let mut expected = Settled::default();
        for (id, number, fate) in fates {
            let possible = self.messages.get_mut(&number).unwrap();
            let Some(Place::In { failed, .. }) = possible.first().cloned() else { panic!("message {number} was delivered") };
            let next = match fate {
                Fate::Release => continue,
                Fate::Ack => {
                    expected.acked += 1;
                    Place::Gone
                }
                Fate::Retry(delay) if failed < policy.max_retries => {
                    expected.retried += 1;
                    let wait = u64::from(delay) * 1_000;
                    Place::In { queue, from: (before + wait, after + wait), failed: failed + 1 }
                }
                Fate::Retry(_) => match policy.dead_letter_queue {
                    Some(dead) => {
                        expected.dead_lettered.push((id, id));
                        Place::In { queue: dead, from: (before, after), failed: 0 }
                    }
                    None => {
                        expected.discarded.push(id);
                        Place::Gone
                    }
                },
            };
            if settled.is_err() {
                possible.push(next);
            } else {
                *possible = vec![next];
            }
        }
        let settled = settled?;
        let counts = |settled: &Settled| (settled.acked, settled.retried, settled.discarded.len(), settled.gone.len());
        assert_eq!(counts(&settled), counts(&expected));
        let dead = |settled: &Settled| settled.dead_lettered.iter().map(|(was, _)| *was).collect::<BTreeSet<_>>();
        assert_eq!(dead(&settled), dead(&expected));
        Ok(())
    }

    async fn change(&mut self, world: &mut World) -> Done {
        let mut change = PolicyChange { max_retries: Some(world.rng.u32(..4)), ..PolicyChange::default() };
        let queue = QUEUES[world.rng.usize(..QUEUES.len())].1;
        if queue == JOBS {
            change.dead_letter_queue = Some(world.rng.bool().then_some(FAILED));
        }
        world.tell(format!("queue {queue} is changed: {change:?}"));
        let policy = world.said(world.stores.queues.update(queue, change).await)?;
        self.policies.insert(queue, policy);
        Ok(())
    }

    /// What was being delivered is as it was.
    pub fn died(&mut self) {
        self.held.clear();
    }

    /// Settings are what is there, whether or not they were answered.
    pub fn reopened(&mut self, world: &World) -> Done {
        for (_, queue) in QUEUES {
            let policy = world.said(world.stores.queues.policy(queue))?;
            self.policies.insert(queue, (*policy).clone());
        }
        Ok(())
    }

    /// Lets all handlers succeed but with what is poison, until nothing is left.
    pub async fn end(&mut self, world: &mut World) -> Done {
        for round in 0..20 {
            world.clock.advance(Duration::from_secs(u64::from(DELAY_SECONDS_MAX) + 1));
            for (_, queue) in QUEUES {
                self.exhaust(world, queue).await?;
                for batch in std::mem::take(&mut self.held) {
                    let fate = |number| if is_poison(number) { Fate::Retry(0) } else { Fate::Ack };
                    let fates =
                        batch.messages().iter().map(|message| (message.id, number(&message.body))).map(|(id, number)| (id, number, fate(number)));
                    let fates = fates.collect();
                    self.settle_as(world, batch, fates, Fate::Ack).await?;
                }
            }
            let left = |poison: bool| {
                self.messages
                    .iter()
                    .filter(move |(number, possible)| is_poison(**number) == poison && possible.iter().any(|place| *place != Place::Gone))
            };
            assert!(round < 2 || left(false).count() == 0, "what fails keeps others waiting: {:?}", left(false).collect::<Vec<_>>());
            if left(true).count() + left(false).count() == 0 {
                for (_, queue) in QUEUES {
                    assert_eq!(world.stores.queues.metrics(queue).await.unwrap().backlog.messages, 0, "queue {queue}");
                }
                return Ok(());
            }
        }
        panic!(
            "messages are left: {:?}",
            self.messages.iter().filter(|(_, possible)| possible.iter().any(|place| *place != Place::Gone)).collect::<Vec<_>>()
        );
    }
}
