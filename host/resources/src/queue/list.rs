//! Looking into a queue without taking anything out: messages page by page, and what is counted.

use std::collections::HashSet;

use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::{QUEUE_LIST_MESSAGES_MAX, QUEUE_PAGE_BYTES_MAX, QUEUE_PAGE_MESSAGES_MAX};
use tovuk_kernel::meters::Meter;

use super::error::shown;
use super::messages::{self, Room};
use super::rows::{self, Counters, id, sequence, unsigned};
use super::{Backlog, Error, Message, MessageId, Queue, Queues};

/// How many messages that clients hold are counted.
const LEASED_COUNTED_MAX: i64 = 100_000;

/// Which messages to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// How many messages the page may have, 1 to 1,000; 1,000 if not given.
    pub limit: Option<usize>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// How a message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// For its turn.
    Ready,
    /// For a time.
    Delayed,
    /// For the end of a delivery.
    InFlight,
}

impl State {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Delayed => "delayed",
            Self::InFlight => "in_flight",
        }
    }
}

/// One message of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The message. `attempts` are the deliveries so far.
    pub message: Message,
    /// When it can be delivered, if it waits for that.
    pub due_ms: Option<UnixMs>,
    /// How it waits.
    pub state: State,
}

/// A page of a list, in the order in which messages came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The messages.
    pub messages: Vec<Listed>,
    /// Whether another page follows.
    pub has_more: bool,
    /// Where it begins.
    pub next_cursor: Option<String>,
}

impl Page {
    /// What reading it costs, in metered operations.
    pub fn operations(&self) -> u64 {
        self.messages.iter().map(|listed| listed.message.operations()).sum()
    }
}

/// What is counted of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// What waits, what is being delivered included.
    pub backlog: Backlog,
    /// When the oldest of it came.
    pub oldest_ms: Option<UnixMs>,
    /// How long ago that is, in ms.
    pub oldest_age_ms: u64,
    /// Messages that are being delivered, or that clients hold. The latter are counted up to 100,000.
    pub in_flight: u64,
    /// Counts that only grow.
    pub counters: Counters,
}

impl Queues {
    /// One page of the messages of a queue. They stay where they are.
    ///
    /// # Errors
    /// When the limit or the cursor will not do, or there is no such queue.
    pub async fn list(&self, queue: Queue, list: List) -> Result<Page, Error> {
        let limit = list.limit.unwrap_or(QUEUE_PAGE_MESSAGES_MAX);
        if !(1..=QUEUE_PAGE_MESSAGES_MAX).contains(&limit) {
            return Err(Error::Limit);
        }
        let after = match &list.cursor {
            None => 0,
            Some(cursor) => {
                let id = cursor.parse::<MessageId>().ok().filter(|id| id.queue == queue);
                id.ok_or_else(|| Error::Cursor(shown(cursor)))?.sequence
            }
        };
        let live = self.store.live(queue)?;
        let local = live.local;
        let now = self.store.now();
        let expired = self.store.expired(&live, now);
        let work = self
            .store
            .database(&live)?
            .read(move |connection| messages::page(connection, (local, id(local, after)), expired, Room::new(limit, QUEUE_PAGE_BYTES_MAX)));
        let (found, has_more) = work.await?;
        let in_flight: HashSet<i64> = {
            let hand = live.hand();
            found.iter().map(|found| found.id).filter(|id| hand.is_in_flight(*id)).collect()
        };
        let last = found.last().map(|found| MessageId { queue, sequence: sequence(found.id) });
        let listed = found.into_iter().map(|found| {
            let due = found.due.filter(|due| *due > now);
            let state = match due {
                _ if in_flight.contains(&found.id) => State::InFlight,
                Some(_) if found.lease.is_some() => State::InFlight,
                Some(_) => State::Delayed,
                None => State::Ready,
            };
            let attempts = found.attempts;
            Listed { message: found.message(queue, attempts), due_ms: due.map(unsigned), state }
        });
        let page = Page { messages: listed.collect(), has_more, next_cursor: last.filter(|_| has_more).map(|id| id.to_string()) };
        // What it costs is known now, and nobody has seen it yet.
        self.bill.reserve(Meter::QueueOperations, page.operations()).await?.settle(page.operations());
        Ok(page)
    }

    /// The whole list in pages, for a door that was asked for no limit. It ends after 100,000 messages, or with the page after which it does.
    pub fn pages(&self, queue: Queue, cursor: Option<String>) -> Pages {
        Pages { queues: self.clone(), queue, list: Some(List { limit: None, cursor }), left: QUEUE_LIST_MESSAGES_MAX }
    }

    /// What is counted of a queue.
    ///
    /// # Errors
    /// When there is no such queue.
    pub async fn metrics(&self, queue: Queue) -> Result<Metrics, Error> {
        let live = self.store.live(queue)?;
        let (local, now) = (live.local, self.store.now());
        let delivered = u64::try_from(live.hand().in_flight()).unwrap_or(u64::MAX);
        let work = self.store.database(&live)?.read(move |connection| {
            let stored = rows::get(connection, local)?;
            let oldest = messages::head(connection, local)?;
            let leased = messages::leased(connection, local, now, LEASED_COUNTED_MAX)?;
            Ok::<_, Error>((stored, oldest, leased))
        });
        let (stored, oldest, leased) = work.await?;
        Ok(Metrics {
            backlog: stored.backlog,
            oldest_ms: oldest.map(unsigned),
            oldest_age_ms: oldest.map_or(0, |oldest| unsigned(now - oldest)),
            in_flight: delivered.saturating_add(leased),
            counters: stored.counters,
        })
    }
}

/// A list that is read page by page. The last page says by `has_more` and `next_cursor` whether the list went on.
pub struct Pages {
    queues: Queues,
    queue: Queue,
    /// What is asked for next.
    list: Option<List>,
    left: usize,
}

impl Pages {
    /// The next page; none after the last, or after an error.
    pub async fn next(&mut self) -> Option<Result<Page, Error>> {
        let mut list = self.list.take()?;
        list.limit = Some(self.left.min(QUEUE_PAGE_MESSAGES_MAX));
        let page = match self.queues.list(self.queue, list.clone()).await {
            Ok(page) => page,
            Err(error) => return Some(Err(error)),
        };
        self.left = self.left.saturating_sub(page.messages.len());
        if page.has_more && self.left > 0 {
            list.cursor.clone_from(&page.next_cursor);
            self.list = Some(list);
        }
        Some(Ok(page))
    }
}
