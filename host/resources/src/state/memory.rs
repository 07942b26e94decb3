//! What is in memory of one object while it is in use: who waits for it, what was executed but is not on disk yet, and how much it holds. It touches no
//! file; `drive.rs` does what is decided here.
//!
//! Everything that was executed lies in the overlay until its commit. Whoever reads meanwhile sees it and is answered after that commit at the earliest.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use tokio::sync::oneshot;
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::{STATE_BATCH_BYTES_MAX, STATE_WAITING_MAX};

use super::file::AlarmNote;
use super::rows::Known;
use super::view::{Draft, View};
use super::{Answer, Counts, Error};

/// Calls that run before what they have written is committed.
const GROUP_MAX: usize = 1_024;
/// Bytes that may lie in the overlay before the next call waits for a commit.
const OVERLAY_BYTES_MAX: usize = STATE_BATCH_BYTES_MAX;

/// Tells a caller what became of the commit that it waits for.
pub(super) type Reply = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Where the turn of a session is sent that has waited for it.
pub(super) type Granted = oneshot::Sender<super::session::Turn>;

/// A call that runs by itself, on a thread.
pub(super) trait Job: Send {
    /// Runs it. Returns whether its changes stand, if they can be committed.
    fn run(&mut self, view: &mut View) -> bool;
    /// Tells the caller.
    fn answer(self: Box<Self>, committed: Result<(), Error>);
}

/// Is told what has come of a deletion, also when nobody waits for it any more.
pub(super) type Cleared = Box<dyn FnOnce(Result<Answer<bool>, Error>) + Send>;

/// What somebody waits for.
pub(super) enum What {
    /// To be run.
    Job(Box<dyn Job>),
    /// To have the object for a time.
    Hold(Granted),
    /// To delete the object.
    Clear(Cleared),
}

/// Somebody who waits.
pub(super) struct Waiting {
    pub ticket: Arc<Ticket>,
    pub what: What,
}

/// Decides between a call that begins and a caller who does not wait any longer.
#[derive(Default)]
pub(super) struct Ticket(AtomicU8);

impl Ticket {
    const BEGUN: u8 = 1;
    const GONE: u8 = 2;

    /// The call is to begin. False if nobody waits for it.
    fn begin(&self) -> bool {
        self.0.compare_exchange(0, Self::BEGUN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The caller goes. False if the call has begun.
    pub fn leave(&self) -> bool {
        self.0.compare_exchange(0, Self::GONE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn is_gone(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::GONE
    }
}

/// What the driver does next.
pub(super) enum Step {
    Run(Vec<Box<dyn Job>>),
    Grant(Granted),
    Clear(Cleared),
    Commit(Group),
    Rest,
}

/// What is committed together.
pub(super) struct Group {
    pub number: u64,
    pub changes: Vec<(Arc<str>, Option<Bytes>)>,
    /// When the alarm is due from now on, if it changes.
    pub alarm: Option<Option<UnixMs>>,
    /// What the object holds afterwards.
    pub counts: Counts,
    pub replies: Vec<Reply>,
}

/// The state of one object.
#[derive(Default)]
pub(super) struct Memory {
    queue: VecDeque<Waiting>,
    /// Somebody runs or has the object.
    taken: bool,
    /// A thread drives the object.
    pub driven: bool,
    /// The catalogue was asked what there is.
    pub loaded: bool,
    /// That of the file, if there is one.
    pub incarnation: Option<i64>,
    /// The mark in the catalogue that says that the file may know better.
    pub marked: Option<i64>,
    /// The file is open.
    pub open: bool,
    /// What the object holds, with all that was executed.
    pub counts: Counts,
    /// What is in the file.
    pub durable: Counts,
    /// What the catalogue was told last.
    pub told: Counts,
    /// By key, with the number of the group that it is in.
    overlay: BTreeMap<Arc<str>, (u64, Option<Bytes>)>,
    overlay_bytes: usize,
    alarm: Option<(u64, Option<UnixMs>)>,
    /// The alarm that the file has and the catalogue could not be told yet. The object is marked as long as there is one.
    pub owed: Option<AlarmNote>,
    /// The number of the group that is collected.
    group: u64,
    /// Whether something is in that group.
    changed: bool,
    replies: Vec<Reply>,
    /// How often what was executed was undone.
    pub epoch: u64,
    /// Why nothing is done any more.
    pub ended: Option<Error>,
}

impl Memory {
    /// Takes over what the catalogue knows.
    pub fn load(&mut self, known: Known) {
        self.incarnation = known.incarnation;
        (self.counts, self.durable, self.told) = (known.counts, known.counts, known.counts);
        self.loaded = true;
    }

    /// Whether it can be forgotten when nobody uses it.
    pub fn is_idle(&self) -> bool {
        let failed = matches!(self.ended, Some(Error::Database(_)));
        !self.open && self.marked.is_none() && !failed
    }

    /// Lets somebody wait. Returns who has the object now, if it is a session, and whether the object has to be driven.
    pub fn enqueue(&mut self, waiting: Waiting) -> Result<(Option<Granted>, bool), Error> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        if self.queue.len() >= STATE_WAITING_MAX {
            self.queue.retain(|waiting| !waiting.ticket.is_gone());
            if self.queue.len() >= STATE_WAITING_MAX {
                return Err(Error::Crowded);
            }
        }
        self.queue.push_back(waiting);
        // Whoever has it now lets the next one in.
        Ok(if self.taken { (None, false) } else { self.pass() })
    }

    /// Those who wait, to be told that nothing is done any more.
    pub fn drain(&mut self) -> Vec<Waiting> {
        self.queue.drain(..).filter(|waiting| waiting.ticket.begin()).collect()
    }

    /// The next who may begin. The object is theirs then.
    fn admit(&mut self, may: impl Fn(&What) -> bool) -> Option<What> {
        if self.taken || self.overlay_bytes > OVERLAY_BYTES_MAX || self.replies.len() >= GROUP_MAX {
            return None;
        }
        loop {
            let first = self.queue.front()?;
            if !first.ticket.is_gone() && !may(&first.what) {
                return None;
            }
            let Waiting { ticket, what } = self.queue.pop_front()?;
            if ticket.begin() {
                self.taken = true;
                return Some(what);
            }
        }
    }

    /// What the driver does next. After [`Step::Rest`] there is no driver any more.
    pub fn next(&mut self) -> Step {
        let collecting = self.changed || !self.replies.is_empty();
        match self.admit(|what| !(collecting && matches!(what, What::Clear(_)))) {
            Some(What::Job(first)) => {
                let mut jobs = vec![first];
                while jobs.len() < GROUP_MAX && matches!(self.queue.front(), Some(Waiting { what: What::Job(_), .. })) {
                    if let Some(Waiting { ticket, what: What::Job(job) }) = self.queue.pop_front()
                        && ticket.begin()
                    {
                        jobs.push(job);
                    }
                }
                Step::Run(jobs)
            }
            Some(What::Hold(sender)) => Step::Grant(sender),
            Some(What::Clear(cleared)) => Step::Clear(cleared),
            None if collecting => Step::Commit(self.collect()),
            None => {
                self.driven = false;
                Step::Rest
            }
        }
    }

    /// The object is free again. Returns the same as [`Memory::enqueue`].
    pub fn release(&mut self) -> (Option<Granted>, bool) {
        self.taken = false;
        self.pass()
    }

    /// Passes the object on. A session needs no driver and does not wait for the one that commits what was before; all others do.
    fn pass(&mut self) -> (Option<Granted>, bool) {
        let loaded = self.loaded;
        let granted = match self.admit(|what| loaded && matches!(what, What::Hold(_))) {
            Some(What::Hold(sender)) => Some(sender),
            _ => None,
        };
        let wanted = self.changed || !self.replies.is_empty() || (granted.is_none() && !self.queue.is_empty());
        (granted, wanted && !std::mem::replace(&mut self.driven, true))
    }

    /// The jobs of a [`Step::Run`] have run, or the object was cleared.
    pub fn ran(&mut self) {
        self.taken = false;
    }

    /// Takes over what a call has changed. Returns false if that is nothing, and all that it may have read is on disk.
    pub fn absorb(&mut self, draft: &mut Draft) -> bool {
        for (key, value) in std::mem::take(&mut draft.changes) {
            self.overlay_bytes = self.overlay_bytes.saturating_add(weight(&key, value.as_ref()));
            if let Some((_, old)) = self.overlay.insert(key.clone(), (self.group, value)) {
                self.overlay_bytes = self.overlay_bytes.saturating_sub(weight(&key, old.as_ref()));
            }
            self.changed = true;
        }
        if let Some(alarm) = draft.alarm.take() {
            self.alarm = Some((self.group, alarm));
            self.changed = true;
        }
        self.counts = draft.after(self.counts);
        self.is_pending()
    }

    /// Whether something was executed that is not on disk.
    pub fn is_pending(&self) -> bool {
        !self.overlay.is_empty() || self.alarm.is_some()
    }

    /// Has somebody told what becomes of the group that is collected.
    pub fn tell(&mut self, reply: Reply) {
        self.replies.push(reply);
    }

    /// Closes the group that is collected.
    fn collect(&mut self) -> Group {
        let number = self.group;
        self.group += 1;
        self.changed = false;
        let in_group = |(key, (group, value)): (&Arc<str>, &(u64, Option<Bytes>))| (*group == number).then(|| (key.clone(), value.clone()));
        Group {
            number,
            changes: self.overlay.iter().filter_map(in_group).collect(),
            alarm: self.alarm.filter(|(group, _)| *group == number).map(|(_, due)| due),
            counts: self.counts,
            replies: std::mem::take(&mut self.replies),
        }
    }

    /// A group is on disk.
    pub fn committed(&mut self, number: u64, counts: Counts) {
        let weight_left = &mut self.overlay_bytes;
        self.overlay.retain(|key, (group, value)| {
            let stays = *group > number;
            if !stays {
                *weight_left = weight_left.saturating_sub(weight(key, value.as_ref()));
            }
            stays
        });
        self.alarm = self.alarm.filter(|(group, _)| *group > number);
        self.durable = counts;
    }

    /// A group could not be committed: it is undone with all that was built on it. Returns who is to be told besides those in the group.
    pub fn undo(&mut self) -> Vec<Reply> {
        self.overlay.clear();
        self.overlay_bytes = 0;
        self.alarm = None;
        self.changed = false;
        self.counts = self.durable;
        self.epoch += 1;
        std::mem::take(&mut self.replies)
    }

    /// What was written under a key and is not on disk yet: a value, or none where it was removed.
    pub fn overlaid(&self, key: &str) -> Option<Option<Bytes>> {
        self.overlay.get(key).map(|(_, value)| value.clone())
    }

    /// What was written from a key on and is not on disk yet, with lengths of values.
    pub fn overlaid_from(&self, start: &str, prefix: &str) -> BTreeMap<Arc<str>, Option<u64>> {
        let range = self.overlay.range::<str, _>((Bound::Included(start), Bound::Unbounded));
        let keys = range.take_while(|(key, _)| key.starts_with(prefix));
        keys.map(|(key, (_, value))| (key.clone(), value.as_ref().map(length))).collect()
    }

    /// When the alarm is due that was set or removed and that the catalogue does not know of yet.
    pub fn overlaid_alarm(&self) -> Option<Option<UnixMs>> {
        self.alarm.map(|(_, due)| due).or_else(|| self.owed.map(|note| note.due))
    }

    /// All is gone, on disk too.
    pub fn cleared(&mut self) {
        self.incarnation = None;
        self.marked = None;
        self.owed = None;
        (self.counts, self.durable, self.told) = Default::default();
    }
}

/// What an entry takes in memory, more or less, in bytes.
fn weight(key: &str, value: Option<&Bytes>) -> usize {
    key.len().saturating_add(value.map_or(0, Bytes::len)).saturating_add(64)
}

pub(super) fn length(value: &Bytes) -> u64 {
    u64::try_from(value.len()).unwrap_or(u64::MAX)
}
