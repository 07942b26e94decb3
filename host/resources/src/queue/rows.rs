//! The statements on queues themselves, on one connection of one file: settings, counters, dropping. Messages are in `messages.rs`. Limits have been
//! checked before, but for those that depend on what is in the rows.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tovuk_kernel::limits::{QUEUE_BACKLOG_BYTES_MAX, QUEUE_METADATA_BYTES};

use super::types::Backlog;
use super::{Consumer, Error, Policy, PolicyChange, Queue, Service};
use crate::database::rusqlite;

/// The tables of a file.
pub(super) const MIGRATIONS: &[&str] = &[include_str!("schema.sql"), include_str!("leases.sql")];
/// Bits of a message's id that count up within its queue: at the greatest rate that a queue takes, they last for 27 years.
const SEQUENCE_BITS: u32 = 42;
/// The columns of [`read`], in their order.
const COLUMNS: &str =
    "local, number, service, dropped, batch_messages, batch_wait, retries_max, retention, visibility, delay, concurrency, dead_letter, pull,
    messages, bytes, deliveries, retries, dead_letters, discarded, expired";

/// The id of a message of a queue.
pub(super) fn id(local: i64, sequence: i64) -> i64 {
    (local << SEQUENCE_BITS) | sequence
}

/// Which message of its queue has that id.
pub(super) fn sequence(id: i64) -> i64 {
    id & ((1 << SEQUENCE_BITS) - 1)
}

/// The greatest id that a message of a queue can have.
pub(super) fn last_id(local: i64) -> i64 {
    id(local, (1 << SEQUENCE_BITS) - 1)
}

/// Counts that only grow, since the queue was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that consumers were given and answered for, those that were pulled as soon as they were given.
    pub deliveries: u64,
    /// Messages that were put back to be delivered again.
    pub retries: u64,
    /// Messages that failed for the last time, in a dead-letter queue or gone.
    pub dead_letters: u64,
    /// How many of those are gone because there was no dead-letter queue.
    pub discarded: u64,
    /// Messages that were kept for as long as they could be.
    pub expired: u64,
}

/// A queue's row.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub local: i64,
    pub queue: Queue,
    pub service: Service,
    pub dropped: bool,
    pub policy: Policy,
    pub backlog: Backlog,
    pub counters: Counters,
}

/// How what is counted changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    pub messages: i64,
    pub bytes: i64,
    pub deliveries: i64,
    pub retries: i64,
    pub dead_letters: i64,
    pub discarded: i64,
    pub expired: i64,
}

impl Change {
    /// One message less, with a body of that length.
    pub fn remove(&mut self, bytes: i64) {
        self.messages -= 1;
        self.bytes -= bytes;
    }
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let policy = Policy {
        max_batch_size: row.get(4)?,
        max_batch_timeout_seconds: row.get(5)?,
        max_retries: row.get(6)?,
        retention_seconds: row.get(7)?,
        visibility_timeout_seconds: row.get(8)?,
        delivery_delay_seconds: row.get(9)?,
        max_concurrency: row.get(10)?,
        dead_letter_queue: row.get::<_, Option<i64>>(11)?.map(Queue),
        consumer: if row.get(12)? { Consumer::Pull } else { Consumer::Worker },
    };
    let number = |at| row.get(at).map(unsigned);
    let counters =
        Counters { deliveries: number(15)?, retries: number(16)?, dead_letters: number(17)?, discarded: number(18)?, expired: number(19)? };
    Ok(Stored {
        local: row.get(0)?,
        queue: Queue(row.get(1)?),
        service: Service(row.get(2)?),
        dropped: row.get(3)?,
        policy,
        backlog: Backlog { messages: number(13)?, bytes: number(14)? },
        counters,
    })
}

/// All queues of a file that are not dropped.
pub(super) fn all(connection: &Connection) -> Result<Vec<Stored>, Error> {
    let mut select = connection.prepare(&format!("SELECT {COLUMNS} FROM queues WHERE dropped = 0"))?;
    Ok(select.query_map([], read)?.collect::<Result<_, _>>()?)
}

/// The highest number of a queue in this file, dropped ones included.
pub(super) fn highest(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.query_row("SELECT coalesce(max(number), 0) FROM queues", [], |row| row.get(0))?)
}

/// What all queues of this file have together, and when the oldest message of them came.
pub(super) fn total(connection: &Connection) -> Result<(Backlog, Option<i64>), Error> {
    let sum = |column: &str| -> Result<u64, Error> {
        let sum: i64 = connection.query_row(&format!("SELECT coalesce(sum({column}), 0) FROM queues WHERE NOT dropped"), [], |row| row.get(0))?;
        Ok(u64::try_from(sum).unwrap_or_default())
    };
    // The first of each queue that has any, by the messages' own key.
    let oldest = connection.query_row(
        "SELECT min((SELECT sent FROM messages WHERE id > (local << ?1) AND id < ((local + 1) << ?1) ORDER BY id LIMIT 1)) \
         FROM queues WHERE NOT dropped AND messages > 0",
        [SEQUENCE_BITS],
        |row| row.get(0),
    )?;
    Ok((Backlog { messages: sum("messages")?, bytes: sum("bytes")? }, oldest))
}

/// The highest number of a service that has ever had a queue in this file.
pub(super) fn highest_service(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.query_row("SELECT coalesce(max(service), 0) FROM queues", [], |row| row.get(0))?)
}

/// The row of a queue. Fails when it was dropped.
pub(super) fn get(connection: &Connection, local: i64) -> Result<Stored, Error> {
    let mut select = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM queues WHERE local = ?1"))?;
    select.query_row([local], read).optional()?.filter(|stored| !stored.dropped).ok_or(Error::Dropped)
}

/// The same by the number that everybody knows; none if there has never been such a queue in this file.
pub(super) fn find(connection: &Connection, queue: Queue) -> Result<Option<Stored>, Error> {
    let mut select = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM queues WHERE number = ?1"))?;
    match select.query_row([queue.0], read).optional()? {
        Some(stored) if stored.dropped => Err(Error::Dropped),
        found => Ok(found),
    }
}

/// Makes a queue with these settings, or changes those of the one that is there.
pub(super) fn put(tx: &Transaction<'_>, service: Service, queue: Queue, change: &PolicyChange) -> Result<Stored, Error> {
    let found = find(tx, queue)?;
    if found.as_ref().is_some_and(|stored| stored.service != service) {
        return Err(Error::Dropped);
    }
    let policy = change.apply(&found.map(|stored| stored.policy).unwrap_or_default())?;
    if let Some(target) = policy.dead_letter_queue {
        check_dead_letter(tx, service, queue, target)?;
    }
    tx.prepare_cached(
        "INSERT INTO queues (number, service, batch_messages, batch_wait, retries_max, retention, visibility, delay, concurrency, dead_letter, pull)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (number) DO UPDATE SET batch_messages = ?3, batch_wait = ?4, retries_max = ?5, retention = ?6, visibility = ?7, delay = ?8,
             concurrency = ?9, dead_letter = ?10, pull = ?11",
    )?
    .execute(params![
        queue.0,
        service.0,
        policy.max_batch_size,
        policy.max_batch_timeout_seconds,
        policy.max_retries,
        policy.retention_seconds,
        policy.visibility_timeout_seconds,
        policy.delivery_delay_seconds,
        policy.max_concurrency,
        policy.dead_letter_queue.map(|queue| queue.0),
        policy.consumer == Consumer::Pull,
    ])?;
    find(tx, queue)?.ok_or(Error::Dropped)
}

/// Refuses a dead-letter queue that is not there, or from which dead letters would come back: as each move begins the time anew that a message is kept,
/// such a message would never end.
fn check_dead_letter(tx: &Transaction<'_>, service: Service, queue: Queue, target: Queue) -> Result<(), Error> {
    let mut next = Some(target);
    while let Some(at) = next {
        if at == queue {
            return Err(if target == queue { Error::DeadLetter } else { Error::DeadLetterCycle });
        }
        let found = match find(tx, at) {
            Err(Error::Dropped) => None,
            found => found?,
        };
        let stored = found.filter(|stored| stored.service == service).ok_or(Error::DeadLetter)?;
        next = stored.policy.dead_letter_queue;
    }
    Ok(())
}

/// Counts a change. A dropped queue counts nothing any more.
pub(super) fn count(tx: &Transaction<'_>, local: i64, change: &Change) -> Result<(), Error> {
    tx.prepare_cached(
        "UPDATE queues SET messages = messages + ?2, bytes = bytes + ?3, deliveries = deliveries + ?4, retries = retries + ?5,
             dead_letters = dead_letters + ?6, discarded = discarded + ?7, expired = expired + ?8 WHERE local = ?1 AND dropped = 0",
    )?
    .execute(params![
        local,
        change.messages,
        change.bytes,
        change.deliveries,
        change.retries,
        change.dead_letters,
        change.discarded,
        change.expired
    ])?;
    Ok(())
}

/// Takes the next numbers of a queue for messages that are sent, and counts them. Returns the first, and what waits then.
pub(super) fn reserve(tx: &Transaction<'_>, local: i64, messages: usize, bytes: u64) -> Result<(i64, Backlog), Error> {
    let messages = i64::try_from(messages).unwrap_or(i64::MAX);
    let mut update = tx.prepare_cached(
        "UPDATE queues SET next = next + ?2, messages = messages + ?2, bytes = bytes + ?3
         WHERE local = ?1 AND dropped = 0 AND bytes + ?3 + (messages + ?2) * ?5 <= ?4 RETURNING next - ?2, messages, bytes",
    )?;
    let row = |row: &Row<'_>| Ok((row.get(0)?, Backlog { messages: unsigned(row.get(1)?), bytes: unsigned(row.get(2)?) }));
    let limits = params![local, messages, signed(bytes), signed(QUEUE_BACKLOG_BYTES_MAX), signed(QUEUE_METADATA_BYTES)];
    match update.query_row(limits, row).optional()? {
        Some(reserved) => Ok(reserved),
        None => {
            let Backlog { messages, bytes } = get(tx, local)?.backlog;
            Err(Error::Full { bytes: bytes.saturating_add(messages.saturating_mul(QUEUE_METADATA_BYTES)) })
        }
    }
}

/// Marks a queue as dropped, and says what waited in it. Its messages are removed later, and no queue sends dead letters to it any more.
pub(super) fn drop_queue(tx: &Transaction<'_>, service: Service, queue: Queue) -> Result<Backlog, Error> {
    let stored = match find(tx, queue) {
        // It was asked for before; there is nothing left to say.
        Err(Error::Dropped) => return Ok(Backlog::default()),
        // One that was never made stays as a mark, so that whoever makes it late is refused.
        Ok(None) => put(tx, service, queue, &PolicyChange::default())?,
        Ok(Some(stored)) => stored,
        Err(error) => return Err(error),
    };
    tx.execute("UPDATE queues SET dropped = 1, messages = 0, bytes = 0, dead_letter = NULL WHERE local = ?1", [stored.local])?;
    tx.execute("UPDATE queues SET dead_letter = NULL WHERE dead_letter = ?1", [queue.0])?;
    tx.execute("INSERT INTO dropping (local) VALUES (?1)", [stored.local])?;
    Ok(stored.backlog)
}

/// One of the dropped queues whose messages are still there.
pub(super) fn dropping(connection: &Connection) -> Result<Option<i64>, Error> {
    Ok(connection.prepare_cached("SELECT min(local) FROM dropping")?.query_row([], |row| row.get(0))?)
}

/// Takes a dropped queue off the list.
pub(super) fn forget(tx: &Transaction<'_>, local: i64) -> Result<(), Error> {
    tx.prepare_cached("DELETE FROM dropping WHERE local = ?1")?.execute([local])?;
    Ok(())
}
