//! Queues: messages that are sent now and delivered later, at least once, in the order in which they came as far as retries allow. Doors (delivery to
//! workers, the worker's import, the API, the command line) call the operations of [`Queues`]; each checks every limit of its request, and its answer has
//! what doors show and meters count.
//!
//! - **Acknowledged means on disk.** A send is answered after the commit of its group with `synchronous=FULL`; so are acknowledgements and retries.
//!   Moving a dead letter is one transaction, because the queues of a service lie in one file.
//! - **Delivering writes nothing.** What is being delivered is known in memory (`live.rs`) and is delivered again when the process dies. Only how a
//!   delivery ended is written ([`Batch::settle`]). Clients that pull get leases, which are on disk.
//! - **Nobody polls.** [`Queues::active`] names queues where there may be something, at first all that have a backlog; [`Queues::changed`] waits for
//!   one queue, and [`Queues::next_due`] says when a message that waits for a time will be there.
//! - **Time does not go back.** The store's clock stands still while the host's goes back, so messages of one queue have ascending times.
//! - **Expired is gone.** Every look compares with the clock; what has expired, or was in a dropped queue, is removed later, in small steps, and its
//!   space is used again or given back (`sweep.rs`). Nothing of that is metered: nobody asked for it.

mod error;
mod list;
mod live;
mod messages;
mod policy;
mod pull;
mod rows;
mod settle;
mod sweep;
mod take;
mod types;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tovuk_kernel::clock::{Clock, UnixMs};
use tovuk_kernel::meters::Meter;

pub use error::Error;
pub use list::{List, Listed, Metrics, Page, Pages, State};
pub use policy::{Consumer, Policy, PolicyChange};
pub use pull::{LeaseSettled, Pull, Pulled};
pub use rows::Counters;
pub use settle::{Rest, Verdict};
pub use take::{Batch, Take};
pub use types::{Backlog, Encoding, Lease, Message, MessageId, Queue, Retry, Send, Sent, Service, Settled, TotalBacklog};

use crate::database::rusqlite::Transaction;
use crate::database::shards::Shards;
use crate::database::{self, Database};
use crate::meters::Bill;
use live::Live;
use types::check_sends;

/// Into how many files services are spread. Never to be changed: it says which file a service's queues are in.
const SHARDS: u8 = 16;
/// Marks the files.
const APPLICATION_ID: [u8; 4] = *b"tvqu";

/// What may differ between two hosts.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often expired messages are removed.
    pub sweep_every: Duration,
    /// When the store dies. For tests.
    pub fuse: Option<database::Fuse>,
}

impl Default for Options {
    fn default() -> Self {
        Self { sweep_every: Duration::from_secs(10), fuse: None }
    }
}

/// The open store. Clones share it, and are charged to the same service.
#[derive(Clone)]
pub struct Queues {
    store: Arc<Store>,
    sweeper: Arc<Sweeper>,
    bill: Bill,
}

/// What tasks and batches share with the operations.
struct Store {
    shards: Shards,
    clock: Clock,
    options: Options,
    /// The latest time that was told.
    now_ms: AtomicU64,
    queues: RwLock<HashMap<Queue, Arc<Live>>>,
    /// Held while settings are written, so that memory takes them over in their order.
    settings: tokio::sync::Mutex<()>,
    /// Queues where there may be something to take.
    active: Mutex<BTreeSet<Queue>>,
    /// Told when there is a new one.
    activated: Notify,
    /// Told when a queue was dropped.
    dropped: Notify,
}

/// The task that sweeps. It ends with the last handle of the store.
struct Sweeper(AbortHandle);

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Queues {
    /// Opens the store in a folder, which is created if need be, and begins to sweep.
    ///
    /// # Errors
    /// When the folder or one of its files cannot be used.
    pub async fn open(folder: &Path, clock: Clock) -> Result<Self, Error> {
        Self::open_with(folder, clock, Options::default()).await
    }

    /// The same with other figures.
    ///
    /// # Errors
    /// When the folder or one of its files cannot be used.
    pub async fn open_with(folder: &Path, clock: Clock, options: Options) -> Result<Self, Error> {
        // Sends touch few pages, and what is delivered is read in order, so that little has to be cached.
        let figures = database::Options {
            queue_max: 8_192,
            group_jobs_max: 4_096,
            writer_cache_kib: 4_096,
            reader_cache_kib: 1_024,
            checkpoint_pages: 4_000,
            fuse: options.fuse.clone(),
            ..database::Options::new(APPLICATION_ID)
        };
        let shards = Shards::open(folder, SHARDS, rows::MIGRATIONS, figures).await?;
        let mut queues = HashMap::new();
        for database in shards.all() {
            let now = rows::signed(clock.now_unix_ms());
            let open = move |tx: &database::rusqlite::Transaction<'_>| {
                let all = rows::all(tx)?;
                all.iter().try_for_each(|stored| messages::set_back(tx, stored.local, now))?;
                Ok::<_, Error>(all)
            };
            for stored in database.write(open).await? {
                queues.insert(stored.queue, (Arc::new(Live::new(&stored)), stored.backlog));
            }
        }
        let store = Arc::new(Store {
            shards,
            clock,
            options,
            now_ms: AtomicU64::new(0),
            queues: RwLock::new(queues.iter().map(|(queue, (live, _))| (*queue, live.clone())).collect()),
            settings: tokio::sync::Mutex::default(),
            active: Mutex::default(),
            activated: Notify::new(),
            dropped: Notify::new(),
        });
        for (live, _) in queues.values().filter(|(_, backlog)| backlog.messages > 0) {
            store.activate(live);
        }
        let sweeper = Arc::new(Sweeper(tokio::spawn(sweep::run(Arc::downgrade(&store))).abort_handle()));
        Ok(Self { store, sweeper, bill: Bill::default() })
    }

    /// The same store, whose operations are charged to a service. Deliveries are charged by whoever delivers.
    pub fn billed_to(&self, bill: Bill) -> Self {
        Self { bill, ..self.clone() }
    }

    /// Writes what is queued and closes the files. Whoever comes later gets an error.
    ///
    /// # Errors
    /// When a file could not be brought up to date; then nothing is lost, and the next start does it.
    pub async fn close(&self) -> Result<(), Error> {
        self.sweeper.0.abort();
        let mut closed = Ok(());
        for database in self.store.shards.all() {
            closed = closed.and(database.close().await.map_err(Error::from));
        }
        closed
    }

    /// Makes a queue of a service. If it is there already, its settings are changed, so whoever does not know whether an earlier call has come through
    /// may repeat it.
    ///
    /// # Errors
    /// When a setting is out of its range, the dead-letter queue will not do, or the queue was dropped.
    pub async fn create(&self, service: Service, queue: Queue, change: PolicyChange) -> Result<Policy, Error> {
        self.put(service, queue, change).await
    }

    /// Changes settings of a queue, also while messages are being delivered: they are settled by the new ones.
    ///
    /// # Errors
    /// When nothing is named, a setting is out of its range, the dead-letter queue will not do, or there is no such queue.
    pub async fn update(&self, queue: Queue, change: PolicyChange) -> Result<Policy, Error> {
        if change.is_empty() {
            return Err(Error::NoChange);
        }
        let service = self.store.live(queue)?.service;
        self.put(service, queue, change).await
    }

    async fn put(&self, service: Service, queue: Queue, change: PolicyChange) -> Result<Policy, Error> {
        let store = self.store.clone();
        // A task of its own, so that what is in memory follows what is on disk also when the caller has gone.
        let work = tokio::spawn(async move {
            let _settings = store.settings.lock().await;
            let database = store.shards.of(service.0).await?;
            let stored = database.write(move |tx| rows::put(tx, service, queue, &change)).await?;
            let mut queues = store.queues.write().unwrap_or_else(PoisonError::into_inner);
            let live = queues.entry(queue).or_insert_with(|| Arc::new(Live::new(&stored))).clone();
            drop(queues);
            live.set_policy(&stored.policy);
            store.activate(&live);
            Ok(stored.policy)
        });
        work.await.unwrap_or(Err(Error::Database(database::Error::Closed)))
    }

    /// All queues that are not dropped, each with its service, in no order.
    pub fn all(&self) -> Vec<(Service, Queue)> {
        self.store.queues.read().unwrap_or_else(PoisonError::into_inner).values().map(|live| (live.service, live.queue)).collect()
    }

    /// How many queues there are, and what they have together.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn total_backlog(&self) -> Result<TotalBacklog, Error> {
        let (mut total, mut first) = (Backlog::default(), None);
        for database in self.store.shards.all() {
            let (of_file, oldest): (Backlog, Option<i64>) = database.read(rows::total).await?;
            (total.messages, total.bytes) = (total.messages + of_file.messages, total.bytes + of_file.bytes);
            first = first.into_iter().chain(oldest).min();
        }
        let queues = self.store.queues.read().unwrap_or_else(PoisonError::into_inner).len() as u64;
        let oldest_age_ms = first.map_or(0, |first| u64::try_from(self.store.now() - first).unwrap_or_default());
        Ok(TotalBacklog { queues, backlog: total, oldest_age_ms })
    }

    /// The highest number that a queue has ever had here, dropped ones included; 0 when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn highest(&self) -> Result<i64, Error> {
        self.store.shards.highest(rows::highest).await
    }

    /// The highest number of a service that has ever had a queue, dropped ones included; 0 when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn highest_service(&self) -> Result<i64, Error> {
        self.store.shards.highest(rows::highest_service).await
    }

    /// The settings of a queue. They are another value after each call that sets them, also one that has changed nothing.
    ///
    /// # Errors
    /// When there is no such queue.
    pub fn policy(&self, queue: Queue) -> Result<Arc<Policy>, Error> {
        Ok(self.store.live(queue)?.policy())
    }

    /// Drops a queue with all that it holds, and says how much that was. Afterwards every operation on it fails with [`Error::Dropped`], but for this one, and
    /// queues that sent their dead letters there have no dead-letter queue. Messages are removed in the background, also after the next start.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn drop_queue(&self, service: Service, queue: Queue) -> Result<Backlog, Error> {
        let store = self.store.clone();
        let work = tokio::spawn(async move {
            let _settings = store.settings.lock().await;
            let database = store.shards.of(service.0).await?;
            let write = database.write(move |tx| {
                let dropped = rows::drop_queue(tx, service, queue)?;
                Ok::<_, Error>((dropped, rows::all(tx)?))
            });
            let (backlog, others) = write.await?;
            let live = store.queues.write().unwrap_or_else(PoisonError::into_inner).remove(&queue);
            for stored in &others {
                // Those that sent their dead letters there.
                if let Ok(live) = store.live(stored.queue)
                    && live.policy().dead_letter_queue == Some(queue)
                {
                    live.set_policy(&stored.policy);
                }
            }
            if let Some(live) = live {
                live.changed.notify_one();
            }
            store.dropped.notify_one();
            Ok(backlog)
        });
        work.await.unwrap_or(Err(Error::Database(database::Error::Closed)))
    }

    /// Sends 1 to 100 messages: all of them or, after an error, none.
    ///
    /// # Errors
    /// When a body, the batch or a delay is beyond its limit, messages come too fast, the queue is full, or there is no such queue.
    pub async fn send(&self, queue: Queue, sends: Vec<Send>) -> Result<Sent, Error> {
        let (bytes, operations) = check_sends(&sends)?;
        let live = self.store.live(queue)?;
        let charge = self.bill.reserve(Meter::QueueOperations, operations).await?;
        live.admit(sends.len(), self.store.clock.monotonic_ms())?;
        let delay = live.policy().delivery_delay_seconds;
        let count = sends.len();
        let store = self.store.clone();
        let database = self.store.database(&live)?;
        let write = move |tx: &Transaction<'_>| {
            let (first, backlog) = rows::reserve(tx, live.local, count, bytes)?;
            let due = messages::append(tx, live.local, first, &sends, delay, store.now())?;
            Ok::<_, Error>((first, backlog, Wake { store, live, due }))
        };
        let (first, backlog, wake) = database.write_then(write, move |_| charge.settle(operations)).await?;
        drop(wake);
        let ids = (first..).take(count).map(|sequence| MessageId { queue, sequence }).collect();
        Ok(Sent { ids, bytes, operations, backlog })
    }

    /// Waits until there may be something to take, and returns the queues where, in no order; each is named again when there may be something new. At first
    /// these are all with a backlog. For one dispatcher: two would share them.
    pub async fn active(&self) -> Vec<Queue> {
        loop {
            let activated = self.store.activated.notified();
            let queues = std::mem::take(&mut *self.store.active.lock().unwrap_or_else(PoisonError::into_inner));
            if !queues.is_empty() {
                // Before anybody looks into them, so that what comes later lists them anew.
                queues.iter().filter_map(|queue| self.store.live(*queue).ok()).for_each(|live| live.listed.store(false, Ordering::SeqCst));
                return queues.into_iter().collect();
            }
            activated.await;
        }
    }

    /// Waits until there may be something new to take from a queue, or it was changed or dropped. What happened since the last call counts. For one waiter.
    ///
    /// # Errors
    /// When there is no such queue.
    pub async fn changed(&self, queue: Queue) -> Result<(), Error> {
        let live = self.store.live(queue)?;
        live.changed.notified().await;
        Ok(())
    }
}

impl Store {
    fn live(&self, queue: Queue) -> Result<Arc<Live>, Error> {
        self.queues.read().unwrap_or_else(PoisonError::into_inner).get(&queue).cloned().ok_or(Error::Dropped)
    }

    /// The file that a queue is in.
    fn database(&self, live: &Live) -> Result<&Database, Error> {
        self.shards.existing(live.service.0).ok_or(Error::Dropped)
    }

    /// The time, which does not go back. Jobs that write ask for it themselves, so messages have it in their order.
    fn now(&self) -> i64 {
        let now: UnixMs = self.clock.now_unix_ms();
        rows::signed(self.now_ms.fetch_max(now, Ordering::Relaxed).max(now))
    }

    /// What was sent to a queue then or before has expired.
    fn expired(&self, live: &Live, now: i64) -> i64 {
        now.saturating_sub(i64::from(live.policy().retention_seconds) * 1_000)
    }

    /// There may be something to take.
    fn activate(&self, live: &Live) {
        live.changed.notify_one();
        if !live.listed.swap(true, Ordering::SeqCst) {
            self.active.lock().unwrap_or_else(PoisonError::into_inner).insert(live.queue);
            self.activated.notify_one();
        }
    }
}

/// Messages that were written. It is dropped when that is committed, whether or not somebody waits for it: then they can be taken.
struct Wake {
    store: Arc<Store>,
    live: Arc<Live>,
    /// The least time that one of them waits for.
    due: Option<(i64, i64)>,
}

impl Drop for Wake {
    fn drop(&mut self) {
        if let Some(due) = self.due {
            self.live.lower(due);
        }
        self.store.activate(&self.live);
    }
}
