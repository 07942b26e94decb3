//! Pulling: clients take messages over the API, under a lease that is on disk, and say later what has become of them. A lease that has run out still settles its
//! message until somebody else has pulled it.

use std::sync::atomic::Ordering;

use ring::rand::{SecureRandom, SystemRandom};
use rusqlite::Transaction;
use tovuk_kernel::limits::{
    QUEUE_BATCH_MESSAGES_MAX, QUEUE_BODY_BYTES_MAX, QUEUE_OPERATION_BYTES, QUEUE_PULL_MESSAGES, QUEUE_VISIBILITY_SECONDS_MAX,
};
use tovuk_kernel::meters::Meter;

use super::messages::{self, Found, Moment, One, Room};
use super::rows::{id, sequence};
use super::settle::{Done, Fate, Work, wake};
use super::types::{Lease, Retry, Settled, check_delay};
use super::{Backlog, Consumer, Error, Message, MessageId, Queue, Queues};
use crate::database::{self, rusqlite};
use crate::meters::Charge;

/// Bodies of one batch that is pulled, in bytes: there is room for the largest messages.
const BATCH_BYTES_MAX: usize = QUEUE_BODY_BYTES_MAX * QUEUE_BATCH_MESSAGES_MAX as usize;
/// What reading, removing or writing the largest message costs, in metered operations.
const OPERATIONS_MAX: u64 = (QUEUE_BODY_BYTES_MAX as u64).div_ceil(QUEUE_OPERATION_BYTES);
/// Messages that are moved or discarded after which a pull that has found no other ends.
const SETTLED_MAX: usize = 1_000;

/// How much to pull.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pull {
    /// Most messages, 1 to 100; 5 if not given.
    pub messages: Option<usize>,
    /// How long they are hidden from others, in s, at most 12 hours; as the queue is set if not given.
    pub visibility_seconds: Option<u32>,
}

/// Messages that were pulled. Their leases are on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The messages, in the order in which they came, each with what settles it.
    pub messages: Vec<(Lease, Message)>,
    /// What reading them cost, in metered operations, together with what was moved.
    pub operations: u64,
    /// What else was found: messages that had been pulled for the last time before and not settled.
    pub settled: Settled,
    /// What waits in the queue now, these included.
    pub backlog: Backlog,
}

/// What has become of messages that were pulled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseSettled {
    /// What has become of those whose lease was valid.
    pub settled: Settled,
    /// Leases of messages that are gone, or that somebody else has pulled since.
    pub refused: Vec<Lease>,
}

impl Queues {
    /// Pulls messages: what is due, then what is ready, leaving each other half of the batch. Those that were pulled as often as they may be become dead letters
    /// instead.
    ///
    /// # Errors
    /// When too much is asked for, the queue is not pulled, or there is no such queue.
    pub async fn pull(&self, queue: Queue, pull: Pull) -> Result<Pulled, Error> {
        let wanted = pull.messages.unwrap_or(usize::try_from(QUEUE_PULL_MESSAGES).unwrap_or(1));
        if !usize::try_from(QUEUE_BATCH_MESSAGES_MAX).is_ok_and(|most| (1..=most).contains(&wanted)) {
            return Err(Error::Batch { messages: wanted });
        }
        let live = self.store.live(queue)?;
        let policy = live.check(Consumer::Pull)?;
        let seconds = pull.visibility_seconds.unwrap_or(policy.visibility_timeout_seconds);
        if !(1..=QUEUE_VISIBILITY_SECONDS_MAX).contains(&seconds) {
            return Err(Error::Visibility { seconds });
        }
        let secret = secret()?;
        // What it costs is known only where the messages are found; it ends where what was reserved does. Each look has room for as many of the largest messages.
        let is_capped = self.bill.is_capped(Meter::QueueOperations);
        let look_max = OPERATIONS_MAX.saturating_mul(wanted as u64);
        let (charge, reserved) = self.bill.reserve_some(Meter::QueueOperations, look_max, 1).await?;
        let mut purse = Some((charge, reserved));
        let mut settled = Settled::default();
        loop {
            let Some((charge, reserved)) = purse.take() else { return Err(Error::Database(database::Error::Closed)) };
            let operations_max = if is_capped { reserved } else { u64::MAX };
            let (store, of, epoch) = (self.store.clone(), live.clone(), live.epoch.load(Ordering::Relaxed));
            let after = live.pulled.load(Ordering::Relaxed);
            let look = Look { wanted, operations_max, seconds, secret, after };
            let job = move |tx: &Transaction<'_>| {
                let now = store.now();
                let moment = Moment { now, expired: store.expired(&of, now) };
                Ok::<_, Error>((look.run(Work::begin(&store, tx, of.local)?, tx, moment)?, charge))
            };
            let committed = |(seen, charge): &mut (Seen, Charge)| charge.spend(seen.operations());
            let (seen, mut charge) = self.store.database(&live)?.write_then(job, committed).await?;
            let left = reserved.saturating_sub(seen.operations());
            let Seen { mut pulled, seen, more, lacking, done: (done, _, buried_in) } = seen;
            if live.epoch.load(Ordering::Relaxed) == epoch {
                live.pulled.fetch_max(seen, Ordering::Relaxed);
            }
            wake(&self.store, buried_in);
            settled.operations += done.operations;
            settled.dead_lettered.extend(done.dead_lettered);
            settled.discarded.extend(done.discarded);
            if !pulled.messages.is_empty() || !more || settled.dead_lettered.len() + settled.discarded.len() >= SETTLED_MAX {
                pulled.operations += settled.operations;
                pulled.settled = settled;
                return Ok(pulled);
            }
            // For the next look as much as for the first, or at least what the message needs that was found. Where there is not as much, the cap says so.
            let (ahead, need) = (look_max.saturating_sub(left), lacking.max(1).saturating_sub(left));
            let more = match charge.extend(ahead).await {
                Ok(()) => ahead,
                Err(_) => charge.extend(need).await.map(|()| need)?,
            };
            purse = Some((charge, left.saturating_add(more)));
        }
    }

    /// Settles messages that were pulled, at most 100: some are done, others are to be delivered again.
    ///
    /// # Errors
    /// When there are none or too many, a lease is another queue's, a delay is too long, or there is no such queue.
    pub async fn settle_leases(&self, queue: Queue, acks: Vec<Lease>, retries: Vec<Retry<Lease>>) -> Result<LeaseSettled, Error> {
        let wanted = acks.len() + retries.len();
        if !usize::try_from(QUEUE_BATCH_MESSAGES_MAX).is_ok_and(|most| (1..=most).contains(&wanted)) {
            return Err(Error::Batch { messages: wanted });
        }
        retries.iter().try_for_each(|retry| check_delay(retry.delay_seconds))?;
        let acked = acks.into_iter().map(|lease| (lease, Fate::Ack));
        let retried = retries.into_iter().map(|retry| (retry.what, Fate::Retry(retry.delay_seconds.unwrap_or(0))));
        let fates: Vec<_> = acked.chain(retried).collect();
        if let Some((lease, _)) = fates.iter().find(|(lease, _)| lease.id.queue != queue) {
            return Err(Error::Lease(lease.to_string()));
        }
        // Each may be moved to the dead-letter queue, which is a removal and a write.
        let most = OPERATIONS_MAX.saturating_mul(2 * wanted as u64);
        let exceeded = self.bill.room(Meter::QueueOperations).map(|(_, exceeded)| exceeded);
        let (charge, reserved) = self.bill.reserve_some(Meter::QueueOperations, most, 1).await?;
        let live = self.store.live(queue)?;
        let (store, of) = (self.store.clone(), live.clone());
        let job = move |tx: &Transaction<'_>| {
            let mut work = Work::begin(&store, tx, of.local)?;
            let mut refused = Vec::new();
            for (lease, fate) in fates {
                let id = id(of.local, lease.id.sequence);
                match messages::lease(tx, id)? {
                    Some((Some(secret), _)) if secret == lease.secret => work.apply(id, fate, 0)?,
                    _ => refused.push(lease),
                }
            }
            // What it costs is known now, and is undone where it is more than there was room for.
            if let Some(exceeded) = exceeded.filter(|_| work.settled.operations > reserved) {
                return Err(exceeded.into());
            }
            let (settled, due, buried_in) = work.finish()?;
            let woken = (!due.is_empty()).then(|| super::Wake { store: store.clone(), live: of.clone(), due: due.into_iter().min() });
            Ok::<_, Error>((LeaseSettled { settled, refused }, buried_in, woken))
        };
        let committed = move |(answer, ..): &mut (LeaseSettled, Option<Queue>, Option<super::Wake>)| charge.settle(answer.settled.operations);
        let (answer, buried_in, woken) = self.store.database(&live)?.write_then(job, committed).await?;
        drop(woken);
        wake(&self.store, buried_in);
        Ok(answer)
    }
}

/// What one pull looks for.
struct Look {
    wanted: usize,
    /// What it may cost.
    operations_max: u64,
    seconds: u32,
    secret: i64,
    after: i64,
}

/// What one look has found.
struct Seen {
    pulled: Pulled,
    /// How far ready messages were looked for.
    seen: i64,
    /// Whether there may be more.
    more: bool,
    /// What the message costs for which there were too few operations left; 0 if there were enough.
    lacking: u64,
    /// What was settled besides.
    done: Done,
}

impl Seen {
    fn operations(&self) -> u64 {
        self.pulled.operations.saturating_add(self.done.0.operations)
    }
}

impl Look {
    fn run(&self, mut work: Work<'_>, tx: &Transaction<'_>, moment: Moment) -> Result<Seen, Error> {
        let (local, queue) = (work.stored.local, work.stored.queue);
        let mut room = Room::new(self.wanted, BATCH_BYTES_MAX).costing(self.operations_max);
        let mut found = Vec::new();
        let mut due = messages::due(tx, local, (0, 0), moment.now, self.wanted, |_| false)?.into_iter();
        let all_seen = due.len() < self.wanted;
        let share = self.wanted.div_ceil(2);
        take_due(&mut work, tx, due.by_ref().take(share), moment, &mut room, &mut found)?;
        let (seen, more) = messages::ready(tx, (local, self.after), moment, &mut room, |_| false, &mut found)?;
        take_due(&mut work, tx, due, moment, &mut room, &mut found)?;
        found.sort_unstable_by_key(|found| found.id);
        let until = moment.now.saturating_add(i64::from(self.seconds) * 1_000);
        let mut messages = Vec::with_capacity(found.len());
        for found in found {
            messages::give(tx, found.id, until, self.secret)?;
            let lease = Lease { id: MessageId { queue, sequence: sequence(found.id) }, secret: self.secret };
            let attempts = found.attempts.saturating_add(1);
            messages.push((lease, found.message(queue, attempts)));
        }
        work.change.deliveries = i64::try_from(messages.len()).unwrap_or(i64::MAX);
        let backlog = work.stored.backlog;
        let operations = messages.iter().map(|(_, message)| message.operations()).sum();
        let done = work.finish()?;
        let pulled = Pulled { messages, operations, settled: Settled::default(), backlog };
        Ok(Seen { pulled, seen, more: more || !all_seen || room.lacking > 0, lacking: room.lacking, done })
    }
}

/// Takes messages that are due, but buries those that were pulled for the last time and never settled.
fn take_due(
    work: &mut Work<'_>,
    tx: &Transaction<'_>,
    places: impl Iterator<Item = (i64, i64)>,
    moment: Moment,
    room: &mut Room,
    found: &mut Vec<Found>,
) -> Result<(), Error> {
    let deliveries_max = work.stored.policy.max_retries.saturating_add(1);
    for (_, id) in places {
        match messages::lease(tx, id)? {
            Some((Some(_), attempts)) if attempts >= deliveries_max => {
                if !room.afford(work.cost_of_burial(id)?) {
                    break;
                }
                work.bury(id)?;
            }
            _ => match messages::one(tx, id, moment, room, found)? {
                One::Taken | One::Later(_) => {}
                // Removed here, because the next look would find it again.
                One::Gone => work.expire(id)?,
                One::NoRoom => break,
            },
        }
    }
    Ok(())
}

/// A number that nobody guesses.
fn secret() -> Result<i64, Error> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Database(database::Error::Closed))?;
    Ok(i64::from_be_bytes(bytes) & i64::MAX)
}
