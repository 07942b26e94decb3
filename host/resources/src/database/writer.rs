//! The thread that writes: takes what waits, commits it as one group, answers. It is the only one with a connection that can write.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tovuk_kernel::histogram::Histogram;

use super::error::poisons;
use super::fuse::{Fuse, lives};
use super::{Counters, Error, Options};

/// Times the usual length of the log at which readers are waited for, so that it can start from its beginning again. Until then they never are.
const CHECKPOINT_PATIENCE: i64 = 16;
/// How long readers are waited for before a file is made shorter. Who writes next waits too.
const SHRINK_WAIT: Duration = Duration::from_millis(100);

/// How long commits took, of all files of this process: they share its disk.
pub(super) static COMMITS: Histogram = Histogram::new();

/// What is sent to the thread.
pub(super) enum Message {
    Job(Box<dyn Job>),
    /// Copy the log into the file. The answer says whether all of it is there, so that the file is as short as what is in it.
    Shrink(oneshot::Sender<Result<bool, Error>>),
    Close(oneshot::Sender<Result<(), Error>>),
}

/// A queued job, with whoever waits for it.
pub(super) trait Job: Send {
    /// Runs it. False when its changes are to be undone.
    fn run(&mut self, transaction: &Transaction<'_>) -> bool;
    /// Whether it has run and its changes stand, if the transaction does.
    fn stands(&self) -> bool;
    /// Tells the caller, once it is known whether the transaction was committed.
    fn answer(self: Box<Self>, committed: Result<(), Error>);
}

/// A job of a certain type.
pub(super) struct Call<F, C, T, E> {
    job: Option<F>,
    /// What is told that the changes stand.
    committed: C,
    result: Option<Result<T, E>>,
    caller: oneshot::Sender<Result<T, E>>,
}

impl<F, C, T, E> Call<F, C, T, E>
where
    F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    C: FnOnce(&mut T) + Send + 'static,
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    /// The job to queue, and where its answer will come.
    pub fn boxed(job: F, committed: C) -> (Box<dyn Job>, oneshot::Receiver<Result<T, E>>) {
        let (caller, answer) = oneshot::channel();
        (Box::new(Self { job: Some(job), committed, result: None, caller }), answer)
    }
}

impl<F, C, T, E> Job for Call<F, C, T, E>
where
    F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send,
    C: FnOnce(&mut T) + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn run(&mut self, transaction: &Transaction<'_>) -> bool {
        let Some(job) = self.job.take() else { return false };
        // What the job has changed in the database is undone with its savepoint; what it owned is gone with it.
        let result = catch_unwind(AssertUnwindSafe(|| job(transaction))).unwrap_or_else(|panic| {
            let error = Error::panicked(&*panic);
            tracing::error!(%error, "a write to a database failed");
            Err(error.into())
        });
        self.result = Some(result);
        self.stands()
    }

    fn stands(&self) -> bool {
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, committed: Result<(), Error>) {
        let Self { result, committed: told, caller, .. } = *self;
        let mut answer = match (result, committed) {
            // A job that failed by itself has its own reason, whatever became of the others.
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (_, Err(error)) => Err(error.into()),
            (None, Ok(())) => Err(Error::Closed.into()),
        };
        // Before the caller goes on, also what is given up where it is not told.
        match &mut answer {
            Ok(value) => told(value),
            Err(_) => drop(told),
        }
        // The caller may have gone; what was committed stays.
        let _ = caller.send(answer);
    }
}

/// The thread's state.
pub(super) struct Writer {
    connection: Connection,
    queue: mpsc::Receiver<Message>,
    options: Options,
    counters: Arc<Counters>,
    /// Why nothing is written any more.
    poison: Option<Error>,
    /// The length of the log, in pages, at which it is copied next.
    checkpoint_at: i64,
}

impl Writer {
    pub fn new(connection: Connection, queue: mpsc::Receiver<Message>, options: Options, counters: Arc<Counters>) -> Self {
        let checkpoint_at = options.checkpoint_pages;
        Self { connection, queue, options, counters, poison: None, checkpoint_at }
    }

    /// Starts the thread. It ends when the database is closed or its last handle is gone.
    pub fn start(self) -> io::Result<()> {
        std::thread::Builder::new().name("database".to_owned()).spawn(move || self.run()).map(drop)
    }

    fn run(mut self) {
        let mut next = None;
        while let Some(message) = next.take().or_else(|| self.queue.blocking_recv()) {
            match message {
                Message::Job(job) => next = self.group(job),
                // Who has asked may have gone.
                Message::Shrink(answer) => drop(answer.send(self.shrink())),
                Message::Close(answer) => {
                    // Whoever has queued since is told by the loss of its channel that the database is closed.
                    self.queue.close();
                    let closed = self.finish();
                    drop(self);
                    let _ = answer.send(closed);
                    return;
                }
            }
        }
    }

    /// Commits a job together with the jobs that wait behind it, and answers. Returns what came after them that is no job.
    fn group(&mut self, first: Box<dyn Job>) -> Option<Message> {
        if let Some(poison) = &self.poison {
            first.answer(Err(poison.clone()));
            return None;
        }
        if self.options.fuse.as_ref().is_some_and(Fuse::is_out) {
            first.answer(Err(Error::Closed));
            return None;
        }
        let (mut jobs, mut after) = (Vec::new(), None);
        let committed = self.transaction(first, &mut jobs, &mut after);
        if committed.is_ok() {
            let standing = jobs.iter().filter(|job| job.stands()).count();
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
            self.counters.jobs.fetch_add(u64::try_from(standing).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        for job in jobs {
            job.answer(committed.clone());
        }
        self.checkpoint_if_due();
        after
    }

    /// One transaction. Every job that was taken is in `jobs` afterwards, whatever the result.
    fn transaction(&mut self, first: Box<dyn Job>, jobs: &mut Vec<Box<dyn Job>>, after: &mut Option<Message>) -> Result<(), Error> {
        let started = Instant::now();
        let transaction = match self.connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => transaction,
            Err(error) => {
                jobs.push(first);
                return Err(error.into());
            }
        };
        let mut next = Some(first);
        while let Some(mut job) = next.take() {
            let usable = in_savepoint(&transaction, &mut *job);
            jobs.push(job);
            usable?;
            // What came while the others ran joins them, within bounds: the first one waits for all.
            if jobs.len() < self.options.group_jobs_max && started.elapsed() < self.options.group_time_max {
                match self.queue.try_recv() {
                    Ok(Message::Job(job)) => next = Some(job),
                    Ok(other) => *after = Some(other),
                    Err(_) => {}
                }
            }
        }
        if !lives(self.options.fuse.as_ref()) {
            return Err(Error::Closed);
        }
        let begun = Instant::now();
        transaction.commit().map_err(|error| self.failed(error))?;
        COMMITS.observe(begun.elapsed());
        if lives(self.options.fuse.as_ref()) { Ok(()) } else { Err(Error::Closed) }
    }

    /// The error of a commit or a checkpoint, which may be the last.
    fn failed(&mut self, error: rusqlite::Error) -> Error {
        if !poisons(&error) {
            return error.into();
        }
        let error = Error::Poisoned(Arc::from(error.to_string()));
        tracing::error!(%error, "a database has failed");
        // Closing would copy the log into the file, as if it were known to be whole. The next start reads from it what is.
        let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        self.poison = Some(error.clone());
        error
    }

    /// Copies the log into the file when it has grown. This is after the answers: nobody waits for it but whoever writes next.
    fn checkpoint_if_due(&mut self) {
        if self.poison.is_some() {
            return;
        }
        let Ok((pages, _)) = checkpoint(&self.connection, "NOOP") else { return };
        if pages < self.checkpoint_at {
            // It has begun anew since, or has not yet grown.
            self.checkpoint_at = self.checkpoint_at.min(pages.saturating_add(self.options.checkpoint_pages)).max(self.options.checkpoint_pages);
            return;
        }
        let mode = if pages < self.options.checkpoint_pages.saturating_mul(CHECKPOINT_PATIENCE) { "PASSIVE" } else { "RESTART" };
        match checkpoint(&self.connection, mode) {
            // Readers of older states may keep pages in the log. They are not asked about after every commit.
            Ok((pages, copied)) if copied < pages => self.checkpoint_at = pages.saturating_add(self.options.checkpoint_pages),
            Ok(_) => self.checkpoint_at = self.options.checkpoint_pages,
            Err(error) => {
                let error = self.failed(error);
                tracing::warn!(%error, "the write-ahead log of a database could not be copied");
            }
        }
    }

    /// Copies all of the log into the file, unless readers of older states are in it for long.
    fn shrink(&mut self) -> Result<bool, Error> {
        if let Some(poison) = &self.poison {
            return Err(poison.clone());
        }
        self.connection.busy_timeout(SHRINK_WAIT)?;
        let copied = checkpoint(&self.connection, "TRUNCATE").map_err(|error| self.failed(error));
        self.connection.busy_timeout(self.options.lock_wait)?;
        copied.map(|(pages, copied)| copied == pages)
    }

    /// Leaves everything in the file.
    fn finish(&mut self) -> Result<(), Error> {
        match &self.poison {
            Some(poison) => Err(poison.clone()),
            None => checkpoint(&self.connection, "TRUNCATE").map(drop).map_err(|error| self.failed(error)),
        }
    }
}

/// The pages in the log, and how many of them are in the file.
fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<(i64, i64)> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    statement.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
}

/// Runs a job so that its failure undoes its own changes only. Fails when the transaction cannot go on.
fn in_savepoint(transaction: &Transaction<'_>, job: &mut dyn Job) -> Result<(), Error> {
    let execute = |sql: &str| transaction.prepare_cached(sql)?.execute([]);
    execute("SAVEPOINT job")?;
    let keep = job.run(transaction);
    // After a full disk and some other errors SQLite has undone the whole transaction by itself. None of these concerns what is on disk
    // already: that is only synced in commits and checkpoints.
    if transaction.is_autocommit() {
        return Err(Error::Undone);
    }
    if !keep {
        execute("ROLLBACK TO job")?;
    }
    execute("RELEASE job")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rusqlite::ffi;

    use super::*;
    use crate::database::file;

    #[test]
    fn after_a_failed_sync_nothing_is_written_any_more() {
        let folder = tempfile::TempDir::new().unwrap();
        let options = Options::new(*b"test");
        let path = folder.path().join("test.db");
        let connection = file::open_writer(&path, &["CREATE TABLE notes (text TEXT)"], &options).unwrap();
        let (_sender, queue) = mpsc::channel(1);
        let mut writer = Writer::new(connection, queue, options, Arc::default());
        let write = |writer: &mut Writer| {
            let (call, answer) = Call::boxed(|tx: &Transaction<'_>| Ok::<_, Error>(tx.execute("INSERT INTO notes VALUES ('x')", [])?), |_| ());
            writer.group(call);
            answer.blocking_recv().unwrap()
        };
        write(&mut writer).unwrap();
        // A disk that is full for now is no reason.
        assert!(matches!(writer.failed(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None)), Error::Full));
        write(&mut writer).unwrap();
        writer.failed(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None));
        for _ in 0..2 {
            assert!(matches!(write(&mut writer), Err(Error::Poisoned(_))));
        }
        assert!(matches!(writer.finish(), Err(Error::Poisoned(_))));
        let count: i64 = writer.connection.query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 2);
        drop(writer);
        assert!(path.with_extension("db-wal").exists(), "the log is left for the next start to judge");
    }
}
