//! State: objects with values and one alarm, by key, in namespaces. Doors (the worker's import, the API, the command line, delivery) call the operations
//! of [`State`]; each checks every limit of its request, and its answer has what doors show and meters count.
//!
//! - **One call of an object at a time.** Calls of one object run one after the other in the order in which they came (`memory.rs`, `drive.rs`); other
//!   objects do not wait for them. A session (`session.rs`) has the object for a whole invocation.
//! - **Acknowledged means on disk,** and so is everything that an answer is based on. What ran while the disk was busy is committed together.
//! - **A file each** (`file.rs`), of which a bounded number is open (`objects.rs`). A catalogue (`catalogue.rs`, `rows.rs`) knows which objects there are,
//!   what they hold and when their alarms ring. It marks a file before it is written and takes the mark off when it has been told what is in it; marked files
//!   are read at the start (`upkeep.rs`). So the catalogue is exact whenever it is asked, without a second commit for each write.
//! - **Alarms ring at least once** (`alarms.rs`, `ringing.rs`). They are rows of the catalogue, so that setting, delivering and settling one opens no file.
//! - **Threads are few** (`pool.rs`) and memory is bounded: by the files that are open, and by what runs.

mod alarms;
mod catalogue;
mod drive;
mod error;
mod file;
mod ledger;
mod memory;
mod objects;
mod pages;
mod pool;
mod ringing;
mod rows;
mod session;
mod telling;
mod types;
mod upkeep;
mod view;
mod waits;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::limits::{self, Plan};
use tovuk_kernel::meters::Meter;

pub use alarms::{AlarmInfo, DueAlarm, Outcome, Settled};
pub use error::Error;
pub use pages::{KeyPages, ObjectPages};
pub use session::{Committing, Session};
pub use types::{Answer, Change, Counts, Holds, List, Listed, ListedObject, Namespace, Page, Schedule, Swapped, Target, Usage, Written};

use crate::database;
use crate::meters::{Bill, Exceeded, Tally};
use drive::Call;
use memory::What;
use objects::{Handle, Id, Shared};
use types::{check_changes, check_entry, check_key};
use view::View;

/// What may differ between two hosts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files of objects that are open at a time, more or less. One takes some 100 KiB of memory and two descriptors.
    pub open_max: usize,
    /// Threads that read and write files.
    pub threads: usize,
    /// What one object may hold, in bytes.
    pub object_bytes: fn(Plan) -> u64,
    /// What all objects of an account may hold, in bytes.
    pub account_bytes: fn(Plan) -> u64,
    /// When the store dies. For tests.
    pub fuse: Option<database::Fuse>,
}

impl Default for Options {
    fn default() -> Self {
        Self { open_max: 256, threads: 32, object_bytes: limits::state_object_bytes, account_bytes: limits::state_account_bytes, fuse: None }
    }
}

/// The open store. Clones share it, and are charged to the same service.
#[derive(Clone)]
pub struct State(Arc<Inner>, Bill);

struct Inner {
    shared: Arc<Shared>,
    /// The task that removes what was deleted. It ends with the last handle of the store.
    remover: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.remover.abort();
    }
}

impl State {
    /// Opens the store in a folder, which is created if need be, reads what files have that the catalogue has not heard of, and goes on removing what was
    /// deleted. Must run inside the async runtime.
    pub async fn open(folder: &Path, clock: Clock) -> Result<Self, Error> {
        Self::open_with(folder, clock, Options::default()).await
    }

    /// The same with other figures.
    pub async fn open_with(folder: &Path, clock: Clock, options: Options) -> Result<Self, Error> {
        let shared = Arc::new(upkeep::open(folder, clock, options).await?);
        let remover = tokio::spawn(upkeep::run(shared.clone())).abort_handle();
        Ok(Self(Arc::new(Inner { shared, remover }), Bill::default()))
    }

    /// The same store, whose operations are charged to a service.
    pub fn billed_to(&self, bill: Bill) -> Self {
        Self(self.0.clone(), bill)
    }

    /// Lets what waits run, writes it and closes the files. Whoever comes later gets an error. Fails when a file could not be brought up to date; then
    /// nothing is lost, and the next start does it.
    pub async fn close(&self) -> Result<(), Error> {
        let shared = self.0.shared.clone();
        shared.closing.store(true, Ordering::Release);
        self.0.remover.abort();
        loop {
            let rest = shared.driven.notified();
            tokio::pin!(rest);
            rest.as_mut().enable();
            if shared.drivers.load(Ordering::Acquire) == 0 {
                break;
            }
            rest.await;
        }
        shared.closed.store(true, Ordering::Release);
        let closing = shared.clone();
        // It does not panic; what is left is a runtime that is shutting down.
        drop(tovuk_kernel::threads::spawn_blocking(move || closing.close_all()).await);
        shared.catalogue.close().await
    }

    /// What is stored under a key.
    pub async fn get(&self, target: &Target, key: &str) -> Result<Answer<Option<Bytes>>, Error> {
        check_key(key)?;
        let key = key.to_owned();
        self.call(target, move |view| view.get(&key)).await
    }

    /// Stores a value.
    pub async fn put(&self, target: &Target, key: &str, value: Bytes) -> Result<Answer<()>, Error> {
        check_entry(key, &value)?;
        let key = key.to_owned();
        self.write_alone(target, move |view| view.put(&key, value)).await
    }

    /// Removes a value. Returns whether it was there.
    pub async fn delete_value(&self, target: &Target, key: &str) -> Result<Answer<bool>, Error> {
        check_key(key)?;
        let key = key.to_owned();
        self.write_alone(target, move |view| view.delete(&key)).await
    }

    /// Stores a value, or removes it if none is given, if what is there is what is expected: a value, or none.
    pub async fn compare_and_set(&self, target: &Target, key: &str, expected: Option<Bytes>, value: Option<Bytes>) -> Result<Answer<Swapped>, Error> {
        check_key(key)?;
        value.as_ref().map_or(Ok(()), |value| check_entry(key, value))?;
        let key = key.to_owned();
        self.call(target, move |view| view.compare_and_set(&key, expected.as_ref(), value)).await
    }

    /// Adds to a decimal integer of 64 bits, which is stored as text, and returns the sum. What is not there counts as 0.
    pub async fn increment(&self, target: &Target, key: &str, by: i64) -> Result<Answer<i64>, Error> {
        check_key(key)?;
        let key = key.to_owned();
        self.call(target, move |view| view.increment(&key, by)).await
    }

    /// At most 1,000 changes with at most 32 MiB: all of them or, if a condition among them is not met or after an error, none.
    pub async fn write(&self, target: &Target, changes: Vec<Change>) -> Result<Answer<Written>, Error> {
        check_changes(&changes)?;
        self.write_alone(target, move |view| view.write(changes)).await
    }

    /// One page of an object's keys.
    pub async fn keys(&self, target: &Target, list: List) -> Result<Answer<Page<Listed>>, Error> {
        let span = list.span()?;
        self.call(target, move |view| Ok(Page::cut(view.list(&span)?, span.limit, |key| &key.name))).await
    }

    /// Deletes an object with its values and its alarm. Returns whether it existed.
    pub async fn delete_object(&self, target: &Target) -> Result<Answer<bool>, Error> {
        let handle = self.handle(target)?;
        let waiting = handle.shared.waits.wait(&target.holds, &handle.object.id)?;
        let (sender, answer) = oneshot::channel();
        let request = self.1.reserve(Meter::StateRequests, 1).await?;
        // What it holds is known once it has the object; a removal frees room, and is not held up for want of it.
        let mut tally = self.tally().await?.writing().await?;
        let runtime = handle.shared.catalogue.runtime().clone();
        let cleared = move |result: Result<Answer<bool>, Error>| {
            if let Ok(Answer { rows_read, rows_written, .. }) = result {
                request.settle(1);
                let _ = tally.cover_blocking(&runtime, rows_read, rows_written);
                tally.read(rows_read);
                tally.written(rows_written);
            }
            // Whoever has asked may have gone.
            drop(sender.send(result));
        };
        let answer = self.wait_for(&handle, What::Clear(Box::new(cleared)), answer).await;
        drop(waiting);
        answer?.unwrap_or_else(|| Err(Error::closed()))
    }

    /// One page of the objects of a namespace: those that have a value or an alarm.
    pub async fn objects(&self, namespace: Namespace, list: List) -> Result<Page<ListedObject>, Error> {
        let span = list.span()?;
        let request = self.1.reserve(Meter::StateRequests, 1).await?;
        let mut tally = self.tally().await?;
        self.tell(namespace).await?;
        let page = match self.0.shared.catalogue.existing(namespace) {
            None => Page { items: Vec::new(), has_more: false, next_cursor: None },
            Some(shard) => {
                let read = shard.database.read(move |connection| {
                    let found = rows::list(connection, namespace, &span)?;
                    Ok::<_, Error>(Page::cut(found, span.limit, |object| &object.name))
                });
                read.await?
            }
        };
        let rows = u64::try_from(page.items.len()).unwrap_or(u64::MAX);
        let covered = tally.cover(rows, 0).await;
        tally.read(rows);
        covered?;
        request.settle(1);
        Ok(page)
    }

    /// What rows are charged with.
    async fn tally(&self) -> Result<Tally, Error> {
        Ok(Tally::reads(&self.1, Meter::StateSqliteRowsRead, Meter::StateSqliteRowsWritten).await?)
    }

    /// What a namespace holds.
    pub async fn usage(&self, namespace: Namespace) -> Result<Usage, Error> {
        self.tell(namespace).await?;
        match self.0.shared.catalogue.existing(namespace) {
            Some(shard) => shard.database.read(move |connection| rows::usage(connection, namespace)).await,
            None => Ok(Usage::default()),
        }
    }

    /// The highest number of a namespace that was ever written to; 0 when there is none.
    pub async fn highest(&self) -> Result<i64, Error> {
        let mut highest = 0;
        for shard in self.0.shared.catalogue.all() {
            highest = highest.max(shard.database.read(rows::highest).await?);
        }
        Ok(highest)
    }

    /// Says which account and service has which namespace, for the start of the host, before anything else is done. What a namespace holds counts for its account from
    /// then on. One that is not named counts for nobody, and its alarms do not ring. Returns those that are named and were dropped.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn own(&self, owners: Vec<(Namespace, i64, i64)>) -> Result<Vec<Namespace>, Error> {
        owners.iter().for_each(|(namespace, _, service)| self.0.shared.ledger.serve(*namespace, *service));
        let owners: HashMap<Namespace, i64> = owners.into_iter().map(|(namespace, account, _)| (namespace, account)).collect();
        let mut stored = HashSet::new();
        for shard in self.0.shared.catalogue.all() {
            stored.extend(shard.database.read(rows::namespaces).await?.into_iter().map(|(namespace, _)| namespace));
        }
        let ledger = &self.0.shared.ledger;
        ledger.own(&owners, &stored);
        Ok(owners.into_keys().filter(|namespace| ledger.is_dropped(*namespace)).collect())
    }

    /// What all namespaces of an account hold, or those of one of its services, in bytes, with what is being written.
    pub fn stored_bytes(&self, account: i64, service: Option<i64>) -> u64 {
        match service {
            Some(service) => self.0.shared.ledger.service(service),
            None => self.account_bytes(account),
        }
    }

    /// What all namespaces of an account hold, in bytes, with what is being written.
    pub fn account_bytes(&self, account: i64) -> u64 {
        self.0.shared.ledger.account(account)
    }

    /// Deletes a namespace with all that it holds, and says how much that was. Afterwards every operation on it fails with [`Error::Dropped`], but for
    /// this one. Its objects are removed and their space is given back in the background, also after the next start.
    pub async fn drop_namespace(&self, namespace: Namespace) -> Result<Usage, Error> {
        self.tell(namespace).await?;
        let shared = &self.0.shared;
        let usage = shared.catalogue.write(namespace, move |tx, _| rows::drop_namespace(tx, namespace)).await?;
        shared.ledger.drop_namespace(namespace);
        shared.to_remove.notify_one();
        Ok(usage)
    }

    fn handle(&self, target: &Target) -> Result<Handle, Error> {
        check_key(&target.object)?;
        let shared = &self.0.shared;
        if shared.closing.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        if shared.ledger.is_dropped(target.namespace) {
            return Err(Error::Dropped);
        }
        if let Some((_, service)) = self.1.owner() {
            shared.ledger.serve(target.namespace, service);
        }
        Ok(shared.handle(Id { namespace: target.namespace, object: target.object.clone() }, target.account))
    }

    /// Runs a call on a thread when its turn comes, and answers when it is on disk.
    async fn call<T, F>(&self, target: &Target, work: F) -> Result<Answer<T>, Error>
    where
        F: FnOnce(&mut View) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        self.run(target, self.tally().await?, work).await
    }

    /// The same for a call that may read nothing, and is not refused for want of room to read.
    async fn write_alone<T, F>(&self, target: &Target, work: F) -> Result<Answer<T>, Error>
    where
        F: FnOnce(&mut View) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let tally = Tally::writes(&self.1, Meter::StateSqliteRowsRead, Meter::StateSqliteRowsWritten).await?;
        self.run(target, tally, work).await
    }

    async fn run<T, F>(&self, target: &Target, tally: Tally, work: F) -> Result<Answer<T>, Error>
    where
        F: FnOnce(&mut View) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let handle = self.handle(target)?;
        let request = self.1.reserve(Meter::StateRequests, 1).await?;
        let waiting = handle.shared.waits.wait(&target.holds, &handle.object.id)?;
        let (caller, answer) = oneshot::channel();
        let (allowance, exceeded) = self.allowance(target);
        let call = Call { allowance, work: Some(work), result: None, tally, request, caller };
        let answer = self.wait_for(&handle, What::Job(Box::new(call)), answer).await;
        drop(waiting);
        explain(answer?.unwrap_or_else(|| Err(Error::closed())), exceeded)
    }
}

/// Says that it was the cap, where it was.
fn explain<T>(result: Result<T, Error>, exceeded: Option<Exceeded>) -> Result<T, Error> {
    result.map_err(|error| match (error, exceeded) {
        (Error::AccountFull { .. }, Some(exceeded)) => Error::Usage(exceeded),
        (error, _) => error,
    })
}
