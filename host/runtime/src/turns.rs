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

mod shares;

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use async_task::{FallibleTask, Runnable, ScheduleInfo, WithInfo};
use tokio::runtime::Handle;
use tovuk_kernel::ids::{AccountId, ServiceId};

use crate::meter;
use crate::record::Identity;
use shares::{Queue as _, Shares};

/// How much lower than that of others the priority of one of the threads is, as `nice` counts. It still gets about a tenth of a core on a machine that serves requests
/// without a pause. The other threads get what is left over, and make way at once.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

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
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    line: Shares<AccountId, Shares<ServiceId, VecDeque<Job>>>,
    /// The threads are there, or cannot be.
    started: Option<bool>,
    closed: bool,
}

impl Turns {
    /// A line with so many threads, which start when the first job comes.
    pub fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        let (waiting, guests) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Shared { threads, waiting, guests, state: Mutex::default(), filled: Condvar::new() }))
    }

    /// How many jobs wait for a thread now.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// How many guests have got in line and have neither ended nor left it: they wait for a thread, have it, or wait for something else.
    pub fn guests(&self) -> usize {
        self.0.guests.load(Ordering::Relaxed)
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
        let started = (0..self.threads).filter(|number| self.spawn(*number)).count() > 0;
        state.started = Some(started);
        started
    }

    fn spawn(self: &Arc<Self>, number: usize) -> bool {
        let (line, handle) = (self.clone(), Handle::current());
        let spawned = std::thread::Builder::new().name(format!("tovuk-turns-{number}")).spawn(move || {
            lower_priority(number);
            TAKES_TURNS.set(true);
            // What guests wait for belongs to the async runtime.
            let _entered = handle.enter();
            line.work();
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
        drop(state);
        self.filled.notify_one();
    }

    fn work(&self) {
        while let Some((owner, job)) = self.next() {
            let before_ns = meter::thread_cpu_ns();
            if catch_unwind(AssertUnwindSafe(|| job.run())).is_err() {
                tracing::error!(service = %owner.id, "a panic while a guest was dropped");
            }
            let had_ns = meter::thread_cpu_ns().saturating_sub(before_ns);
            self.lock().line.had(&owner.account, had_ns, |services| services.had(&owner.id, had_ns, |_| ()));
        }
    }

    /// Waits for a job. None when there will be no more.
    fn next(&self) -> Option<(Arc<Identity>, Job)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.line.take() {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                return Some((job.metadata().owner.clone(), job));
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            // What passed while the thread waited was no CPU time.
            meter::on_thread_unpark();
        }
    }
}

/// Lowers the priority of this thread, the one with that number.
///
/// The scheduler of Linux takes a core from a thread of the policy `SCHED_IDLE` as soon as one that serves requests wakes, and from any other, however nice, only when its slice is
/// over, which is 3 ms. But threads of that policy get next to nothing while others want the core, so one thread is nice instead: wherever there is
/// a second core, whoever wakes goes there.
fn lower_priority(number: usize) {
    // Elsewhere these calls are for the whole process, or need rights.
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id};
        let lowered = if number == 0 {
            rustix::process::setpriority_process(None, NICENESS).map_err(|error| error.to_string())
        } else {
            let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy).map_err(|error| error.to_string())
        };
        if let Err(error) = lowered {
            tracing::warn!("long computations run with the same priority as requests: {error}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = number;
}
