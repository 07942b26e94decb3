//! The files of the catalogue: what is known of each while it is open, and asking it from a thread. What is in them is in `rows.rs`.
//!
//! A shard says which objects there are, what they hold and when their alarms ring. Of values the objects' files are the truth; of alarms the catalogue
//! is, but for a change that was committed together with values and is noted in the file until the catalogue has it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use rusqlite::{Connection, Transaction};
use tokio::runtime::Handle as Runtime;
use tokio::sync::{Notify, OnceCell};
use tovuk_kernel::clock::UnixMs;

use super::{Error, Namespace, rows};
use crate::database::shards::Shards;
use crate::database::{Database, Fuse, Options, rusqlite};

/// Into how many files namespaces are spread. Never to be changed: it says which file a namespace is in.
const SHARDS: u8 = 8;
const SHARDS_I64: i64 = SHARDS as i64;
/// Marks the files.
const APPLICATION_ID: [u8; 4] = *b"tvst";
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];
/// Bits of a number that are counted during one opening of a file; those before say which opening it was.
const COUNTED_BITS: u32 = 36;
/// No alarm is due.
const NEVER: u64 = u64::MAX;

/// All shards. Those that exist are open; the others come when first written to.
pub(super) struct Catalogue {
    files: Shards,
    shards: Vec<OnceCell<Shard>>,
    /// How often all were gone through.
    rounds: AtomicUsize,
    runtime: Runtime,
    /// Told when an alarm may be due earlier than [`Catalogue::next_due`] has said before.
    pub rung: Arc<Notify>,
}

/// One shard. Clones share it.
#[derive(Clone)]
pub(super) struct Shard {
    pub database: Database,
    numbers: Arc<AtomicI64>,
    pub due: Due,
}

/// When the next alarm of a shard is due. It is set by jobs that write, in the order in which they are committed.
#[derive(Clone)]
pub(super) struct Due {
    next: Arc<AtomicU64>,
    rung: Arc<Notify>,
}

impl Due {
    /// Looks at what a job leaves behind. Told before the commit: whoever hears of it asks by a job that comes after.
    pub fn update(&self, connection: &Connection) -> rusqlite::Result<()> {
        let next = rows::next_due(connection)?.unwrap_or(NEVER);
        if next < self.next.swap(next, Ordering::SeqCst) {
            self.rung.notify_one();
        }
        Ok(())
    }

    /// It is unknown what is due, because a job was undone.
    pub fn unknown(&self) {
        self.next.store(0, Ordering::SeqCst);
        self.rung.notify_one();
    }

    pub fn at(&self) -> Option<UnixMs> {
        Some(self.next.load(Ordering::SeqCst)).filter(|next| *next != NEVER)
    }
}

impl Shard {
    /// A number that this shard has not given out before, greater than all earlier ones.
    pub fn number(&self) -> i64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

impl Catalogue {
    /// Opens the shards that are in the folder, which is created if need be.
    pub async fn open(folder: &Path, fuse: Option<Fuse>) -> Result<Self, Error> {
        let options = Options { queue_max: 8_192, group_jobs_max: 4_096, checkpoint_pages: 2_000, fuse, ..Options::new(APPLICATION_ID) };
        let catalogue = Self {
            files: Shards::open(folder, SHARDS, MIGRATIONS, options).await?,
            shards: (0..SHARDS).map(|_| OnceCell::new()).collect(),
            rounds: AtomicUsize::new(0),
            runtime: Runtime::current(),
            rung: Arc::new(Notify::new()),
        };
        for (number, shard) in (0..SHARDS_I64).zip(&catalogue.shards) {
            if let Some(database) = catalogue.files.existing(number) {
                shard.get_or_try_init(|| catalogue.start(database)).await?;
            }
        }
        Ok(catalogue)
    }

    pub fn index(namespace: Namespace) -> usize {
        usize::try_from(namespace.0.rem_euclid(SHARDS_I64)).unwrap_or_default()
    }

    /// The shard of a namespace, if it is there yet.
    pub fn existing(&self, namespace: Namespace) -> Option<&Shard> {
        self.shards.get(Self::index(namespace))?.get()
    }

    /// The shard of a namespace. It is created if need be.
    pub async fn of(&self, namespace: Namespace) -> Result<&Shard, Error> {
        let shard = self.shards.get(Self::index(namespace)).ok_or_else(Error::closed)?;
        let database = self.files.of(namespace.0).await?;
        shard.get_or_try_init(|| self.start(database)).await
    }

    /// All shards that are there.
    pub fn all(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter_map(OnceCell::get)
    }

    /// All shards that are there, each time from another one on.
    pub fn all_in_turn(&self) -> impl Iterator<Item = &Shard> {
        let first = self.rounds.fetch_add(1, Ordering::Relaxed) % self.shards.len().max(1);
        let (before, from) = self.shards.split_at_checked(first).unwrap_or((&[], &self.shards));
        from.iter().chain(before).filter_map(OnceCell::get)
    }

    /// Begins to use a file.
    async fn start(&self, database: &Database) -> Result<Shard, Error> {
        let (start, next) = database.write(|tx| Ok::<_, Error>((rows::start(tx)?, rows::next_due(tx)?))).await?;
        let due = Due { next: Arc::new(AtomicU64::new(next.unwrap_or(NEVER))), rung: self.rung.clone() };
        Ok(Shard { database: database.clone(), numbers: Arc::new(AtomicI64::new(start << COUNTED_BITS)), due })
    }

    /// Runs a job that writes and waits for its commit. For threads that are not the runtime's.
    pub fn write_blocking<T, F>(&self, namespace: Namespace, job: F) -> Result<T, Error>
    where
        F: FnOnce(&Transaction<'_>, &Shard) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        self.runtime.block_on(self.write(namespace, job))
    }

    /// Runs a job that writes, and returns once its changes are on disk.
    pub async fn write<T, F>(&self, namespace: Namespace, job: F) -> Result<T, Error>
    where
        F: FnOnce(&Transaction<'_>, &Shard) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let shard = self.of(namespace).await?.clone();
        shard.database.clone().write(move |tx| job(tx, &shard)).await
    }

    /// Runs a job that reads, if the shard is there. For threads that are not the runtime's.
    pub fn read_blocking<T, F>(&self, namespace: Namespace, job: F) -> Result<Option<T>, Error>
    where
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let Some(shard) = self.existing(namespace) else { return Ok(None) };
        self.runtime.block_on(shard.database.read(job)).map(Some)
    }

    /// Where work goes on that threads begin.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// When the next alarm of all is due.
    pub fn next_due(&self) -> Option<UnixMs> {
        self.all().filter_map(|shard| shard.due.at()).min()
    }

    /// Closes the files.
    pub async fn close(&self) -> Result<(), Error> {
        let mut closed = Ok(());
        for shard in self.all() {
            closed = closed.and(shard.database.close().await.map_err(Error::from));
        }
        closed
    }
}
