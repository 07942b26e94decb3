//! One SQLite file with one writer: what every embedded store of the host is made of. It knows no schema; stores bring their migrations and
//! their statements, as jobs that run on a connection.
//!
//! - [`Database::write`] queues a job for the one thread that writes. The thread takes what waits, runs each job in a savepoint of its own inside
//!   one transaction, commits once with `synchronous=FULL` and then answers all: many callers share the cost of one fsync, and what was
//!   answered is on disk.
//! - [`Database::read`] runs a job on a connection that cannot write. Each job sees one state, which has everything in it that was answered before.
//! - A failing or panicking job undoes its own changes and nobody else's. A failing commit fails every job of its group. After an error that leaves
//!   open what is on disk, nothing is written any more until the file is opened anew ([`Error::Poisoned`]): asking the kernel to sync a second
//!   time succeeds without having written anything.
//!
//! Jobs must not wait for anything but the database: whoever writes next waits behind them. Constraints must not be deferred to the commit, because
//! then one job fails its whole group.

mod error;
mod file;
mod fuse;
mod readers;
pub mod shards;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use tokio::sync::{mpsc, oneshot};
use tovuk_kernel::histogram::Durations;

pub use error::Error;
pub(crate) use error::poisons;
pub use fuse::Fuse;
pub(crate) use fuse::lives;
pub use rusqlite;

use readers::Readers;
use writer::{Call, Message, Writer};

/// What may differ between two stores.
#[derive(Clone, Debug)]
pub struct Options {
    /// Marks the file as this store's (`PRAGMA application_id`), so that another store's file is refused instead of migrated.
    pub application_id: [u8; 4],
    /// Writes that may wait; whoever comes then waits before the queue.
    pub queue_max: usize,
    /// Jobs of one commit.
    pub group_jobs_max: usize,
    /// How long a group may take in further jobs before it is committed.
    pub group_time_max: Duration,
    /// Connections that read at a time.
    pub readers: usize,
    /// How long to wait for a lock that another process holds.
    pub lock_wait: Duration,
    /// Page cache of the writer, in KiB.
    pub writer_cache_kib: u32,
    /// Page cache of each reader, in KiB.
    pub reader_cache_kib: u32,
    /// Prepared statements that each connection keeps.
    pub statements_max: usize,
    /// Pages of the write-ahead log after which they are copied into the file.
    pub checkpoint_pages: i64,
    /// When the store dies. For tests.
    pub fuse: Option<Fuse>,
}

impl Options {
    /// The usual figures, for the store with that mark.
    pub fn new(application_id: [u8; 4]) -> Self {
        Self {
            application_id,
            queue_max: 4_096,
            group_jobs_max: 1_024,
            group_time_max: Duration::from_millis(20),
            readers: 4,
            lock_wait: Duration::from_secs(5),
            writer_cache_kib: 8_192,
            reader_cache_kib: 2_048,
            statements_max: 128,
            checkpoint_pages: 1_000,
            fuse: None,
        }
    }
}

/// How long commits took, to the disk, of all databases of this process.
pub fn commit_durations() -> Durations {
    writer::COMMITS.read()
}

/// What a database has done since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Transactions that were committed.
    pub commits: u64,
    /// Jobs whose changes are in one of them.
    pub jobs: u64,
}

#[derive(Default)]
struct Counters {
    commits: AtomicU64,
    jobs: AtomicU64,
}

/// An open database. Clones share it; when the last is gone, what is queued is still written.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    writes: mpsc::Sender<Message>,
    readers: Arc<Readers>,
    counters: Arc<Counters>,
    /// Pages were given back, and the file itself is as long as before.
    unshrunk: AtomicBool,
}

impl Database {
    /// Opens a file, creating it if need be, and applies the migrations that it has not had. Blocks; for the start of the host.
    ///
    /// Migrations are only ever appended: a file's version is how many of them it has had.
    pub fn open(path: &Path, migrations: &[&str], options: Options) -> Result<Self, Error> {
        let connection = file::open_writer(path, migrations, &options)?;
        let counters = Arc::<Counters>::default();
        let (writes, queue) = mpsc::channel(options.queue_max.max(1));
        let readers = Readers::new(path, &options);
        let writer = Writer::new(connection, queue, options, counters.clone());
        writer.start().map_err(|error| Error::file(path, error))?;
        Ok(Self(Arc::new(Inner { writes, readers, counters, unshrunk: AtomicBool::new(false) })))
    }

    /// Runs a job that writes, and returns once its changes are on disk. A job that returns an error leaves nothing behind.
    ///
    /// When the caller is gone before, the job happens wholly or not at all.
    pub async fn write<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.write_then(job, |_| ()).await
    }

    /// The same. `committed` is told of the changes once they are on disk, also when the caller has gone by then: for what must be done if and only if they stand,
    /// such as charging them. It must not wait.
    pub async fn write_then<T, E, F, C>(&self, job: F, committed: C) -> Result<T, E>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        C: FnOnce(&mut T) + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (call, answer) = Call::boxed(job, committed);
        self.0.writes.send(Message::Job(call)).await.map_err(|_| Error::Closed)?;
        answer.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Runs a job that reads. All that it reads is of one moment.
    pub async fn read<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.0.readers.read(job).await
    }

    /// Makes the file as short as what is in it, which otherwise happens when the log is copied next, and that is long after where little is written.
    /// Puts it off when readers are in the way: what was put off is done by the next call.
    async fn shrink(&self, given_back: bool) -> Result<(), Error> {
        let wanted = self.0.unshrunk.fetch_or(given_back, Ordering::Relaxed) || given_back;
        if !wanted {
            return Ok(());
        }
        let (sender, answer) = oneshot::channel();
        self.0.writes.send(Message::Shrink(sender)).await.map_err(|_| Error::Closed)?;
        if answer.await.unwrap_or(Err(Error::Closed))? {
            self.0.unshrunk.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes what is queued, waits for reads that run, copies the write-ahead log into the file and closes it. Whoever comes later gets
    /// [`Error::Closed`]. Fails when the log could not be copied; then nothing is lost, and the next start does it.
    pub async fn close(&self) -> Result<(), Error> {
        let (sender, closed) = oneshot::channel();
        if self.0.writes.send(Message::Close(sender)).await.is_err() {
            return Ok(());
        }
        // The writer has no more work after this, but what it still commits has to be readable until readers are closed.
        self.0.readers.close().await;
        closed.await.unwrap_or(Ok(()))
    }

    /// What has been committed so far.
    pub fn counts(&self) -> Counts {
        let counters = &self.0.counters;
        Counts { commits: counters.commits.load(Ordering::Relaxed), jobs: counters.jobs.load(Ordering::Relaxed) }
    }
}
