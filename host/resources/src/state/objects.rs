//! The objects that are in use, or whose files are open: finding them, opening their files, and closing those that were used least recently. An object
//! is in memory while somebody uses it, its file is open, or the catalogue has to be told what is in it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tovuk_kernel::clock::Clock;

use super::catalogue::Catalogue;
use super::file::{self, File};
use super::ledger::Ledger;
use super::memory::Memory;
use super::pool::Pool;
use super::rows::State as Settled;
use super::telling::Telling;
use super::waits::Waits;
use super::{Error, Namespace, Options, rows};
use crate::database;

/// Files that are closed at a time, so that the catalogue is told of them by one commit.
const CLOSED_AT_ONCE: usize = 32;

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub namespace: Namespace,
    pub object: Arc<str>,
}

/// An object in memory.
pub(super) struct Object {
    pub id: Id,
    pub account: i64,
    memory: Mutex<Memory>,
    /// Whoever reads or writes the file has the lock meanwhile. Taken before the lock of the memory, never after.
    file: Mutex<Option<File>>,
}

struct Entry {
    object: Arc<Object>,
    users: usize,
    /// When it was used last, on the store's counter.
    used: u64,
}

/// What operations, threads and background work share.
pub(super) struct Shared {
    pub folder: PathBuf,
    pub catalogue: Catalogue,
    pub ledger: Ledger,
    pub pool: Pool,
    pub clock: Clock,
    pub options: Options,
    pub template: Arc<[u8]>,
    pub waits: Waits,
    pub telling: Telling,
    objects: Mutex<HashMap<Id, Entry>>,
    open: AtomicUsize,
    uses: AtomicU64,
    /// Held while the catalogue is told what files have, so that it hears of one object in order.
    upkeep: Mutex<()>,
    /// Threads that drive an object, or are about to.
    pub drivers: AtomicUsize,
    pub driven: Notify,
    /// No calls are taken any more.
    pub closing: AtomicBool,
    /// No files are opened any more.
    pub closed: AtomicBool,
    /// Told when a namespace was dropped or a file is to be removed.
    pub to_remove: Notify,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A use of an object, which stays in memory meanwhile.
pub(super) struct Handle {
    pub shared: Arc<Shared>,
    pub object: Arc<Object>,
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        if let Some(entry) = locked(&self.shared.objects).get_mut(&self.object.id) {
            entry.users += 1;
        }
        Self { shared: self.shared.clone(), object: self.object.clone() }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut objects = locked(&self.shared.objects);
        let Some(entry) = objects.get_mut(&self.object.id) else { return };
        entry.users -= 1;
        if entry.users == 0 && locked(&self.object.memory).is_idle() {
            objects.remove(&self.object.id);
        }
    }
}

impl Shared {
    pub fn new(folder: PathBuf, catalogue: Catalogue, ledger: Ledger, pool: Pool, clock: Clock, options: Options, template: Arc<[u8]>) -> Self {
        Self {
            folder,
            catalogue,
            ledger,
            pool,
            clock,
            options,
            template,
            waits: Waits::default(),
            telling: Telling::default(),
            objects: Mutex::default(),
            open: AtomicUsize::new(0),
            uses: AtomicU64::new(0),
            upkeep: Mutex::default(),
            drivers: AtomicUsize::new(0),
            driven: Notify::new(),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            to_remove: Notify::new(),
        }
    }

    /// The object of that name, whether it exists or not.
    pub fn handle(self: &Arc<Self>, id: Id, account: i64) -> Handle {
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        let mut objects = locked(&self.objects);
        let entry = objects.entry(id).or_insert_with_key(|id| {
            let object = Object { id: id.clone(), account, memory: Mutex::default(), file: Mutex::default() };
            Entry { object: Arc::new(object), users: 0, used }
        });
        entry.users += 1;
        entry.used = used;
        Handle { shared: self.clone(), object: entry.object.clone() }
    }

    /// The object, if it is in memory.
    pub fn existing(self: &Arc<Self>, id: &Id) -> Option<Handle> {
        let mut objects = locked(&self.objects);
        let entry = objects.get_mut(id)?;
        entry.users += 1;
        Some(Handle { shared: self.clone(), object: entry.object.clone() })
    }

    /// Objects that are in memory, the least recently used first.
    fn in_memory(self: &Arc<Self>, wanted: impl Fn(&Object) -> bool) -> Vec<Handle> {
        let mut objects = locked(&self.objects);
        let mut found: Vec<_> = objects.values_mut().filter(|entry| wanted(&entry.object)).collect();
        // Those that nobody uses now come before the others.
        found.sort_unstable_by_key(|entry| (entry.users > 0, entry.used));
        let handle = |entry: &mut Entry| {
            entry.users += 1;
            Handle { shared: self.clone(), object: entry.object.clone() }
        };
        found.into_iter().map(handle).collect()
    }

    /// Closes files until there is room for another. One thread does; others go on meanwhile, as long as there are not many more than may be.
    fn make_room(self: &Arc<Self>) {
        let is_room = |more: usize| self.open.load(Ordering::Relaxed) < self.options.open_max.saturating_add(more);
        if is_room(0) {
            return;
        }
        let _upkeep = match self.upkeep.try_lock() {
            Ok(upkeep) => upkeep,
            Err(_) if is_room(self.options.threads) => return,
            Err(_) => locked(&self.upkeep),
        };
        if is_room(0) {
            return;
        }
        let mut open = self.in_memory(|object| locked(&object.memory).open);
        open.truncate(CLOSED_AT_ONCE.min(self.options.open_max.div_ceil(2)));
        self.close_files(&open, false);
    }

    /// Closes the files of objects and tells the catalogue what is in them. Files that are in use are left, unless they are waited for.
    fn close_files(self: &Arc<Self>, handles: &[Handle], wait: bool) {
        let mut closed: HashMap<usize, Vec<_>> = HashMap::new();
        for handle in handles {
            if let Some((incarnation, state)) = handle.close_file(wait) {
                let id = handle.object.id.clone();
                closed.entry(Catalogue::index(id.namespace)).or_default().push((id, incarnation, state));
            }
        }
        for told in closed.into_values() {
            self.tell(told);
        }
    }

    /// Tells the catalogue, by one commit, what files of one shard have.
    fn tell(self: &Arc<Self>, told: Vec<(Id, i64, Settled)>) {
        let Some(namespace) = told.first().map(|(id, ..)| id.namespace) else { return };
        let marks: Vec<_> = told.iter().filter_map(|(id, _, state)| Some((id.clone(), state.unmark?, state.alarm))).collect();
        let written = self.catalogue.write_blocking(namespace, move |tx, shard| {
            let alarms = told.iter().any(|(_, _, state)| state.alarm.is_some());
            let mut emptied = Vec::new();
            for (id, incarnation, state) in &told {
                if rows::settle(tx, id.namespace, &id.object, *incarnation, state)? {
                    emptied.push((id.clone(), *incarnation));
                }
            }
            if alarms {
                shard.due.update(tx)?;
            }
            Ok(emptied)
        });
        match written {
            Ok(emptied) => {
                for (id, incarnation) in &emptied {
                    if let Some(handle) = self.existing(id) {
                        let mut memory = handle.memory();
                        // Somebody may write to it again already, and know better.
                        if memory.marked.is_none() && memory.incarnation == Some(*incarnation) {
                            memory.incarnation = None;
                        }
                    }
                }
                if !emptied.is_empty() {
                    self.to_remove.notify_one();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the catalogue of State could not be told what is in closed files; they stay marked");
                for (id, mark, alarm) in marks {
                    if let Some(handle) = self.existing(&id) {
                        let mut memory = handle.memory();
                        memory.marked.get_or_insert(mark);
                        memory.owed = memory.owed.or(alarm);
                    }
                }
            }
        }
    }

    /// Tells the catalogue what the objects of a namespace hold, so that it can be asked.
    pub fn tell_all(self: &Arc<Self>, namespace: Namespace) {
        let _upkeep = locked(&self.upkeep);
        let mut told = Vec::new();
        for handle in self.in_memory(|object| object.id.namespace == namespace) {
            let mut memory = handle.memory();
            if let (Some(incarnation), Some(_)) = (memory.incarnation, memory.marked)
                && memory.told != memory.durable
            {
                memory.told = memory.durable;
                told.push((handle.object.id.clone(), incarnation, Settled { counts: memory.durable, unmark: None, alarm: None }));
            }
        }
        self.tell(told);
    }

    /// Closes all files. Whoever uses one is waited for.
    pub fn close_all(self: &Arc<Self>) {
        let _upkeep = locked(&self.upkeep);
        self.close_files(&self.in_memory(|_| true), true);
    }

    /// How many files are open.
    #[cfg(test)]
    pub fn files_open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many objects are in memory.
    #[cfg(test)]
    pub fn in_use(&self) -> usize {
        locked(&self.objects).len()
    }
}

impl Handle {
    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        locked(&self.object.memory)
    }

    /// The object's file, opened if need be. None if there is none, and none is to be made.
    pub fn file(&self, incarnation: i64, create: bool) -> Result<MutexGuard<'_, Option<File>>, Error> {
        if locked(&self.object.file).is_none() {
            // With no lock held, because others are taken for it.
            self.shared.make_room();
        }
        let mut file = locked(&self.object.file);
        if file.as_ref().is_some_and(|file| file.incarnation != incarnation) {
            // It belongs to what was deleted.
            self.forget(&mut file);
        }
        if file.is_some() {
            return Ok(file);
        }
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        let path = file::path_of(&self.shared.folder, self.object.id.namespace, &self.object.id.object, incarnation);
        if create {
            file::create(&path, &self.shared.template)?;
        } else if !path.exists() {
            return Ok(file);
        }
        *file = Some(File::open(&path, incarnation)?);
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        self.memory().open = true;
        Ok(file)
    }

    /// The object's file as it is. Whoever has it is waited for.
    pub fn file_guard(&self) -> MutexGuard<'_, Option<File>> {
        locked(&self.object.file)
    }

    /// The object's file as it is, unless somebody has it.
    pub fn file_if_free(&self) -> Option<MutexGuard<'_, Option<File>>> {
        self.object.file.try_lock().ok()
    }

    /// Closes a file whose content does not matter any more.
    fn forget(&self, file: &mut Option<File>) {
        if let Some(file) = file.take() {
            file.abandon();
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
            self.memory().open = false;
        }
    }

    /// Closes the file, if it is open, and returns what the catalogue has to be told.
    fn close_file(&self, wait: bool) -> Option<(i64, Settled)> {
        let mut file = if wait { locked(&self.object.file) } else { self.object.file.try_lock().ok()? };
        let closing = file.take();
        if let Some(closing) = closing {
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
            if matches!(self.memory().ended, Some(Error::Database(_))) {
                // It is not known what is on disk, so nothing more is done to it. It stays marked.
                closing.abandon();
                self.memory().open = false;
                return None;
            }
            let closed = closing.close();
            self.memory().open = false;
            if let Err(error) = closed {
                tracing::warn!(%error, "the write-ahead log of a State object could not be copied into its file");
                if database::poisons(&error) {
                    self.memory().ended = Some(poisoned(&error));
                }
                // It stays marked: the next start reads what is there.
                return None;
            }
        }
        let mut memory = self.memory();
        let unmark = memory.marked.take()?;
        memory.told = memory.durable;
        let alarm = memory.owed.take();
        Some((memory.incarnation?, Settled { counts: memory.durable, unmark: Some(unmark), alarm }))
    }

    /// Ends all use of the object and removes the file of that incarnation, if it has one.
    pub fn remove(&self, incarnation: Option<i64>, error: Error) -> Result<(), Error> {
        let mut file = locked(&self.object.file);
        self.forget(&mut file);
        {
            let mut memory = self.memory();
            memory.ended = Some(error);
            memory.cleared();
        }
        match incarnation {
            Some(incarnation) => file::remove(&file::path_of(&self.shared.folder, self.object.id.namespace, &self.object.id.object, incarnation)),
            None => Ok(()),
        }
    }

    /// The file is that of a deleted object.
    pub fn cleared(&self) {
        let mut file = locked(&self.object.file);
        self.forget(&mut file);
        self.memory().cleared();
    }
}

/// The error after which it is unknown what is on disk.
pub(super) fn poisoned(error: &database::rusqlite::Error) -> Error {
    tracing::error!(%error, "the file of a State object has failed");
    Error::Database(database::Error::Poisoned(Arc::from(error.to_string())))
}
