//! An object as one call sees it: what the call itself has changed, over what others have executed, over what is in the file. A call changes nothing but
//! its draft, which is taken over as a whole or forgotten.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::{STATE_BATCH_BYTES_MAX, STATE_SESSION_CHANGES_MAX};

use super::error::shown;
use super::file::File;
use super::memory::{Reply, length};
use super::objects::Handle;
use super::types::{Span, check_entry, integer};
use super::{AlarmInfo, Answer, Change, Counts, Error, Listed, Swapped, Written, ringing};
use crate::memory::Memory;

/// What a change takes in memory besides its key and its value, more or less, in bytes.
const CHANGE_BYTES: usize = 128;

/// What the account may store.
#[derive(Clone, Copy, Default)]
pub(super) struct Allowance {
    pub object_bytes: u64,
    pub account_bytes: u64,
}

/// What one call has changed, and what that cost.
#[derive(Default)]
pub(super) struct Draft {
    pub changes: BTreeMap<Arc<str>, Option<Bytes>>,
    /// When the alarm is due from now on, if it changes.
    pub alarm: Option<Option<UnixMs>>,
    values: i64,
    bytes: i64,
    /// Bytes that the account has been asked for.
    reserved: u64,
    /// Bytes of changes.
    held: usize,
    pub rows_read: u64,
    pub rows_written: u64,
}

impl Draft {
    /// What an object holds with the changes that held so much without.
    pub fn after(&self, counts: Counts) -> Counts {
        Counts { values: counts.values.saturating_add_signed(self.values), bytes: counts.bytes.saturating_add_signed(self.bytes) }
    }
}

/// See the head of this file.
pub(super) struct View {
    pub handle: Handle,
    allowance: Allowance,
    pub draft: Draft,
    /// What the keys of the changes count in, besides their values.
    memory: Option<Box<dyn Memory>>,
}

impl Drop for View {
    fn drop(&mut self) {
        self.handle.shared.ledger.release(self.handle.object.id.namespace, self.draft.reserved);
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl View {
    pub fn new(handle: Handle, allowance: Allowance) -> Self {
        Self { handle, allowance, draft: Draft::default(), memory: None }
    }

    /// Has the keys of the changes count in memory of the host, until the call has ended.
    pub fn count_in(&mut self, memory: Box<dyn Memory>) {
        self.memory = Some(memory);
    }

    /// An answer with what the call has cost so far.
    pub fn answer<T>(&self, value: T) -> Answer<T> {
        let object = self.draft.after(self.handle.memory().counts);
        Answer { value, rows_read: self.draft.rows_read, rows_written: self.draft.rows_written, object }
    }

    /// What the account of the call may store.
    pub fn allow(&mut self, allowance: Allowance) {
        self.allowance = allowance;
    }

    /// Whether something that the call may have seen is to be committed before its caller may be told.
    pub fn pending(&self) -> bool {
        self.handle.memory().is_pending()
    }

    /// Fails when nothing is done with the object any more.
    pub fn check(&self) -> Result<(), Error> {
        if self.handle.shared.ledger.is_dropped(self.handle.object.id.namespace) {
            return Err(Error::Dropped);
        }
        self.handle.memory().ended.clone().map_or(Ok(()), Err)
    }

    /// Lets the changes become those of the object, unless something was undone since, and has somebody told when they are on disk.
    pub fn commit(&mut self, epoch: u64, reply: Reply) -> Result<(), Error> {
        let bytes = self.draft.bytes;
        let told = {
            let mut memory = self.handle.memory();
            if memory.epoch != epoch {
                return Err(Error::Undone);
            }
            if memory.absorb(&mut self.draft) {
                memory.tell(reply);
                None
            } else {
                Some(reply)
            }
        };
        self.settle(bytes);
        if let Some(reply) = told {
            reply(Ok(()));
        }
        Ok(())
    }

    /// Forgets what was changed.
    pub fn forget(&mut self) {
        let draft = std::mem::take(&mut self.draft);
        self.handle.shared.ledger.release(self.handle.object.id.namespace, draft.reserved);
    }

    /// Gives back what the account was asked for beyond what is kept, or what was removed.
    fn settle(&mut self, bytes: i64) {
        let reserved = std::mem::take(&mut self.draft.reserved);
        self.handle.shared.ledger.release(self.handle.object.id.namespace, u64::try_from(signed(reserved) - bytes).unwrap_or_default());
    }

    /// Lets the changes become those of the object. Returns whether something is to be committed before the caller may be told.
    pub fn absorb(&mut self) -> bool {
        let bytes = self.draft.bytes;
        let pending = self.handle.memory().absorb(&mut self.draft);
        self.settle(bytes);
        pending
    }

    /// What is known of a key without the file.
    pub fn in_memory(&self, key: &str) -> Option<Option<Bytes>> {
        self.draft.changes.get(key).cloned().or_else(|| self.handle.memory().overlaid(key))
    }

    fn in_file<T>(&self, read: impl FnOnce(&File) -> Result<T, Error>) -> Result<Option<T>, Error> {
        let Some(incarnation) = self.handle.memory().incarnation else { return Ok(None) };
        let file = self.handle.file(incarnation, false)?;
        file.as_ref().map(read).transpose()
    }

    fn look(&self, key: &str) -> Result<Option<Bytes>, Error> {
        match self.in_memory(key) {
            Some(found) => Ok(found),
            None => Ok(self.in_file(|file| file.get(key))?.flatten()),
        }
    }

    fn length(&self, key: &str) -> Result<Option<u64>, Error> {
        match self.in_memory(key) {
            Some(found) => Ok(found.as_ref().map(length)),
            None => Ok(self.in_file(|file| file.length(key))?.flatten()),
        }
    }

    /// Changes one key.
    fn change(&mut self, key: &str, value: Option<Bytes>) -> Result<bool, Error> {
        let old = self.length(key)?;
        let of_key = u64::try_from(key.len()).unwrap_or(u64::MAX);
        let (before, after) =
            (old.map_or(0, |old| old.saturating_add(of_key)), value.as_ref().map_or(0, |value| length(value).saturating_add(of_key)));
        let weight = |value: &Option<Bytes>| key.len().saturating_add(value.as_ref().map_or(0, Bytes::len));
        let own = self.draft.changes.get(key);
        let is_new = own.is_none();
        if is_new && old.is_none() && value.is_none() {
            return Ok(false);
        }
        let held = self.draft.held.saturating_sub(own.map_or(0, weight)).saturating_add(weight(&value));
        if held > STATE_BATCH_BYTES_MAX || (is_new && self.draft.changes.len() >= STATE_SESSION_CHANGES_MAX) {
            return Err(Error::BatchBytes);
        }
        let in_memory = u64::try_from(key.len().saturating_add(CHANGE_BYTES)).unwrap_or(u64::MAX);
        if is_new && self.memory.as_ref().is_some_and(|memory| !memory.take(in_memory)) {
            return Err(Error::NoMemory);
        }
        if let Some(more) = after.checked_sub(before).filter(|more| *more > 0) {
            let (used, max) = (self.draft.after(self.handle.memory().counts).bytes, self.allowance.object_bytes);
            if used.saturating_add(more) > max {
                return Err(Error::ObjectFull { used, more, max });
            }
        }
        // What the call has removed makes room for what it adds.
        let grown = u64::try_from(self.draft.bytes + signed(after) - signed(before)).unwrap_or_default();
        if let Some(more) = grown.checked_sub(self.draft.reserved).filter(|more| *more > 0) {
            let object = &self.handle.object;
            self.handle.shared.ledger.reserve(object.id.namespace, object.account, more, self.allowance.account_bytes)?;
            self.draft.reserved = grown;
        }
        self.draft.bytes += signed(after) - signed(before);
        self.draft.values += i64::from(value.is_some()) - i64::from(old.is_some());
        self.draft.held = held;
        self.draft.rows_written += u64::from(value.is_some() || old.is_some());
        self.draft.changes.insert(key.into(), value);
        Ok(old.is_some())
    }

    /// What is stored under a key.
    pub fn get(&mut self, key: &str) -> Result<Option<Bytes>, Error> {
        self.draft.rows_read += 1;
        self.look(key)
    }

    /// Stores a value.
    pub fn put(&mut self, key: &str, value: Bytes) -> Result<(), Error> {
        check_entry(key, &value)?;
        self.change(key, Some(value)).map(drop)
    }

    /// Removes a value. Returns whether it was there.
    pub fn delete(&mut self, key: &str) -> Result<bool, Error> {
        self.change(key, None)
    }

    /// Stores or removes a value if another is there.
    pub fn compare_and_set(&mut self, key: &str, expected: Option<&Bytes>, value: Option<Bytes>) -> Result<Swapped, Error> {
        let found = self.get(key)?;
        let swapped = found.as_ref() == expected;
        if swapped {
            self.change(key, value)?;
        }
        Ok(Swapped { swapped, found })
    }

    /// Adds to a decimal integer.
    pub fn increment(&mut self, key: &str, by: i64) -> Result<i64, Error> {
        let found = self.get(key)?;
        let value = integer(key, found.as_ref())?;
        let sum = value.checked_add(by).ok_or_else(|| Error::Overflow { key: shown(key), value, by })?;
        self.put(key, sum.to_string().into())?;
        Ok(sum)
    }

    /// Does all of it or, if a condition is not met, nothing. After an error the draft is not to be taken over.
    pub fn write(&mut self, changes: Vec<Change>) -> Result<Written, Error> {
        for change in &changes {
            if let Change::Expect { key, value } = change
                && self.get(key)? != *value
            {
                return Ok(Written::Refused(key.clone()));
            }
        }
        for change in changes {
            match change {
                Change::Put { key, value } => self.put(&key, value)?,
                Change::Delete { key } => drop(self.delete(&key)?),
                Change::Expect { .. } => {}
            }
        }
        Ok(Written::All)
    }

    /// The same for a draft that goes on after an error: nothing of it is left then.
    pub fn write_or_undo(&mut self, changes: Vec<Change>) -> Result<Written, Error> {
        let before: Vec<_> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Put { key, .. } | Change::Delete { key } => Some((key.clone(), self.draft.changes.get(key.as_str()).cloned())),
                Change::Expect { .. } => None,
            })
            .collect();
        let (values, bytes, held) = (self.draft.values, self.draft.bytes, self.draft.held);
        let written = self.write(changes);
        if written.is_err() {
            for (key, change) in before {
                match change {
                    Some(change) => drop(self.draft.changes.insert(key.into(), change)),
                    None => drop(self.draft.changes.remove(key.as_str())),
                }
            }
            // What the account was asked for stays asked for until the draft is settled.
            (self.draft.values, self.draft.bytes, self.draft.held) = (values, bytes, held);
        }
        written
    }

    /// Keys in byte order, one more than asked for if there are more.
    pub fn list(&mut self, span: &Span) -> Result<Vec<Listed>, Error> {
        let mut over = self.handle.memory().overlaid_from(&span.start, &span.prefix);
        let own = self.draft.changes.range::<str, _>((Bound::Included(span.start.as_str()), Bound::Unbounded));
        let own = own.take_while(|(key, _)| key.starts_with(&span.prefix));
        over.extend(own.map(|(key, value)| (key.clone(), value.as_ref().map(length))));
        // Each entry in memory hides one in the file at most, so those that are left are enough.
        let wanted = span.limit.saturating_add(1).saturating_add(over.len());
        let stored = self.in_file(|file| file.list(&span.start, &span.prefix, wanted))?.unwrap_or_default();
        self.draft.rows_read += u64::try_from(stored.len().max(1)).unwrap_or(u64::MAX);
        let mut merged: BTreeMap<Arc<str>, u64> = stored.into_iter().map(|key| (key.name.into(), key.value_bytes)).collect();
        for (key, value_bytes) in over {
            match value_bytes {
                Some(value_bytes) => drop(merged.insert(key, value_bytes)),
                None => drop(merged.remove(&key)),
            }
        }
        let keys = merged.into_iter().take(span.limit.saturating_add(1));
        Ok(keys.map(|(name, value_bytes)| Listed { name: name.to_string(), value_bytes }).collect())
    }

    /// Sets the alarm, or removes it.
    pub fn set_alarm(&mut self, due: Option<UnixMs>) {
        self.draft.rows_written += 1;
        self.draft.alarm = Some(due);
    }

    /// Removes the alarm. Returns whether one was set.
    pub fn delete_alarm(&mut self) -> Result<bool, Error> {
        let was_set = self.alarm()?.is_some();
        // One that is being delivered is none, and must not be tried again either.
        self.set_alarm(None);
        Ok(was_set)
    }

    /// The alarm, if one is set that is not being delivered.
    pub fn alarm(&mut self) -> Result<Option<AlarmInfo>, Error> {
        self.draft.rows_read += 1;
        let in_memory = self.draft.alarm.or_else(|| self.handle.memory().overlaid_alarm());
        if let Some(due) = in_memory {
            return Ok(due.map(|due| AlarmInfo { scheduled_at: due, next_at: due, retry_count: 0 }));
        }
        let object = self.handle.object.id.clone();
        let read = move |connection: &_| ringing::get(connection, object.namespace, &object.object);
        Ok(self.handle.shared.catalogue.read_blocking(self.handle.object.id.namespace, read)?.flatten())
    }
}
