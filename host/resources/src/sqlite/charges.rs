//! What statements are charged: the rows that they read, also when they fail, and the rows that they write, once they are committed.

use tokio::runtime::Handle;
use tovuk_kernel::meters::Meter;

use super::Sqlites;
use super::error::Error;
use super::types::{Allowance, Counts};
use crate::meters::{Bill, Exceeded, Tally};

/// What was reserved for statements that run.
pub(super) struct Charges(Tally);

impl Charges {
    /// For statements that only read.
    pub async fn reads(bill: &Bill) -> Result<Self, Error> {
        Ok(Self(Tally::reads(bill, Meter::SqliteRowsRead, Meter::SqliteRowsWritten).await?))
    }

    /// The same, for statements that write.
    pub async fn writing(self) -> Result<Self, Error> {
        Ok(Self(self.0.writing().await?))
    }

    /// Reserves what statements have used that are still to be committed or answered. On one of the threads for databases.
    ///
    /// # Errors
    /// When a cap has no room: they must be undone.
    pub fn cover(&mut self, counts: &Counts) -> Result<(), Error> {
        Ok(self.0.cover_blocking(&Handle::current(), counts.rows_read, counts.rows_written)?)
    }

    /// They stand.
    pub fn committed(mut self, counts: &Counts) {
        self.0.read(counts.rows_read);
        self.0.written(counts.rows_written);
    }

    /// They were undone. On one of the threads for databases.
    pub fn undone(mut self, counts: &Counts) {
        // Where there is no room for all that was read, what there is room for is charged.
        let _ = self.cover(&Counts { rows_written: 0, ..*counts });
        self.0.read(counts.rows_read);
    }
}

/// What an interactive transaction has written and not committed yet. What it reads is charged with each statement.
pub(super) struct Written {
    charges: Charges,
    total: u64,
}

impl Written {
    /// Nothing yet.
    pub async fn begin(bill: &Bill) -> Result<Self, Error> {
        Ok(Self { charges: Charges::reads(bill).await?.writing().await?, total: 0 })
    }

    /// Reserves what a statement has written. On one of the threads for databases.
    pub fn add(&mut self, rows: u64) -> Result<(), Error> {
        self.total = self.total.saturating_add(rows);
        self.charges.cover(&Counts { rows_written: self.total, ..Counts::default() })
    }

    /// It is committed.
    pub fn committed(&mut self) {
        self.charges.0.written(std::mem::take(&mut self.total));
    }
}

impl Sqlites {
    /// The allowance with no more room than caps leave, and which cap that is if it is less than the allowance had.
    pub(super) fn within_caps(&self, allowance: Allowance) -> (Allowance, Option<Exceeded>) {
        let Some(((account, _), (room, exceeded))) = self.1.owner.zip(self.1.bill.room(Meter::SqliteStorageBytes)) else { return (allowance, None) };
        let most = self.stored_bytes(account, None).saturating_add(room);
        if most >= allowance.account_bytes {
            return (allowance, None);
        }
        (Allowance { account_bytes: most, ..allowance }, Some(exceeded))
    }
}

/// Says that it was the cap, where it was.
pub(super) fn explain<T>(result: Result<T, Error>, exceeded: Option<Exceeded>) -> Result<T, Error> {
    result.map_err(|error| match (error, exceeded) {
        (Error::AccountFull(_), Some(exceeded)) => Error::Usage(exceeded),
        (error, _) => error,
    })
}
