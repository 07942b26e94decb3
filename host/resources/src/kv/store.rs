//! The statements of KV, on one connection of one shard: rows in, rows out. Limits have been checked before; what is committed together, and
//! when callers are answered, is the business of the database.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tovuk_kernel::clock::UnixMs;

use super::types::{Checked, is_live};
use super::{Entry, Error, Listed, Namespace, Usage};
use crate::database::rusqlite;
use crate::memory::Memory;

/// The tables of a shard.
pub(super) const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];
/// A longer value has a row of its own. With values of 256 bytes that costs a put no more pages than keeping them here, `tests/measured.rs` says what.
const SHORT_BYTES_MAX: usize = 64;
/// Entries that a page of a list looks at besides those that it has, before it leaves the rest to the next. Bounds what expired ones cost.
const EXPIRED_SEEN_MAX: usize = 20_000;

/// How usage changes.
#[derive(Clone, Copy, Default)]
pub(super) struct Change {
    pub keys: i64,
    pub bytes: i64,
}

impl Change {
    pub fn add(&mut self, other: Self) {
        self.keys += other.keys;
        self.bytes += other.bytes;
    }
}

/// What has to be known of an entry before it is replaced or removed.
struct Old {
    size: i64,
    expiration: Option<i64>,
    long: Option<i64>,
}

impl Old {
    /// From columns in the order of their names above.
    fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
        Ok(Self { size: row.get(first)?, expiration: row.get(first + 1)?, long: row.get(first + 2)? })
    }
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn expiration(stored: Option<i64>) -> Option<u64> {
    stored.map(unsigned)
}

/// Writes one entry.
pub(super) fn put(tx: &Transaction<'_>, namespace: Namespace, put: &Checked) -> Result<Change, Error> {
    let key = put.key.as_bytes();
    let size = signed(put.bytes());
    let is_long = put.value.len() > SHORT_BYTES_MAX;
    let old = {
        let mut select = tx.prepare_cached("SELECT size, expiration, long, metadata IS ?3 FROM entries WHERE namespace = ?1 AND key = ?2")?;
        let row = |row: &Row<'_>| Ok((Old::read(row, 0)?, row.get::<_, bool>(3)?));
        select.query_row(params![namespace.0, key, put.metadata], row).optional()?
    };
    let long = match (old.as_ref().and_then(|(old, _)| old.long), is_long) {
        (Some(id), true) => {
            tx.prepare_cached("UPDATE long_values SET value = ?2 WHERE id = ?1")?.execute(params![id, &*put.value])?;
            Some(id)
        }
        (Some(id), false) => {
            delete_long(tx, id)?;
            None
        }
        (None, true) => {
            tx.prepare_cached("INSERT INTO long_values (value) VALUES (?1)")?.execute([&*put.value])?;
            Some(tx.last_insert_rowid())
        }
        (None, false) => None,
    };
    let short = (!is_long).then_some(&*put.value);
    match &old {
        // A new value of the same length, in a row of its own: this page need not be written.
        Some((old, same_metadata)) if *same_metadata && old.size == size && old.expiration == put.expiration && is_long && old.long == long => {}
        Some(_) => {
            tx.prepare_cached(
                "UPDATE entries SET size = ?3, expiration = ?4, metadata = ?5, long = ?6, value = ?7 WHERE namespace = ?1 AND key = ?2",
            )?
            .execute(params![namespace.0, key, size, put.expiration, put.metadata, long, short])?;
        }
        None => {
            tx.prepare_cached("INSERT INTO entries (namespace, key, size, expiration, metadata, long, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![namespace.0, key, size, put.expiration, put.metadata, long, short])?;
        }
    }
    Ok(Change { keys: i64::from(old.is_none()), bytes: size - old.map_or(0, |(old, _)| old.size) })
}

/// Removes one entry. The flag says whether it was there, for a reader of that time.
pub(super) fn delete(tx: &Transaction<'_>, namespace: Namespace, key: &[u8], now_ms: UnixMs) -> Result<(Change, bool), Error> {
    let mut select = tx.prepare_cached("SELECT size, expiration, long FROM entries WHERE namespace = ?1 AND key = ?2")?;
    let Some(old) = select.query_row(params![namespace.0, key], |row| Old::read(row, 0)).optional()? else {
        return Ok((Change::default(), false));
    };
    remove(tx, namespace, key, &old)?;
    Ok((Change { keys: -1, bytes: -old.size }, is_live(expiration(old.expiration), now_ms)))
}

fn remove(tx: &Transaction<'_>, namespace: Namespace, key: &[u8], old: &Old) -> Result<(), Error> {
    if let Some(id) = old.long {
        delete_long(tx, id)?;
    }
    tx.prepare_cached("DELETE FROM entries WHERE namespace = ?1 AND key = ?2")?.execute(params![namespace.0, key])?;
    Ok(())
}

fn delete_long(tx: &Transaction<'_>, id: i64) -> Result<(), Error> {
    tx.prepare_cached("DELETE FROM long_values WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Counts a change, and says what the namespace holds after it. Fails when the namespace was dropped.
pub(super) fn count(tx: &Transaction<'_>, namespace: Namespace, change: Change) -> Result<Usage, Error> {
    let before = row_of(tx, namespace)?;
    let usage = Usage {
        keys: before.map_or(0, |usage| usage.keys).saturating_add_signed(change.keys),
        bytes: before.map_or(0, |usage| usage.bytes).saturating_add_signed(change.bytes),
    };
    if change.keys != 0 || change.bytes != 0 {
        let sql = match before {
            Some(_) => "UPDATE namespaces SET keys = keys + ?2, bytes = bytes + ?3 WHERE number = ?1",
            None => "INSERT INTO namespaces (number, keys, bytes) VALUES (?1, ?2, ?3)",
        };
        tx.prepare_cached(sql)?.execute(params![namespace.0, change.keys, change.bytes])?;
    }
    Ok(usage)
}

/// The highest number of a namespace in this shard.
pub(super) fn highest(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.query_row("SELECT coalesce(max(number), 0) FROM namespaces", [], |row| row.get(0))?)
}

/// The numbers of namespaces, and how many bytes each has. Dropped ones have none.
pub(super) fn usages(connection: &Connection) -> Result<Vec<(i64, u64)>, Error> {
    let mut select = connection.prepare("SELECT number, bytes FROM namespaces")?;
    Ok(select.query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?.collect::<Result<_, _>>()?)
}

/// What a namespace holds.
pub(super) fn usage(connection: &Connection, namespace: Namespace) -> Result<Usage, Error> {
    Ok(row_of(connection, namespace)?.unwrap_or_default())
}

fn row_of(connection: &Connection, namespace: Namespace) -> Result<Option<Usage>, Error> {
    let mut select = connection.prepare_cached("SELECT keys, bytes, dropped FROM namespaces WHERE number = ?1")?;
    let row = |row: &Row<'_>| Ok((Usage { keys: unsigned(row.get(0)?), bytes: unsigned(row.get(1)?) }, row.get(2)?));
    match select.query_row([namespace.0], row).optional()? {
        Some((_, true)) => Err(Error::Dropped),
        found => Ok(found.map(|(usage, _)| usage)),
    }
}

/// What is stored under a key, before a long value is read.
pub(super) struct Found {
    /// How long the value is.
    pub bytes: usize,
    pub expiration: Option<u64>,
    metadata: Option<Arc<str>>,
    value: Where,
}

enum Where {
    Here(Vec<u8>),
    Long(i64),
}

impl Found {
    pub fn read(self, connection: &Connection) -> Result<Entry, Error> {
        let value = match self.value {
            Where::Here(value) => value,
            Where::Long(id) => connection.prepare_cached("SELECT value FROM long_values WHERE id = ?1")?.query_row([id], |row| row.get(0))?,
        };
        Ok(Entry { value: value.into(), metadata: self.metadata, expiration: self.expiration })
    }
}

/// What is stored under a key. It may have expired.
pub(super) fn find(connection: &Connection, namespace: Namespace, key: &str) -> Result<Option<Found>, Error> {
    let mut select = connection.prepare_cached("SELECT size, expiration, metadata, long, value FROM entries WHERE namespace = ?1 AND key = ?2")?;
    let read = |row: &Row<'_>| {
        let metadata = row.get::<_, Option<String>>(2)?;
        let beside = key.len().saturating_add(metadata.as_ref().map_or(0, String::len));
        let bytes = usize::try_from(unsigned(row.get(0)?)).unwrap_or(usize::MAX).saturating_sub(beside);
        let value = match row.get(3)? {
            Some(id) => Where::Long(id),
            None => Where::Here(row.get(4)?),
        };
        Ok(Found { bytes, expiration: expiration(row.get(1)?), metadata: metadata.map(Arc::from), value })
    };
    Ok(select.query_row(params![namespace.0, key.as_bytes()], read).optional()?)
}

/// What is stored under each of these keys, in their order. It may have expired. Fails when the values have more bytes together, or there is no memory for
/// them, before it reads the one that is too much.
pub(super) fn get(
    connection: &Connection,
    namespace: Namespace,
    keys: &[String],
    bytes_max: usize,
    memory: Option<&dyn Memory>,
) -> Result<Vec<Option<Arc<Entry>>>, Error> {
    row_of(connection, namespace)?;
    let (mut entries, mut bytes) = (Vec::with_capacity(keys.len()), 0_usize);
    for key in keys {
        let found = find(connection, namespace, key)?;
        bytes = bytes.saturating_add(found.as_ref().map_or(0, |found| found.bytes));
        if bytes > bytes_max {
            return Err(Error::BulkBytes { bytes_max });
        }
        if let (Some(found), Some(memory)) = (&found, memory)
            && !memory.take(u64::try_from(found.bytes).unwrap_or(u64::MAX))
        {
            return Err(Error::Busy);
        }
        entries.push(found.map(|found| found.read(connection).map(Arc::new)).transpose()?);
    }
    Ok(entries)
}

/// Keys from `start` on that begin with `prefix`, and the last key that was looked at if there may be more.
pub(super) fn list(
    connection: &Connection,
    namespace: Namespace,
    start: &[u8],
    prefix: &str,
    keys_max: usize,
    now_ms: UnixMs,
) -> Result<(Vec<Listed>, Option<String>), Error> {
    row_of(connection, namespace)?;
    let mut select = connection.prepare_cached("SELECT key, expiration, metadata FROM entries WHERE namespace = ?1 AND key >= ?2 ORDER BY key")?;
    let mut rows = select.query(params![namespace.0, start])?;
    let (mut keys, mut last, mut expired) = (Vec::new(), None, 0);
    while let Some(row) = rows.next()? {
        // Keys came in as strings, so nothing is lost here.
        let name = String::from_utf8_lossy(&row.get::<_, Vec<u8>>(0)?).into_owned();
        if !name.starts_with(prefix) {
            return Ok((keys, None));
        }
        let expiration = expiration(row.get(1)?);
        let live = is_live(expiration, now_ms);
        if live && keys.len() == keys_max || expired == EXPIRED_SEEN_MAX {
            return Ok((keys, last));
        }
        if live {
            keys.push(Listed { name: name.clone(), expiration, metadata: row.get(2)? });
        } else {
            expired += 1;
        }
        last = Some(name);
    }
    Ok((keys, None))
}

/// Marks a namespace as dropped, and says what it held. Its entries are removed later.
pub(super) fn drop_namespace(tx: &Transaction<'_>, namespace: Namespace) -> Result<Usage, Error> {
    let usage = match usage(tx, namespace) {
        // It was asked for before; there is nothing left to say.
        Err(Error::Dropped) => return Ok(Usage::default()),
        usage => usage?,
    };
    tx.execute("INSERT OR REPLACE INTO namespaces (number, keys, bytes, dropped) VALUES (?1, 0, 0, 1)", [namespace.0])?;
    if usage != Usage::default() {
        tx.execute("INSERT INTO dropping (number) VALUES (?1)", [namespace.0])?;
    }
    Ok(usage)
}

/// An entry that is to be swept.
pub(super) struct Swept {
    pub namespace: Namespace,
    pub key: String,
    old: Old,
}

impl Swept {
    pub fn bytes(&self) -> u64 {
        unsigned(self.old.size)
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let key = String::from_utf8_lossy(&row.get::<_, Vec<u8>>(1)?).into_owned();
        Ok(Self { namespace: Namespace(row.get(0)?), key, old: Old::read(row, 2)? })
    }
}

/// Entries that nobody sees any more, at most so many: those of dropped namespaces first.
pub(super) fn to_sweep(connection: &Connection, rows_max: usize, now_ms: UnixMs) -> Result<Vec<Swept>, Error> {
    let number: Option<i64> = connection.prepare_cached("SELECT min(number) FROM dropping")?.query_row([], |row| row.get(0))?;
    let (sql, parameter) = match number {
        Some(number) => ("SELECT namespace, key, size, expiration, long FROM entries WHERE namespace = ?1 ORDER BY key LIMIT ?2", number),
        None => (
            "SELECT namespace, key, size, expiration, long FROM entries WHERE expiration <= ?1 ORDER BY expiration LIMIT ?2",
            i64::try_from(now_ms / 1_000).unwrap_or(i64::MAX),
        ),
    };
    let mut select = connection.prepare_cached(sql)?;
    Ok(select.query_map(params![parameter, signed(rows_max)], Swept::read)?.collect::<Result<_, _>>()?)
}

/// Removes entries that were found in the same transaction, and says what their namespaces hold after it, without those that were dropped.
pub(super) fn sweep(tx: &Transaction<'_>, entries: &[Swept]) -> Result<Vec<(Namespace, Usage)>, Error> {
    let mut changes = std::collections::HashMap::<Namespace, Change>::new();
    for entry in entries {
        remove(tx, entry.namespace, entry.key.as_bytes(), &entry.old)?;
        changes.entry(entry.namespace).or_default().add(Change { keys: -1, bytes: -entry.old.size });
    }
    let mut usages = Vec::new();
    for (namespace, change) in changes {
        match count(tx, namespace, change) {
            Ok(usage) => usages.push((namespace, usage)),
            // It is counted as empty already.
            Err(Error::Dropped) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(usages)
}

/// Takes dropped namespaces off the list that have no entries left. Returns whether there was one.
pub(super) fn forget_swept(tx: &Transaction<'_>) -> Result<bool, Error> {
    let sql = "DELETE FROM dropping WHERE NOT EXISTS (SELECT 1 FROM entries WHERE namespace = dropping.number)";
    Ok(tx.prepare_cached(sql)?.execute([])? > 0)
}
