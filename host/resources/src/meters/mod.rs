//! What services use, and how much they may: the meters of each service by day and month, and the caps of accounts and services. Whoever does work charges it
//! here, through the handle of its service; nothing else counts.
//!
//! - **Charging is one addition** to a counter in memory (`counters.rs`). Once in a second what has changed is written, so a host that dies loses a
//!   second of what no cap is on.
//! - **A cap is never overshot** (`caps.rs`). Work reserves what it may need, and gives back what it did not. It needs room in the account's cap and in
//!   the service's, of the day and of the month.
//! - **Levels**, such as stored bytes, are asked of the stores that have them ([`Levels`]): what there is and what is being written stays below the cap.
//! - **Notices** of caps that fill up are rows, written with the mark that there is one, so each is told, and once in a period ([`Meters::notice`]).

mod bill;
mod caps;
mod counters;
mod error;
mod handle;
mod reservation;
mod rows;
mod store;
mod tally;
mod window;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::histogram::Durations;
use tovuk_kernel::meters::{METERS, Meter, Period};

pub use bill::{Bill, Charge};
pub use caps::{CapKey, Exceeded, Setting};
pub use counters::Figures;
pub use error::Error;
pub(crate) use error::refuses;
pub use handle::{ServiceMeters, gb_ms_at_most, ms_covered};
pub use reservation::Reservation;
pub use tally::Tally;

use crate::database::{self, Database};
use caps::{Cap, Stored};
use counters::Counters;
use rows::StoredCap;
use store::Store;
use window::Window;

/// Marks the file.
const APPLICATION_ID: [u8; 4] = *b"tvmt";
/// How often what has changed is written.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Days of usage that are kept.
const DAYS_KEPT: u32 = 400;

/// Who knows what there is of a level.
pub trait Levels: Send + Sync + 'static {
    /// What a service has, or all services of an account together.
    fn level(&self, account: i64, service: Option<i64>, meter: Meter) -> u64;
}

/// What was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Today.
    pub day: Figures,
    /// This month, today included.
    pub month: Figures,
}

impl Usage {
    /// What was used of a meter in a period.
    pub fn of(&self, meter: Meter, period: Period) -> u64 {
        let figures = match period {
            Period::Day => &self.day,
            Period::Month => &self.month,
        };
        figures.get(meter.index()).copied().unwrap_or_default()
    }
}

/// A cap, and how much of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapInfo {
    /// Which.
    pub key: CapKey,
    /// What it says.
    pub setting: Setting,
    /// How much of it is used.
    pub used: u64,
    /// When its period ends, in ms since the UNIX epoch.
    pub ends_ms: u64,
}

/// Somebody has to be told that a cap fills up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its number, which [`Meters::told`] takes.
    pub id: i64,
    /// Which cap.
    pub key: CapKey,
    /// How much was used.
    pub used: u64,
    /// What the cap says.
    pub setting: Setting,
    /// Whether [`Meters::written`] was called for it.
    pub is_written: bool,
}

/// How the file keeps up.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// How long it took to write what had changed, which happens once in a second.
    pub writes: Durations,
    /// How long work under caps waited for the disk, to have more of a cap.
    pub leases: Durations,
    /// How often either failed.
    pub failures: u64,
}

/// The open store. Clones share it.
#[derive(Clone)]
pub struct Meters {
    store: Arc<Store>,
    flusher: Arc<Flusher>,
}

/// The task that writes. It ends with the last handle of the store.
struct Flusher(AbortHandle);

impl Drop for Flusher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Meters {
    /// Opens the store, which is created if need be. Must run inside the async runtime.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn open(path: &Path, clock: Clock) -> Result<Self, Error> {
        let database = Database::open(path, rows::MIGRATIONS, database::Options { readers: 2, ..database::Options::new(APPLICATION_ID) })?;
        let today = window::day(clock.now_unix_ms());
        let read = move |conn: &_| {
            // A clock that goes back does not bring a day back.
            let day = rows::last_day(conn)?.map_or(today, |last| last.max(today));
            Ok::<_, Error>((day, rows::used(conn, day)?, rows::caps(conn)?))
        };
        let (day, used, stored) = database.read(read).await?;
        let store = Arc::new(Store {
            database,
            clock,
            levels: OnceLock::new(),
            books: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            noticed: Notify::new(),
            commits: store::Commits::default(),
        });
        {
            let mut books = store.books();
            for (service, used) in used {
                books.services.insert(service, store.handle(used.account, service, Counters::new(day, used.today, used.before)));
            }
            for StoredCap { key, setting, stored } in stored {
                // What was leased counts as used. That of a period that has ended is forgotten at the first look.
                books.caps.insert(key, Cap::new(key, setting, stored.leased, stored));
            }
            books.services.values().for_each(|service| service.apply(&books.caps));
        }
        let flusher = Arc::new(Flusher(tokio::spawn(flush(Arc::downgrade(&store))).abort_handle()));
        Ok(Self { store, flusher })
    }

    /// How the file keeps up, since the start.
    pub fn counts(&self) -> Counts {
        self.store.commits.read()
    }

    /// Says who knows the levels. For the start of the host.
    pub fn set_levels(&self, levels: Arc<dyn Levels>) {
        // The first stays.
        let _ = self.store.levels.set(levels);
    }

    /// Writes all and closes the file. What is leased of caps and not used is given back.
    ///
    /// # Errors
    /// When the file could not be brought up to date.
    pub async fn close(&self) -> Result<(), Error> {
        self.flusher.0.abort();
        self.store.write(true).await?;
        Ok(self.store.database.close().await?)
    }

    /// What a service is charged with. It is the same for as long as the host runs.
    pub fn service(&self, account: i64, service: i64) -> Arc<ServiceMeters> {
        let mut books = self.store.books();
        if let Some(meters) = books.services.get(&service) {
            return meters.clone();
        }
        let day = window::day(self.store.clock.now_unix_ms());
        let meters = self.store.handle(account, service, Counters::new(day, [0; METERS], [0; METERS]));
        meters.apply(&books.caps);
        books.services.insert(service, meters.clone());
        meters
    }

    /// The same, as the stores and the runtime are given it.
    pub fn bill(&self, account: i64, service: i64) -> Bill {
        self.service(account, service).into()
    }

    /// What an account has used, or one of its services.
    pub fn usage(&self, account: i64, service: Option<i64>) -> Usage {
        self.store.usage(account, service, self.store.clock.now_unix_ms())
    }

    /// Sets a cap, from now on. What was used of the period before counts.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn set_cap(&self, key: CapKey, setting: Setting) -> Result<(), Error> {
        let (store, writing) = (self.store.clone(), self.store.clone());
        // A task of its own, so that what is in memory follows what is on disk also when the caller has gone.
        let work = tokio::spawn(async move {
            let _writing = writing.writing.lock().await;
            let now = store.clock.now_unix_ms();
            let before = store.books().caps.get(&key).cloned();
            let used = store.usage(key.account, key.service, now).of(key.meter, key.period);
            let stored = match &before {
                Some(cap) => cap.stored(now, setting),
                None => Stored { window: Window::at(key.period, now), leased: used, notified: false },
            };
            store.database.write(move |tx| rows::put_cap(tx, &StoredCap { key, setting, stored })).await?;
            match before {
                Some(cap) => cap.set(setting),
                None => store.install(key, setting, stored),
            }
            Ok(())
        });
        work.await.unwrap_or(Err(Error::Database(database::Error::Closed)))
    }

    /// Removes a cap. Returns whether it was there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete_cap(&self, key: CapKey) -> Result<bool, Error> {
        let _writing = self.store.writing.lock().await;
        let deleted = self.store.database.write(move |tx| rows::delete_cap(tx, &key)).await?;
        self.store.uninstall(|cap| *cap == key);
        Ok(deleted)
    }

    /// Removes the caps of a service that is gone, or of an account with all of its services. What they have used is kept.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete_caps(&self, account: i64, service: Option<i64>) -> Result<(), Error> {
        let _writing = self.store.writing.lock().await;
        self.store.database.write(move |tx| rows::delete_caps(tx, account, service)).await?;
        self.store.uninstall(|cap| cap.account == account && service.is_none_or(|service| cap.service == Some(service)));
        Ok(())
    }

    /// The caps of an account, and with `service` only those of that service, in their order.
    pub fn caps(&self, account: i64, service: Option<i64>) -> Vec<CapInfo> {
        let now = self.store.clock.now_unix_ms();
        let is_asked = |key: &CapKey| key.account == account && service.is_none_or(|service| key.service == Some(service));
        let caps: Vec<_> = self.store.books().caps.values().filter(|cap| is_asked(&cap.key)).cloned().collect();
        let info = |cap: Arc<Cap>| {
            let (key, used) = (cap.key, cap.used(self.store.level_of(&cap.key), now));
            CapInfo { key, setting: cap.setting(), used, ends_ms: window::ends_ms(key.period, now) }
        };
        let mut caps: Vec<_> = caps.into_iter().map(info).collect();
        caps.sort_by_key(|cap| cap.key);
        caps
    }

    /// Waits for the oldest notice that nobody has been told of, after that one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn notice(&self, after: i64) -> Result<Notice, Error> {
        loop {
            let noticed = self.store.noticed.notified();
            if let Some(notice) = self.store.database.read(move |conn| rows::next_notice(conn, after)).await? {
                return Ok(notice);
            }
            noticed.await;
        }
    }

    /// A notice was written down where it is to be found, and need not be again; somebody may still have to be told.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn written(&self, id: i64) -> Result<(), Error> {
        self.store.database.write(move |tx| rows::mark_written(tx, id)).await
    }

    /// Somebody has been told of a notice.
    ///
    /// # Errors
    /// When the store fails; then it comes again after the next start.
    pub async fn told(&self, id: i64) -> Result<(), Error> {
        self.store.database.write(move |tx| rows::delete_notice(tx, id)).await
    }

    /// Writes what has changed, now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn flush(&self) -> Result<(), Error> {
        self.store.write(false).await
    }
}

/// Writes once in a second for as long as the store is open.
async fn flush(store: Weak<Store>) {
    let Some(clock) = store.upgrade().map(|store| store.clock.clone()) else { return };
    let mut day = window::day(clock.now_unix_ms());
    loop {
        clock.sleep(FLUSH_EVERY).await;
        let Some(store) = store.upgrade() else { return };
        if let Err(error) = store.write(false).await {
            tracing::warn!("usage was not written and will be with the next: {error}");
        }
        let today = window::day(clock.now_unix_ms());
        if today != day {
            day = today;
            if let Err(error) = store.database.write(move |tx| rows::prune(tx, today.saturating_sub(DAYS_KEPT))).await {
                tracing::warn!("usage of days that are long past was not removed: {error}");
            }
        }
    }
}
