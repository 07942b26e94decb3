//! The table of spans, the statements that change it, and the task that removes what is old or too much.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use tovuk_kernel::clock::{Clock, UnixMs};
use tovuk_kernel::ids::ServiceId;
use tovuk_resources::database::rusqlite::{Connection, OpenFlags, Transaction, params};
use tovuk_resources::database::{self, Database};
use tovuk_runtime::record::{EventKind, OPERATION_CANCELLED as CANCELLED, OPERATION_OK as OK, Operation, Record};
use tovuk_runtime::trace::TraceId;

use super::{Config, Error};
use crate::stamped::{Ids, first_id_at};

/// How often old spans are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(30);
/// Spans of one step of removing.
const STEP: i64 = 8_192;
/// The longest text of a span.
const TEXT_BYTES_MAX: usize = 512;

pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE spans (
        id INTEGER PRIMARY KEY,
        trace BLOB NOT NULL,
        span INTEGER NOT NULL,
        parent INTEGER NOT NULL,
        account TEXT NOT NULL,
        service TEXT NOT NULL,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        what TEXT NOT NULL,
        start_us INTEGER NOT NULL,
        duration_us INTEGER NOT NULL,
        number INTEGER,
        cpu_us INTEGER,
        status INTEGER,
        outcome TEXT
    ) STRICT;
    CREATE INDEX spans_by_trace ON spans (trace);
    CREATE INDEX roots_by_service ON spans (service) WHERE number = 1;
",
    "
    ALTER TABLE spans ADD COLUMN did TEXT;
",
];

/// A span that is ready to be written.
#[derive(Clone, Debug)]
pub struct Row {
    pub(super) trace: TraceId,
    pub(super) span: u64,
    pub(super) parent: u64,
    pub(super) account: String,
    pub(super) service: String,
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) what: String,
    pub(super) start_us: i64,
    pub(super) duration_us: i64,
    /// How it ended, in a word or a code.
    pub(super) outcome: Cow<'static, str>,
    /// The status of a response.
    pub(super) status: Option<u16>,
    /// What an operation did.
    pub(super) did: Option<String>,
    /// What is known of an invocation besides.
    pub(super) ran: Option<Ran>,
}

/// What an invocation is more than an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ran {
    pub number: u32,
    pub cpu_us: i64,
}

fn us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The text, or its beginning. Not before secrets are gone from it, or half of one could be left at the end.
pub(super) fn short(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

impl Row {
    /// The span of an invocation. Its text is as long as it is, and may have secrets.
    pub(super) fn of_invocation(record: &Record, start_us: i64) -> Self {
        let what = match record.event {
            EventKind::Http | EventKind::Binding | EventKind::State => format!("{} {}", record.method, record.path),
            _ => record.path.strip_prefix("/.tovuk/").unwrap_or(&record.path).to_owned(),
        };
        Self {
            trace: record.trace,
            span: record.span,
            parent: record.parent_span,
            account: record.target.account.as_str().to_owned(),
            service: record.target.id.as_str().to_owned(),
            name: record.target.name.to_string(),
            kind: record.event.as_str(),
            what,
            start_us,
            duration_us: us(record.duration),
            outcome: record.outcome.as_str().into(),
            status: record.status,
            did: None,
            ran: Some(Ran { number: record.number, cpu_us: i64::try_from(record.cpu_ns / 1_000).unwrap_or(i64::MAX) }),
        }
    }

    pub(super) fn of_operation(operation: &Operation, start_us: i64) -> Self {
        Self {
            trace: operation.trace,
            span: operation.span,
            parent: operation.parent_span,
            account: operation.service.account.as_str().to_owned(),
            service: operation.service.id.as_str().to_owned(),
            name: operation.service.name.to_string(),
            kind: operation.kind,
            what: operation.subject.clone(),
            start_us,
            duration_us: us(operation.duration),
            outcome: operation.outcome.clone(),
            status: operation.status,
            did: operation.did.clone(),
            ran: None,
        }
    }

    /// Whether the worker, what it asked for, or the host is to blame. Whoever went away is no failure.
    pub(super) fn has_failed(&self) -> bool {
        match &*self.outcome {
            OK => self.status.is_some_and(|status| status >= 500),
            CANCELLED => false,
            _ => true,
        }
    }
}

/// The last id that was given out. The file has been opened before.
pub(super) fn last_id(path: &Path) -> Result<i64, Error> {
    let read = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.query_row("SELECT coalesce(max(id), 0) FROM spans", [], |row| row.get(0))
    };
    read().map_err(|error| database::Error::from(error).into())
}

pub(super) fn insert(tx: &Transaction<'_>, ids: &Ids, now_ms: UnixMs, rows: &[Row]) -> Result<(), database::Error> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO spans (id, trace, span, parent, account, service, name, kind, what, start_us, duration_us, number, cpu_us, status, outcome, did) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?;
    for row in rows {
        insert.execute(params![
            ids.next(now_ms),
            row.trace.to_bytes(),
            row.span.cast_signed(),
            row.parent.cast_signed(),
            row.account,
            row.service,
            row.name,
            row.kind,
            row.what,
            row.start_us,
            row.duration_us,
            row.ran.map(|ran| ran.number),
            row.ran.map(|ran| ran.cpu_us),
            row.status,
            row.outcome,
            row.did,
        ])?;
    }
    Ok(())
}

/// Removes some of what is kept of a service. Returns whether there may be more.
pub(super) fn remove_of(tx: &Transaction<'_>, service: &ServiceId) -> Result<bool, database::Error> {
    // By the traces that began there, for which there is an index; what it did for others is a part of theirs.
    let removed = tx
        .prepare_cached(
            "DELETE FROM spans WHERE service = ?1 AND trace IN (SELECT trace FROM spans WHERE service = ?1 AND number = 1 ORDER BY id LIMIT 1024)",
        )?
        .execute([service.as_str()])?;
    Ok(removed > 0)
}

/// Removes what is old now and then, and what is too much.
pub(super) async fn prune(database: Database, clock: Clock, config: Config) {
    let keep_ms = u64::try_from(config.retention.as_millis()).unwrap_or(u64::MAX);
    loop {
        let oldest = first_id_at(clock.now_unix_ms().saturating_sub(keep_ms));
        let bytes_max = i64::try_from(config.bytes_max).unwrap_or(i64::MAX);
        loop {
            match database.write(move |tx| step(tx, oldest, bytes_max)).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "old spans could not be removed; this is tried again");
                    break;
                }
            }
        }
        clock.sleep(PRUNE_EVERY).await;
    }
}

/// One step. Returns whether there is more to do.
fn step(tx: &Transaction<'_>, oldest: i64, bytes_max: i64) -> Result<bool, database::Error> {
    let pragma = |name| tx.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    // Pages that hold nothing are used again before the file grows.
    let used = (pragma("page_count")? - pragma("freelist_count")?).saturating_mul(pragma("page_size")?);
    let before = if used > bytes_max { i64::MAX } else { oldest };
    let remove = "DELETE FROM spans WHERE id IN (SELECT id FROM spans WHERE id < ?1 ORDER BY id LIMIT ?2)";
    let removed = tx.prepare_cached(remove)?.execute([before, STEP])?;
    Ok(removed > 0 && (used > bytes_max || i64::try_from(removed).is_ok_and(|removed| removed == STEP)))
}
