//! Rows that work reads and writes. How many they are is known only after it has run, so under a cap it reserves as many then, before it is committed or
//! answered, and is undone where there is no room. What it has read is charged also when it is undone.

use tokio::runtime::Handle;
use tovuk_kernel::meters::Meter;

use super::Error;
use super::bill::{Bill, Charge};

/// What was reserved for work that reads and writes rows.
pub struct Tally {
    bill: Bill,
    read: Rows,
    written: Rows,
}

struct Rows {
    meter: Meter,
    charge: Charge,
    reserved: u64,
}

impl Rows {
    async fn begin(bill: &Bill, meter: Meter, reserved: u64) -> Result<Self, Error> {
        Ok(Self { meter, charge: bill.reserve(meter, reserved).await?, reserved })
    }

    async fn cover(&mut self, bill: &Bill, rows: u64) -> Result<(), Error> {
        let more = rows.saturating_sub(self.reserved);
        if more > 0 && bill.is_capped(self.meter) {
            self.charge.extend(more).await?;
            self.reserved = rows;
        }
        Ok(())
    }

    fn spend(&mut self, bill: &Bill, rows: u64) {
        self.charge.spend(if bill.is_capped(self.meter) { rows.min(self.reserved) } else { rows });
    }
}

impl Tally {
    /// For work that reads. One row of each meter is reserved, so that nothing runs where there is no room at all.
    ///
    /// # Errors
    /// When a cap has no room, or the store of meters fails.
    pub async fn reads(bill: &Bill, read: Meter, written: Meter) -> Result<Self, Error> {
        Ok(Self { bill: bill.clone(), read: Rows::begin(bill, read, 1).await?, written: Rows::begin(bill, written, 0).await? })
    }

    /// For work that writes and may read nothing. One row that is written is reserved.
    ///
    /// # Errors
    /// As [`Tally::reads`].
    pub async fn writes(bill: &Bill, read: Meter, written: Meter) -> Result<Self, Error> {
        Ok(Self { bill: bill.clone(), read: Rows::begin(bill, read, 0).await?, written: Rows::begin(bill, written, 1).await? })
    }

    /// The same as [`Tally::reads`], for work that writes.
    ///
    /// # Errors
    /// As [`Tally::reads`].
    pub async fn writing(mut self) -> Result<Self, Error> {
        self.written = Rows::begin(&self.bill, self.written.meter, 1).await?;
        Ok(self)
    }

    /// Reserves all that the work has read and written.
    ///
    /// # Errors
    /// When a cap has no room: the work must be undone, and its answer not be given.
    pub async fn cover(&mut self, read: u64, written: u64) -> Result<(), Error> {
        self.read.cover(&self.bill, read).await?;
        self.written.cover(&self.bill, written).await
    }

    /// The same, on a thread that may wait.
    ///
    /// # Errors
    /// As [`Tally::cover`].
    pub fn cover_blocking(&mut self, runtime: &Handle, read: u64, written: u64) -> Result<(), Error> {
        let is_capped = self.bill.is_capped(self.read.meter) || self.bill.is_capped(self.written.meter);
        if is_capped { runtime.block_on(self.cover(read, written)) } else { Ok(()) }
    }

    /// So much was read, or as much of it as was reserved.
    pub fn read(&mut self, rows: u64) {
        self.read.spend(&self.bill, rows);
    }

    /// So much was written and stands.
    pub fn written(&mut self, rows: u64) {
        self.written.spend(&self.bill, rows);
    }
}
