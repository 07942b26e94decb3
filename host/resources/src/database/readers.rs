//! Connections that read. They are opened when first needed, lent to one job at a time, and cannot write.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{Error, Options, file};

pub(super) struct Readers {
    path: PathBuf,
    options: Options,
    /// One for each connection that may be open.
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub fn new(path: &Path, options: &Options) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(options.readers.max(1)));
        Arc::new(Self { path: path.to_owned(), options: options.clone(), permits, idle: Mutex::new(Vec::new()) })
    }

    pub async fn read<T, E, F>(self: &Arc<Self>, job: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let readers = self.clone();
        let work = tovuk_kernel::threads::spawn_blocking(move || {
            let result = readers.run(job);
            drop(permit);
            result
        });
        // The job's panics are caught; what is left is a runtime that is shutting down.
        work.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Waits for the jobs that run, and closes the connections.
    pub async fn close(&self) {
        let all = u32::try_from(self.options.readers.max(1)).unwrap_or(u32::MAX);
        let permits = self.permits.acquire_many(all).await;
        self.permits.close();
        drop(permits);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn run<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E>,
        E: From<Error>,
    {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => file::open_reader(&self.path, &self.options)?,
        };
        let result = at_one_moment(&connection, job);
        if connection.is_autocommit() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        result
    }
}

/// Runs a job inside a transaction, so that what others commit meanwhile is not seen halfway.
fn at_one_moment<T, E, F>(connection: &Connection, job: F) -> Result<T, E>
where
    F: FnOnce(&Connection) -> Result<T, E>,
    E: From<Error>,
{
    let transaction = connection.unchecked_transaction().map_err(Error::from)?;
    let result = catch_unwind(AssertUnwindSafe(|| job(&transaction))).unwrap_or_else(|panic| {
        let error = Error::panicked(&*panic);
        tracing::error!(%error, "a read of a database failed");
        Err(error.into())
    });
    // There is nothing to keep, and dropping it ends it.
    drop(transaction);
    result
}
