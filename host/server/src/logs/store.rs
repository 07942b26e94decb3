//! The tables of the log store and the statements that change them. It runs on whatever connection it is given.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::ids::ServiceId;
use tovuk_resources::database;
use tovuk_resources::database::rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

use super::Error;
use super::line::{Line, Stream};
use super::sink::ServiceState;
use crate::stamped::Ids;

/// What a line costs besides its message, about: its columns, its place in the table and in the indexes.
const LINE_BYTES: i64 = 128;

/// A service without a name has been deleted, and is removed with its lines in the background.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE services (
        number INTEGER PRIMARY KEY,
        service TEXT UNIQUE,
        account TEXT NOT NULL,
        bytes INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE lines (
        id INTEGER PRIMARY KEY,
        service INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        stream INTEGER NOT NULL,
        message TEXT NOT NULL,
        trace BLOB,
        number INTEGER,
        deploy TEXT,
        build TEXT,
        outcome TEXT,
        status INTEGER,
        duration_us INTEGER,
        cpu_us INTEGER,
        fuel INTEGER,
        memory_peak_bytes INTEGER,
        bytes_in INTEGER,
        bytes_out INTEGER,
        span INTEGER,
        parent_span INTEGER,
        caller TEXT
    ) STRICT;
    CREATE INDEX lines_by_service ON lines (service);
    CREATE INDEX lines_by_deploy ON lines (service, deploy) WHERE deploy IS NOT NULL;
    CREATE INDEX lines_by_build ON lines (service, build) WHERE build IS NOT NULL;
",
    "
    ALTER TABLE lines ADD COLUMN hops INTEGER;
",
];

/// A line that is ready to be written.
pub(super) struct Row {
    pub line: Line,
    pub at_ms: UnixMs,
    pub state: Arc<ServiceState>,
}

/// The last id that was given out, and what is kept, in bytes. The file has been opened before.
pub(super) fn last_and_total(path: &Path) -> Result<(i64, i64), Error> {
    let read = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.query_row("SELECT coalesce((SELECT max(id) FROM lines), 0), coalesce((SELECT sum(bytes) FROM services), 0)", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    };
    read().map_err(|error| database::Error::from(error).into())
}

/// What an insertion has added.
pub(super) struct Added {
    pub bytes: i64,
    /// A service has more than it may.
    pub over: bool,
}

/// Writes rows in their order. Those of a service that was deleted meanwhile are left out.
pub(super) fn insert(tx: &Transaction<'_>, ids: &Ids, now_ms: UnixMs, rows: &[Row], service_bytes_max: u64) -> Result<Added, database::Error> {
    let mut services: HashMap<&ServiceId, (i64, i64)> = HashMap::new();
    let mut insert = tx.prepare_cached(
        "INSERT INTO lines (id, service, at_ms, stream, message, trace, number, deploy, build, outcome, status, duration_us, cpu_us, fuel, \
         memory_peak_bytes, bytes_in, bytes_out, span, parent_span, caller, hops) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
    )?;
    // Asked here, on the thread that writes, where a deletion comes either before or after all of this.
    for row in rows.iter().filter(|row| !row.state.is_deleted()) {
        let line = &row.line;
        let (service, bytes) = match services.get_mut(&line.service) {
            Some(known) => known,
            None => services.entry(&line.service).or_insert((number(tx, line)?, 0)),
        };
        *bytes = bytes.saturating_add(signed(line.message.len() as u64)).saturating_add(LINE_BYTES);
        let stream = Stream::ALL.iter().position(|stream| *stream == line.stream).and_then(|number| u8::try_from(number).ok());
        let ended = line.ended.as_deref();
        insert.execute(params![
            ids.next(now_ms),
            *service,
            signed(row.at_ms),
            stream,
            line.message,
            line.trace.map(|trace| trace.to_bytes()),
            line.number,
            line.deploy.as_ref().map(|deploy| deploy.as_str()),
            line.build.as_ref().map(|build| build.as_str()),
            ended.map(|ended| ended.outcome.as_str()),
            ended.and_then(|ended| ended.status),
            ended.map(|ended| signed(ended.duration_us)),
            ended.map(|ended| signed(ended.cpu_us)),
            ended.map(|ended| signed(ended.fuel)),
            ended.map(|ended| signed(ended.memory_peak_bytes)),
            ended.map(|ended| signed(ended.bytes_in)),
            ended.map(|ended| signed(ended.bytes_out)),
            ended.map(|ended| ended.span.cast_signed()),
            ended.map(|ended| ended.parent_span.cast_signed()),
            ended.and_then(|ended| ended.caller.as_ref()).map(|caller| caller.as_str()),
            ended.map(|ended| ended.hops),
        ])?;
    }
    let mut update = tx.prepare_cached("UPDATE services SET bytes = bytes + ?2 WHERE number = ?1 RETURNING bytes")?;
    let mut added = Added { bytes: 0, over: false };
    for (number, bytes) in services.into_values() {
        let kept: i64 = update.query_row([number, bytes], |row| row.get(0))?;
        added.bytes += bytes;
        added.over |= kept > signed(service_bytes_max);
    }
    Ok(added)
}

/// The number of a line's service, which it gets with its first line.
fn number(tx: &Transaction<'_>, line: &Line) -> Result<i64, database::Error> {
    let known =
        tx.prepare_cached("SELECT number FROM services WHERE service = ?1")?.query_row([line.service.as_str()], |row| row.get(0)).optional()?;
    if let Some(number) = known {
        return Ok(number);
    }
    tx.prepare_cached("INSERT INTO services (service, account) VALUES (?1, ?2)")?.execute([line.service.as_str(), line.account.as_str()])?;
    Ok(tx.last_insert_rowid())
}

/// Hides a service's lines until they are removed.
pub(super) fn orphan(tx: &Transaction<'_>, service: &ServiceId) -> Result<(), Error> {
    let orphan = || tx.prepare_cached("UPDATE services SET service = NULL WHERE service = ?1")?.execute([service.as_str()]);
    orphan().map(drop).map_err(|error| database::Error::from(error).into())
}

/// Removes the oldest lines that were written before an id, at most so many. Returns how many bytes went, and whether there may be more.
pub(super) fn remove_before(tx: &Transaction<'_>, id: i64, lines_max: i64) -> Result<(i64, bool), database::Error> {
    let (last, count): (Option<i64>, i64) = tx
        .prepare_cached("SELECT max(id), count(*) FROM (SELECT id FROM lines WHERE id < ?1 ORDER BY id LIMIT ?2)")?
        .query_row([id, lines_max], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some(last) = last else { return Ok((0, false)) };
    // The plus keeps SQLite from reading the whole index for the order of the groups.
    let by_service: Vec<(i64, i64)> = tx
        .prepare_cached("SELECT service, sum(octet_length(message) + ?2) FROM lines WHERE id <= ?1 GROUP BY +service")?
        .query_map([last, LINE_BYTES], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut update = tx.prepare_cached("UPDATE services SET bytes = bytes - ?2 WHERE number = ?1")?;
    for (service, bytes) in &by_service {
        update.execute([service, bytes])?;
    }
    tx.prepare_cached("DELETE FROM lines WHERE id <= ?1")?.execute([last])?;
    Ok((by_service.iter().map(|(_, bytes)| bytes).sum(), count == lines_max))
}

/// Removes the oldest lines of a service until so many bytes are left, at most so many lines. Returns the same. A deleted service goes with its last
/// line.
pub(super) fn remove_oldest(tx: &Transaction<'_>, service: i64, bytes_left: i64, lines_max: i64) -> Result<(i64, bool), database::Error> {
    let kept: Option<i64> = tx.prepare_cached("SELECT bytes FROM services WHERE number = ?1")?.query_row([service], |row| row.get(0)).optional()?;
    let Some(kept) = kept else { return Ok((0, false)) };
    let (mut last, mut count, mut bytes) = (None, 0, 0);
    {
        let mut oldest = tx.prepare_cached("SELECT id, octet_length(message) + ?2 FROM lines WHERE service = ?1 ORDER BY id LIMIT ?3")?;
        let mut rows = oldest.query([service, LINE_BYTES, lines_max])?;
        while kept - bytes > bytes_left
            && let Some(row) = rows.next()?
        {
            last = Some(row.get::<_, i64>(0)?);
            bytes += row.get::<_, i64>(1)?;
            count += 1;
        }
    }
    if let Some(last) = last {
        tx.prepare_cached("DELETE FROM lines WHERE service = ?1 AND id <= ?2")?.execute([service, last])?;
        tx.prepare_cached("UPDATE services SET bytes = bytes - ?2 WHERE number = ?1")?.execute([service, bytes])?;
    }
    let more = count == lines_max && kept - bytes > bytes_left;
    if !more {
        tx.prepare_cached("DELETE FROM services WHERE number = ?1 AND service IS NULL AND bytes <= 0")?.execute([service])?;
    }
    Ok((bytes, more))
}

/// A figure as SQLite keeps it.
pub(super) fn signed(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}
