//! Object storage: files of any size under paths of a service. It knows no HTTP server, no worker and no other kind.
//!
//! Rows lie in one database, bytes in blobs under random names, on the local disk or in an S3-compatible store. An object is a row that names its
//! blobs in order, so that parts of an upload become an object, and one object takes another's place, in one commit that moves no byte:
//!
//! ```text
//! begin ──► upload row ──► receive: blob written and synced ──► segment row ──► complete: object row
//!                                                                                  │ replaced or deleted
//!                          collect: blob removed ◄── nobody reads it ◄── garbage ◄─┘
//! ```
//!
//! - What was answered is durable: bytes before their row, rows by the database's commit.
//! - A blob is in `garbage` before its first byte is written and leaves it in the commit that refers to it, so whatever a crash leaves behind is
//!   known by name and goes at the next start.
//! - Who has opened an object reads that version to its end; bytes go when the last reader has finished.
//! - Every limit is checked here, once, for all doors. [`Class`] says what each operation is metered as.

mod blobs;
mod budget;
mod conditions;
mod downloads;
mod error;
mod garbage;
mod incoming;
mod links;
mod listing;
mod media;
mod paths;
mod pins;
mod receiving;
mod rows;
mod s3;
mod signing;
mod types;
mod uploads;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::limits;

use crate::database::{self, Database, Options};
use crate::ledger::Ledger;
use crate::meters::Bill;

pub use conditions::Conditions;

pub use crate::conditional::Range;
pub use error::Error;
pub use links::{Links, locate};
pub use media::is_active;
pub use paths::check_path;
pub use s3::S3;
pub use signing::{Action, Grant, Signer};
pub use types::{
    Body, Chunk, Class, CompletedPart, Content, Deleted, Download, List, NewObject, Object, Page, PartPlan, PutObject, Reader, Received, Status,
    Tenant, Upload, UploadId, Usage,
};

use blobs::Blobs;
use budget::Budget;
use garbage::Names;
use pins::Pins;
use receiving::Receiving;

/// Marks the database as this store's.
const APPLICATION_ID: [u8; 4] = *b"tvOb";
/// The database's tables, in the order in which they came.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];
/// Abandoned uploads that one commit ends.
const SWEPT_AT_A_TIME: u32 = 200;

/// Where bytes are kept.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a folder of this machine, which is made when it is missing.
    Folder(PathBuf),
    /// In an S3-compatible store.
    S3(S3),
}

impl Place {
    /// What the database calls it. A folder may be moved together with the database.
    fn name(&self) -> String {
        match self {
            Self::Folder(_) => "a folder of the host".to_owned(),
            Self::S3(settings) => settings.name(),
        }
    }
}

/// What a sweep has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Uploads that were open for too long.
    pub uploads: u64,
    /// Names under which there are no bytes any more.
    pub blobs: u64,
}

/// The objects of all services. Clones share one store, and are charged to the same service.
#[derive(Clone)]
pub struct Objects(Arc<Inner>, Bill);

struct Inner {
    database: Database,
    blobs: Blobs,
    clock: Clock,
    names: Names,
    pins: Pins,
    receiving: Receiving,
    budget: Arc<Budget>,
    /// Told when there may be bytes to remove.
    work: Arc<Notify>,
    /// Bytes are removed by one at a time.
    collecting: tokio::sync::Mutex<()>,
    /// Services that were removed since the start. Workers of theirs may still run, and must not leave anything behind.
    removed: Arc<Mutex<HashSet<i64>>>,
    links: OnceLock<Links>,
    /// What services have, open uploads included. Changed where the writer is, before the commit.
    ledger: Arc<Ledger>,
}

fn lock(removed: &Mutex<HashSet<i64>>) -> MutexGuard<'_, HashSet<i64>> {
    removed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Objects {
    /// Opens the store, and begins to remove what an earlier process has left behind. Must run inside the async runtime, and blocks it while the
    /// database is opened; for the start of the host.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Folder`], [`Error::Store`] for settings that cannot be used, [`Error::Elsewhere`].
    pub async fn open(database: PathBuf, place: &Place, clock: Clock) -> Result<Self, Error> {
        let blobs = Blobs::open(place)?;
        Self::over(database, blobs, place.name(), clock).await
    }

    async fn over(database: PathBuf, blobs: Blobs, place: String, clock: Clock) -> Result<Self, Error> {
        let database = Database::open(&database, MIGRATIONS, Options::new(APPLICATION_ID))?;
        database.write(move |tx| begin(tx, &place)).await?;
        let work = Arc::<Notify>::default();
        let ledger = Arc::<Ledger>::default();
        let services = database.read(|conn| rows::services(conn).map_err(Error::from)).await?;
        services.into_iter().for_each(|service| note(&ledger, service));
        let inner = Arc::new(Inner {
            database,
            blobs,
            clock,
            names: Names::new(work.clone()),
            pins: Pins::new(work.clone()),
            receiving: Receiving::default(),
            budget: Arc::new(Budget::new()),
            work: work.clone(),
            collecting: tokio::sync::Mutex::default(),
            removed: Arc::default(),
            links: OnceLock::new(),
            ledger,
        });
        let objects = Self(inner, Bill::default());
        let store = Arc::downgrade(&objects.0);
        tokio::spawn(async move {
            loop {
                work.notified().await;
                let Some(inner) = store.upgrade() else { return };
                if let Err(error) = Self(inner, Bill::default()).collect().await {
                    tracing::warn!(%error, "bytes of objects that nothing refers to could not be removed; the next sweep tries again");
                }
            }
        });
        objects.0.work.notify_one();
        Ok(objects)
    }

    /// The same store, whose operations are charged to a service.
    pub fn billed_to(&self, bill: Bill) -> Self {
        Self(self.0.clone(), bill)
    }

    /// What all services of an account have, or one of them, with what open uploads have announced, in bytes.
    pub fn stored_bytes(&self, account: i64, service: Option<i64>) -> u64 {
        self.0.ledger.used(account, service)
    }

    /// Changes what a service has.
    async fn write<T, F>(&self, service: i64, job: F) -> Result<T, Error>
    where
        F: FnOnce(&rusqlite::Transaction<'_>) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        self.write_then(service, job, || ()).await
    }

    /// The same, and does something once it is on disk, also when the caller has gone by then; see [`Database::write_then`].
    async fn write_then<T, F, C>(&self, service: i64, job: F, committed: C) -> Result<T, Error>
    where
        F: FnOnce(&rusqlite::Transaction<'_>) -> Result<T, Error> + Send + 'static,
        C: FnOnce() + Send + 'static,
        T: Send + 'static,
    {
        let ledger = self.0.ledger.clone();
        let work = move |tx: &rusqlite::Transaction<'_>| {
            let answer = job(tx)?;
            rows::service(tx, service)?.into_iter().for_each(|service| note(&ledger, service));
            Ok::<_, Error>(answer)
        };
        self.0.database.write_then(work, |_| committed()).await
    }

    /// Ends uploads that have been open for too long, and removes bytes that nothing refers to. For the start of the host and every hour.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        loop {
            let before = self.0.clock.now_unix_ms().saturating_sub(limits::OBJECT_UPLOAD_SECONDS_MAX.saturating_mul(1_000));
            let ledger = self.0.ledger.clone();
            let step = move |tx: &rusqlite::Transaction<'_>| {
                let uploads = rows::uploads_before(tx, before, SWEPT_AT_A_TIME)?;
                for upload in &uploads {
                    rows::end_upload(tx, upload)?;
                    rows::service(tx, upload.service)?.into_iter().for_each(|service| note(&ledger, service));
                }
                Ok::<_, Error>(uploads)
            };
            let uploads = self.0.database.write(step).await?;
            if uploads.is_empty() {
                break;
            }
            uploads.iter().for_each(|upload| self.0.receiving.end(upload.id));
            swept.uploads += uploads.len() as u64;
        }
        swept.blobs = self.collect().await?;
        Ok(swept)
    }

    /// Removes bytes that nothing refers to and nobody reads.
    async fn collect(&self) -> Result<u64, Error> {
        let _one = self.0.collecting.lock().await;
        garbage::collect(&self.0.database, &self.0.blobs, &self.0.names, &self.0.pins).await
    }

    /// Closes the database. Whoever comes later gets an error.
    pub async fn close(&self) -> Result<(), Error> {
        Ok(self.0.database.close().await?)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The task that collects finds that there is nothing left to do it for.
        self.work.notify_one();
    }
}

/// Keeps in memory what a service has.
fn note(ledger: &Ledger, (service, account, usage): (i64, i64, Usage)) {
    ledger.own(service, account, service);
    ledger.set(service, usage.bytes.saturating_add(usage.reserved_bytes));
}

/// Checks that the database belongs to these bytes, and ends uploads whose sender was the process before.
fn begin(tx: &rusqlite::Transaction<'_>, place: &str) -> Result<(), Error> {
    let stored: Option<String> = tx.query_row("SELECT max(name) FROM place", [], |row| row.get(0))?;
    match stored {
        None => tx.execute("INSERT INTO place (name) VALUES (?1)", [place]).map(drop)?,
        Some(stored) if stored != place => return Err(Error::Elsewhere { stored, configured: place.to_owned() }),
        Some(_) => {}
    }
    let lost = rows::direct_uploads(tx)?;
    lost.iter().try_for_each(|upload| rows::end_upload(tx, upload))?;
    Ok(())
}
