//! KV: namespaces of keys with values, metadata and expiration. Doors (the worker's import, the API, the command line) call the operations
//! of [`Kv`]; each checks every limit of its request, and its answer has what doors show and meters count.
//!
//! - **Acknowledged means on disk.** A write is answered after the commit of its group with `synchronous=FULL`. A bulk request is one transaction.
//! - **Linearizable per key.** Hot keys are answered from memory; `cache.rs` argues why that cannot be told from asking the database.
//! - **Expired is gone.** Every read compares with the clock. What has expired, or was in a dropped namespace, is removed later, in
//!   small steps, and its space is used again or given back (`sweep.rs`).
//! - **One shard, one writer.** `database/shards.rs` says which file a namespace is in, `store.rs` has the statements. An account has so much on its way to
//!   the writers at a time, so that others wait behind no more than that.

mod cache;
mod error;
mod list;
mod store;
mod sweep;
mod types;
mod update;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::AbortHandle;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::limits::{KV_BULK_BYTES_MAX, KV_BULK_READ_KEYS_MAX, KV_BULK_WRITE_KEYS_MAX, KV_VALUE_BYTES_MAX, KV_WRITING_ACCOUNT_KIB_MAX};
use tovuk_kernel::meters::Meter;

pub use error::Error;
pub use list::Pages;
pub use types::{Deleted, Entry, List, Listed, Namespace, Page, Put, Usage, Written};
pub use update::Tag;

use crate::database::rusqlite::Transaction;
use crate::database::shards::Shards;
use crate::database::{self, Counts, Database};
use crate::ledger::Ledger;
use crate::memory::Memory;
use crate::meters::{Bill, Charge};
use crate::shares::Shares;
use cache::Cache;
use store::Change;
use types::{check_key, check_put};

/// Into how many files namespaces are spread. Never to be changed: it says which file a namespace is in.
const SHARDS: u8 = 16;
/// Marks the files.
const APPLICATION_ID: [u8; 4] = *b"tvkv";

/// What a key counts besides its value among the writes that are on their way, in KiB: about a page is written for each.
const KEY_KIB: usize = 4;

/// How the files are opened. Few requests read them, because hot keys are in memory; what is cached is mostly for the writer.
fn figures() -> database::Options {
    database::Options {
        queue_max: 8_192,
        group_jobs_max: 4_096,
        writer_cache_kib: 16_384,
        readers: 4,
        checkpoint_pages: 4_000,
        ..database::Options::new(APPLICATION_ID)
    }
}

/// What may differ between two hosts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory for hot keys, in bytes.
    pub cache_bytes: u64,
    /// How often expired keys are removed.
    pub sweep_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, sweep_every: Duration::from_secs(10) }
    }
}

/// The open store. Clones share it, work for the same account and count in the same memory.
#[derive(Clone)]
pub struct Kv {
    store: Arc<Store>,
    sweeper: Arc<Sweeper>,
    account: Option<Account>,
    memory: Option<Arc<dyn Memory>>,
    bill: Bill,
}

/// For whom a handle works.
#[derive(Clone, Copy)]
struct Account {
    number: i64,
    service: i64,
    /// What all its namespaces may have together.
    bytes_max: u64,
}

impl Account {
    /// Counts a change of one of its namespaces, unless that would be too much. What nobody writes for an account has no such limit.
    fn count(account: Option<Self>, books: (&Bill, &Ledger), tx: &Transaction<'_>, namespace: Namespace, change: Change) -> Result<Usage, Error> {
        let (bill, ledger) = books;
        let usage = store::count(tx, namespace, change)?;
        // What it grows by is known here, and here nobody else writes to the namespace. The room is taken until the ledger has it.
        let _room = bill.hold(Meter::KvStorageBytes, u64::try_from(change.bytes).unwrap_or_default())?;
        let Some(Self { number, service, bytes_max }) = account else {
            ledger.set(namespace.0, usage.bytes);
            return Ok(usage);
        };
        ledger.own(namespace.0, number, service);
        ledger.grow(namespace.0, usage.bytes, bytes_max).map_err(|bytes| Error::AccountFull { bytes, bytes_max })?;
        Ok(usage)
    }
}

/// What the sweeper shares with the operations.
struct Store {
    shards: Shards,
    cache: Arc<Cache>,
    clock: Clock,
    options: Options,
    /// What each account may have on its way to the writers, in KiB.
    shares: Shares,
    /// What each account has. Changed where the writers are, before the commit.
    ledger: Arc<Ledger>,
    /// Told when a namespace was dropped.
    dropped: Notify,
}

/// The task that sweeps. It ends with the last handle of the store.
struct Sweeper(AbortHandle);

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Kv {
    /// Opens the store in a folder, which is created if need be, and begins to sweep.
    pub async fn open(folder: &Path, clock: Clock) -> Result<Self, Error> {
        Self::open_with(folder, clock, Options::default()).await
    }

    /// The same with other figures.
    pub async fn open_with(folder: &Path, clock: Clock, options: Options) -> Result<Self, Error> {
        let shards = Shards::open(folder, SHARDS, store::MIGRATIONS, figures()).await?;
        let cache = Cache::new(options.cache_bytes);
        let shares = Shares::new(KV_WRITING_ACCOUNT_KIB_MAX);
        let store = Arc::new(Store { shards, cache, clock, options, shares, ledger: Arc::default(), dropped: Notify::new() });
        let sweeper = Arc::new(Sweeper(tokio::spawn(sweep::run(store.clone())).abort_handle()));
        Ok(Self { store, sweeper, account: None, memory: None, bill: Bill::default() })
    }

    /// The same store, for a call whose answer has memory counted. Values that are read from disk through this handle count there before they are read, and
    /// are not read when there is none. What is hot has its memory already.
    pub fn counted_in(&self, memory: Arc<dyn Memory>) -> Self {
        Self { memory: Some(memory), ..self.clone() }
    }

    /// Says which account and service has which namespace, for the start of the host: what a namespace has counts for them from then on.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn own(&self, owners: Vec<(Namespace, i64, i64)>) -> Result<(), Error> {
        owners.iter().for_each(|(namespace, account, service)| self.store.ledger.own(namespace.0, *account, *service));
        for database in self.store.shards.all() {
            let all = database.read(store::usages).await?;
            all.into_iter().for_each(|(number, bytes)| self.store.ledger.set(number, bytes));
        }
        Ok(())
    }

    /// The same store, for a service of an account, whose namespaces may have so many bytes together. What is written through this handle has a share with
    /// everything else that the account writes, so that others do not wait behind all of it.
    pub fn for_service(&self, account: i64, service: i64, bytes_max: u64) -> Self {
        Self { account: Some(Account { number: account, service, bytes_max }), ..self.clone() }
    }

    /// The same store, whose operations are charged to a service.
    pub fn billed_to(self, bill: Bill) -> Self {
        Self { bill, ..self }
    }

    /// What all namespaces of an account have, or those of one of its services, in bytes.
    pub fn stored_bytes(&self, account: i64, service: Option<i64>) -> u64 {
        self.store.ledger.used(account, service)
    }

    /// Waits until the account may have so much more on its way. It is on its way until this is dropped.
    async fn turn(&self, keys: usize, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let account = self.account.as_ref()?;
        let kib = (bytes >> 10).saturating_add(u64::try_from(keys.saturating_mul(KEY_KIB)).unwrap_or(u64::MAX));
        let kib = u32::try_from(kib).unwrap_or(u32::MAX).clamp(1, self.store.shares.size());
        self.store.shares.of(account.number).acquire_many_owned(kib).await.ok()
    }

    /// Writes what is queued and closes the files. Whoever comes later gets an error. Fails when a file could not be brought up to date; then
    /// nothing is lost, and the next start does it.
    pub async fn close(&self) -> Result<(), Error> {
        self.sweeper.0.abort();
        let mut closed = Ok(());
        for database in self.store.shards.all() {
            closed = closed.and(database.close().await.map_err(Error::from));
        }
        closed
    }

    /// What is stored under a key. A hot key costs well under a microsecond and does not wait.
    pub async fn get(&self, namespace: Namespace, key: &str) -> Result<Option<Arc<Entry>>, Error> {
        check_key(key)?;
        let charge = self.bill.reserve(Meter::KvReads, 1).await?;
        let found = match self.store.cache.get(namespace, key) {
            Some(found) => self.live(found),
            None => return Ok(self.read(namespace, vec![key.to_owned()], KV_VALUE_BYTES_MAX, (charge, 1)).await?.pop().flatten()),
        };
        charge.settle(1);
        Ok(found)
    }

    /// What is stored under each of at most 100 keys, in their order. The values may have 100 MB together.
    pub async fn bulk_get(&self, namespace: Namespace, keys: Vec<String>) -> Result<Vec<Option<Arc<Entry>>>, Error> {
        self.bulk_get_within(namespace, keys, KV_BULK_BYTES_MAX).await
    }

    /// The same for a door through which fewer bytes fit.
    pub async fn bulk_get_within(&self, namespace: Namespace, keys: Vec<String>, bytes_max: usize) -> Result<Vec<Option<Arc<Entry>>>, Error> {
        check_bulk(keys.len(), KV_BULK_READ_KEYS_MAX)?;
        keys.iter().try_for_each(|key| check_key(key))?;
        let asked = count(keys.len());
        let charge = self.bill.reserve(Meter::KvReads, asked).await?;
        let mut found: Vec<_> = keys.iter().map(|key| self.store.cache.get(namespace, key)).collect();
        let missed = keys.into_iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(key, _)| key).collect::<Vec<_>>();
        if missed.is_empty() {
            charge.settle(asked);
        } else {
            let mut read = self.read(namespace, missed, bytes_max, (charge, asked)).await?.into_iter();
            for entry in found.iter_mut().filter(|entry| entry.is_none()) {
                *entry = read.next();
            }
        }
        let entries: Vec<_> = found.into_iter().map(|entry| self.live(entry.flatten())).collect();
        check_bulk_bytes(entries.iter().flatten().map(|entry| entry.value.len()), bytes_max)?;
        Ok(entries)
    }

    /// Writes a key, with its metadata and its expiration. What was there before is replaced.
    pub async fn put(&self, namespace: Namespace, put: Put) -> Result<Written, Error> {
        self.bulk_put(namespace, vec![put]).await
    }

    /// Writes at most 10,000 keys with at most 100 MB together: all of them or, after an error, none. Of entries with one key the last counts.
    pub async fn bulk_put(&self, namespace: Namespace, puts: Vec<Put>) -> Result<Written, Error> {
        self.bulk_put_within(namespace, puts, KV_BULK_BYTES_MAX).await
    }

    /// The same for a door through which fewer bytes fit.
    pub async fn bulk_put_within(&self, namespace: Namespace, puts: Vec<Put>, bytes_max: usize) -> Result<Written, Error> {
        check_bulk(puts.len(), KV_BULK_WRITE_KEYS_MAX)?;
        let now_ms = self.store.clock.now_unix_ms();
        let puts = puts.into_iter().map(|put| check_put(put, now_ms)).collect::<Result<Vec<_>, _>>()?;
        let bytes = check_bulk_bytes(puts.iter().map(types::Checked::bytes), bytes_max)?;
        let keys = count(puts.len());
        let charge = self.bill.reserve(Meter::KvWrites, keys).await?;
        let turn = self.turn(puts.len(), bytes).await;
        let (cache, ledger, account, bill) = (self.store.cache.clone(), self.store.ledger.clone(), self.account, self.bill.clone());
        let write = move |tx: &Transaction<'_>| {
            let writing = cache.writing(puts.iter().map(|put| (namespace, put.key.as_str())));
            let mut change = Change::default();
            for put in &puts {
                change.add(store::put(tx, namespace, put)?);
            }
            let usage = Account::count(account, (&bill, &ledger), tx, namespace, change)?;
            Ok::<_, Error>((Written { keys, bytes, usage }, (writing, turn)))
        };
        let (written, underway) = self.store.shards.of(namespace.0).await?.write_then(write, move |_| charge.settle(keys)).await?;
        // Committed: from here on readers may keep what they find, and the account may write more.
        drop(underway);
        Ok(written)
    }

    /// Removes a key. It is no error if it is not there.
    pub async fn delete(&self, namespace: Namespace, key: &str) -> Result<Deleted, Error> {
        self.bulk_delete(namespace, vec![key.to_owned()]).await
    }

    /// Removes at most 10,000 keys: all of them or, after an error, none.
    pub async fn bulk_delete(&self, namespace: Namespace, keys: Vec<String>) -> Result<Deleted, Error> {
        check_bulk(keys.len(), KV_BULK_WRITE_KEYS_MAX)?;
        keys.iter().try_for_each(|key| check_key(key))?;
        let (cache, ledger, account, bill) = (self.store.cache.clone(), self.store.ledger.clone(), self.account, self.bill.clone());
        let now_ms = self.store.clock.now_unix_ms();
        let named = count(keys.len());
        let charge = self.bill.reserve(Meter::KvDeletes, named).await?;
        let Some(database) = self.store.shards.existing(namespace.0) else {
            charge.settle(named);
            return Ok(Deleted { keys: named, existed: 0, usage: Usage::default() });
        };
        let turn = self.turn(keys.len(), 0).await;
        let delete = move |tx: &Transaction<'_>| {
            let writing = cache.writing(keys.iter().map(|key| (namespace, key.as_str())));
            let (mut change, mut existed) = (Change::default(), 0);
            for key in &keys {
                let (removed, was_there) = store::delete(tx, namespace, key.as_bytes(), now_ms)?;
                change.add(removed);
                existed += u64::from(was_there);
            }
            let usage = Account::count(account, (&bill, &ledger), tx, namespace, change)?;
            Ok::<_, Error>((Deleted { keys: named, existed, usage }, (writing, turn)))
        };
        let (deleted, underway) = database.write_then(delete, move |_| charge.settle(named)).await?;
        drop(underway);
        Ok(deleted)
    }

    /// Drops a namespace with all that it holds, and says how much that was. Afterwards every operation on it fails with [`Error::Dropped`],
    /// but for this one. Its entries are removed and their space is given back in the background, also after the next start.
    pub async fn drop_namespace(&self, namespace: Namespace) -> Result<Usage, Error> {
        let (cache, ledger) = (self.store.cache.clone(), self.store.ledger.clone());
        let work = self.store.shards.of(namespace.0).await?.write(move |tx| {
            let writing = cache.dropping(namespace);
            let usage = store::drop_namespace(tx, namespace)?;
            ledger.remove(namespace.0);
            Ok::<_, Error>((usage, writing))
        });
        let (usage, writing) = work.await?;
        drop(writing);
        self.store.dropped.notify_one();
        Ok(usage)
    }

    /// What all files together have done since they were opened.
    pub fn counts(&self) -> Counts {
        let each = self.store.shards.all().map(Database::counts);
        each.fold(Counts { commits: 0, jobs: 0 }, |sum, each| Counts { commits: sum.commits + each.commits, jobs: sum.jobs + each.jobs })
    }

    /// The highest number of a namespace that was ever written to; 0 when there is none.
    pub async fn highest(&self) -> Result<i64, Error> {
        self.store.shards.highest(store::highest).await
    }

    /// What a namespace holds.
    pub async fn usage(&self, namespace: Namespace) -> Result<Usage, Error> {
        match self.store.shards.existing(namespace.0) {
            Some(database) => database.read(move |connection| store::usage(connection, namespace)).await,
            None => Ok(Usage::default()),
        }
    }

    /// Reads keys from the database, and keeps what it finds in memory. It is charged where they are read, so that who has gone meanwhile pays too, and who asks
    /// for more than one answer may have.
    async fn read(
        &self,
        namespace: Namespace,
        keys: Vec<String>,
        bytes_max: usize,
        (charge, reads): (Charge, u64),
    ) -> Result<Vec<Option<Arc<Entry>>>, Error> {
        let Some(database) = self.store.shards.existing(namespace.0) else {
            charge.settle(reads);
            return Ok(vec![None; keys.len()]);
        };
        let tickets: Vec<_> = keys.iter().map(|key| self.store.cache.ticket(namespace, key)).collect();
        let (cache, memory) = (self.store.cache.clone(), self.memory.clone());
        let entries = database.read(move |connection| {
            let entries = store::get(connection, namespace, &keys, bytes_max, memory.as_deref());
            if matches!(entries, Ok(_) | Err(Error::BulkBytes { .. })) {
                charge.settle(reads);
            }
            let entries = entries?;
            for ((key, entry), ticket) in keys.iter().zip(&entries).zip(tickets) {
                if let Some(ticket) = ticket {
                    cache.fill(ticket, namespace, key, entry.clone());
                }
            }
            Ok::<_, Error>(entries)
        });
        Ok(entries.await?.into_iter().map(|entry| self.live(entry)).collect())
    }

    /// The entry, if it has not expired.
    fn live(&self, entry: Option<Arc<Entry>>) -> Option<Arc<Entry>> {
        // Most entries never expire, and asking for the time costs more than finding one.
        entry.filter(|entry| entry.expiration.is_none() || entry.is_live(self.store.clock.now_unix_ms()))
    }
}

fn count(keys: usize) -> u64 {
    u64::try_from(keys).unwrap_or(u64::MAX)
}

fn check_bulk(keys: usize, keys_max: usize) -> Result<(), Error> {
    if keys <= keys_max { Ok(()) } else { Err(Error::BulkKeys { keys, keys_max }) }
}

/// The sum, if it is no more than one request may have.
fn check_bulk_bytes(mut each: impl Iterator<Item = usize>, bytes_max: usize) -> Result<u64, Error> {
    let sum = each.try_fold(0_usize, usize::checked_add).filter(|sum| *sum <= bytes_max);
    sum.and_then(|sum| u64::try_from(sum).ok()).ok_or(Error::BulkBytes { bytes_max })
}
