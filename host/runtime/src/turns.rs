//! Who runs next, of the guests that compute for long.
//!
//! A guest begins in the task of whoever asked for it, and most are done there within a fraction of a millisecond. One that has used a millisecond of CPU time
//! becomes a *job* and waits in a line. A few threads of their own, with a lower priority than those that serve requests, take one job after the other and poll it
//! once, which is until its next yield. What it calls is part of it. So computing never stands in the way of whoever has just come, however many guests compute.
//!
//! ```text
//! Metered::poll ──used 1 ms──→ job → line: account → service → jobs in order → thread: one poll ──done──→ Metered::poll
//!                                      ▲                                          │
//!                                      └──────────────── has yielded ─────────────┘
//! ```
//!
//! The next job is of the account that has had the least CPU time in the line, and within it of the service that has. An account with 500 guests in line has no more
//! of the host than one with a single guest. While guests of an account wait in the line, its next ones begin there too, behind them in turn: else
//! a flood of short computations would never be in line.

pub(crate) mod backlog;
mod shares;

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_task::{FallibleTask, Runnable, ScheduleInfo, WithInfo};
use tokio::runtime::Handle;
use tovuk_kernel::ids::{AccountId, ServiceId};
use tovuk_kernel::threads;

use crate::meter;
use crate::record::Identity;
use shares::{Queue as _, Shares};

/// How often the keeper looks at the others.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// It takes turns itself when the others together had less CPU time since its last look, in ns: for as much, or until they have it where it is not the host's
/// own requests that leave them nothing.
const STARVED_NS: u64 = 5_000_000;
/// A thread that runs so soon after it was woken has found a core that nobody else wanted.
const PROMPT: Duration = Duration::from_millis(2);
/// The threads take jobs again when they have been prompt for so long.
const STEADY: Duration = Duration::from_millis(100);

thread_local! {
    /// This is one of the threads that take jobs.
    static TAKES_TURNS: Cell<bool> = const { Cell::new(false) };
}

/// A guest that is in line.
pub(crate) struct Guest {
    /// Whose it is.
    owner: Arc<Identity>,
    /// It has come back into the line after it had waited for something, and not straight from its last turn.
    has_waited: AtomicBool,
}

impl Guest {
    pub fn has_waited(&self) -> bool {
        self.has_waited.load(Ordering::Relaxed)
    }
}

type Job = Runnable<Arc<Guest>>;

/// The line of a host and its threads, which end with it.
pub struct Turns(Arc<Shared>);

struct Shared {
    threads: usize,
    /// Jobs in the line, readable without its lock.
    waiting: AtomicUsize,
    /// Guests that have got in line and have neither ended nor left.
    guests: AtomicUsize,
    /// CPU time that the threads have had, in ns.
    had_ns: AtomicU64,
    state: Mutex<State>,
    filled: Condvar,
    /// For the keeper alone.
    kept: Condvar,
}

#[derive(Default)]
struct State {
    line: Shares<AccountId, Shares<ServiceId, VecDeque<Job>>>,
    /// The threads are there, or cannot be.
    started: Option<bool>,
    /// The keeper waits for a job to come.
    keeper_rests: bool,
    /// The line was empty since the keeper's last look.
    was_empty: bool,
    /// There while other processes leave the threads nothing. They take no jobs then, because one that loses its core has its job for as long as it
    /// does not get it back.
    gate: Option<Gate>,
    closed: bool,
}

/// Whether the threads find cores again.
#[derive(Default)]
struct Gate {
    /// When one was woken that has not run since.
    woken: Option<Instant>,
    /// Since when those that were woken have been prompt.
    prompt_since: Option<Instant>,
}

impl Gate {
    /// One of the threads runs. Whether they may take jobs again.
    fn opens(&mut self, now: Instant) -> bool {
        let Some(woken) = self.woken.take() else { return false };
        if now - woken > PROMPT {
            self.prompt_since = None;
            return false;
        }
        now - *self.prompt_since.get_or_insert(woken) >= STEADY
    }
}

impl Turns {
    /// A line with so many threads, which start when the first job comes.
    pub fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        let (waiting, guests, had_ns) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU64::new(0));
        let (filled, kept) = (Condvar::new(), Condvar::new());
        Self(Arc::new(Shared { threads, waiting, guests, had_ns, state: Mutex::default(), filled, kept }))
    }

    /// How many jobs wait for a thread now.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// How many guests have got in line and have neither ended nor left it: they wait for a thread, have it, or wait for something else.
    pub fn guests(&self) -> usize {
        self.0.guests.load(Ordering::Relaxed)
    }

    /// The CPU time of all turns so far, in ns.
    pub fn had_ns(&self) -> u64 {
        self.0.had_ns.load(Ordering::Relaxed)
    }

    /// Whether guests of this account wait in the line, so that the next has to get behind them. On the threads themselves, never: what a job calls is part
    /// of its turn.
    pub(crate) fn are_before(&self, guest: &Identity) -> bool {
        self.waiting() > 0 && !TAKES_TURNS.get() && self.0.lock().line.is_waiting(&guest.account)
    }

    /// Whether guests can get in line here: not on a thread of the line, where what a guest calls is part of its turn, nor where there are no threads.
    pub(crate) fn are_open(&self) -> bool {
        !TAKES_TURNS.get() && self.0.start()
    }

    /// Puts what is left of a guest in line, which is told what the line knows of it.
    pub(crate) fn take<F>(&self, owner: &Arc<Identity>, rest: impl FnOnce(Arc<Guest>) -> F) -> FallibleTask<F::Output, Arc<Guest>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let line = Arc::downgrade(&self.0);
        let schedule = move |job: Job, info: ScheduleInfo| {
            job.metadata().has_waited.store(!info.woken_while_running, Ordering::Relaxed);
            // A line that has gone drops its jobs, and with them their guests.
            if let Some(line) = Weak::upgrade(&line) {
                line.put(job);
            }
        };
        let counted = Counted::new(self.0.clone());
        let guest = Arc::new(Guest { owner: owner.clone(), has_waited: AtomicBool::new(false) });
        let rest = rest(guest.clone());
        let rest = async move {
            let _counted = counted;
            rest.await
        };
        let (job, task) = async_task::Builder::new().metadata(guest).spawn(move |_| rest, WithInfo(schedule));
        job.schedule();
        task.fallible()
    }
}

/// What the keeper looks at: CPU time in turns and of the whole process, in ns.
struct Look {
    at: Instant,
    had_ns: u64,
    used_ns: u64,
}

impl Look {
    fn at(line: &Shared) -> Self {
        Self { at: Instant::now(), had_ns: line.had_ns.load(Ordering::Relaxed), used_ns: meter::process_cpu_ns() }
    }
}

/// A guest that is counted among those in line.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(line: Arc<Shared>) -> Self {
        line.guests.fetch_add(1, Ordering::Relaxed);
        Self(line)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.guests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let left = std::mem::take(&mut state.line);
        drop(state);
        self.0.filled.notify_all();
        self.0.kept.notify_all();
        // Guests end here, which takes locks of their own.
        drop(left);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What is done under the lock leaves the line whole, whatever panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are threads. The first call starts them.
    fn start(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        if let Some(started) = state.started {
            return started;
        }
        let kept = self.spawn("tovuk-keeper".to_owned(), true);
        let started = (0..self.threads).filter(|number| self.spawn(format!("tovuk-turns-{number}"), false)).count();
        state.started = Some(kept || started > 0);
        kept || started > 0
    }

    fn spawn(self: &Arc<Self>, name: String, keeps: bool) -> bool {
        let (line, handle) = (self.clone(), Handle::current());
        let spawned = std::thread::Builder::new().name(name).spawn(move || {
            if !keeps {
                lower_priority();
                threads::mark_low();
            }
            TAKES_TURNS.set(true);
            // What guests wait for belongs to the async runtime.
            let _entered = handle.enter();
            if keeps { line.keep() } else { line.work() }
        });
        if let Err(error) = &spawned {
            tracing::error!("a thread for long computations could not be started: {error}");
        }
        spawned.is_ok()
    }

    fn put(&self, job: Job) {
        let owner = job.metadata().owner.clone();
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return drop(job);
        }
        state.line.put(&owner.account, |services| services.put(&owner.id, |jobs| jobs.push_back(job)));
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(gate) = &mut state.gate {
            gate.woken.get_or_insert_with(Instant::now);
        }
        let keeper_rests = std::mem::take(&mut state.keeper_rests);
        drop(state);
        self.filled.notify_one();
        if keeper_rests {
            self.kept.notify_one();
        }
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            self.turn(job);
        }
    }

    /// Takes turns while the others starve, and looks after them.
    fn keep(&self) {
        let mut state = self.lock();
        while !state.closed {
            if state.line.is_empty() {
                state.keeper_rests = true;
                state = self.kept.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let before = Look::at(self);
            if state.gate.is_none() {
                state.was_empty = false;
                state = self.kept.wait_timeout_while(state, LOOK_EVERY, |state| !state.closed).unwrap_or_else(PoisonError::into_inner).0;
            }
            let mut own_ns = 0;
            loop {
                let now = Look::at(self);
                let had_ns = now.had_ns - before.had_ns;
                let serves_many = (now.used_ns - before.used_ns).saturating_sub(had_ns) > (now.at - before.at).as_nanos() as u64 / 2;
                if own_ns >= STARVED_NS && serves_many {
                    if state.gate.take().is_some() {
                        self.filled.notify_all();
                    }
                    break;
                }
                if had_ns.saturating_sub(own_ns) >= STARVED_NS {
                    break;
                }
                // There was something to do all the time, and not the host's own requests were before it.
                let is_starved = own_ns == 0 && !serves_many && !state.was_empty;
                let Some(job) = self.take_job(&mut state) else { break };
                if is_starved {
                    state.gate.get_or_insert_default();
                }
                drop(state);
                own_ns += self.turn(job);
                state = self.lock();
            }
        }
    }

    /// Has a job take its turn. How much CPU time that was, in ns.
    fn turn(&self, job: Job) -> u64 {
        let owner = job.metadata().owner.clone();
        // What passed while the thread waited, or made way for others, was no CPU time.
        meter::on_thread_unpark();
        let before_ns = meter::thread_cpu_ns();
        if catch_unwind(AssertUnwindSafe(|| job.run())).is_err() {
            tracing::error!(service = %owner.id, "a panic while a guest was dropped");
        }
        let had_ns = meter::thread_cpu_ns().saturating_sub(before_ns);
        self.had_ns.fetch_add(had_ns, Ordering::Relaxed);
        self.lock().line.had(&owner.account, had_ns, |services| services.had(&owner.id, had_ns, |_| ()));
        had_ns
    }

    fn take_job(&self, state: &mut State) -> Option<Job> {
        let job = state.line.take()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        state.was_empty |= state.line.is_empty();
        Some(job)
    }

    /// Waits for a job. None when there will be no more.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if state.gate.as_mut().is_some_and(|gate| gate.opens(Instant::now())) {
                state.gate = None;
            }
            if state.gate.is_none()
                && let Some(job) = self.take_job(&mut state)
            {
                return Some(job);
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Lowers the priority of this thread.
///
/// The scheduler of Linux takes a core from a thread of the policy `SCHED_IDLE` as soon as one that serves requests wakes, and from any other, however nice, only when its slice is
/// over, which is 3 ms. But threads of that policy get next to nothing while others want the core, whoever they are: then the keeper, which has the priority of all others, steps in.
fn lower_priority() {
    // Elsewhere these calls are for the whole process, or need rights.
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id};
        let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy) {
            tracing::warn!("long computations run with the same priority as requests: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_jobs_again_when_they_have_been_prompt_for_long_enough() {
        let (mut gate, mut now) = (Gate::default(), Instant::now());
        assert!(!gate.opens(now), "nobody has woken one");
        let mut runs = |after: Duration| {
            gate.woken = Some(now);
            now += after;
            gate.opens(now)
        };
        let times = (STEADY.as_millis() / PROMPT.as_millis()) as usize;
        assert!(!(1..times).any(|_| runs(PROMPT)));
        assert!(!runs(PROMPT * 2), "late, so it begins anew");
        assert!(!(1..times).any(|_| runs(PROMPT)));
        assert!(runs(PROMPT));
    }
}
