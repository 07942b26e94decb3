//! What is behind the handles: the counters of all services, the caps of all accounts, and the file.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tovuk_kernel::clock::{Clock, UnixMs};
use tovuk_kernel::histogram::Histogram;
use tovuk_kernel::meters::{METERS, Meter, Sort};

use super::caps::{Cap, CapKey, Setting, Stored};
use super::counters::{self, Counters};
use super::handle::ServiceMeters;
use super::{Counts, Error, Levels, Usage, rows, window};
use crate::database::Database;

/// What tasks and handles share with the operations.
pub(super) struct Store {
    pub(super) database: Database,
    pub(super) clock: Clock,
    pub(super) levels: OnceLock<Arc<dyn Levels>>,
    pub(super) books: Mutex<Books>,
    /// Held while something is written, so that nothing older is written after something newer.
    pub(super) writing: tokio::sync::Mutex<()>,
    pub(super) noticed: Notify,
    pub(super) commits: Commits,
}

/// How the file keeps up.
#[derive(Default)]
pub(super) struct Commits {
    /// How long it took to write what had changed.
    writes: Histogram,
    /// How long work under caps waited for a lease.
    leases: Histogram,
    failures: AtomicU64,
}

impl Commits {
    /// What has been counted.
    pub fn read(&self) -> Counts {
        Counts { writes: self.writes.read(), leases: self.leases.read(), failures: self.failures.load(Ordering::Relaxed) }
    }

    async fn observe<T>(&self, histogram: &Histogram, commit: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let begun = Instant::now();
        let result = commit.await;
        histogram.observe(begun.elapsed());
        if result.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

#[derive(Default)]
pub(super) struct Books {
    pub(super) services: HashMap<i64, Arc<ServiceMeters>>,
    pub(super) caps: HashMap<CapKey, Arc<Cap>>,
}

impl Store {
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn handle(self: &Arc<Self>, account: i64, service: i64, counters: Counters) -> Arc<ServiceMeters> {
        let caps = ArcSwap::from_pointee(std::array::from_fn(|_| Vec::new()));
        let (cpu_ns, mb_ms) = Default::default();
        Arc::new(ServiceMeters { account, service, counters, cpu_ns, mb_ms, caps, store: Arc::downgrade(self), clock: self.clock.clone() })
    }

    /// Lets a cap apply. It is charged before what was used is added up, so that nothing is missed; what is charged meanwhile may count twice.
    pub(super) fn install(&self, key: CapKey, setting: Setting, stored: Stored) {
        let mut books = self.books();
        let cap = Cap::new(key, setting, 0, stored);
        books.caps.insert(key, cap.clone());
        books.services.values().filter(|service| service.account == key.account).for_each(|service| service.apply(&books.caps));
        drop(books);
        let now = self.clock.now_unix_ms();
        cap.charge(self.usage(key.account, key.service, now).of(key.meter, key.period), now);
    }

    pub(super) fn uninstall(&self, is_gone: impl Fn(&CapKey) -> bool) {
        let mut books = self.books();
        books.caps.retain(|key, _| !is_gone(key));
        books.services.values().for_each(|service| service.apply(&books.caps));
    }

    pub(super) fn usage(&self, account: i64, service: Option<i64>, now: UnixMs) -> Usage {
        let day = window::day(now);
        let mut usage = Usage { day: [0; METERS], month: [0; METERS] };
        for meters in self.books().services.values() {
            if meters.account == account && service.is_none_or(|service| service == meters.service) {
                let (today, month) = meters.counters.usage(day);
                counters::add(&mut usage.day, &today);
                counters::add(&mut usage.month, &month);
            }
        }
        for meter in Meter::ALL.into_iter().filter(|meter| meter.sort() == Sort::Level) {
            let level = self.level(account, service, meter);
            for figures in [&mut usage.day, &mut usage.month] {
                if let Some(figure) = figures.get_mut(meter.index()) {
                    *figure = level;
                }
            }
        }
        usage
    }

    pub(super) fn level(&self, account: i64, service: Option<i64>, meter: Meter) -> u64 {
        self.levels.get().map_or(0, |levels| levels.level(account, service, meter))
    }

    pub(super) fn level_of(&self, key: &CapKey) -> u64 {
        if key.meter.sort() == Sort::Level { self.level(key.account, key.service, key.meter) } else { 0 }
    }

    /// Writes what has changed. `is_last` also gives back what is leased and not used.
    pub(super) async fn write(&self, is_last: bool) -> Result<(), Error> {
        let _writing = self.writing.lock().await;
        let now = self.clock.now_unix_ms();
        let (services, caps): (Vec<_>, Vec<_>) = {
            let books = self.books();
            (books.services.values().cloned().collect(), books.caps.values().cloned().collect())
        };
        let days: Vec<_> =
            services.iter().flat_map(|meters| meters.counters.unwritten().into_iter().map(|day| ((meters.account, meters.service), day))).collect();
        let changed: Vec<_> = caps.iter().filter_map(|cap| Some((cap.clone(), cap.unwritten(self.level_of(&cap.key), now)?))).collect();
        if days.is_empty() && changed.is_empty() && !is_last {
            return Ok(());
        }
        let tells = changed.iter().any(|(_, (_, tell))| tell.is_some());
        let written: Vec<_> = days.iter().map(|((account, service), day)| ((*account, *service, day.day()), day.changed.clone())).collect();
        let stored: Vec<_> = changed.iter().map(|(cap, (stored, tell))| (cap.key, *stored, tell.map(|used| (used, cap.setting())))).collect();
        let returned: Vec<_> = if is_last { caps.iter().map(|cap| (cap.key, cap.returned(now))).collect() } else { Vec::new() };
        let write = self.database.write(move |tx| {
            written.iter().try_for_each(|(day, changed)| rows::write_day(tx, *day, changed))?;
            for (key, stored, tell) in &stored {
                rows::lease(tx, key, stored)?;
                if let Some((used, setting)) = tell {
                    rows::add_notice(tx, key, stored.window, *used, *setting)?;
                }
            }
            returned.iter().try_for_each(|(key, stored)| rows::give_back(tx, key, stored))
        });
        self.commits.observe(&self.commits.writes, write).await?;
        days.into_iter().for_each(|(_, day)| day.written());
        changed.iter().for_each(|(cap, (stored, _))| cap.written(*stored));
        if tells {
            self.noticed.notify_waiters();
        }
        Ok(())
    }

    /// Extends the lease of a cap, on disk, so that so much more can be reserved. Nothing where somebody else has done it meanwhile, or there is no room.
    pub(super) async fn extend(self: Arc<Self>, cap: Arc<Cap>, more: u64) -> Result<(), Error> {
        let _extending = cap.extending.lock().await;
        let Some(stored) = cap.lease(more, self.clock.now_unix_ms()) else { return Ok(()) };
        let key = cap.key;
        let lease = self.database.write(move |tx| rows::lease(tx, &key, &stored));
        self.commits.observe(&self.commits.leases, lease).await?;
        cap.leased(stored);
        Ok(())
    }
}
