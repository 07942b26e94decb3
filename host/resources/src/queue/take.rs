//! Taking batches for delivery to a worker: from the queue to a [`Batch`], which knows that its messages are being delivered until it is settled or dropped.
//! Nothing is written. `live.rs` argues why no message is passed by.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::QUEUE_BATCH_MESSAGES_MAX;

use super::live::Live;
use super::messages::{self, Found, Moment, One, Room};
use super::rows::{id, unsigned};
use super::{Consumer, Error, Message, Queue, Queues, Store};
use crate::database::rusqlite;

/// How often one look goes on where all that it has found has expired, before it leaves the rest to the next.
const EXPIRED_ROUNDS_MAX: usize = 100;

/// How much to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Take {
    /// Most messages, 1 to 100.
    pub messages: usize,
    /// Most bytes of their bodies, unless the first alone has more.
    pub bytes: usize,
}

/// Messages that are being delivered, in the order in which they came. When it is dropped without having been settled, nothing has happened: they are taken
/// again, before others, and the delivery has not counted.
pub struct Batch {
    pub(super) store: Arc<Store>,
    pub(super) live: Arc<Live>,
    messages: Vec<Message>,
}

impl Batch {
    /// The queue.
    pub fn queue(&self) -> Queue {
        self.live.queue
    }

    /// The messages.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Whether there was nothing to take.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// What reading it costs, in metered operations.
    pub fn operations(&self) -> u64 {
        self.messages.iter().map(Message::operations).sum()
    }

    /// Adds what was taken later from the same queue. Gives it back if it is another queue's.
    ///
    /// # Errors
    /// The other batch, when it is another queue's.
    pub fn merge(&mut self, mut other: Self) -> Result<(), Self> {
        if other.live.queue != self.live.queue {
            return Err(other);
        }
        self.messages.append(&mut other.messages);
        self.messages.sort_unstable_by_key(|message| message.id.sequence);
        Ok(())
    }

    /// The id of the row of each message.
    pub(super) fn ids(&self) -> impl Iterator<Item = i64> {
        self.messages.iter().map(|message| id(self.live.local, message.id.sequence))
    }

    /// What has been settled is no longer given back.
    pub(super) fn keep(&mut self, kept: impl Fn(&Message) -> bool) {
        self.messages.retain(kept);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if !self.messages.is_empty() {
            self.live.give_back(self.ids());
            self.store.activate(&self.live);
        }
    }
}

/// What one look is for.
struct Plan {
    live: Arc<Live>,
    take: Take,
    moment: Moment,
    ready_after: i64,
    due_after: (i64, i64),
    /// Where ready ones and due ones compete for the only place.
    turn: bool,
}

/// What one look has found.
struct Seen {
    found: Vec<Found>,
    ready_after: i64,
    due_after: (i64, i64),
    /// Messages that had come back and are gone.
    gone: Vec<i64>,
    /// Messages that had come back and are due only then.
    later: Vec<(i64, i64)>,
    more: bool,
}

impl Queues {
    /// Takes what can be delivered to the worker now: what came back unsettled, then what is due, then what is ready, of which the latter two leave each other
    /// half of the batch, so that neither failing messages nor fresh ones keep the other waiting. Empty when there is nothing; then [`Queues::changed`] and
    /// [`Queues::next_due`] say when to ask again.
    ///
    /// # Errors
    /// When the batch is too large, the queue is pulled, or there is no such queue.
    pub async fn take(&self, queue: Queue, take: Take) -> Result<Batch, Error> {
        if !usize::try_from(QUEUE_BATCH_MESSAGES_MAX).is_ok_and(|most| (1..=most).contains(&take.messages)) {
            return Err(Error::Batch { messages: take.messages });
        }
        let live = self.store.live(queue)?;
        live.check(Consumer::Worker)?;
        let taking = live.taking.lock().await;
        let database = self.store.database(&live)?;
        let scan = live.scan();
        let messages = loop {
            let (plan, epoch) = self.plan(&live, take);
            let seen = database.read(move |connection| look(connection, &plan)).await?;
            // Nothing is waited for from here on, so whoever is gone has either taken nothing or a batch that comes back.
            let mut hand = live.hand();
            seen.gone.iter().for_each(|id| hand.forget(*id));
            for place in seen.later {
                hand.forget(place.1);
                hand.lower(place);
            }
            hand.give(seen.found.iter().map(|found| found.id));
            if live.epoch.load(Ordering::Relaxed) == epoch {
                hand.ready_after = seen.ready_after;
                hand.raise(seen.due_after);
            }
            if !seen.found.is_empty() || !seen.more {
                hand.turn = !hand.turn;
                break seen.found;
            }
        };
        drop(scan);
        drop(taking);
        let deliveries = |found: &Found| found.attempts.saturating_add(1);
        let mut messages: Vec<_> =
            messages.into_iter().map(|found| (deliveries(&found), found)).map(|(nth, found)| found.message(queue, nth)).collect();
        messages.sort_unstable_by_key(|message| message.id.sequence);
        Ok(Batch { store: self.store.clone(), live, messages })
    }

    /// When the next message that waits for a time can be taken; that can have passed. None if none waits.
    ///
    /// # Errors
    /// When there is no such queue.
    pub async fn next_due(&self, queue: Queue) -> Result<Option<UnixMs>, Error> {
        let live = self.store.live(queue)?;
        let after = live.hand().due_after;
        let held = live.clone();
        let is_held = move |id| held.hand().is_held(id);
        let local = live.local;
        let found = self.store.database(&live)?.read(move |connection| messages::due(connection, local, after, i64::MAX, 1, is_held)).await?;
        Ok(found.first().map(|(due, _)| unsigned(*due)))
    }

    fn plan(&self, live: &Arc<Live>, take: Take) -> (Plan, u64) {
        let now = self.store.now();
        let epoch = live.epoch.load(Ordering::Relaxed);
        let moment = Moment { now, expired: self.store.expired(live, now) };
        let hand = live.hand();
        let plan = Plan { live: live.clone(), take, moment, ready_after: hand.ready_after, due_after: hand.due_after, turn: hand.turn };
        (plan, epoch)
    }
}

fn look(connection: &Connection, plan: &Plan) -> Result<Seen, Error> {
    let live = &plan.live;
    let is_held = |id| live.hand().is_held(id);
    let mut room = Room::new(plan.take.messages, plan.take.bytes);
    let mut seen =
        Seen { found: Vec::new(), ready_after: plan.ready_after, due_after: plan.due_after, gone: Vec::new(), later: Vec::new(), more: false };
    // All of them, because what comes after those that have expired comes before everything else.
    let mut last = 0;
    while room.messages > 0 {
        let Some(id) = live.hand().returned_after(last) else { break };
        last = id;
        match messages::one(connection, id, plan.moment, &mut room, &mut seen.found)? {
            One::Taken => {}
            One::Gone => seen.gone.push(id),
            One::Later(due) => seen.later.push((due, id)),
            One::NoRoom => return Ok(seen),
        }
    }
    let next_due = |room: &Room, after| messages::due(connection, live.local, after, plan.moment.now, room.messages, is_held);
    let due = next_due(&room, plan.due_after)?;
    let mut all = due.len() < room.messages;
    let share = if room.messages == 1 { usize::from(plan.turn) } else { room.messages.div_ceil(2) };
    let mut due = due.into_iter();
    let mut fits = take_due(connection, plan, due.by_ref().take(share), &mut room, &mut seen)?;
    let (ready_after, more) = messages::ready(connection, (live.local, plan.ready_after), plan.moment, &mut room, is_held, &mut seen.found)?;
    seen.ready_after = ready_after;
    fits = fits && take_due(connection, plan, due, &mut room, &mut seen)?;
    // Some of those may have expired, so that there is room for what comes after them.
    for _ in 0..EXPIRED_ROUNDS_MAX {
        if all || !fits || room.messages == 0 {
            break;
        }
        let due = next_due(&room, seen.due_after)?;
        all = due.len() < room.messages;
        fits = take_due(connection, plan, due.into_iter(), &mut room, &mut seen)?;
    }
    seen.more = more || !all;
    Ok(seen)
}

/// Takes messages that are due, in the order of their times. Returns whether there was room for all.
fn take_due(connection: &Connection, plan: &Plan, places: impl Iterator<Item = (i64, i64)>, room: &mut Room, seen: &mut Seen) -> Result<bool, Error> {
    for place in places {
        if let One::NoRoom = messages::one(connection, place.1, plan.moment, room, &mut seen.found)? {
            return Ok(false);
        }
        seen.due_after = place;
    }
    Ok(true)
}
