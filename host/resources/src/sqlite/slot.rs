//! One database of the store: its writer, its readers, and what waits for them. Whoever holds the writer's lock and all readers' permits has the
//! file to itself; connections are closed only so, because SQLite removes the log by its name when the last one closes.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tovuk_kernel::limits::{SQLITE_READERS_MAX, SQLITE_WAITING_MAX};

use super::backup;
use super::error::Error;
use super::group::Job;
use super::hold::Gone;
use super::link::{Link, Role};
use super::types::Allowance;
use crate::ledger::Ledger;

/// A database, open or not.
pub(super) struct Slot {
    pub path: PathBuf,
    /// Where its backups are.
    pub backups: PathBuf,
    /// Whoever makes or removes a backup.
    pub backing: Arc<AsyncMutex<()>>,
    /// The connection that writes. Empty until it is needed.
    pub writer: Arc<AsyncMutex<Option<Link>>>,
    /// One permit for each connection that may read.
    pub readers: Arc<Semaphore>,
    idle: Mutex<Vec<Link>>,
    /// Queries that wait to be written in one group.
    queue: Mutex<VecDeque<Job>>,
    waiting: AtomicUsize,
    /// Set once the database is deleted.
    gone: AtomicBool,
    /// Stops migrations: the database is deleted, or the host ends.
    pub stopping: Gone,
    /// Set once it is unknown what is on disk.
    poisoned: AtomicBool,
    /// When it was used last, on the store's counter.
    pub used: AtomicU64,
    /// Connections that are open.
    links: AtomicUsize,
    /// Bytes of its backups; `u64::MAX` until they were counted.
    backup_bytes: AtomicU64,
    /// Bytes of the database, as its writer has seen them last; `u64::MAX` while it has none.
    database_bytes: AtomicU64,
    number: i64,
    /// What accounts have.
    ledger: Arc<Ledger>,
}

/// The whole file, with nobody else in it.
pub(super) struct Exclusive {
    pub writer: OwnedMutexGuard<Option<Link>>,
    _readers: OwnedSemaphorePermit,
}

/// One of the calls that run or wait.
pub(super) struct Waiting(Arc<Slot>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn all_readers() -> u32 {
    u32::try_from(SQLITE_READERS_MAX).unwrap_or(u32::MAX)
}

impl Slot {
    pub fn new(number: u64, path: PathBuf, backups: PathBuf, ledger: Arc<Ledger>) -> Self {
        Self {
            path,
            backups,
            backing: Arc::default(),
            writer: Arc::default(),
            readers: Arc::new(Semaphore::new(SQLITE_READERS_MAX)),
            idle: Mutex::default(),
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            gone: AtomicBool::new(false),
            stopping: Gone::default(),
            poisoned: AtomicBool::new(false),
            used: AtomicU64::new(0),
            links: AtomicUsize::new(0),
            backup_bytes: AtomicU64::new(u64::MAX),
            database_bytes: AtomicU64::new(u64::MAX),
            number: number.cast_signed(),
            ledger,
        }
    }

    /// A place among the calls that run or wait.
    pub fn wait(self: &Arc<Self>) -> Result<Waiting, Error> {
        if self.gone.load(Ordering::Acquire) {
            return Err(Error::NotFound);
        }
        let waiting = Waiting(self.clone());
        if self.waiting.fetch_add(1, Ordering::Relaxed) < SQLITE_WAITING_MAX { Ok(waiting) } else { Err(Error::Busy) }
    }

    /// Whether it has connections.
    pub fn is_open(&self) -> bool {
        self.links.load(Ordering::Relaxed) > 0
    }

    /// The connection that writes, opened if need be. It is given back by putting it into its place again.
    pub fn writer(&self, place: &mut Option<Link>) -> Result<Link, Error> {
        self.check()?;
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned);
        }
        match place.take() {
            Some(link) => Ok(link),
            None => self.open(Role::Writer),
        }
    }

    /// A connection that reads, for whoever has a permit.
    pub fn reader(&self) -> Result<Link, Error> {
        self.check()?;
        let idle = locked(&self.idle).pop();
        match idle {
            Some(link) => Ok(link),
            None => self.open(Role::Reader),
        }
    }

    /// Refuses what was deleted.
    pub fn check(&self) -> Result<(), Error> {
        if self.gone.load(Ordering::Acquire) { Err(Error::NotFound) } else { Ok(()) }
    }

    fn open(&self, role: Role) -> Result<Link, Error> {
        // A restore may have been cut off between its steps.
        backup::recover(&self.path, &self.backups)?;
        let link = Link::open(&self.path, role)?;
        self.links.fetch_add(1, Ordering::Relaxed);
        Ok(link)
    }

    /// Takes back a connection that read.
    pub fn give_reader(&self, mut link: Link) {
        if link.settle() {
            locked(&self.idle).push(link);
        } else {
            self.lose(link);
        }
    }

    /// Takes back the connection that writes.
    pub fn give_writer(&self, place: &mut Option<Link>, mut link: Link) {
        if link.settle() {
            // What was rolled back counts no more.
            if let Err(error) = self.count(&link) {
                tracing::warn!(%error, "a tenant's database could not be counted");
            }
            *place = Some(link);
        } else {
            self.lose(link);
        }
    }

    /// Closes a connection. Another one may be open.
    fn lose(&self, link: Link) {
        drop(link);
        self.links.fetch_sub(1, Ordering::Relaxed);
    }

    /// Closes all connections.
    pub fn close(&self, exclusive: &mut Exclusive) {
        let idle = std::mem::take(&mut *locked(&self.idle));
        for link in idle.into_iter().chain(exclusive.writer.take()) {
            self.lose(link);
        }
        self.links.store(0, Ordering::Relaxed);
        self.database_bytes.store(u64::MAX, Ordering::Relaxed);
    }

    /// Waits until nobody else is in the file.
    pub async fn exclusive(&self) -> Result<Exclusive, Error> {
        let writer = self.writer.clone().lock_owned().await;
        let readers = self.readers.clone().acquire_many_owned(all_readers()).await.map_err(|_| Error::NotFound)?;
        Ok(Exclusive { writer, _readers: readers })
    }

    /// The same, if nobody is.
    pub fn try_exclusive(&self) -> Option<Exclusive> {
        let writer = self.writer.clone().try_lock_owned().ok()?;
        let readers = self.readers.clone().try_acquire_many_owned(all_readers()).ok()?;
        Some(Exclusive { writer, _readers: readers })
    }

    /// From now on there is no such database. Migrations are stopped.
    pub fn end(&self) {
        self.gone.store(true, Ordering::Release);
        self.stopping.leave();
    }

    /// From now on nothing is written, until the host starts anew.
    pub fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    pub fn queue(&self) -> MutexGuard<'_, VecDeque<Job>> {
        locked(&self.queue)
    }

    /// Bytes of the backups.
    pub fn backup_bytes(&self) -> u64 {
        match self.backup_bytes.load(Ordering::Relaxed) {
            u64::MAX => self.count_backups(),
            bytes => bytes,
        }
    }

    /// Counts them anew.
    pub fn count_backups(&self) -> u64 {
        let bytes = backup::list(&self.backups).map_or(0, |backups| backups.iter().map(|backup| backup.bytes).sum());
        self.backup_bytes.store(bytes, Ordering::Relaxed);
        let database = match self.database_bytes.load(Ordering::Relaxed) {
            u64::MAX => std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len()),
            bytes => bytes,
        };
        self.ledger.set(self.number, database.saturating_add(bytes));
        bytes
    }

    /// Says whose it is.
    pub fn own(&self, (account, service): (i64, i64)) {
        if self.check().is_ok() {
            self.ledger.own(self.number, account, service);
        }
    }

    /// What the account may have besides what it has, in bytes.
    pub fn account_room(&self, allowance: &Allowance) -> u64 {
        self.ledger.room(self.number, allowance.account_bytes).unwrap_or(u64::MAX)
    }

    /// Bounds how large the file may become, for the connection that writes. Databases of one account that grow at the same time have the same room, each for
    /// the statements that run: as many as the account has threads.
    pub fn bound(&self, link: &mut Link, allowance: &Allowance) -> rusqlite::Result<()> {
        let most = link.bytes()?.saturating_add(self.account_room(allowance));
        link.bound(allowance.database_bytes.min(most))
    }

    /// The same as [`storage`](Self::storage) for the connection that writes: it counts for the account.
    pub fn count(&self, link: &Link) -> Result<u64, Error> {
        let bytes = link.bytes()?;
        self.database_bytes.store(bytes, Ordering::Relaxed);
        let storage = bytes.saturating_add(self.backup_bytes());
        self.ledger.set(self.number, storage);
        Ok(storage)
    }

    /// The database and its backups, in bytes.
    pub fn storage(&self, link: &Link) -> Result<u64, Error> {
        Ok(link.bytes()?.saturating_add(self.backup_bytes()))
    }
}
