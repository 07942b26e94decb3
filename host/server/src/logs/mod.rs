//! What builds, deploys and workers have to say, kept in `logs.db` until it is too old or too much. It decides nothing about who may read what,
//! and sends nothing anywhere.
//!
//! There are two ways in. [`LogSink::line`] is for the path of requests: it never waits, and what comes faster than it can be written is dropped,
//! counted, and the count written. [`Logs::append`] is for builds and deploys: it returns when its lines are on disk. Both redact secrets
//! before they keep anything.

mod charge;
mod follow;
mod line;
mod observer;
mod page;
mod redact;
mod retention;
mod sink;
mod store;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::limits::{LOG_FOLLOWERS_ACCOUNT_MAX, LOG_FOLLOWERS_MAX, PAGE_MAX};
use tovuk_resources::database::{self, Database, Options};
use tovuk_resources::meters::Meters;

pub use follow::Following;
pub use line::{Ended, Line, Stream};
pub use page::{Entry, Page, Query, Subject};
pub use sink::{LogSink, TooManySecrets};

use crate::stamped::Ids;
use follow::Followers;
use sink::Message;
use store::Row;

/// The file, in the folder that [`Logs::open`] is given.
const FILE: &str = "logs.db";

/// Figures that operators may change.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a line is kept.
    pub retention: Duration,
    /// What is kept of one service, in bytes; of more, the oldest lines go.
    pub service_bytes_max: u64,
    /// What is kept of all services together, in bytes; of more, the oldest lines of whoever has most go.
    pub total_bytes_max: u64,
    /// How often old lines are looked for.
    pub prune_every: Duration,
    /// Lines that may wait to be written, of all services and of one.
    pub queue_lines_max: [usize; 2],
    /// Bytes that may wait to be written, of all services and of one.
    pub queue_bytes_max: [usize; 2],
    /// How long a line may wait for others to be written with it.
    pub batch_wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(7 * 24 * 3600),
            service_bytes_max: 64 << 20,
            total_bytes_max: 4 << 30,
            prune_every: Duration::from_secs(60),
            queue_lines_max: [65_536, 8_192],
            queue_bytes_max: [64 << 20, 8 << 20],
            batch_wait: Duration::from_millis(100),
        }
    }
}

/// Why lines could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The cursor was not given out by these lists.
    #[error("`{0}` is no cursor of this list")]
    Cursor(String),
    /// The cursor leads to older lines, and whoever follows goes to newer ones.
    #[error(
        "`{0}` leads to older lines, and who follows sees newer ones: send the `cursor` of a line or `follow_cursor` of a page, which begin with `after_`, or none"
    )]
    Backwards(String),
    /// Too many lines were asked for, or none.
    #[error("`limit` must be 1 to {PAGE_MAX}")]
    Limit,
    /// There is no such outcome.
    #[error("`{0}` is no outcome: use `error`, `ok`, `trap`, `cpu`, `memory`, `wall`, `refused`, `cancelled` or `failed`")]
    Outcome(String),
    /// This is no trace.
    #[error("`{0}` is no trace: it has 32 hexadecimal digits, as `trace_id` of a line")]
    Trace(String),
    /// As many follow as may.
    #[error("as many clients follow logs as may: {LOG_FOLLOWERS_ACCOUNT_MAX} of an account, {LOG_FOLLOWERS_MAX} of the host")]
    TooManyFollowers,
}

impl Error {
    /// The row of the code table.
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Database(_) => &codes::INTERNAL_ERROR,
            Self::Cursor(_) | Self::Backwards(_) => &codes::INVALID_CURSOR,
            Self::Limit | Self::Outcome(_) | Self::Trace(_) => &codes::INVALID_REQUEST,
            Self::TooManyFollowers => &codes::TOO_MANY_REQUESTS,
        }
    }
}

/// How the store keeps up.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Lines that wait to be written.
    pub waiting_lines: usize,
    /// What they take, in bytes.
    pub waiting_bytes: usize,
    /// What is kept, about, in bytes.
    pub kept_bytes: u64,
    /// Lines that came faster than they could be written, since the start.
    pub dropped: u64,
    /// Batches that could not be written, since the start.
    pub failures: u64,
    /// Clients that follow.
    pub followers: usize,
}

/// The log store. Clones share it.
#[derive(Clone)]
pub struct Logs(Arc<Inner>);

struct Inner {
    store: Store,
    sink: LogSink,
    retention: AbortHandle,
}

/// The database with what its two tasks and its handles share.
#[derive(Clone)]
struct Store {
    database: Database,
    clock: Clock,
    config: Arc<Config>,
    ids: Arc<Ids>,
    /// What is kept, in bytes.
    total_bytes: Arc<AtomicI64>,
    /// Batches that could not be written, for the host's own log.
    failures: Arc<AtomicU64>,
    /// There is more than may be kept.
    grown: Arc<Notify>,
    /// What lines are charged with, once that is known.
    meters: Arc<OnceLock<Meters>>,
    followers: Arc<Followers>,
}

impl Logs {
    /// Opens the store in that folder with the usual figures. Needs a runtime for its two tasks.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, Error> {
        Self::open_with(folder, clock, Config::default())
    }

    /// Opens it with other figures.
    pub fn open_with(folder: &Path, clock: Clock, config: Config) -> Result<Self, Error> {
        let database = Database::open(&folder.join(FILE), store::MIGRATIONS, Options::new(*b"tvlg"))?;
        let (last, total) = store::last_and_total(&folder.join(FILE))?;
        let store = Store {
            database,
            clock: clock.clone(),
            config: Arc::new(config),
            ids: Arc::new(Ids::after(last)),
            total_bytes: Arc::new(AtomicI64::new(total)),
            failures: Arc::default(),
            grown: Arc::default(),
            meters: Arc::default(),
            followers: Arc::new(Followers::new()),
        };
        let (sink, queue, counters) = LogSink::new(clock, store.config.clone());
        tokio::spawn(writer::run(store.clone(), queue, counters));
        let retention = tokio::spawn(retention::run(store.clone())).abort_handle();
        Ok(Self(Arc::new(Inner { store, sink, retention })))
    }

    /// Charges lines from now on.
    pub fn set_meters(&self, meters: Meters) {
        // The first stays.
        let _ = self.0.store.meters.set(meters);
    }

    /// The way in for lines that nobody waits for.
    pub fn sink(&self) -> LogSink {
        self.0.sink.clone()
    }

    /// Writes lines, in their order, and returns once they are on disk.
    pub async fn append(&self, lines: Vec<Line>) -> Result<(), Error> {
        let rows: Vec<Row> = lines.into_iter().filter_map(|line| self.0.sink.row(line)).collect();
        let (rows, charged) = charge::charge(self.0.store.meters.get(), rows).await.split();
        self.0.store.insert(rows).await?;
        charged.settle();
        Ok(())
    }

    /// Returns once everything that was given to a sink before is on disk or has been counted as dropped.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.0.sink.send(Message::Flush(done)) {
            // A writer that has ended has nothing left to write.
            let _ = flushed.await;
        }
    }

    /// These lines as they are written, for an account. A `limit` says how many from before come first, 0 being none; a cursor, where to begin.
    pub fn follow(&self, account: i64, subject: Subject, query: &Query) -> Result<Following, Error> {
        Following::new(self, account, subject, query)
    }

    /// A page of these lines.
    pub async fn read(&self, subject: Subject, query: &Query) -> Result<Page, Error> {
        let range = query.range()?;
        let found = self.0.store.database.read(move |connection| page::read(connection, &subject, range)).await?;
        Ok(found.page(range.from))
    }

    /// How the store keeps up.
    pub fn counts(&self) -> Counts {
        let store = &self.0.store;
        let (waiting_lines, waiting_bytes) = self.0.sink.waiting();
        Counts {
            waiting_lines,
            waiting_bytes,
            kept_bytes: u64::try_from(store.total_bytes.load(Ordering::Relaxed)).unwrap_or_default(),
            dropped: self.0.sink.dropped_lines(),
            failures: store.failures.load(Ordering::Relaxed),
            followers: store.followers.count(),
        }
    }

    /// Removes everything of a service. Nobody can read it once this returns; its space is freed in the background. Lines that its last
    /// invocations still write are dropped.
    pub async fn delete_service(&self, service: &ServiceId) -> Result<(), Error> {
        self.0.sink.forget(service);
        let name = service.clone();
        self.0.store.database.write(move |tx| store::orphan(tx, &name)).await?;
        self.0.store.followers.wake(std::iter::once(service));
        self.0.store.grown.notify_one();
        Ok(())
    }

    /// Writes what is queued and closes the file. What comes later is dropped.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.0.sink.send(Message::Close(done)) {
            let _ = closed.await;
        }
        self.0.retention.abort();
        if let Err(error) = self.0.store.database.close().await {
            tracing::error!(%error, "the log store was not closed cleanly");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer ends by itself when the last sink is gone.
        self.retention.abort();
    }
}

impl Store {
    /// Writes rows in one transaction.
    async fn insert(&self, rows: Vec<Row>) -> Result<(), Error> {
        let (ids, now_ms) = (self.ids.clone(), self.clock.now_unix_ms());
        let config = self.config.clone();
        let mut services: Vec<_> = rows.iter().map(|row| row.line.service.clone()).collect();
        services.dedup();
        let added = self.database.write(move |tx| store::insert(tx, &ids, now_ms, &rows, config.service_bytes_max)).await?;
        self.followers.wake(services.iter());
        let total = self.total_bytes.fetch_add(added.bytes, Ordering::Relaxed) + added.bytes;
        if added.over || u64::try_from(total).is_ok_and(|total| total > self.config.total_bytes_max) {
            self.grown.notify_one();
        }
        Ok(())
    }
}
