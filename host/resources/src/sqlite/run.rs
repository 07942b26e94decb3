//! One statement under its budgets: prepared, bound, run, counted. What is rolled back after an error is the caller's to decide.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{ErrorCode, ffi};
use tovuk_kernel::histogram::Histogram;

use super::advice;
use super::billing;
use super::error::{Budget, Error};
use super::heap::{self, Limited};
use super::link::{Cause, Link};
use super::raw::{self, Step};
use super::types::{Allowance, Answer, Columns, Counts, Statement, Table, distinct};
use super::value::{Params, Value};
use super::watchdog::{Watchdog, Watched};

/// How much later than the deadline the watchdog looks, so that it is the exception.
const WATCHDOG_GRACE: Duration = Duration::from_millis(20);
/// Least free space, in bytes, with which a full database is its own limit and not the disk's.
const DISK_FREE_BYTES: u64 = 1 << 20;
/// Steps of the virtual machine that count as a row, where SQLite counts none.
const STEPS_PER_ROW: u64 = 16;

/// The names of a result's columns, each different, and how many bytes they are.
pub(super) struct Names {
    pub columns: Columns,
    bytes: usize,
}

/// A query or batch while it runs.
pub(super) struct Run {
    allowance: Allowance,
    started: Instant,
    deadline: Instant,
    bytes: usize,
    pub counts: Counts,
    pub advice: Vec<String>,
    limited: Option<Limited>,
    _watched: Watched,
    _observed: Observed,
}

/// How long queries and batches took, of all databases of this process: they share its disk.
pub(super) static RUNS: Histogram = Histogram::new();

/// Something whose time counts when it ends.
struct Observed(Instant);

impl Drop for Observed {
    fn drop(&mut self) {
        RUNS.observe(self.0.elapsed());
    }
}

impl Run {
    /// Begins on this thread. At most until `until`, if that is earlier than the allowance's time.
    pub fn begin(link: &mut Link, allowance: Allowance, watchdog: &Watchdog, until: Option<Instant>) -> Self {
        let started = Instant::now();
        let deadline = started.checked_add(Duration::from_millis(allowance.query_ms)).unwrap_or(started);
        let deadline = until.map_or(deadline, |until| until.min(deadline));
        let watched = watchdog.watch(deadline.checked_add(WATCHDOG_GRACE).unwrap_or(deadline), link.interrupt.clone());
        let limited = Some(Limited::to(allowance.heap_bytes));
        Self {
            allowance,
            started,
            deadline,
            bytes: 0,
            counts: Counts::default(),
            advice: Vec::new(),
            limited,
            _watched: watched,
            _observed: Observed(started),
        }
    }

    /// How long it has run, in ms.
    pub fn duration_ms(&self) -> f64 {
        (self.started.elapsed().as_secs_f64() * 1e6).round() / 1e3
    }

    /// The same, begun milliseconds counted.
    pub fn whole_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Sets what is left of the budgets for what runs next.
    pub fn arm(&self, link: &Link) {
        link.monitor.begin(self.allowance.vm_steps.saturating_sub(self.counts.vm_steps), self.deadline);
    }

    /// Whether the next statement may begin. What is asked while one runs is not asked for short ones.
    fn still(&self, link: &Link) -> Result<(), Error> {
        if Instant::now() >= self.deadline || link.monitor.gone.load(Ordering::Relaxed) {
            return Err(Error::Budget(Budget::Time(self.allowance.query_ms)));
        }
        if billing::used_up() { Err(Error::Budget(Budget::Cpu)) } else { Ok(()) }
    }

    /// Runs the statements of a script, whose rows nobody wants.
    pub fn script(&mut self, link: &mut Link, sql: &str) -> Result<(), Error> {
        let mut rest = sql;
        loop {
            if first_word(rest).eq_ignore_ascii_case("vacuum") {
                return Err(Error::forbidden("VACUUM, which no transaction can hold"));
            }
            self.still(link)?;
            self.arm(link);
            link.monitor.take_refused();
            let (prepared, after) = match raw::prepare(link.connection(), rest, false) {
                Ok(prepared) => prepared,
                Err(error) => return Err(self.explain(link, error)),
            };
            let Some(prepared) = prepared else {
                if after.trim().is_empty() {
                    return Ok(());
                }
                rest = after;
                continue;
            };
            if prepared.parameters() > 0 {
                return Err(Error::query("a migration has no parameters"));
            }
            let before = link.connection().total_changes();
            while self.step(link, &prepared)? {}
            self.count(link, &prepared, "", 0);
            let written = link.connection().total_changes().saturating_sub(before);
            self.counts.rows_written = self.counts.rows_written.saturating_add(written);
            rest = after;
        }
    }

    /// Runs one statement to its end.
    pub fn statement(&mut self, link: &mut Link, statement: &Statement) -> Result<Answer, Error> {
        let prepared = self.prepare(link, statement)?;
        let result = self.rows(link, &prepared);
        let counts = self.count(link, &prepared, &statement.sql, result.as_ref().map_or(0, |(answer, _)| answer.rows.len()));
        link.give(&statement.sql, prepared);
        let (mut answer, written) = result?;
        answer.counts = Counts { rows_written: written, ..counts };
        self.counts.rows_written = self.counts.rows_written.saturating_add(written);
        Ok(answer)
    }

    /// The statement with its parameters, within what is left of the budgets.
    pub fn prepare(&mut self, link: &mut Link, statement: &Statement) -> Result<raw::Statement, Error> {
        if let Some(limited) = &self.limited {
            limited.renew();
        }
        if first_word(&statement.sql).eq_ignore_ascii_case("vacuum") {
            return Err(Error::forbidden("VACUUM; space comes back with `PRAGMA incremental_vacuum`, and backups have a command"));
        }
        self.still(link)?;
        self.arm(link);
        let prepared = match link.take(&statement.sql) {
            Ok(Some(prepared)) => prepared,
            Ok(None) => return Err(Error::query("there is no statement in it")),
            Err(error) => return Err(self.explain(link, error)),
        };
        if let Err(error) = bind(&prepared, &statement.params) {
            link.give(&statement.sql, prepared);
            return Err(error);
        }
        Ok(prepared)
    }

    /// All rows, and how many were written.
    fn rows(&mut self, link: &Link, prepared: &raw::Statement) -> Result<(Answer, u64), Error> {
        let before = link.connection().total_changes();
        let mut values = Vec::new();
        // Asked after the first step, which may find that the schema has changed.
        let mut columns = None;
        while self.step(link, prepared)? {
            let names = match columns.take() {
                Some(columns) => columns,
                None => self.names(prepared, self.bytes)?,
            };
            self.bytes = self.read(prepared, &mut values, self.bytes.saturating_add(names.bytes))?;
            columns = Some(names);
        }
        let columns = match columns {
            Some(names) => names.columns,
            None => {
                // They are part of the answer though it has no row.
                let names = self.names(prepared, self.bytes)?;
                self.bytes = self.bytes.saturating_add(names.bytes);
                names.columns
            }
        };
        let written = link.connection().total_changes().saturating_sub(before);
        let last_insert_rowid = link.connection().last_insert_rowid();
        let rows = Table::new(columns.len(), values);
        Ok((Answer { columns, rows, counts: Counts::default(), last_insert_rowid }, written))
    }

    /// The names of its columns, if they are within what a result of so many bytes has left. They are measured before they are copied.
    pub fn names(&self, prepared: &raw::Statement, bytes: usize) -> Result<Names, Error> {
        let columns = 0..prepared.columns();
        let size = columns.clone().fold(0_usize, |sum, column| sum.saturating_add(prepared.column_name_bytes(column)));
        self.admit(bytes.saturating_add(size))?;
        let columns = distinct(columns.map(|column| prepared.column_name(column)).collect());
        Ok(Names { bytes: columns.iter().map(String::len).sum(), columns })
    }

    /// Adds the values of the row at which it stands to a result that has so many bytes, and gives those that it has then. Each value is measured before
    /// it is copied: one row can name a large value many times.
    pub fn read(&self, prepared: &raw::Statement, values: &mut Vec<Value>, bytes: usize) -> Result<usize, Error> {
        let mut sum = bytes;
        for column in 0..prepared.columns() {
            self.admit(sum.saturating_add(prepared.column_bytes(column)))?;
            let value = prepared.column(column);
            sum = sum.saturating_add(value.size());
            values.push(value);
        }
        self.admit(sum)?;
        Ok(sum)
    }

    fn admit(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.allowance.result_bytes {
            return Err(Error::Budget(Budget::Result(self.allowance.result_bytes)));
        }
        Ok(())
    }

    /// True when there is a row.
    pub fn step(&self, link: &Link, prepared: &raw::Statement) -> Result<bool, Error> {
        match prepared.step(link.connection()) {
            Ok(Step::Row) => Ok(true),
            Ok(Step::Done) => Ok(false),
            Err(error) => Err(self.explain(link, error)),
        }
    }

    /// What a statement has cost since this was asked last, but for what it wrote.
    pub fn count(&mut self, link: &mut Link, prepared: &raw::Statement, sql: &str, rows: usize) -> Counts {
        let scans = prepared.take_scans(advice::NOTABLE_VISITS);
        let visits = scans.iter().fold(0_u64, |sum, scan| sum.saturating_add(scan.visits));
        let vm_steps = prepared.take_status(ffi::SQLITE_STMTSTATUS_VM_STEP);
        let fullscan_steps = prepared.take_status(ffi::SQLITE_STMTSTATUS_FULLSCAN_STEP);
        let rows_read = visits.max(fullscan_steps).max(u64::try_from(rows).unwrap_or(u64::MAX)).max(vm_steps / STEPS_PER_ROW);
        let counts = Counts { rows_read, rows_written: 0, vm_steps, fullscan_steps };
        self.counts.add(&counts);
        advice::add(&mut self.advice, link, sql, &scans);
        counts
    }

    /// What an error of a tenant's statement means.
    pub fn explain(&self, link: &Link, error: rusqlite::Error) -> Error {
        let refused = link.monitor.take_refused();
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Error::Budget(match link.monitor.cause() {
                Some(Cause::Steps) => Budget::Steps(self.allowance.vm_steps),
                Some(Cause::Cpu) => Budget::Cpu,
                Some(Cause::Time | Cause::Gone) | None => Budget::Time(self.allowance.query_ms),
            }),
            Some(ErrorCode::OutOfMemory) if heap::refused() => Error::Budget(Budget::Heap(self.allowance.heap_bytes)),
            Some(ErrorCode::DiskFull) => full(link, &self.allowance),
            _ if refused.is_some() => Error::forbidden(refused.unwrap_or_default()),
            Some(ErrorCode::CannotOpen) => Error::host(&error),
            _ => error.into(),
        }
    }
}

/// What SQLite means when it says that there is no room: the disk has none, or the database may not grow.
pub(super) fn full(link: &Link, allowance: &Allowance) -> Error {
    match disk_free(link) {
        Some(free) if free < DISK_FREE_BYTES => Error::DiskFull,
        _ if link.is_bounded_below(allowance.database_bytes) => Error::AccountFull(allowance.account_bytes),
        _ => Error::StorageFull(allowance.database_bytes),
    }
}

/// Free bytes where the database is.
fn disk_free(link: &Link) -> Option<u64> {
    let stat = rustix::fs::statvfs(link.connection().path()?).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn bind(prepared: &raw::Statement, params: &Params) -> Result<(), Error> {
    let wanted = prepared.parameters();
    let set = |number: usize, value: &Value| {
        prepared.bind(number, value).map_err(|code| Error::query(format!("parameter {number}: {}", ffi::code_to_str(code))))
    };
    match params {
        Params::Positional(values) => {
            if values.len() != wanted {
                return Err(Error::query(format!("the statement has {wanted} parameters, and {} were given", values.len())));
            }
            values.iter().zip(1..).try_for_each(|(value, number)| set(number, value))
        }
        Params::Named(values) => {
            let mut used = 0;
            for number in 1..=wanted {
                let name = prepared.parameter_name(number);
                let Some(name) = name else {
                    return Err(Error::query(format!("parameter {number} has no name: give parameters as an array, or write :name")));
                };
                let Some(value) = values.get(&name).or_else(|| values.get(name.get(1..).unwrap_or_default())) else {
                    return Err(Error::query(format!("the parameter {name} was not given")));
                };
                used += 1;
                set(number, value)?;
            }
            if used < values.len() {
                return Err(Error::query("a parameter was given that the statement does not have"));
            }
            Ok(())
        }
    }
}

/// The first word of a statement, after blanks and comments.
pub(super) fn first_word(sql: &str) -> &str {
    let mut rest = sql.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ';');
    loop {
        let after = if let Some(line) = rest.strip_prefix("--") {
            line.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(block) = rest.strip_prefix("/*") {
            block.split_once("*/").map_or("", |(_, after)| after)
        } else {
            break;
        };
        rest = after.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ';');
    }
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

/// Whether a statement may be one that only reads, by its first word. SQLite has the last word.
pub(super) fn may_read_only(sql: &str) -> bool {
    let word = first_word(sql);
    if word.eq_ignore_ascii_case("pragma") {
        let lower = sql.to_ascii_lowercase();
        return !lower.contains("optimize") && !lower.contains("incremental_vacuum");
    }
    ["select", "with", "values", "explain"].iter().any(|known| word.eq_ignore_ascii_case(known))
}
