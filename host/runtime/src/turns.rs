//! Who runs next, of the guests that compute for long.
//!
//! A guest begins in the task of whoever asked for it, and most are done there within a fraction of a millisecond. One that has used a millisecond of CPU time
//! becomes a *job* and waits in a line. A few threads of their own, with a lower priority than those that serve requests, take one job after the other and poll it
//! once, which is until its next yield. So computing never stands in the way of whoever has just come, however many guests compute.
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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use async_task::{FallibleTask, Runnable};
use tokio::runtime::Handle;
use tovuk_kernel::ids::{AccountId, ServiceId};

use crate::meter;
use crate::record::Identity;
use shares::{Queue as _, Shares};

/// How much lower than that of others the priority of the threads is, as `nice` counts. They still get about a tenth of a machine that serves requests without a pause.
const NICENESS: i32 = 10;

thread_local! {
    /// This is one of the threads that take jobs.
    static TAKES_TURNS: Cell<bool> = const { Cell::new(false) };
}

/// Whose job it is.
type Owner = Arc<Identity>;
type Job = Runnable<Owner>;

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

    /// Puts what is left of a guest in line.
    pub(crate) fn take<T: Send + 'static>(&self, owner: &Owner, guest: impl Future<Output = T> + Send + 'static) -> FallibleTask<T, Owner> {
        let line = Arc::downgrade(&self.0);
        let schedule = move |job: Job| {
            // A line that has gone drops its jobs, and with them their guests.
            if let Some(line) = Weak::upgrade(&line) {
                line.put(job);
            }
        };
        let counted = Counted::new(self.0.clone());
        let guest = async move {
            let _counted = counted;
            guest.await
        };
        let (job, task) = async_task::Builder::new().metadata(owner.clone()).spawn(move |_| guest, schedule);
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
            lower_priority();
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
        let owner = job.metadata().clone();
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
    fn next(&self) -> Option<(Owner, Job)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.line.take() {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                return Some((job.metadata().clone(), job));
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            // What passed while the thread waited was no CPU time.
            meter::on_thread_unpark();
        }
    }
}

/// Lowers the priority of this thread.
fn lower_priority() {
    // Elsewhere than on Linux the call is for the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::warn!("long computations run with the same priority as others: {error}");
    }
}
