//! The statements on messages, on one connection of one file: sending, finding what can be delivered, settling, removing.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tovuk_kernel::limits::{QUEUE_DELAY_SECONDS_MAX, QUEUE_VISIBILITY_SECONDS_MAX};

use super::rows::{id, last_id, sequence, signed, unsigned};
use super::types::operations;
use super::{Encoding, Error, Message, MessageId, Queue, Send};
use crate::database::rusqlite;

/// Messages that one look for ready ones passes by, those that wait for a time, before it leaves the rest to the next.
const PASSED_MAX: i64 = 10_000;
/// The columns of [`Found::read`], in their order.
const COLUMNS: &str = "id, sent, due, attempts, lease, encoding, body";

/// A message's row.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub id: i64,
    pub sent: i64,
    pub due: Option<i64>,
    pub attempts: u32,
    pub lease: Option<i64>,
    pub encoding: Encoding,
    pub body: Bytes,
}

impl Found {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            sent: row.get(1)?,
            due: row.get(2)?,
            attempts: row.get(3)?,
            lease: row.get(4)?,
            encoding: Encoding::stored(row.get(5)?),
            body: row.get_ref(6)?.as_blob()?.to_vec().into(),
        })
    }

    /// As consumers see it, at this delivery.
    pub fn message(self, queue: Queue, attempts: u32) -> Message {
        Message {
            id: MessageId { queue, sequence: sequence(self.id) },
            sent_ms: unsigned(self.sent),
            attempts,
            encoding: self.encoding,
            body: self.body,
        }
    }
}

/// How much is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub messages: usize,
    pub bytes: usize,
    /// What it may cost, in metered operations.
    pub operations: u64,
    /// What the first message would have cost for which there were too few of them.
    pub lacking: u64,
    empty: bool,
}

impl Room {
    pub fn new(messages: usize, bytes: usize) -> Self {
        Self { messages, bytes, operations: u64::MAX, lacking: 0, empty: true }
    }

    /// The same, where it may cost so much.
    pub fn costing(self, operations: u64) -> Self {
        Self { operations, ..self }
    }

    /// Takes in a body, if there is room. There is always room for the first.
    fn admit(&mut self, bytes: usize) -> bool {
        let admitted = self.messages > 0 && (self.empty || bytes <= self.bytes) && self.afford(cost(bytes));
        if admitted {
            *self = Self { messages: self.messages - 1, bytes: self.bytes.saturating_sub(bytes), empty: false, ..*self };
        }
        admitted
    }

    /// Takes off what something costs, if there is as much.
    pub fn afford(&mut self, operations: u64) -> bool {
        match self.operations.checked_sub(operations) {
            Some(left) => self.operations = left,
            None => self.lacking = operations,
        }
        self.lacking == 0
    }
}

/// When something is looked for, and what is too old to be found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub now: i64,
    /// What was sent then or before has expired.
    pub expired: i64,
}

fn body_length(row: &Row<'_>) -> rusqlite::Result<usize> {
    Ok(row.get_ref(6)?.as_blob()?.len())
}

/// Writes messages whose numbers begin with `first`. Returns the least time at which one that has to wait is due.
pub(super) fn append(tx: &Transaction<'_>, local: i64, first: i64, sends: &[Send], delay: u32, now: i64) -> Result<Option<(i64, i64)>, Error> {
    let mut insert = tx.prepare_cached("INSERT INTO messages (id, queue, sent, due, encoding, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let mut least = None;
    for (id, send) in (id(local, first)..).zip(sends) {
        let delay = i64::from(send.delay_seconds.unwrap_or(delay)) * 1_000;
        let due = (delay > 0).then(|| now.saturating_add(delay));
        insert.execute(params![id, local, now, due, send.encoding.number(), &*send.body])?;
        least = [least, due.map(|due| (due, id))].into_iter().flatten().min();
    }
    Ok(least)
}

/// Ready messages after an id, in their order. Appends them, and returns how far it has looked and whether there may be more.
pub(super) fn ready(
    connection: &Connection,
    (local, after): (i64, i64),
    moment: Moment,
    room: &mut Room,
    is_held: impl Fn(i64) -> bool,
    found: &mut Vec<Found>,
) -> Result<(i64, bool), Error> {
    let bounds = "SELECT (SELECT id FROM messages WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT 1),
        (SELECT id FROM messages WHERE id > ?1 AND id <= ?2 ORDER BY id DESC LIMIT 1)";
    let ends = |row: &Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?));
    let bounds = connection.prepare_cached(bounds)?.query_row([after.max(id(local, 0)), last_id(local)], ends)?;
    let (Some(first), Some(last)) = bounds else { return Ok((after, false)) };
    // Not beyond the last that is there: what comes later must not be passed by.
    let end = first.saturating_add(PASSED_MAX).min(last);
    let sql = format!("SELECT {COLUMNS} FROM messages WHERE id >= ?1 AND id <= ?2 AND due IS NULL AND sent > ?3 ORDER BY id");
    let mut select = connection.prepare_cached(&sql)?;
    let mut rows = select.query([first, end, moment.expired])?;
    let mut seen = after;
    while room.messages > 0 {
        let Some(row) = rows.next()? else { return Ok((end, end < last)) };
        let id = row.get(0)?;
        if !is_held(id) {
            if !room.admit(body_length(row)?) {
                return Ok((seen, true));
            }
            found.push(Found::read(row)?);
        }
        seen = id;
    }
    Ok((seen, true))
}

/// Which messages are due, after a place in the order of their times: times and ids.
pub(super) fn due(
    connection: &Connection,
    local: i64,
    after: (i64, i64),
    until: i64,
    count: usize,
    is_held: impl Fn(i64) -> bool,
) -> Result<Vec<(i64, i64)>, Error> {
    // The index alone answers this, so passing by those that are being delivered reads none of them.
    let sql = "SELECT due, id FROM messages WHERE queue = ?1 AND due >= ?2 AND due <= ?3 ORDER BY due, id";
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query(params![local, after.0, until])?;
    let mut found = Vec::new();
    while found.len() < count {
        let Some(row) = rows.next()? else { break };
        let place = (row.get(0)?, row.get(1)?);
        if place > after && !is_held(place.1) {
            found.push(place);
        }
    }
    Ok(found)
}

/// What has come of looking for one message.
pub(super) enum One {
    /// It is in the list.
    Taken,
    /// It has expired, or is not there.
    Gone,
    /// It is due only then.
    Later(i64),
    /// There is no more room.
    NoRoom,
}

/// Reads one message, if it can be delivered.
pub(super) fn one(connection: &Connection, id: i64, moment: Moment, room: &mut Room, found: &mut Vec<Found>) -> Result<One, Error> {
    let mut select = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM messages WHERE id = ?1"))?;
    let mut rows = select.query([id])?;
    let Some(row) = rows.next()? else { return Ok(One::Gone) };
    let (sent, due): (i64, Option<i64>) = (row.get(1)?, row.get(2)?);
    match due {
        _ if sent <= moment.expired => Ok(One::Gone),
        Some(due) if due > moment.now => Ok(One::Later(due)),
        _ if !room.admit(body_length(row)?) => Ok(One::NoRoom),
        _ => {
            found.push(Found::read(row)?);
            Ok(One::Taken)
        }
    }
}

/// Messages of a page of a list, after an id, and whether there are more.
pub(super) fn page(connection: &Connection, (local, after): (i64, i64), expired: i64, mut room: Room) -> Result<(Vec<Found>, bool), Error> {
    let mut select = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM messages WHERE id > ?1 AND id <= ?2 AND sent > ?3 ORDER BY id"))?;
    let mut rows = select.query([after.max(id(local, 0)), last_id(local), expired])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if !room.admit(body_length(row)?) {
            return Ok((found, true));
        }
        found.push(Found::read(row)?);
    }
    Ok((found, false))
}

/// When the oldest message came.
pub(super) fn head(connection: &Connection, local: i64) -> Result<Option<i64>, Error> {
    let mut select = connection.prepare_cached("SELECT sent FROM messages WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT 1")?;
    Ok(select.query_row([id(local, 0), last_id(local)], |row| row.get(0)).optional()?)
}

/// Nothing waits longer than it can, after a clock that was ahead has come back.
pub(super) fn set_back(tx: &Transaction<'_>, local: i64, now: i64) -> Result<(), Error> {
    let longest = i64::from(QUEUE_DELAY_SECONDS_MAX.max(QUEUE_VISIBILITY_SECONDS_MAX)) * 1_000;
    tx.prepare_cached("UPDATE messages SET due = ?2 WHERE queue = ?1 AND due > ?2")?.execute([local, now.saturating_add(longest)])?;
    Ok(())
}

/// How many messages clients have pulled and not settled, counted up to a bound.
pub(super) fn leased(connection: &Connection, local: i64, now: i64, most: i64) -> Result<u64, Error> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM messages INDEXED BY messages_lease WHERE queue = ?1 AND due > ?2 AND lease IS NOT NULL LIMIT ?3)";
    Ok(connection.prepare_cached(sql)?.query_row([local, now, most], |row| row.get(0)).map(unsigned)?)
}

/// The lease of a message, and how often it was delivered.
pub(super) fn lease(connection: &Connection, id: i64) -> Result<Option<(Option<i64>, u32)>, Error> {
    let mut select = connection.prepare_cached("SELECT lease, attempts FROM messages WHERE id = ?1")?;
    Ok(select.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// What moving a message to the dead letters costs, in metered operations: its removal, and its place there if there is one.
pub(super) fn cost_of_burial(connection: &Connection, id: i64, is_moved: bool) -> Result<u64, Error> {
    let mut select = connection.prepare_cached("SELECT length(body) FROM messages WHERE id = ?1")?;
    let bytes: Option<i64> = select.query_row([id], |row| row.get(0)).optional()?;
    let once = bytes.map_or(0, |bytes| cost(usize::try_from(bytes).unwrap_or_default()));
    Ok(if is_moved { once.saturating_mul(2) } else { once })
}

/// Gives a message to a client until a point in time.
pub(super) fn give(tx: &Transaction<'_>, id: i64, until: i64, lease: i64) -> Result<(), Error> {
    tx.prepare_cached("UPDATE messages SET attempts = attempts + 1, due = ?2, lease = ?3 WHERE id = ?1")?.execute([id, until, lease])?;
    Ok(())
}

/// Removes a message. Returns the length of its body; none if it was not there.
pub(super) fn delete(tx: &Transaction<'_>, id: i64) -> Result<Option<i64>, Error> {
    let mut delete = tx.prepare_cached("DELETE FROM messages WHERE id = ?1 RETURNING length(body)")?;
    Ok(delete.query_row([id], |row| row.get(0)).optional()?)
}

/// Puts a message back to be delivered again, if it has been delivered less than so many times. `counted` deliveries are added before.
pub(super) fn retry(tx: &Transaction<'_>, id: i64, due: i64, counted: u32, deliveries_max: u32) -> Result<bool, Error> {
    let sql = "UPDATE messages SET attempts = attempts + ?3, due = ?2, lease = NULL WHERE id = ?1 AND attempts + ?3 < ?4";
    Ok(tx.prepare_cached(sql)?.execute(params![id, due, counted, deliveries_max])? > 0)
}

/// Takes a message out to move it elsewhere.
pub(super) fn remove(tx: &Transaction<'_>, id: i64) -> Result<Option<(Encoding, Vec<u8>)>, Error> {
    let mut delete = tx.prepare_cached("DELETE FROM messages WHERE id = ?1 RETURNING encoding, body")?;
    Ok(delete.query_row([id], |row| Ok((Encoding::stored(row.get(0)?), row.get(1)?))).optional()?)
}

/// Puts a message that has failed elsewhere at the end of another queue. Returns its number there. There is always room for it: what was
/// acknowledged is not lost because of a full queue.
pub(super) fn bury(tx: &Transaction<'_>, local: i64, encoding: Encoding, body: &[u8], now: i64) -> Result<Option<i64>, Error> {
    let mut update = tx.prepare_cached(
        "UPDATE queues SET next = next + 1, messages = messages + 1, bytes = bytes + ?2 WHERE local = ?1 AND dropped = 0 RETURNING next - 1",
    )?;
    let length = signed(u64::try_from(body.len()).unwrap_or(u64::MAX));
    let Some(sequence) = update.query_row([local, length], |row| row.get(0)).optional()? else { return Ok(None) };
    tx.prepare_cached("INSERT INTO messages (id, queue, sent, encoding, body) VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        id(local, sequence),
        local,
        now,
        encoding.number(),
        body
    ])?;
    Ok(Some(sequence))
}

/// Removes the oldest messages of a queue that came at that time or before, in one step of bounded size. Returns how many, their bytes, and whether there may
/// be more.
pub(super) fn sweep(tx: &Transaction<'_>, local: i64, expired: i64, messages_max: usize, bytes_max: i64) -> Result<(i64, i64, bool), Error> {
    let (mut last, mut messages, mut bytes, mut more) = (None, 0, 0, false);
    {
        let mut select = tx.prepare_cached("SELECT id, sent, length(body) FROM messages WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3")?;
        let mut rows = select.query([id(local, 0), last_id(local), i64::try_from(messages_max).unwrap_or(i64::MAX)])?;
        while let Some(row) = rows.next()? {
            // What comes later was sent later.
            if row.get::<_, i64>(1)? > expired {
                more = false;
                break;
            }
            (last, messages, bytes, more) = (Some(row.get::<_, i64>(0)?), messages + 1, bytes + row.get::<_, i64>(2)?, true);
            if bytes >= bytes_max {
                break;
            }
        }
    }
    if let Some(last) = last {
        tx.prepare_cached("DELETE FROM messages WHERE id > ?1 AND id <= ?2")?.execute([id(local, 0), last])?;
    }
    Ok((messages, bytes, more))
}

/// What moving a message costs, in metered operations.
pub(super) fn cost(bytes: usize) -> u64 {
    operations(bytes)
}
