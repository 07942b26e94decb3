//! Large results in pieces: the statement stays open on a connection that reads, and each piece is read when it is asked for.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tovuk_kernel::limits::SQLITE_CHUNK_BYTES;

use super::Sqlites;
use super::charges::Charges;
use super::error::Error;
use super::hold::{Held, Lease, Place};
use super::run::Run;
use super::types::{Allowance, Columns, Counts, Statement, Table};
use super::watchdog::Watchdog;

/// The rows of a statement, piece by piece, all of one state of the database. It may be open as long as a transaction, and dropping it ends it.
pub struct Rows {
    store: Sqlites,
    held: Arc<Held>,
    columns: Columns,
    /// The first piece, until it is asked for.
    first: Option<Table>,
    /// None once the last row was read.
    progress: Option<Progress>,
    counts: Counts,
}

/// Where a stream stands.
#[derive(Clone)]
struct Progress {
    sql: Arc<str>,
    /// What is left of the budgets.
    allowance: Allowance,
}

/// One piece.
struct Piece {
    rows: Table,
    columns: Columns,
    counts: Counts,
    progress: Option<Progress>,
}

impl Sqlites {
    /// Begins to read. The statement must not write. Its steps, time and memory are bounded like any other's, and so is one row of its result, but not
    /// the whole.
    pub async fn stream(&self, number: u64, allowance: Allowance, statement: Statement) -> Result<Rows, Error> {
        let slot = self.slot(number);
        let waiting = slot.wait()?;
        let permit = slot.readers.clone().acquire_owned().await.map_err(|_| Error::NotFound)?;
        let (runtime, store) = (Handle::current(), self.clone());
        let charges = Charges::reads(&self.1.bill).await?;
        let begun = self.blocking(move || {
            let link = slot.reader()?;
            let mut lease = Lease::new(slot, link, Place::Reader(permit), runtime, waiting);
            let link = lease.link()?;
            let mut run = Run::begin(link, allowance, &store.0.watchdog, None);
            let prepared = run.prepare(link, &statement)?;
            if !prepared.reads_only() {
                return Err(Error::forbidden("streaming the rows of a statement that writes; send it as a query"));
            }
            link.running = Some(prepared);
            drop(run);
            let progress = Progress { sql: statement.sql.into(), allowance };
            let piece = piece(&mut lease, progress, &store.0.watchdog, None)?;
            charge(charges, &piece)?;
            Ok((lease, piece))
        });
        let (lease, piece) = begun.await?;
        let held = Held::new(self, lease);
        Ok(Rows { store: self.clone(), held, columns: piece.columns, first: Some(piece.rows), progress: piece.progress, counts: piece.counts })
    }
}

impl Rows {
    /// The columns' names.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// What the rows so far have cost.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The next rows: some, or none when there are no more.
    pub async fn next(&mut self) -> Result<Option<Table>, Error> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Ok(Some(first));
        }
        let Some(progress) = self.progress.take() else { return Ok(None) };
        let (store, until) = (self.store.clone(), self.held.until);
        let charges = Charges::reads(&self.store.1.bill).await?;
        let read = move |lease: &mut Lease| {
            let piece = piece(lease, progress, &store.0.watchdog, Some(until))?;
            charge(charges, &piece)?;
            Ok(piece)
        };
        let work = move |lease: &mut Lease| match read(lease) {
            Ok(piece) => {
                let ended = piece.progress.is_none().then_some("all rows were read");
                (Ok(piece), ended)
            }
            Err(error) => (Err(error), Some("a statement failed")),
        };
        let piece = self.held.with(&self.store, work).await?;
        self.counts.add(&piece.counts);
        self.progress = piece.progress;
        Ok(Some(piece.rows).filter(|rows| !rows.is_empty()))
    }
}

/// Charges the rows of a piece, which is not given where they have no room.
fn charge(mut charges: Charges, piece: &Piece) -> Result<(), Error> {
    let covered = charges.cover(&piece.counts);
    charges.undone(&piece.counts);
    covered
}

/// Reads on until the piece is full or there are no more rows.
fn piece(lease: &mut Lease, progress: Progress, watchdog: &Watchdog, until: Option<Instant>) -> Result<Piece, Error> {
    let link = lease.link()?;
    let Some(prepared) = link.running.take() else { return Err(Error::Ended("all rows were read")) };
    let mut run = Run::begin(link, progress.allowance, watchdog, until);
    run.arm(link);
    let (mut values, mut bytes, mut columns, mut last) = (Vec::new(), 0_usize, None, false);
    while bytes < SQLITE_CHUNK_BYTES {
        if !run.step(link, &prepared)? {
            last = true;
            break;
        }
        if columns.is_none() {
            columns = Some(run.names(&prepared, 0)?.columns);
        }
        bytes = run.read(&prepared, &mut values, bytes)?;
    }
    let columns = match columns {
        Some(columns) => columns,
        None => run.names(&prepared, 0)?.columns,
    };
    let rows = Table::new(columns.len(), values);
    let counts = run.count(link, &prepared, &progress.sql, rows.len());
    link.monitor.end();
    let Progress { sql, allowance } = progress;
    let progress = if last {
        link.give(&sql, prepared);
        None
    } else {
        link.running = Some(prepared);
        let query_ms = allowance.query_ms.saturating_sub(run.whole_ms());
        let vm_steps = allowance.vm_steps.saturating_sub(counts.vm_steps);
        Some(Progress { sql, allowance: Allowance { query_ms, vm_steps, ..allowance } })
    };
    Ok(Piece { rows, columns, counts, progress })
}
