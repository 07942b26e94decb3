//! Which way requests went: a *span* for each invocation, for each operation on data and each request to a host outside that a worker makes, kept for a day
//! in `traces.db`. The spans of one request from outside, or of one delivery, have the same trace and name the span that caused them.
//!
//! Spans come in on the path of requests ([`TraceSink`]), which never waits: they are queued for one task, which writes them in batches. How much is kept
//! under load is decided by trace and not by span, so that what is kept is whole: when more spans come than are written in a second, every second trace is
//! kept, then every fourth, and so on. Invocations that fail are kept beside those while the queue is not half full, then without what caused them or what
//! they caused. What does not fit into the queue after that is dropped. Both are counted.
//!
//! A trace may lead through services of several accounts. Each sees its own spans.

mod otlp;
mod page;
mod sink;
mod store;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::limits::{PAGE_MAX, TRACE_BYTES_MAX, TRACE_HOURS, TRACE_SPANS_PER_SECOND_MAX};
use tovuk_resources::database::{self, Database, Options};
use tovuk_runtime::trace::TraceId;

pub use otlp::Otlp;
pub use page::{Query, Root, Roots, Span, Trace};
pub use sink::{Counts, TraceSink};

use otlp::Exporter;
use sink::Message;
use store::Row;

/// The file, in the folder that [`Traces::open`] is given.
const FILE: &str = "traces.db";

/// Figures that tests change.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a span is kept.
    pub retention: Duration,
    /// What all spans take, in bytes; of more, the oldest go.
    pub bytes_max: u64,
    /// Spans that may wait to be written.
    pub queue_max: usize,
    /// Spans of one second beyond which a part of all traces is kept.
    pub spans_per_second: u64,
    /// How long a span may wait for others to be written with it.
    pub batch_wait: Duration,
    /// Where spans are sent to as well.
    pub otlp: Option<Otlp>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(TRACE_HOURS * 3_600),
            bytes_max: TRACE_BYTES_MAX,
            queue_max: 32_768,
            spans_per_second: TRACE_SPANS_PER_SECOND_MAX,
            batch_wait: Duration::from_millis(200),
            otlp: None,
        }
    }
}

/// Why spans could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The cursor was not given out by these lists.
    #[error("`{0}` is no cursor of this list")]
    Cursor(String),
    /// Spans cannot be sent anywhere.
    #[error("{0}")]
    Otlp(String),
    /// Too many traces were asked for, or none.
    #[error("`limit` must be 1 to {PAGE_MAX}")]
    Limit,
}

impl Error {
    /// The row of the code table.
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Database(_) | Self::Otlp(_) => &codes::INTERNAL_ERROR,
            Self::Cursor(_) => &codes::INVALID_CURSOR,
            Self::Limit => &codes::INVALID_REQUEST,
        }
    }
}

/// The store of spans. Clones share it.
#[derive(Clone)]
pub struct Traces(Arc<Inner>);

struct Inner {
    database: Database,
    sink: TraceSink,
    retention: AbortHandle,
}

impl Traces {
    /// Opens the store in that folder. Needs a runtime for its two tasks.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, Error> {
        Self::open_with(folder, clock, Config::default())
    }

    /// Opens it with other figures.
    pub fn open_with(folder: &Path, clock: Clock, config: Config) -> Result<Self, Error> {
        let database = Database::open(&folder.join(FILE), store::MIGRATIONS, Options { readers: 2, ..Options::new(*b"tvtr") })?;
        let last = store::last_id(&folder.join(FILE))?;
        let exporter = config.otlp.clone().map(|otlp| Exporter::start(otlp, clock.clone())).transpose().map_err(Error::Otlp)?;
        let (sink, queue) = TraceSink::new(clock.clone(), &config, exporter.as_ref().map(Exporter::sent));
        tokio::spawn(sink::write(database.clone(), clock.clone(), config.clone(), sink.state(), exporter, queue, last));
        let retention = tokio::spawn(store::prune(database.clone(), clock, config)).abort_handle();
        Ok(Self(Arc::new(Inner { database, sink, retention })))
    }

    /// The way in.
    pub fn sink(&self) -> TraceSink {
        self.0.sink.clone()
    }

    /// What has become of spans since the start.
    pub fn counts(&self) -> Counts {
        self.0.sink.state().counts()
    }

    /// Returns once every span that came before is on disk or has been counted as dropped.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.0.sink.send(Message::Flush(done)) {
            // A writer that has ended has nothing left to write.
            let _ = flushed.await;
        }
    }

    /// The spans of a trace that are this account's, in the order in which they began; none if it has none.
    pub async fn trace(&self, account: &str, trace: TraceId) -> Result<Option<Trace>, Error> {
        let account = account.to_owned();
        self.0.database.read(move |connection| page::trace(connection, &account, trace)).await
    }

    /// What began at a service from outside, the latest first.
    pub async fn of_service(&self, service: &ServiceId, query: &Query) -> Result<Roots, Error> {
        let (range, service) = (query.range()?, service.clone());
        self.0.database.read(move |connection| page::roots(connection, &service, &range)).await
    }

    /// Removes what is kept of a service, which is being deleted. What its last invocations still write goes when it is old.
    pub async fn delete_service(&self, service: &ServiceId) -> Result<(), Error> {
        self.flush().await;
        let service = service.clone();
        while self
            .0
            .database
            .write({
                let service = service.clone();
                move |tx| store::remove_of(tx, &service)
            })
            .await?
        {}
        Ok(())
    }

    /// Writes what is queued and closes the file. What comes later is dropped.
    pub async fn close(&self) {
        self.0.retention.abort();
        let (done, closed) = oneshot::channel();
        if self.0.sink.send(Message::Close(done)) {
            let _ = closed.await;
        }
        if let Err(error) = self.0.database.close().await {
            tracing::error!(%error, "the store of traces was not closed cleanly");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.retention.abort();
    }
}
