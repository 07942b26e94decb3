//! The statements of the catalogue about objects and namespaces, on one connection of one shard: rows in, rows out. Those about alarms are in
//! `ringing.rs`.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tovuk_kernel::clock::UnixMs;

use super::file::{About, AlarmNote, signed, unsigned};
use super::types::Span;
use super::{Counts, Error, ListedObject, Namespace, Usage};
use crate::database::rusqlite;

/// What the catalogue knows of an object when it is first asked for.
#[derive(Clone, Copy, Default)]
pub(super) struct Known {
    pub incarnation: Option<i64>,
    pub counts: Counts,
}

/// An object of a namespace, by its row.
pub(super) struct Of {
    pub namespace: Namespace,
    pub object: String,
    pub incarnation: Option<i64>,
}

impl Of {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let object = String::from_utf8_lossy(&row.get::<_, Vec<u8>>(1)?).into_owned();
        Ok(Self { namespace: Namespace(row.get(0)?), object, incarnation: row.get(2)? })
    }
}

/// What is known of a file that is closed or read anew.
pub(super) struct State {
    pub counts: Counts,
    /// The mark that is to go, if it is still the one; none to leave it.
    pub unmark: Option<i64>,
    /// The last change of its alarm, if that may not be known yet.
    pub alarm: Option<AlarmNote>,
}

/// Counts an opening, and forgets which alarms were being delivered: they are due again.
pub(super) fn start(tx: &Transaction<'_>) -> Result<i64, Error> {
    let number = tx.query_row("UPDATE starts SET number = number + 1 RETURNING number", [], |row| row.get(0))?;
    // Such an alarm was removed while it was being delivered.
    tx.execute("DELETE FROM objects WHERE delivering IS NOT NULL AND next IS NULL AND incarnation IS NULL AND dirty IS NULL", [])?;
    tx.execute("UPDATE objects SET delivering = NULL WHERE delivering IS NOT NULL", [])?;
    Ok(number)
}

/// When the next alarm is due that is not being delivered.
pub(super) fn next_due(connection: &Connection) -> rusqlite::Result<Option<UnixMs>> {
    let mut select = connection.prepare_cached("SELECT min(next) FROM objects WHERE next IS NOT NULL AND delivering IS NULL")?;
    Ok(select.query_row([], |row| row.get::<_, Option<i64>>(0))?.map(unsigned))
}

/// Fails when the namespace was dropped. Makes its row if there is none.
pub(super) fn ensure_namespace(tx: &Transaction<'_>, namespace: Namespace, account: i64) -> Result<(), Error> {
    let mut select = tx.prepare_cached("SELECT dropped FROM namespaces WHERE number = ?1")?;
    match select.query_row([namespace.0], |row| row.get(0)).optional()? {
        Some(true) => Err(Error::Dropped),
        Some(false) => Ok(()),
        None => {
            tx.prepare_cached("INSERT INTO namespaces (number, account) VALUES (?1, ?2)")?.execute([namespace.0, account])?;
            Ok(())
        }
    }
}

/// Whether the namespace was dropped.
fn check_namespace(connection: &Connection, namespace: Namespace) -> Result<(), Error> {
    let mut select = connection.prepare_cached("SELECT dropped FROM namespaces WHERE number = ?1")?;
    let dropped = select.query_row([namespace.0], |row| row.get::<_, bool>(0)).optional()?;
    if dropped == Some(true) { Err(Error::Dropped) } else { Ok(()) }
}

/// What there is of an object.
pub(super) fn known(connection: &Connection, namespace: Namespace, object: &str) -> Result<Known, Error> {
    check_namespace(connection, namespace)?;
    let mut select = connection.prepare_cached("SELECT incarnation, vals, bytes FROM objects WHERE namespace = ?1 AND key = ?2")?;
    let row = |row: &Row<'_>| {
        Ok(Known { incarnation: row.get(0)?, counts: Counts { values: row.get(1).map(unsigned)?, bytes: row.get(2).map(unsigned)? } })
    };
    Ok(select.query_row(params![namespace.0, object.as_bytes()], row).optional()?.unwrap_or_default())
}

/// Marks an object as one whose file is being written, before it is. Returns the incarnation of the file.
pub(super) fn mark(tx: &Transaction<'_>, namespace: Namespace, object: &str, account: i64, mark: i64) -> Result<i64, Error> {
    ensure_namespace(tx, namespace, account)?;
    // An alarm that a former object of that name has noted in its file has a smaller number.
    let sql = "INSERT INTO objects (namespace, key, incarnation, dirty, generation) VALUES (?1, ?2, ?3, ?3, ?3)
        ON CONFLICT (namespace, key) DO UPDATE SET dirty = ?3, incarnation = coalesce(incarnation, ?3) RETURNING incarnation";
    Ok(tx.prepare_cached(sql)?.query_row(params![namespace.0, object.as_bytes(), mark], |row| row.get(0))?)
}

/// Writes down what an object's file has. Returns whether the file has no values left and is to be removed: then it belongs to the object no more.
pub(super) fn settle(tx: &Transaction<'_>, namespace: Namespace, object: &str, incarnation: i64, state: &State) -> Result<bool, Error> {
    let (values, bytes) = (signed(state.counts.values), signed(state.counts.bytes));
    let at = params![namespace.0, object.as_bytes(), incarnation, values, bytes];
    let Some(unmark) = state.unmark else {
        let sql = "UPDATE objects SET vals = ?4, bytes = ?5 WHERE namespace = ?1 AND key = ?2 AND incarnation = ?3 AND dirty IS NOT NULL";
        tx.prepare_cached(sql)?.execute(at)?;
        return Ok(false);
    };
    if let Some(note) = state.alarm {
        let sql = "SELECT EXISTS (SELECT 1 FROM objects WHERE namespace = ?1 AND key = ?2 AND incarnation = ?3)";
        // An object that was deleted meanwhile has none.
        if tx.prepare_cached(sql)?.query_row(params![namespace.0, object.as_bytes(), incarnation], |row| row.get(0))? {
            super::ringing::apply(tx, namespace, object, note)?;
        }
    }
    let sql = "UPDATE objects SET vals = ?4, bytes = ?5, dirty = NULL, incarnation = CASE WHEN ?4 > 0 THEN incarnation END
        WHERE namespace = ?1 AND key = ?2 AND incarnation = ?3 AND dirty = ?6";
    let at = params![namespace.0, object.as_bytes(), incarnation, values, bytes, unmark];
    let settled = tx.prepare_cached(sql)?.execute(at)? > 0;
    if !settled || values > 0 {
        return Ok(false);
    }
    note_removed(tx, namespace, object, incarnation)?;
    vacate(tx, namespace, object)?;
    Ok(true)
}

/// Notes that a file is to be removed.
fn note_removed(tx: &Transaction<'_>, namespace: Namespace, object: &str, incarnation: i64) -> Result<(), Error> {
    let sql = "INSERT OR IGNORE INTO removed (namespace, key, incarnation) VALUES (?1, ?2, ?3)";
    tx.prepare_cached(sql)?.execute(params![namespace.0, object.as_bytes(), incarnation])?;
    Ok(())
}

/// Forgets an object that has neither file nor alarm.
pub(super) fn vacate(tx: &Transaction<'_>, namespace: Namespace, object: &str) -> Result<(), Error> {
    let sql = "DELETE FROM objects WHERE namespace = ?1 AND key = ?2
        AND incarnation IS NULL AND dirty IS NULL AND next IS NULL AND delivering IS NULL";
    tx.prepare_cached(sql)?.execute(params![namespace.0, object.as_bytes()])?;
    Ok(())
}

/// Forgets an object with all that it has. Returns whether it had an alarm; what values it has is not told here at once, so the caller knows better.
pub(super) fn delete(tx: &Transaction<'_>, namespace: Namespace, object: &str) -> Result<bool, Error> {
    check_namespace(tx, namespace)?;
    let sql = "DELETE FROM objects WHERE namespace = ?1 AND key = ?2 RETURNING incarnation, next IS NOT NULL";
    let row = |row: &Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, bool>(1)?));
    let deleted = tx.prepare_cached(sql)?.query_row(params![namespace.0, object.as_bytes()], row).optional()?;
    let (incarnation, alarm) = deleted.unwrap_or_default();
    if let Some(incarnation) = incarnation {
        note_removed(tx, namespace, object, incarnation)?;
    }
    Ok(alarm)
}

/// Objects of a namespace, one more than asked for if there are more.
pub(super) fn list(connection: &Connection, namespace: Namespace, span: &Span) -> Result<Vec<ListedObject>, Error> {
    check_namespace(connection, namespace)?;
    let sql = "SELECT key, vals, bytes, CASE WHEN next IS NOT NULL AND delivering IS NOT generation THEN scheduled END
        FROM objects WHERE namespace = ?1 AND key >= ?2 AND (vals > 0 OR next IS NOT NULL) ORDER BY key LIMIT ?3";
    let mut select = connection.prepare_cached(sql)?;
    let limit = signed(u64::try_from(span.limit).unwrap_or(u64::MAX)).saturating_add(1);
    let mut rows = select.query(params![namespace.0, span.start.as_bytes(), limit])?;
    let mut objects = Vec::new();
    while let Some(row) = rows.next()? {
        let name = String::from_utf8_lossy(&row.get::<_, Vec<u8>>(0)?).into_owned();
        if !name.starts_with(&span.prefix) {
            break;
        }
        let counts = Counts { values: row.get(1).map(unsigned)?, bytes: row.get(2).map(unsigned)? };
        objects.push(ListedObject { name, counts, alarm: row.get::<_, Option<i64>>(3)?.map(unsigned) });
    }
    Ok(objects)
}

/// What a namespace holds.
pub(super) fn usage(connection: &Connection, namespace: Namespace) -> Result<Usage, Error> {
    check_namespace(connection, namespace)?;
    let mut select = connection.prepare_cached("SELECT objects, bytes FROM namespaces WHERE number = ?1")?;
    let row = |row: &Row<'_>| Ok(Usage { objects: row.get(0).map(unsigned)?, bytes: row.get(1).map(unsigned)? });
    Ok(select.query_row([namespace.0], row).optional()?.unwrap_or_default())
}

/// A namespace with its account and what it has, in bytes, unless it was dropped.
pub(super) type Booked = (Namespace, Option<(i64, u64)>);

/// All namespaces.
pub(super) fn namespaces(connection: &Connection) -> Result<Vec<Booked>, Error> {
    let mut select = connection.prepare("SELECT number, account, bytes, dropped FROM namespaces")?;
    let row = |row: &Row<'_>| {
        let dropped: bool = row.get(3)?;
        Ok((Namespace(row.get(0)?), if dropped { None } else { Some((row.get(1)?, row.get(2).map(unsigned)?)) }))
    };
    Ok(select.query_map([], row)?.collect::<Result<_, _>>()?)
}

/// Objects whose files may know better.
pub(super) fn marked(connection: &Connection) -> Result<Vec<Of>, Error> {
    let mut select = connection.prepare("SELECT namespace, key, incarnation FROM objects WHERE dirty IS NOT NULL")?;
    Ok(select.query_map([], Of::read)?.collect::<Result<_, _>>()?)
}

/// Writes down what a file was found to have after the host had ended unasked. None when there is no file.
pub(super) fn recover(tx: &Transaction<'_>, of: &Of, about: Option<&About>) -> Result<(), Error> {
    let Some(incarnation) = of.incarnation else { return Ok(()) };
    let mark: Option<i64> = {
        let mut select = tx.prepare_cached("SELECT dirty FROM objects WHERE namespace = ?1 AND key = ?2")?;
        select.query_row(params![of.namespace.0, of.object.as_bytes()], |row| row.get(0)).optional()?.flatten()
    };
    let counts = about.map(|about| about.counts).unwrap_or_default();
    settle(tx, of.namespace, &of.object, incarnation, &State { counts, unmark: mark, alarm: about.map(|about| about.alarm) })?;
    Ok(())
}

/// Marks a namespace as dropped, and says what it held. Its objects are removed later.
pub(super) fn drop_namespace(tx: &Transaction<'_>, namespace: Namespace) -> Result<Usage, Error> {
    let usage = match usage(tx, namespace) {
        // It was asked for before; there is nothing left to say.
        Err(Error::Dropped) => return Ok(Usage::default()),
        usage => usage?,
    };
    tx.execute("INSERT INTO namespaces (number, account, dropped) VALUES (?1, 0, 1) ON CONFLICT (number) DO UPDATE SET dropped = 1", [namespace.0])?;
    tx.execute("INSERT INTO dropping (number) VALUES (?1)", [namespace.0])?;
    Ok(usage)
}

/// Some objects of a dropped namespace, or the namespace when it has none left.
pub(super) fn to_drop(connection: &Connection, objects_max: u32) -> Result<Option<(Namespace, Vec<Of>)>, Error> {
    let number: Option<i64> = connection.prepare_cached("SELECT min(number) FROM dropping")?.query_row([], |row| row.get(0))?;
    let Some(number) = number else { return Ok(None) };
    let mut select = connection.prepare_cached("SELECT namespace, key, incarnation FROM objects WHERE namespace = ?1 ORDER BY key LIMIT ?2")?;
    let objects = select.query_map(params![number, objects_max], Of::read)?.collect::<Result<_, _>>()?;
    Ok(Some((Namespace(number), objects)))
}

/// Takes objects of a dropped namespace off, whose files have gone.
pub(super) fn dropped(tx: &Transaction<'_>, objects: &[Of]) -> Result<(), Error> {
    let mut delete = tx.prepare_cached("DELETE FROM objects WHERE namespace = ?1 AND key = ?2")?;
    for of in objects {
        delete.execute(params![of.namespace.0, of.object.as_bytes()])?;
    }
    Ok(())
}

/// Takes a namespace off the list that has nothing left.
pub(super) fn all_dropped(tx: &Transaction<'_>, namespace: Namespace) -> Result<(), Error> {
    tx.execute("DELETE FROM dropping WHERE number = ?1", [namespace.0])?;
    tx.execute("DELETE FROM removed WHERE namespace = ?1", [namespace.0])?;
    Ok(())
}

/// Files that belong to no object, at most so many.
pub(super) fn removed(connection: &Connection, files_max: u32) -> Result<Vec<Of>, Error> {
    let mut select = connection.prepare_cached("SELECT namespace, key, incarnation FROM removed LIMIT ?1")?;
    Ok(select.query_map([files_max], Of::read)?.collect::<Result<_, _>>()?)
}

/// Takes files off the list that have gone.
pub(super) fn forget_removed(tx: &Transaction<'_>, files: &[Of]) -> Result<(), Error> {
    let mut delete = tx.prepare_cached("DELETE FROM removed WHERE namespace = ?1 AND key = ?2 AND incarnation = ?3")?;
    for of in files {
        delete.execute(params![of.namespace.0, of.object.as_bytes(), of.incarnation])?;
    }
    Ok(())
}

/// The highest number of a namespace that was ever written to or dropped; 0 when there is none.
pub(super) fn highest(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.prepare_cached("SELECT coalesce(max(number), 0) FROM namespaces")?.query_row([], |row| row.get(0))?)
}
