//! A connection to a tenant's database: its settings, the statements that it keeps prepared, and the monitor that SQLite asks while it prepares
//! and runs them. One thread at a time has it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::hooks::Authorization;
use rusqlite::{Connection, InterruptHandle, OpenFlags};

use super::billing;
use super::confine;
use super::error::Error;
use super::functions;
use super::raw::{self, Statement};

/// Only the host's user may read what tenants keep.
pub(super) const MODE: u32 = 0o600;
/// Steps between two looks at the budgets: some tens of microseconds.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;
/// Statements that a connection keeps prepared. An idle database holds their memory.
const STATEMENTS_KEPT: usize = 16;
/// Longest statement that is kept, in bytes.
const STATEMENT_KEPT_BYTES_MAX: usize = 8 << 10;
/// How long to wait for a lock. Only a checkpoint that others still read behind, or another process, holds one.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// What the write-ahead log is cut to once it was copied, in bytes.
const LOG_BYTES_KEPT: i64 = 4 << 20;
/// Pages of the write-ahead log from which it is copied into the file.
const CHECKPOINT_PAGES: i64 = 1_000;
/// Pages from which readers are waited for, so that it can begin anew.
const CHECKPOINT_PAGES_URGENT: i64 = 16_000;

/// Why a statement was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Steps,
    Time,
    Gone,
    Cpu,
}

/// What SQLite's callbacks and the code around a statement tell each other.
#[derive(Default)]
pub(super) struct Monitor {
    steps: AtomicU64,
    steps_max: AtomicU64,
    deadline_ns: AtomicU64,
    cause: AtomicU8,
    /// Whoever asked is not there any more.
    pub gone: AtomicBool,
    /// The host's own SQL is prepared.
    trusted: AtomicBool,
    /// A migration may say that foreign keys are off, because the host has switched them off for it.
    pub foreign_keys_off: AtomicBool,
    /// What was last not allowed.
    refused: Mutex<Option<String>>,
}

fn since_start(at: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let start = *START;
    u64::try_from(at.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

impl Monitor {
    /// A statement begins, with so many steps left and that deadline.
    pub fn begin(&self, steps_max: u64, deadline: Instant) {
        self.steps.store(0, Ordering::Relaxed);
        self.steps_max.store(steps_max, Ordering::Relaxed);
        self.deadline_ns.store(since_start(deadline), Ordering::Relaxed);
        self.cause.store(0, Ordering::Relaxed);
    }

    /// Nothing that a tenant has sent runs.
    pub fn end(&self) {
        self.begin(u64::MAX, Instant::now());
        self.deadline_ns.store(u64::MAX, Ordering::Relaxed);
        self.gone.store(false, Ordering::Relaxed);
    }

    /// Why the last statement was stopped.
    pub fn cause(&self) -> Option<Cause> {
        match self.cause.load(Ordering::Relaxed) {
            1 => Some(Cause::Steps),
            2 => Some(Cause::Time),
            3 => Some(Cause::Gone),
            4 => Some(Cause::Cpu),
            _ => None,
        }
    }

    /// What was not allowed since this was asked last.
    pub fn take_refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Called by SQLite every so many steps. True to stop.
    fn look(&self) -> bool {
        let between = u64::from(STEPS_BETWEEN_LOOKS.unsigned_abs());
        let steps = self.steps.fetch_add(between, Ordering::Relaxed).saturating_add(between);
        let cause = if steps > self.steps_max.load(Ordering::Relaxed) {
            1
        } else if since_start(Instant::now()) >= self.deadline_ns.load(Ordering::Relaxed) {
            2
        } else if self.gone.load(Ordering::Relaxed) {
            3
        } else if billing::used_up() {
            4
        } else {
            return false;
        };
        self.cause.store(cause, Ordering::Relaxed);
        true
    }
}

/// Who uses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Reader,
}

/// A connection with what belongs to it. Statements come first, because they have to be dropped before the connection.
pub(super) struct Link {
    /// The statement of an open stream.
    pub running: Option<Statement>,
    kept: Vec<(Box<str>, Statement)>,
    connection: Connection,
    pub monitor: Arc<Monitor>,
    pub interrupt: Arc<InterruptHandle>,
    page_size: u64,
    pages_max: u64,
}

/// Makes the file of a new database, and its name durable. Does nothing to one that is there.
pub(super) fn create(path: &Path) -> Result<(), Error> {
    if path.metadata().is_ok_and(|metadata| metadata.len() > 0) {
        return Ok(sync_folder_of(path)?);
    }
    drop(OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?);
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(LOCK_WAIT)?;
    // Before the first table: lets deleted rows give their space back without rewriting the file.
    connection.execute_batch("PRAGMA page_size = 4096; PRAGMA auto_vacuum = incremental; PRAGMA synchronous = full;")?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)?;
    sync_folder_of(path)?;
    Ok(())
}

/// Makes the names in the folder of a file durable.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

impl Link {
    /// Opens a database that exists.
    pub fn open(path: &Path, role: Role) -> Result<Self, Error> {
        if !path.exists() {
            return Err(Error::NotFound);
        }
        let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(LOCK_WAIT)?;
        connection.set_prepared_statement_cache_capacity(8);
        confine::configure(&connection)?;
        functions::register(&connection)?;
        // Checkpoints are the host's: SQLite keeps quiet about their errors when it makes them after a commit.
        let only = role == Role::Reader;
        connection.execute_batch(&format!(
            "PRAGMA cache_size = -64; PRAGMA temp_store = file; PRAGMA cell_size_check = on; PRAGMA synchronous = full;
             PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {LOG_BYTES_KEPT}; PRAGMA query_only = {only};"
        ))?;
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        if mode != "wal" {
            connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        }
        let page_size: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let monitor = Arc::<Monitor>::default();
        monitor.end();
        let asked = monitor.clone();
        connection.authorizer(Some(move |context: rusqlite::hooks::AuthContext<'_>| {
            if asked.trusted.load(Ordering::Relaxed) {
                return Authorization::Allow;
            }
            match confine::check(&context.action) {
                Ok(()) => Authorization::Allow,
                Err(_) if asked.foreign_keys_off.load(Ordering::Relaxed) && confine::sets_foreign_keys(&context.action) => Authorization::Allow,
                Err(reason) => {
                    asked.refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
                    Authorization::Deny
                }
            }
        }))?;
        let looked = monitor.clone();
        connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || looked.look()))?;
        let interrupt = Arc::new(connection.get_interrupt_handle());
        let page_size = u64::try_from(page_size).unwrap_or(4_096).max(512);
        Ok(Self { running: None, kept: Vec::new(), connection, monitor, interrupt, page_size, pages_max: 0 })
    }

    /// The connection, for what the callers of statements need.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs SQL of the host, which is not confined.
    pub fn host<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        self.monitor.trusted.store(true, Ordering::Relaxed);
        let result = work(&self.connection);
        self.monitor.trusted.store(false, Ordering::Relaxed);
        result
    }

    /// Runs one statement of the host without a result.
    pub fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.host(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        })
    }

    /// The size of the database, in bytes.
    pub fn bytes(&self) -> rusqlite::Result<u64> {
        let pages: i64 = self.host(|connection| connection.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0)))?;
        Ok(u64::try_from(pages).unwrap_or(0).saturating_mul(self.page_size))
    }

    /// Bounds the size of the file, in bytes. A file that is larger already does not grow.
    pub fn bound(&mut self, bytes: u64) -> rusqlite::Result<()> {
        let pages = (bytes / self.page_size).clamp(1, u64::from(u32::MAX - 1));
        if pages != self.pages_max {
            self.host(|connection| connection.pragma_update_and_check(None, "max_page_count", i64::try_from(pages).unwrap_or(i64::MAX), |_| Ok(())))?;
            self.pages_max = pages;
        }
        Ok(())
    }

    /// Whether the file was bounded below so many bytes.
    pub fn is_bounded_below(&self, bytes: u64) -> bool {
        self.pages_max != 0 && self.pages_max < bytes / self.page_size
    }

    /// A statement, taken out of those that are kept or prepared anew. None when there is none in the text.
    pub fn take(&mut self, sql: &str) -> rusqlite::Result<Option<Statement>> {
        self.monitor.take_refused();
        if let Some(at) = self.kept.iter().position(|(kept, _)| **kept == *sql) {
            return Ok(Some(self.kept.remove(at).1));
        }
        let (statement, rest) = raw::prepare(&self.connection, sql, sql.len() <= STATEMENT_KEPT_BYTES_MAX)?;
        if raw::prepare(&self.connection, rest, false)?.0.is_some() {
            let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_MISUSE);
            return Err(rusqlite::Error::SqliteFailure(error, Some("there is more than one statement; send them as a batch".to_owned())));
        }
        Ok(statement)
    }

    /// Gives a statement back, to be kept.
    pub fn give(&mut self, sql: &str, statement: Statement) {
        statement.reset();
        if sql.len() > STATEMENT_KEPT_BYTES_MAX {
            return;
        }
        if self.kept.len() >= STATEMENTS_KEPT {
            self.kept.remove(0);
        }
        self.kept.push((sql.into(), statement));
    }

    /// Ends whatever is open. False when the connection is not to be used again.
    pub fn settle(&mut self) -> bool {
        self.running = None;
        self.monitor.end();
        self.connection.is_autocommit() || (self.run("ROLLBACK").is_ok() && self.connection.is_autocommit())
    }

    /// Copies the write-ahead log into the file when it has grown, and gives free pages back when they are many.
    pub fn tidy(&self) -> rusqlite::Result<()> {
        let (pages, _) = self.checkpoint("NOOP")?;
        if pages >= CHECKPOINT_PAGES {
            let mode = if pages < CHECKPOINT_PAGES_URGENT { "PASSIVE" } else { "RESTART" };
            self.checkpoint(mode)?;
        }
        Ok(())
    }

    /// The pages in the log, and how many of them are in the file.
    pub fn checkpoint(&self, mode: &str) -> rusqlite::Result<(i64, i64)> {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        self.host(|connection| connection.prepare_cached(&sql)?.query_row([], |row| Ok((row.get(1)?, row.get(2)?))))
    }
}
