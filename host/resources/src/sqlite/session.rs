//! Interactive transactions: a worker's statements one by one, with the writer of the database held for them meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

use super::charges::{self, Charges, Written};
use super::error::Error;
use super::hold::{Held, Lease, Place};
use super::raw;
use super::run::Run;
use super::types::{Allowance, Counts, Outcome, Statement};
use super::{Payer, Slot, Sqlites};
use crate::meters::Exceeded;

/// A transaction that writes. Dropped without a commit it is rolled back, as it is when it was idle for
/// [`SQLITE_TRANSACTION_IDLE_MS_MAX`](tovuk_kernel::limits::SQLITE_TRANSACTION_IDLE_MS_MAX) or open for
/// [`SQLITE_TRANSACTION_MS_MAX`](tovuk_kernel::limits::SQLITE_TRANSACTION_MS_MAX).
pub struct Transaction {
    store: Sqlites,
    held: Arc<Held>,
    allowance: Allowance,
    written: Arc<Mutex<Written>>,
    exceeded: Option<Exceeded>,
}

impl Sqlites {
    /// Begins a transaction. Other writers of this database wait until it ends.
    pub async fn begin(&self, number: u64, allowance: Allowance) -> Result<Transaction, Error> {
        let slot = self.slot(number);
        let waiting = slot.wait()?;
        let (allowance, exceeded) = self.within_caps(allowance);
        let written = Arc::new(Mutex::new(Written::begin(&self.1.bill).await?));
        let mut place = slot.writer.clone().lock_owned().await;
        let runtime = Handle::current();
        let lease = self.blocking(move || {
            let link = slot.writer(&mut place)?;
            let mut lease = Lease::new(slot.clone(), link, Place::Writer(place), runtime, waiting);
            let link = lease.link()?;
            slot.bound(link, &allowance)?;
            link.run("BEGIN IMMEDIATE")?;
            Ok(lease)
        });
        let held = Held::new(self, lease.await?);
        Ok(Transaction { store: self.clone(), held, allowance, written, exceeded })
    }
}

impl Transaction {
    /// Runs one statement. After an error of the statement alone (a constraint, a mistake in it) the transaction goes on without it; after any
    /// other it has ended.
    pub async fn query(&self, statement: Statement) -> Result<Outcome, Error> {
        self.run(self.store.clone(), statement).await
    }

    /// The same, for somebody who pays for this statement alone.
    pub async fn query_paid_by(&self, payer: Arc<dyn Payer>, statement: Statement) -> Result<Outcome, Error> {
        self.run(self.store.paid_by(payer), statement).await
    }

    async fn run(&self, store: Sqlites, statement: Statement) -> Result<Outcome, Error> {
        let (works, allowance, until, written) = (store.clone(), self.allowance, self.held.until, self.written.clone());
        let mut charges = Charges::reads(&store.1.bill).await?;
        let work = move |lease: &mut Lease| {
            let slot = lease.slot.clone();
            let result = lease.link().and_then(|link| {
                let mut run = Run::begin(link, allowance, &works.0.watchdog, Some(until));
                let answer = run.statement(link, &statement);
                link.monitor.end();
                let covered = charges.cover(&Counts { rows_written: 0, ..run.counts });
                charges.undone(&run.counts);
                let results = vec![answer?];
                covered?;
                written.lock().unwrap_or_else(PoisonError::into_inner).add(run.counts.rows_written)?;
                let storage_bytes = slot.count(link)?;
                Ok(Outcome { results, counts: run.counts, storage_bytes, duration_ms: run.duration_ms(), next_actions: run.advice })
            });
            let over = lease.link().map_or(true, |link| link.connection().is_autocommit());
            let goes_on = matches!(result, Ok(_) | Err(Error::Query(_) | Error::Constraint(_) | Error::Forbidden(_)));
            (result, (over || !goes_on).then_some("a statement failed"))
        };
        charges::explain(self.held.with(&store, work).await, self.exceeded)
    }

    /// Commits. Everything is on disk when this returns; on an error nothing of it is left. Returns the size of the database and its backups, in
    /// bytes.
    pub async fn commit(self) -> Result<u64, Error> {
        let written = self.written.clone();
        let work = move |lease: &mut Lease| {
            let slot = lease.slot.clone();
            let result = lease.link().and_then(|link| {
                if raw::deferred_constraints(link.connection()) {
                    return Err(Error::Constraint("FOREIGN KEY constraint failed".into()));
                }
                if let Err(error) = link.run("COMMIT") {
                    return Err(commit_failed(&slot, error));
                }
                written.lock().unwrap_or_else(PoisonError::into_inner).committed();
                if let Err(error) = link.tidy() {
                    tracing::warn!(%error, "the write-ahead log of a tenant's database could not be copied");
                }
                slot.storage(link)
            });
            (result, Some("it was committed"))
        };
        self.held.with(&self.store, work).await
    }

    /// Rolls back, and returns when that is done.
    pub async fn rollback(self) -> Result<(), Error> {
        let work = |lease: &mut Lease| (lease.link().and_then(|link| Ok(link.run("ROLLBACK")?)), Some("it was rolled back"));
        self.held.with(&self.store, work).await
    }
}

/// Notes what a failed commit means for those that follow.
pub(super) fn commit_failed(slot: &Slot, error: rusqlite::Error) -> Error {
    if super::error::poisons(&error) {
        slot.poison();
    }
    error.into()
}
