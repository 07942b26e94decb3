//! A session: one invocation has an object for itself. It reads its own writes, others see none of them, and they become the object's all at once when it
//! is committed. From then on the next one has the object; the answer waits for the disk.

use bytes::Bytes;
use tokio::sync::oneshot;
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::meters::Meter;

use super::drive::{grant, schedule, teller};
use super::memory::{Granted, Ticket, Waiting, What};
use super::objects::Handle;
use super::types::{check_changes, check_entry, check_key};
use super::view::{Allowance, View};
use super::waits::Held;
use super::{AlarmInfo, Answer, Change, Error, Holds, List, Listed, Page, Schedule, State, Swapped, Target, Written, explain};
use crate::memory::Memory;
use crate::meters::{Exceeded, Tally};

/// The right to an object. The next one has it when this is dropped.
pub(super) struct Turn {
    handle: Handle,
    /// How often something had been undone when it began.
    epoch: u64,
    held: Option<Held>,
}

impl Turn {
    pub fn new(handle: Handle) -> Self {
        let held = handle.shared.waits.hold(&handle.object.id);
        let epoch = handle.memory().epoch;
        Self { handle, epoch, held: Some(held) }
    }

    /// The calls that whatever the session calls is part of.
    fn holds(&self, outer: &Holds) -> Holds {
        self.held.as_ref().map_or_else(|| outer.clone(), |held| outer.with(held.number()))
    }

    /// Fails when something that the session may have read was undone.
    fn check(&self) -> Result<(), Error> {
        if self.handle.memory().epoch == self.epoch { Ok(()) } else { Err(Error::Undone) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Before another can have the object.
        self.held = None;
        let passed = self.handle.memory().release();
        pass(&self.handle, passed);
    }
}

/// Does what was decided when the object was passed on.
fn pass(handle: &Handle, (granted, driven): (Option<Granted>, bool)) {
    if let Some(sender) = granted {
        grant(handle.clone(), sender);
    }
    if driven {
        schedule(handle.clone());
    }
}

/// Gives a place in the queue up when whoever waits goes.
pub(super) struct Place(pub std::sync::Arc<Ticket>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Drop for Session {
    /// What it has read was read, also where its guest was stopped.
    fn drop(&mut self) {
        let rows = self.cost().map_or(0, |cost| cost.rows_read).saturating_sub(self.charged);
        if let Some(tally) = self.tally.as_mut().filter(|_| rows > 0) {
            tally.read(rows);
        }
    }
}

/// An object that one invocation has for itself. Dropped without a commit, nothing of it stands.
pub struct Session {
    /// None while an operation has it, and after one that was cancelled.
    held: Option<(View, Turn)>,
    holds: Holds,
    state: State,
    exceeded: Option<Exceeded>,
    tally: Option<Tally>,
    /// How many of the rows that it has read are charged.
    charged: u64,
}

/// A session's changes on their way to the disk.
pub struct Committing {
    committed: oneshot::Receiver<Result<Answer<()>, Error>>,
}

impl Committing {
    /// Waits until they are there, with everything that they are built on.
    ///
    /// # Errors
    /// When they could not be written, or what they are built on could not: then nothing of it stands.
    pub async fn durable(self) -> Result<Answer<()>, Error> {
        self.committed.await.unwrap_or_else(|_| Err(Error::closed()))
    }
}

impl State {
    /// Waits for an object, in the order of those who wait, and has it until the session is committed or dropped.
    ///
    /// # Errors
    /// [`Error::Deadlock`] at once when the target's call would wait for itself; [`Error::Busy`] after 10 s on the clock.
    pub async fn hold(&self, target: &Target) -> Result<Session, Error> {
        let handle = self.handle(target)?;
        let tally = Some(self.tally().await?);
        let waiting = handle.shared.waits.wait(&target.holds, &handle.object.id)?;
        let (sender, granted) = oneshot::channel();
        let turn = self.wait_for(&handle, What::Hold(sender), granted).await;
        drop(waiting);
        let Some(turn) = turn? else {
            // It was refused before it began: asking what is there says why.
            self.usage(target.namespace).await?;
            return Err(Error::closed());
        };
        let holds = turn.holds(&target.holds);
        let (allowance, exceeded) = self.allowance(target);
        let view = View::new(handle, allowance);
        view.check()?;
        Ok(Session { held: Some((view, turn)), holds, state: self.clone(), exceeded, tally, charged: 0 })
    }

    /// Waits for an answer, for 10 s at most until the call begins.
    pub(super) async fn wait_for<T>(&self, handle: &Handle, what: What, mut answer: oneshot::Receiver<T>) -> Result<Option<T>, Error> {
        let ticket = std::sync::Arc::<Ticket>::default();
        let place = Place(ticket.clone());
        let passed = handle.memory().enqueue(Waiting { ticket: ticket.clone(), what })?;
        pass(handle, passed);
        let wait = std::time::Duration::from_millis(tovuk_kernel::limits::STATE_WAIT_MS_MAX);
        let answered = match self.0.shared.clock.timeout(wait, &mut answer).await {
            Some(answered) => answered,
            None if ticket.leave() => return Err(Error::Busy),
            // It has begun, and is answered when it is on disk.
            None => answer.await,
        };
        drop(place);
        Ok(answered.ok())
    }
}

impl Session {
    /// Runs an operation on a thread, because it may have to read the file.
    async fn run<T: Send + 'static>(&mut self, work: impl FnOnce(&mut View) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let (mut view, turn) = self.held.take().ok_or(Error::Ended)?;
        let (sender, done) = oneshot::channel();
        let shared = view.handle.shared.clone();
        shared.pool.submit(move || {
            let result = turn.check().and_then(|()| view.check()).and_then(|()| work(&mut view));
            // When the session is gone, this gives the object back.
            drop(sender.send((view, turn, result)));
        });
        let (view, turn, result) = done.await.map_err(|_| Error::Ended)?;
        self.held = Some((view, turn));
        explain(result, self.exceeded)
    }

    /// What is stored under a key.
    pub async fn get(&mut self, key: &str) -> Result<Option<Bytes>, Error> {
        check_key(key)?;
        let (view, turn) = self.held.as_mut().ok_or(Error::Ended)?;
        turn.check()?;
        // What is in memory needs no thread: with many calls of one object that is most of what they read.
        if let Some(found) = view.in_memory(key) {
            view.draft.rows_read += 1;
            return Ok(found);
        }
        let key = key.to_owned();
        self.run(move |view| view.get(&key)).await
    }

    /// Stores a value.
    pub async fn put(&mut self, key: &str, value: Bytes) -> Result<(), Error> {
        check_entry(key, &value)?;
        let (view, turn) = self.held.as_mut().ok_or(Error::Ended)?;
        turn.check()?;
        if view.in_memory(key).is_some() {
            return explain(view.put(key, value), self.exceeded);
        }
        let key = key.to_owned();
        self.run(move |view| view.put(&key, value)).await
    }

    /// Removes a value. Returns whether it was there.
    pub async fn delete(&mut self, key: &str) -> Result<bool, Error> {
        check_key(key)?;
        let key = key.to_owned();
        self.run(move |view| view.delete(&key)).await
    }

    /// Stores a value, or removes it, if what is there is what is expected: a value, or none.
    pub async fn compare_and_set(&mut self, key: &str, expected: Option<Bytes>, value: Option<Bytes>) -> Result<Swapped, Error> {
        check_key(key)?;
        value.as_ref().map_or(Ok(()), |value| check_entry(key, value))?;
        let key = key.to_owned();
        self.run(move |view| view.compare_and_set(&key, expected.as_ref(), value)).await
    }

    /// Adds to a decimal integer, and returns the sum. What is not there counts as 0.
    pub async fn increment(&mut self, key: &str, by: i64) -> Result<i64, Error> {
        check_key(key)?;
        let key = key.to_owned();
        self.run(move |view| view.increment(&key, by)).await
    }

    /// At most 1,000 changes with at most 32 MiB: all of them or, if a condition among them is not met or after an error, none.
    pub async fn write(&mut self, changes: Vec<Change>) -> Result<Written, Error> {
        check_changes(&changes)?;
        self.run(move |view| view.write_or_undo(changes)).await
    }

    /// One page of the keys.
    pub async fn keys(&mut self, list: List) -> Result<Page<Listed>, Error> {
        let span = list.span()?;
        self.run(move |view| Ok(Page::cut(view.list(&span)?, span.limit, |key| &key.name))).await
    }

    /// The alarm, if one is set that is not being delivered.
    pub async fn alarm(&mut self) -> Result<Option<AlarmInfo>, Error> {
        self.run(View::alarm).await
    }

    /// Sets the alarm, in place of one that is set. Returns when it is due, in ms since the UNIX epoch.
    pub async fn set_alarm(&mut self, schedule: Schedule) -> Result<UnixMs, Error> {
        let due = self.state.due(schedule)?;
        let (view, turn) = self.held.as_mut().ok_or(Error::Ended)?;
        turn.check()?;
        view.set_alarm(Some(due));
        Ok(due)
    }

    /// Removes the alarm. Returns whether one was set.
    pub async fn delete_alarm(&mut self) -> Result<bool, Error> {
        self.run(View::delete_alarm).await
    }

    /// The calls that whatever is called for the session is part of: those of its target, and its own.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Has the keys of its changes count in memory of the host, until it ends. Values count where they come from.
    pub fn count_in(&mut self, memory: Box<dyn Memory>) {
        if let Some((view, _)) = &mut self.held {
            view.count_in(memory);
        }
    }

    /// What it has cost so far, also if it is not committed.
    pub fn cost(&self) -> Option<Answer<()>> {
        self.held.as_ref().map(|(view, _)| view.answer(()))
    }

    /// Reserves the rows that it has read and, if it is to be committed, written. What it has read is charged.
    ///
    /// # Errors
    /// When a cap has no room: it must not be committed, and nobody be told of what it has read.
    pub async fn charge(&mut self, is_to_stand: bool) -> Result<(), Error> {
        let Some((cost, tally)) = self.cost().zip(self.tally.as_mut()) else { return Ok(()) };
        let covered = tally.cover(cost.rows_read, if is_to_stand { cost.rows_written } else { 0 }).await;
        tally.read(cost.rows_read.saturating_sub(self.charged));
        self.charged = cost.rows_read;
        Ok(covered?)
    }

    /// Lets the changes become those of the object and the next one have it. They are on disk once [`Committing::durable`] says so.
    ///
    /// # Errors
    /// When an operation of the session was cancelled, or what it may have read was undone. Nothing of it stands then.
    pub fn commit(mut self) -> Result<Committing, Error> {
        let (mut view, turn) = self.held.take().ok_or(Error::Ended)?;
        view.check()?;
        let (sender, receiver) = oneshot::channel();
        view.commit(turn.epoch, teller(view.answer(()), self.tally.take(), sender))?;
        drop(turn);
        Ok(Committing { committed: receiver })
    }

    /// Undoes the changes and lets the next one have the object. What the session has read is on disk once [`Committing::durable`] says so: whoever tells
    /// anybody of it waits for that.
    ///
    /// # Errors
    /// When an operation of the session was cancelled, or what it may have read was undone.
    pub fn abandon(mut self) -> Result<Committing, Error> {
        let (mut view, turn) = self.held.take().ok_or(Error::Ended)?;
        view.forget();
        let (sender, receiver) = oneshot::channel();
        view.commit(turn.epoch, teller(view.answer(()), None, sender))?;
        drop(turn);
        Ok(Committing { committed: receiver })
    }
}

impl State {
    /// What the account of a call may store, with no more room than caps leave, and which cap that is if it is less than the plan has.
    pub(super) fn allowance(&self, target: &Target) -> (Allowance, Option<Exceeded>) {
        let options = &self.0.shared.options;
        let allowance = Allowance { object_bytes: (options.object_bytes)(target.plan), account_bytes: (options.account_bytes)(target.plan) };
        let Some((room, exceeded)) = self.1.room(Meter::StateSqliteStorageBytes) else { return (allowance, None) };
        let most = self.account_bytes(target.account).saturating_add(room);
        if most >= allowance.account_bytes { (allowance, None) } else { (Allowance { account_bytes: most, ..allowance }, Some(exceeded)) }
    }
}
