//! Databases of tenants: one SQLite file each, under the number that the control database gave it. SQL comes in from workers and the API, results
//! and their costs go out; everything that a statement may use up or reach is checked here.
//!
//! - What only reads runs beside others on one of a few connections for each database, and sees one state.
//! - What writes is queued and committed in groups with `synchronous=FULL`; it is answered after the sync.
//! - Whoever needs a database for longer (an interactive transaction, a stream) has it for a bounded time, and dropping it rolls back.
//! - Work runs on a bounded number of blocking threads, of which one database has a few at the most.
//! - Connections of databases that were not used for longest are closed when many are open.

mod advice;
mod backup;
mod billing;
mod charges;
mod confine;
mod error;
mod functions;
mod group;
mod heap;
mod hold;
mod link;
mod migrate;
mod raw;
mod restore;
mod run;
mod session;
mod slot;
mod stream;
mod types;
mod value;
mod watchdog;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, oneshot};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::histogram::Durations;
use tovuk_kernel::limits;

pub use billing::Payer;
pub use error::{Budget, Error};
pub use migrate::check as check_migrations;
pub use session::Transaction;
pub use stream::Rows;
pub use types::{Allowance, Answer, Backup, BackupKind, Columns, Counts, Flat, Migrated, Migration, Outcome, Statement, Table};
pub use value::{Params, Value};

use charges::Charges;
use group::Job;
use link::Link;
use run::Run;
use slot::Slot;
use watchdog::Watchdog;

use crate::ledger::Ledger;
use crate::meters::Bill;
use crate::shares::Shares;

/// Only the host's user may look into the folders.
const FOLDER_MODE: u32 = 0o700;

/// The databases of one host. Clones share them, and work for the same caller.
#[derive(Clone)]
pub struct Sqlites(Arc<Inner>, Caller);

/// How long queries and batches took, of all databases of this process.
pub fn run_durations() -> Durations {
    run::RUNS.read()
}

/// For whom a handle works.
#[derive(Clone, Default)]
struct Caller {
    /// Who pays for CPU time.
    payer: Option<Arc<dyn Payer>>,
    /// The account and the service.
    owner: Option<(i64, i64)>,
    /// Who is charged for rows and room.
    bill: Bill,
    /// The threads that it may have at a time.
    share: Option<Arc<Semaphore>>,
}

struct Inner {
    folder: PathBuf,
    clock: Clock,
    slots: Mutex<HashMap<u64, Arc<Slot>>>,
    /// What was deleted since the host began. Numbers are given out once, so none of them comes back.
    deleted: Mutex<HashSet<u64>>,
    /// One for each thread that may work.
    threads: Arc<Semaphore>,
    /// What of them each account may have that works now.
    shares: Shares,
    /// What accounts have.
    ledger: Arc<Ledger>,
    watchdog: Watchdog,
    /// Counts uses, to know which was last.
    uses: AtomicU64,
    open_max: usize,
    /// The host ends: no more migrations.
    closing: AtomicBool,
}

impl Sqlites {
    /// Opens the store in `<folder>/sqlite`, which is made if need be. Blocks; for the start of the host.
    pub fn open(folder: &Path, clock: Clock) -> io::Result<Self> {
        Self::open_with(folder, clock, limits::SQLITE_OPEN_MAX)
    }

    fn open_with(folder: &Path, clock: Clock, open_max: usize) -> io::Result<Self> {
        if !heap::installed() {
            return Err(io::Error::other("SQLite took memory before its limits were in place"));
        }
        let folder = std::path::absolute(folder)?.join("sqlite");
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder.join("backups"))?;
        restore::sweep(&folder)?;
        let threads = Arc::new(Semaphore::new(limits::SQLITE_RUNNING_MAX));
        let watchdog = Watchdog::start()?;
        let inner = Inner {
            folder,
            clock,
            slots: Mutex::default(),
            deleted: Mutex::default(),
            threads,
            shares: Shares::new(limits::SQLITE_RUNNING_ACCOUNT_MAX),
            ledger: Arc::default(),
            watchdog,
            uses: AtomicU64::new(0),
            open_max,
            closing: AtomicBool::new(false),
        };
        Ok(Self(Arc::new(inner), Caller::default()))
    }

    /// The same databases, for somebody who pays for the CPU time of what is asked for through this handle.
    pub fn paid_by(&self, payer: Arc<dyn Payer>) -> Self {
        Self(self.0.clone(), Caller { payer: Some(payer), ..self.1.clone() })
    }

    /// The same databases, for a service of an account: what is asked for through this handle has a share of the threads with everything else that the account asks for,
    /// so that one that asks without end does not keep others waiting.
    pub fn for_service(&self, account: i64, service: i64) -> Self {
        Self(self.0.clone(), Caller { owner: Some((account, service)), share: Some(self.0.shares.of(account)), ..self.1.clone() })
    }

    /// The same databases, where what is asked for is charged to a service.
    pub fn billed_to(self, bill: Bill) -> Self {
        Self(self.0, Caller { bill, ..self.1 })
    }

    /// What all databases of an account have, or those of one of its services, with their backups, in bytes.
    pub fn stored_bytes(&self, account: i64, service: Option<i64>) -> u64 {
        self.0.ledger.used(account, service)
    }

    /// Makes an empty database. One that is there stays as it is, so that this can be repeated; one that was deleted does not come back.
    pub async fn create(&self, number: u64) -> Result<(), Error> {
        let slot = self.slot(number);
        let exclusive = slot.exclusive().await?;
        self.blocking(move || {
            let _exclusive = exclusive;
            slot.check()?;
            link::create(&slot.path)
        })
        .await
    }

    /// The highest number of which there are files. None below it may be given out that is not, or its data would be somebody else's.
    pub async fn highest(&self) -> Result<u64, Error> {
        let folder = self.0.folder.clone();
        self.blocking(move || {
            let entries = backup::entries(&folder)?.into_iter().chain(backup::entries(&folder.join("backups"))?);
            Ok(entries.filter_map(|entry| entry.file_name().to_str()?.split('.').next()?.parse().ok()).max().unwrap_or(0))
        })
        .await
    }

    /// Says which account and service has which database, for the start of the host: what a database has counts for them from then on.
    pub async fn own(&self, owners: Vec<(u64, i64, i64)>) -> Result<(), Error> {
        let (folder, ledger) = (self.0.folder.clone(), self.0.ledger.clone());
        self.blocking(move || {
            for (number, account, service) in owners {
                ledger.own(number.cast_signed(), account, service);
                let file = fs::metadata(folder.join(format!("{number}.db"))).map_or(0, |metadata| metadata.len());
                let backups = backup::list(&folder.join("backups").join(number.to_string()))?;
                ledger.set(number.cast_signed(), backups.iter().fold(file, |sum, backup| sum.saturating_add(backup.bytes)));
            }
            Ok(())
        })
        .await
    }

    /// Those of these databases that were not made.
    pub async fn missing(&self, numbers: Vec<u64>) -> Result<Vec<u64>, Error> {
        let folder = self.0.folder.clone();
        self.blocking(move || {
            let missing = |number: &u64| fs::metadata(folder.join(format!("{number}.db"))).map_or(true, |metadata| metadata.len() == 0);
            Ok(numbers.into_iter().filter(missing).collect())
        })
        .await
    }

    /// Removes a database with its backups, and returns how many bytes they were. Work that runs ends first, and migrations are stopped;
    /// what waits is refused. One that
    /// does not exist is none to remove.
    pub async fn delete(&self, number: u64) -> Result<u64, Error> {
        let slot = self.slot(number);
        slot.end();
        self.deleted().insert(number);
        let mut exclusive = slot.exclusive().await?;
        let removed = self.blocking(move || {
            slot.close(&mut exclusive);
            restore::remove(&slot)
        });
        let removed = removed.await?;
        self.slots().remove(&number);
        self.0.ledger.remove(number.cast_signed());
        Ok(removed)
    }

    /// Stops migrations and closes every database once what runs in it has ended, so that its log is written back. For the end of the host; a database that is asked again is
    /// opened again.
    pub async fn close(&self) {
        self.stop_migrations();
        let slots: Vec<_> = self.slots().values().filter(|slot| slot.is_open()).cloned().collect();
        for slot in slots {
            if let Ok(mut exclusive) = slot.exclusive().await {
                let closing = self.blocking(move || {
                    slot.close(&mut exclusive);
                    Ok(())
                });
                // Fails only when the process's threads are gone, and then the next start reads the log.
                let _ = closing.await;
            }
        }
    }

    /// The size of a database with its backups, in bytes.
    pub async fn storage(&self, number: u64) -> Result<u64, Error> {
        self.read(number, |slot, link| slot.storage(link)).await
    }

    /// Runs one statement. What it wrote is on disk when this returns; on an error nothing of it is left.
    pub async fn query(&self, number: u64, allowance: Allowance, statement: Statement) -> Result<Outcome, Error> {
        self.batch(number, allowance, vec![statement]).await
    }

    /// Runs statements in one transaction.
    pub async fn batch(&self, number: u64, allowance: Allowance, statements: Vec<Statement>) -> Result<Outcome, Error> {
        if statements.is_empty() || statements.len() > limits::SQLITE_BATCH_STATEMENTS_MAX {
            return Err(Error::query(format!("a batch has 1 to {} statements", limits::SQLITE_BATCH_STATEMENTS_MAX)));
        }
        let slot = self.slot(number);
        let _waiting = slot.wait()?;
        let (allowance, exceeded) = self.within_caps(allowance);
        let mut charges = Charges::reads(&self.1.bill).await?;
        let mut statements = statements;
        if statements.iter().all(|statement| run::may_read_only(&statement.sql)) {
            match self.read_batch(number, allowance, statements, charges).await? {
                Ok(outcome) => return Ok(outcome),
                Err((back, unspent)) => (statements, charges) = (back, unspent),
            }
        }
        let charges = charges.writing().await?;
        let (answer, answered) = oneshot::channel();
        let gone = hold::Gone::default();
        let _guard = gone.guard();
        slot.queue().push_back(Job { statements, allowance, answer, gone, payer: self.1.payer.clone(), charges, counts: Counts::default() });
        // Not in the caller's future: if that goes away, others may have joined the group. Each pays for its own part.
        let store = Self(self.0.clone(), Caller { payer: None, ..self.1.clone() });
        tokio::spawn(async move { store.lead(&slot).await });
        charges::explain(answered.await.unwrap_or_else(|_| Err(Error::host(&"the query was lost"))), exceeded)
    }

    /// Runs statements on a connection that reads. Gives them back when one of them writes.
    async fn read_batch(&self, number: u64, allowance: Allowance, statements: Vec<Statement>, mut charges: Charges) -> Result<Read, Error> {
        let store = self.clone();
        self.read(number, move |slot, link| {
            let mut run = Run::begin(link, allowance, &store.0.watchdog, None);
            let results = match read_all(link, &mut run, &statements) {
                Ok(Some(results)) => results,
                Ok(None) => return Ok(Err((statements, charges))),
                Err(error) => {
                    charges.undone(&run.counts);
                    return Err(error);
                }
            };
            if let Err(error) = charges.cover(&run.counts) {
                charges.undone(&run.counts);
                return Err(error);
            }
            charges.committed(&run.counts);
            let storage_bytes = slot.storage(link)?;
            Ok(Ok(Outcome { results, counts: run.counts, storage_bytes, duration_ms: run.duration_ms(), next_actions: run.advice }))
        })
        .await
    }

    /// Writes a group of what waits, unless somebody else did.
    async fn lead(&self, slot: &Arc<Slot>) {
        let mut place = slot.writer.clone().lock_owned().await;
        if slot.queue().is_empty() {
            return;
        }
        let (store, slot) = (self.clone(), slot.clone());
        let work = self.blocking(move || {
            match slot.writer(&mut place) {
                Ok(mut link) => {
                    group::write(&slot, &mut link, &store.0.watchdog);
                    slot.give_writer(&mut place, link);
                }
                Err(error) => group::refuse(&slot, &error),
            }
            Ok(())
        });
        // Its own failures are answered where they happen; what is left is a runtime that is shutting down.
        let _ = work.await;
    }

    /// Runs work on a connection that reads, and takes it back.
    async fn read<T, F>(&self, number: u64, work: F) -> Result<T, Error>
    where
        F: FnOnce(&Slot, &mut Link) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let slot = self.slot(number);
        let permit = slot.readers.clone().acquire_owned().await.map_err(|_| Error::NotFound)?;
        let gone = hold::Gone::default();
        let _guard = gone.guard();
        let work = self.blocking(move || {
            let mut link = slot.reader()?;
            gone.watch(&link.monitor);
            let result = work(&slot, &mut link);
            gone.end();
            slot.give_reader(link);
            drop(permit);
            result
        });
        work.await
    }

    /// Runs work on one of the threads.
    async fn blocking<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: FnOnce() -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let share = match &self.1.share {
            Some(share) => Some(share.clone().acquire_owned().await.map_err(|error| Error::host(&error))?),
            None => None,
        };
        let permit = self.0.threads.clone().acquire_owned().await.map_err(|error| Error::host(&error))?;
        let payer = self.1.payer.clone();
        let work = tovuk_kernel::threads::spawn_blocking(move || {
            let result = billing::paid(payer.as_ref(), work);
            drop((permit, share));
            result
        });
        work.await.unwrap_or_else(|error| Err(Error::host(&error)))
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<u64, Arc<Slot>>> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deleted(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.0.deleted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a database, which may not exist.
    fn slot(&self, number: u64) -> Arc<Slot> {
        let now = self.0.uses.fetch_add(1, Ordering::Relaxed);
        let mut slots = self.slots();
        let slot = slots.entry(number).or_insert_with(|| {
            let path = self.0.folder.join(format!("{number}.db"));
            let slot = Slot::new(number, path, self.0.folder.join("backups").join(number.to_string()), self.0.ledger.clone());
            if self.deleted().contains(&number) {
                slot.end();
            }
            Arc::new(slot)
        });
        slot.used.store(now, Ordering::Relaxed);
        if let Some(owner) = self.1.owner {
            slot.own(owner);
        }
        let slot = slot.clone();
        if !slot.is_open() {
            self.make_room(&mut slots);
        }
        slot
    }

    /// Closes databases that were not used for longest, if too many are open. The closing itself is done elsewhere.
    fn make_room(&self, slots: &mut HashMap<u64, Arc<Slot>>) {
        let mut open: Vec<_> = slots.values().filter(|slot| slot.is_open()).cloned().collect();
        if open.len() < self.0.open_max {
            return;
        }
        open.sort_unstable_by_key(|slot| slot.used.load(Ordering::Relaxed));
        // Some more than needed, so that this is not done for each.
        let surplus = open.len() + 1 - self.0.open_max + self.0.open_max / 16;
        for slot in open.into_iter().take(surplus) {
            let Some(mut exclusive) = slot.try_exclusive() else { continue };
            tovuk_kernel::threads::spawn_blocking(move || slot.close(&mut exclusive));
        }
    }
}

/// What was read, or the statements again, because one of them writes.
type Read = Result<Outcome, (Vec<Statement>, Charges)>;

/// The answers to statements that only read. None when one of them writes.
fn read_all(link: &mut Link, run: &mut Run, statements: &[Statement]) -> Result<Option<Vec<Answer>>, Error> {
    link.run("BEGIN")?;
    let mut results = Vec::with_capacity(statements.len());
    for (index, statement) in statements.iter().enumerate() {
        let located = |error| group::locate(error, index, statements.len());
        let prepared = run.prepare(link, statement).map_err(located)?;
        let reads_only = prepared.reads_only();
        link.give(&statement.sql, prepared);
        if !reads_only {
            return Ok(None);
        }
        results.push(run.statement(link, statement).map_err(located)?);
    }
    link.monitor.end();
    link.run("COMMIT")?;
    Ok(Some(results))
}
