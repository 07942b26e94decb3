//! A thread that drives an object: it runs those who wait, one after the other, and commits what they have done as one group. While a commit waits for
//! the disk, a session may have the object already and build on what is not there yet; it is answered after its own commit, and undone with the
//! commit that it is built on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tovuk_kernel::clock::UnixMs;

use super::file::{AlarmNote, Batch, File};
use super::memory::{Group, Job, Reply, Step, What};
use super::objects::{Handle, poisoned};
use super::session::Turn;
use super::view::{Allowance, View};
use super::{Answer, Error, ringing, rows};
use crate::database;
use crate::meters::{Charge, Tally};

/// When an alarm is written that could not be written together with values.
const PAY_AFTER: Duration = Duration::from_secs(2);

/// Counts a thread that drives, also if it panics.
struct Driving(Handle);

impl Drop for Driving {
    fn drop(&mut self) {
        let shared = &self.0.shared;
        if shared.drivers.fetch_sub(1, Ordering::AcqRel) == 1 {
            shared.driven.notify_waiters();
        }
    }
}

/// Has a thread drive an object that was said to need it.
pub(super) fn schedule(handle: Handle) {
    handle.shared.drivers.fetch_add(1, Ordering::AcqRel);
    let shared = handle.shared.clone();
    let driving = Driving(handle);
    shared.pool.submit(move || drive(&driving.0));
}

fn drive(handle: &Handle) {
    if let Err(error) = load(handle) {
        let waiting = {
            let mut memory = handle.memory();
            memory.driven = false;
            memory.drain()
        };
        waiting.into_iter().for_each(|waiting| refuse(waiting.what, &error));
        return;
    }
    loop {
        let step = handle.memory().next();
        match step {
            Step::Run(jobs) => {
                for job in jobs {
                    run(handle, job);
                }
                handle.memory().ran();
            }
            Step::Grant(sender) => grant(handle.clone(), sender),
            Step::Clear(cleared) => {
                let result = clear(handle);
                handle.memory().ran();
                cleared(result);
            }
            Step::Commit(group) => commit(handle, group),
            Step::Rest => return,
        }
    }
}

/// Asks the catalogue what there is.
fn load(handle: &Handle) -> Result<(), Error> {
    if handle.memory().loaded {
        return Ok(());
    }
    let id = handle.object.id.clone();
    let known = handle.shared.catalogue.read_blocking(id.namespace, move |connection| rows::known(connection, id.namespace, &id.object))?;
    handle.memory().load(known.unwrap_or_default());
    Ok(())
}

fn refuse(what: What, error: &Error) {
    match what {
        What::Job(job) => job.answer(Err(error.clone())),
        What::Clear(cleared) => cleared(Err(error.clone())),
        // The session's caller sees that its channel is gone and asks again, for the reason.
        What::Hold(_) => {}
    }
}

/// Gives the object to a session.
pub(super) fn grant(handle: Handle, sender: oneshot::Sender<Turn>) {
    // Whoever has gone meanwhile gives it back by dropping it.
    drop(sender.send(Turn::new(handle)));
}

fn run(handle: &Handle, mut job: Box<dyn Job>) {
    let mut view = View::new(handle.clone(), Allowance::default());
    let stands = catch_unwind(AssertUnwindSafe(|| job.run(&mut view))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(error = text, "an operation of State panicked");
        false
    });
    let pending = if stands { view.absorb() } else { view.pending() };
    if pending {
        handle.memory().tell(Box::new(move |committed| job.answer(committed)));
    } else {
        job.answer(Ok(()));
    }
}

/// Commits a group and tells those who wait for it.
fn commit(handle: &Handle, group: Group) {
    let Group { number, counts, .. } = group;
    let result = if group.changes.is_empty() && group.alarm.is_none() { Ok(()) } else { store(handle, &group) };
    let mut replies: Vec<Reply> = group.replies;
    match &result {
        Ok(()) => {
            handle.memory().committed(number, counts);
            tell(replies, &result);
            tidy(handle);
        }
        Err(error) => {
            let failed = std::mem::take(&mut replies);
            undo(handle, error);
            tell(failed, &result);
        }
    }
}

/// Undoes all that is not on disk.
fn undo(handle: &Handle, error: &Error) {
    let (others, change) = {
        let mut memory = handle.memory();
        let before = memory.counts.bytes;
        let others = memory.undo();
        if let Error::Database(database::Error::Poisoned(_)) = error {
            memory.ended = Some(error.clone());
        }
        (others, (before, memory.counts.bytes))
    };
    let (before, after) = change;
    let id = &handle.object.id;
    handle.shared.ledger.release(id.namespace, before.saturating_sub(after));
    handle.shared.ledger.add(id.namespace, handle.object.account, after.saturating_sub(before));
    tell(others, &Err(Error::Undone));
}

fn tell(replies: Vec<Reply>, result: &Result<(), Error>) {
    replies.into_iter().for_each(|reply| reply(result.clone()));
}

/// Writes a group to disk: values into the file, then the alarm into the catalogue. When both change, the file has a note of the alarm, so that they
/// change together whatever happens in between: nobody closes the file before the catalogue has the alarm, or before it is known that it is owed.
fn store(handle: &Handle, group: &Group) -> Result<(), Error> {
    let object = &handle.object;
    let namespace = object.id.namespace;
    if handle.shared.ledger.is_dropped(namespace) {
        return Err(Error::Dropped);
    }
    pay(handle)?;
    if group.changes.is_empty() {
        return match group.alarm {
            Some(due) => ring(handle, None, due),
            None => Ok(()),
        };
    }
    let (incarnation, mut guard) = marked_file(handle)?;
    // Marked, so the shard is there.
    let shard = handle.shared.catalogue.existing(namespace).ok_or_else(Error::closed)?;
    let note = group.alarm.map(|due| AlarmNote { generation: shard.number(), due });
    let batch = Batch { namespace, object: &object.id.object, changes: &group.changes, counts: group.counts, alarm: note };
    let file = guard.as_mut().ok_or_else(Error::closed)?;
    debug_assert_eq!(file.incarnation, incarnation, "a file is written as long as it is the object's");
    if !database::lives(handle.shared.options.fuse.as_ref()) {
        return Err(Error::closed());
    }
    file.commit(&batch).map_err(|error| if database::poisons(&error) { poisoned(&error) } else { error.into() })?;
    {
        // From here on that is what there is, whatever becomes of the alarm.
        let mut memory = handle.memory();
        memory.durable = group.counts;
        memory.owed = note;
    }
    if !database::lives(handle.shared.options.fuse.as_ref()) {
        return Err(Error::closed());
    }
    let Some(note) = note else { return Ok(()) };
    let written = ring(handle, Some(note), note.due);
    match &written {
        Ok(()) => handle.memory().owed = None,
        // Whoever waits for the group is told that it has failed; but it is in the file, and so the alarm is to be set as well.
        Err(_) => pay_later(handle),
    }
    drop(guard);
    written
}

/// Writes an alarm into the catalogue: that of a note or, without one, of a group that changes nothing else.
fn ring(handle: &Handle, note: Option<AlarmNote>, due: Option<UnixMs>) -> Result<(), Error> {
    let (id, account) = (handle.object.id.clone(), handle.object.account);
    let namespace = id.namespace;
    let written = handle.shared.catalogue.write_blocking(namespace, move |tx, shard| {
        rows::ensure_namespace(tx, id.namespace, account)?;
        let note = note.unwrap_or_else(|| AlarmNote { generation: shard.number(), due });
        ringing::apply(tx, id.namespace, &id.object, note)?;
        Ok(shard.due.update(tx)?)
    });
    if written.is_err()
        && let Some(shard) = handle.shared.catalogue.existing(namespace)
    {
        shard.due.unknown();
    }
    written
}

/// Writes the alarm into the catalogue that is in the file and could not be written there before.
fn pay(handle: &Handle) -> Result<(), Error> {
    if handle.memory().owed.is_none() {
        return Ok(());
    }
    // While the file is had, nobody else pays or closes it.
    let _file = handle.file_guard();
    let Some(note) = handle.memory().owed else { return Ok(()) };
    ring(handle, Some(note), note.due)?;
    handle.memory().owed = None;
    Ok(())
}

/// Sees to it that an alarm which is owed is written, also if nobody uses the object any more.
fn pay_later(handle: &Handle) {
    let (shared, id) = (Arc::downgrade(&handle.shared), handle.object.id.clone());
    let clock = handle.shared.clock.clone();
    handle.shared.catalogue.runtime().spawn(async move {
        clock.sleep(PAY_AFTER).await;
        let Some(shared) = shared.upgrade() else { return };
        if shared.closing.load(Ordering::Acquire) {
            return;
        }
        // It stays in memory as long as something is owed.
        let Some(handle) = shared.existing(&id) else { return };
        shared.pool.submit(move || {
            if let Err(error) = pay(&handle)
                && !matches!(error, Error::Dropped)
            {
                tracing::warn!(%error, "the alarm of a State object could not be set yet");
                pay_later(&handle);
            }
        });
    });
}

/// The object's file, made and opened if need be, and marked in the catalogue for as long as nobody else has it.
fn marked_file(handle: &Handle) -> Result<(i64, MutexGuard<'_, Option<File>>), Error> {
    loop {
        let incarnation = mark(handle)?;
        let file = handle.file(incarnation, true)?;
        let memory = handle.memory();
        if let Some(ended) = &memory.ended {
            return Err(ended.clone());
        }
        // It may have been closed in between, and the mark be gone.
        if memory.marked.is_some() && memory.incarnation == Some(incarnation) {
            drop(memory);
            return Ok((incarnation, file));
        }
    }
}

/// Makes sure that the catalogue knows that the file may know better. Returns the file's incarnation.
fn mark(handle: &Handle) -> Result<i64, Error> {
    {
        let memory = handle.memory();
        if let (Some(incarnation), Some(_)) = (memory.incarnation, memory.marked) {
            return Ok(incarnation);
        }
    }
    let (id, account) = (handle.object.id.clone(), handle.object.account);
    let (incarnation, mark) = handle.shared.catalogue.write_blocking(id.namespace, move |tx, shard| {
        let mark = shard.number();
        Ok((rows::mark(tx, id.namespace, &id.object, account, mark)?, mark))
    })?;
    let mut memory = handle.memory();
    (memory.incarnation, memory.marked) = (Some(incarnation), Some(mark));
    Ok(incarnation)
}

/// Copies the log of a file when it has grown. This is after the answers: nobody waits for it but whoever writes next.
fn tidy(handle: &Handle) {
    let tidied = handle.file_if_free().and_then(|file| file.as_ref().map(File::tidy));
    if let Some(Err(error)) = tidied {
        tracing::warn!(%error, "the write-ahead log of a State object could not be copied into its file");
        if database::poisons(&error) {
            handle.memory().ended = Some(poisoned(&error));
        }
    }
}

/// Deletes the object with its values and its alarm. Nothing of it is in memory only.
fn clear(handle: &Handle) -> Result<Answer<bool>, Error> {
    View::new(handle.clone(), Allowance::default()).check()?;
    // What came before must not come after.
    pay(handle)?;
    let id = handle.object.id.clone();
    let namespace = id.namespace;
    let before = handle.memory().counts;
    let alarm = match handle.shared.catalogue.existing(namespace) {
        None => false,
        Some(_) => handle.shared.catalogue.write_blocking(namespace, move |tx, shard| {
            let alarm = rows::delete(tx, id.namespace, &id.object)?;
            shard.due.update(tx)?;
            Ok(alarm)
        })?,
    };
    handle.cleared();
    handle.shared.ledger.release(namespace, before.bytes);
    handle.shared.to_remove.notify_one();
    let existed = alarm || before.values > 0;
    Ok(Answer { value: existed, rows_read: 1, rows_written: before.values.max(u64::from(existed)), object: Default::default() })
}

/// A call that runs by itself, with whoever waits for its answer.
pub(super) struct Call<F, T> {
    pub allowance: Allowance,
    pub work: Option<F>,
    pub result: Option<Result<Answer<T>, Error>>,
    /// What its rows are charged with.
    pub tally: Tally,
    /// What the call itself is charged with, also when its caller has gone.
    pub request: Charge,
    pub caller: oneshot::Sender<Result<Answer<T>, Error>>,
}

impl<F, T> Job for Call<F, T>
where
    F: FnOnce(&mut View) -> Result<T, Error> + Send,
    T: Send,
{
    fn run(&mut self, view: &mut View) -> bool {
        let Some(work) = self.work.take() else { return false };
        view.allow(self.allowance);
        let result = view.check().and_then(|()| work(view)).map(|value| view.answer(value));
        let Answer { rows_read, rows_written, .. } = view.answer(());
        let runtime = view.handle.shared.catalogue.runtime().clone();
        let covered = self.tally.cover_blocking(&runtime, rows_read, rows_written);
        self.tally.read(rows_read);
        let result = result.and_then(|answer| Ok(covered.map(|()| answer)?));
        let stands = result.is_ok();
        self.result = Some(result);
        stands
    }

    fn answer(mut self: Box<Self>, committed: Result<(), Error>) {
        if let (Some(Ok(answer)), Ok(())) = (&self.result, &committed) {
            self.tally.written(answer.rows_written);
            self.request.spend(1);
        }
        let answer = match (self.result, committed) {
            // A call that failed by itself has its own reason, whatever became of the others.
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(Ok(answer)), Ok(())) => Ok(answer),
            (None, Ok(())) => Err(Error::Undone),
        };
        // The caller may have gone; what was committed stays.
        let _ = self.caller.send(answer);
    }
}

/// Has a session's commit told when its group is on disk.
pub(super) fn teller<T: Send + 'static>(answer: Answer<T>, tally: Option<Tally>, caller: oneshot::Sender<Result<Answer<T>, Error>>) -> Reply {
    Box::new(move |committed| {
        // Whether or not somebody still waits.
        if let (Some(mut tally), Ok(())) = (tally, &committed) {
            tally.written(answer.rows_written);
        }
        drop(caller.send(committed.map(|()| answer)));
    })
}
