//! How a delivery ended: messages are deleted, put back, or moved to the dead-letter queue, all of a batch in one transaction and by the settings of that
//! moment.

use std::collections::HashMap;

use rusqlite::Transaction;
use tovuk_kernel::limits::QUEUE_DELAY_SECONDS_MAX;

use super::messages;
use super::rows::{self, Change, Stored, sequence, signed};
use super::take::Batch;
use super::types::{Retry, Settled};
use super::{Error, MessageId, Queue, Store, Wake};
use crate::database::{self, rusqlite};

/// What becomes of messages that a verdict does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They are done.
    Ack,
    /// They are delivered again, after a delay in seconds.
    Retry(u32),
    /// Nothing has happened to them: they are delivered again at once, and this delivery has not counted.
    Release,
}

/// What a consumer says of a batch. Delays beyond 24 hours are taken for 24 hours, because a delivery has to end somehow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Messages that are done.
    pub ack: Vec<MessageId>,
    /// Messages that are to be delivered again. One that is named in both lists is.
    pub retry: Vec<Retry<MessageId>>,
    /// The others. What is named and not in the batch is ignored.
    pub rest: Rest,
}

impl Verdict {
    /// The same for all.
    pub fn all(rest: Rest) -> Self {
        Self { ack: Vec::new(), retry: Vec::new(), rest }
    }
}

/// What is to become of one message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Ack,
    /// Put it back with this delay in s, unless it has failed for the last time.
    Retry(u32),
}

impl Batch {
    /// Settles the batch, and says what has become of its messages. What the caller does meanwhile does not stop it. When it fails, the messages are taken
    /// again.
    ///
    /// # Errors
    /// When the store fails. A queue that was dropped meanwhile is no error: its messages are gone.
    pub async fn settle(self, verdict: Verdict) -> Result<Settled, Error> {
        // A task of its own, so that what is in memory follows what is on disk also when the caller has gone.
        tokio::spawn(self.settled(verdict)).await.unwrap_or(Err(Error::Database(database::Error::Closed)))
    }

    async fn settled(mut self, verdict: Verdict) -> Result<Settled, Error> {
        let fates = fates(&self, &verdict);
        let (store, live) = (self.store.clone(), self.live.clone());
        let queue = live.queue;
        let job = {
            let (store, fates, local) = (store.clone(), fates.clone(), live.local);
            move |tx: &Transaction<'_>| {
                let deliveries = i64::try_from(fates.len()).unwrap_or(i64::MAX);
                let mut work = match Work::begin(&store, tx, local) {
                    Err(Error::Dropped) => {
                        let gone = fates.iter().map(|(id, _)| MessageId { queue, sequence: sequence(*id) }).collect();
                        return Ok((Settled { gone, ..Settled::default() }, Vec::new(), None));
                    }
                    work => work?,
                };
                work.change.deliveries = deliveries;
                fates.iter().try_for_each(|(id, fate)| work.apply(*id, *fate, 1))?;
                work.finish()
            }
        };
        let (settled, due, buried_in) = store.database(&live)?.write(job).await?;
        live.settled(fates.iter().map(|(id, _)| *id));
        let done: HashMap<_, _> = fates.into_iter().collect();
        self.keep(|message| !done.contains_key(&rows::id(live.local, message.id.sequence)));
        due.iter().for_each(|place| live.lower(*place));
        if !due.is_empty() {
            store.activate(&live);
        }
        wake(&store, buried_in);
        Ok(settled)
    }
}

/// Tells whoever consumes a queue that dead letters have come.
pub(super) fn wake(store: &std::sync::Arc<Store>, queue: Option<Queue>) {
    if let Some(live) = queue.and_then(|queue| store.live(queue).ok()) {
        drop(Wake { store: store.clone(), live, due: None });
    }
}

/// What is to become of each message of a batch; those that are released are not named.
fn fates(batch: &Batch, verdict: &Verdict) -> Vec<(i64, Fate)> {
    let mut named: HashMap<MessageId, Fate> = verdict.ack.iter().map(|id| (*id, Fate::Ack)).collect();
    named.extend(verdict.retry.iter().map(|retry| (retry.what, Fate::Retry(retry.delay_seconds.unwrap_or(0)))));
    let rest = match verdict.rest {
        Rest::Ack => Some(Fate::Ack),
        Rest::Retry(delay) => Some(Fate::Retry(delay)),
        Rest::Release => None,
    };
    let ids = batch.ids().zip(batch.messages());
    ids.filter_map(|(id, message)| Some((id, named.get(&message.id).copied().or(rest)?))).collect()
}

/// One transaction that settles messages of one queue.
pub(super) struct Work<'a> {
    tx: &'a Transaction<'a>,
    pub stored: Stored,
    /// Where dead letters go.
    buried_in: Option<Stored>,
    pub change: Change,
    pub settled: Settled,
    due: Vec<(i64, i64)>,
    pub now: i64,
}

/// What was settled, the times for which messages now wait, and the queue that has dead letters now.
pub(super) type Done = (Settled, Vec<(i64, i64)>, Option<Queue>);

impl<'a> Work<'a> {
    /// Fails when the queue was dropped.
    pub fn begin(store: &Store, tx: &'a Transaction<'a>, local: i64) -> Result<Self, Error> {
        let stored = rows::get(tx, local)?;
        // Dropping a queue takes it out of the settings of the others, so it is there.
        let buried_in = stored.policy.dead_letter_queue.map(|queue| rows::find(tx, queue)).transpose()?.flatten();
        Ok(Self { tx, stored, buried_in, change: Change::default(), settled: Settled::default(), due: Vec::new(), now: store.now() })
    }

    /// What burying a message costs, in metered operations.
    pub fn cost_of_burial(&self, id: i64) -> Result<u64, Error> {
        messages::cost_of_burial(self.tx, id, self.buried_in.is_some())
    }

    fn named(&self, id: i64) -> MessageId {
        MessageId { queue: self.stored.queue, sequence: sequence(id) }
    }

    /// Settles one message. `counted` deliveries have not been written to its row yet.
    pub fn apply(&mut self, id: i64, fate: Fate, counted: u32) -> Result<(), Error> {
        match fate {
            Fate::Ack => match messages::delete(self.tx, id)? {
                Some(bytes) => {
                    self.change.remove(bytes);
                    self.settled.acked += 1;
                    self.settled.operations += messages::cost(usize::try_from(bytes).unwrap_or_default());
                }
                None => self.settled.gone.push(self.named(id)),
            },
            Fate::Retry(delay) => {
                let due = self.now.saturating_add(i64::from(delay.min(QUEUE_DELAY_SECONDS_MAX)) * 1_000);
                if messages::retry(self.tx, id, due, counted, self.stored.policy.max_retries.saturating_add(1))? {
                    self.change.retries += 1;
                    self.settled.retried += 1;
                    self.due.push((due, id));
                } else {
                    self.bury(id)?;
                }
            }
        }
        Ok(())
    }

    /// A message was kept for as long as it could be.
    pub fn expire(&mut self, id: i64) -> Result<(), Error> {
        if let Some(bytes) = messages::delete(self.tx, id)? {
            self.change.remove(bytes);
            self.change.expired += 1;
        }
        Ok(())
    }

    /// A message has failed for the last time, or is not there.
    pub fn bury(&mut self, id: i64) -> Result<(), Error> {
        let Some((encoding, body)) = messages::remove(self.tx, id)? else {
            self.settled.gone.push(self.named(id));
            return Ok(());
        };
        self.change.remove(signed(u64::try_from(body.len()).unwrap_or(u64::MAX)));
        self.change.dead_letters += 1;
        self.settled.operations += messages::cost(body.len());
        let buried = match &self.buried_in {
            Some(stored) => messages::bury(self.tx, stored.local, encoding, &body, self.now)?.map(|sequence| (stored.queue, sequence)),
            None => None,
        };
        match buried {
            Some((queue, sequence)) => {
                self.settled.operations += messages::cost(body.len());
                self.settled.dead_lettered.push((self.named(id), MessageId { queue, sequence }));
            }
            None => {
                self.change.discarded += 1;
                self.settled.discarded.push(self.named(id));
            }
        }
        Ok(())
    }

    /// Counts what was done.
    pub fn finish(self) -> Result<Done, Error> {
        rows::count(self.tx, self.stored.local, &self.change)?;
        let buried_in = self.buried_in.map(|stored| stored.queue).filter(|_| !self.settled.dead_lettered.is_empty());
        Ok((self.settled, self.due, buried_in))
    }
}
