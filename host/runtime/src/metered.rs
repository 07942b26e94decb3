//! The future of a guest: metered, bounded in time, and unable to take its neighbours down. Where the guest computes for long it goes on in line with
//! others that do ([`crate::turns`]), and whoever waits for it waits for that.

use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_task::FallibleTask;
use futures::future::BoxFuture;
use tovuk_resources::meters::{self, Exceeded};

use crate::invocation::Invocation;
use crate::record::Outcome;
use crate::run::stopped;
use crate::turns::Guest;
use crate::turns::backlog::Backlog;
use crate::usage::Purse;

/// A guest that has ended may have used this much more than its limit: what can pass between two yields.
const CPU_OVERRUN_NS: u64 = 40_000_000;

/// Why a guest was stopped before it ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Its CPU time is used up.
    Cpu,
    /// Its time is over.
    Wall,
    /// The host panicked inside it. The payload is in the host's log.
    Panic,
    /// A cap of CPU time, or of time with a State object, has no room for more.
    Cap(Exceeded),
    /// It could not be counted.
    Uncounted,
}

/// A guest that has used this much CPU time within [`WINDOW_MS`], with what it calls, gets in line with others that compute for long.
const LONG_NS: u64 = 1_000_000;
/// One that has used less than that within this time waits more than it computes.
const WINDOW_MS: u64 = 20;
/// A guest that yields has computed for longer than this in most of its polls. Between two of them it may have stood in the queue of tasks for any time, which is no
/// time that it waited.
const SLICE_NS: u64 = 100_000;

thread_local! {
    /// A guest is polled on this thread.
    static POLLS: Cell<bool> = const { Cell::new(false) };
}

/// A guest's future. Dropping it drops the guest's instance, and all that it waits for.
pub struct Metered<T>(Place<T>);

/// Where a guest runs.
enum Place<T> {
    /// In the task of whoever waits for it.
    Here(Running<T>),
    /// In the line of those that compute for long.
    InLine(InLine<T>),
    /// It has ended.
    Gone,
}

type Shared<T> = Arc<Mutex<Option<Running<T>>>>;

struct InLine<T> {
    /// Shared with the job, which takes turns to poll it.
    guest: Shared<T>,
    job: FallibleTask<Left<T>, Arc<Guest>>,
}

/// What a job leaves behind.
enum Left<T> {
    Ended(Result<T, Stop>),
    /// The guest, which goes on where it began.
    Waits,
}

impl<T: Send + 'static> Metered<T> {
    /// `inner` makes, runs and drops the instance.
    pub fn new(invocation: Arc<Invocation>, purse: Purse, inner: impl Future<Output = T> + Send + 'static) -> Self {
        // What is called begins where its caller is.
        let is_behind = |backlog: &Arc<Backlog>| backlog.begin() || invocation.runtime.turns().are_before(&invocation.target);
        let gets_behind_others = invocation.backlog.as_ref().is_some_and(is_behind);
        let mut metered = Self(Place::Here(Running::new(invocation, purse, inner)));
        if gets_behind_others {
            metered.get_in_line();
        }
        metered
    }

    /// Puts a guest that runs here in line. False where it has to stay.
    fn get_in_line(&mut self) -> bool {
        let Place::Here(guest) = &self.0 else { return false };
        let invocation = guest.invocation.clone();
        if !invocation.runtime.turns().are_open() {
            return false;
        }
        let Place::Here(guest) = std::mem::replace(&mut self.0, Place::Gone) else { return false };
        let guest = Arc::new(Mutex::new(Some(guest)));
        let job = invocation.runtime.turns().take(&invocation.target, |known| turn_by_turn(guest.clone(), known));
        self.0 = Place::InLine(InLine { guest, job });
        true
    }
}

fn lock<T>(guest: &Shared<T>) -> MutexGuard<'_, Option<Running<T>>> {
    // A guest catches its panics.
    guest.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The job of a guest in line, until it ends or does no more than wait.
fn turn_by_turn<T: Send + 'static>(guest: Shared<T>, known: Arc<Guest>) -> impl Future<Output = Left<T>> + Send {
    poll_fn(move |cx| {
        let mut guest = lock(&guest);
        // Nobody waits for it any more.
        let Some(running) = guest.as_mut() else { return Poll::Pending };
        let has_waited = known.has_waited();
        match running.poll(cx, Some(has_waited)) {
            Poll::Ready(result) => Poll::Ready(Left::Ended(result)),
            // One that goes on where its last turn ended has only waited for this turn.
            Poll::Pending if running.pace == Pace::Waits && has_waited => Poll::Ready(Left::Waits),
            Poll::Pending => Poll::Pending,
        }
    })
}

impl<T: Send + 'static> Future for Metered<T> {
    type Output = Result<T, Stop>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.0 {
                Place::Here(guest) => match guest.poll(cx, None) {
                    Poll::Ready(result) => {
                        self.0 = Place::Gone;
                        return Poll::Ready(result);
                    }
                    Poll::Pending if guest.pace == Pace::Computes && self.get_in_line() => {}
                    Poll::Pending => return Poll::Pending,
                },
                Place::InLine(InLine { guest, job }) => match ready!(Pin::new(job).poll(cx)) {
                    Some(Left::Ended(result)) => {
                        self.0 = Place::Gone;
                        return Poll::Ready(result);
                    }
                    Some(Left::Waits) => {
                        let guest = lock(guest).take();
                        self.0 = guest.map_or(Place::Gone, Place::Here);
                    }
                    // The host panicked outside of the guest, or ends.
                    None => {
                        self.0 = Place::Gone;
                        return Poll::Ready(Err(Stop::Panic));
                    }
                },
                Place::Gone => return Poll::Pending,
            }
        }
    }
}

impl<T> Drop for Metered<T> {
    fn drop(&mut self) {
        if let Place::InLine(InLine { guest, job }) = std::mem::replace(&mut self.0, Place::Gone) {
            // One that is having its turn right now is dropped with its job when the turn is over.
            let guest = guest.try_lock().ok().and_then(|mut guest| guest.take());
            drop(job);
            drop(guest);
        }
    }
}

/// What a guest does with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// That is not known yet.
    Unknown,
    /// It computes for long.
    Computes,
    /// It waits, more or less.
    Waits,
}

/// A guest and what it may still use.
struct Running<T> {
    inner: Option<BoxFuture<'static, T>>,
    invocation: Arc<Invocation>,
    purse: Purse,
    cpu_limit_ns: u64,
    /// What it and what it calls have used, in ns.
    whole_ns: u64,
    pace: Pace,
    /// Since when, on the clock's monotonic scale, the guest's time is added up to tell its pace, and how much it was, in ns.
    window: Option<(u64, u64)>,
    /// Made when the guest first waits, because most never do.
    timer: Option<BoxFuture<'static, ()>>,
    timer_is_for_head: bool,
}

impl<T> Running<T> {
    fn new(invocation: Arc<Invocation>, purse: Purse, inner: impl Future<Output = T> + Send + 'static) -> Self {
        let cpu_limit_ns = invocation.deployment.limits.cpu_ms.saturating_mul(1_000_000);
        let inner = Some(Box::pin(inner) as BoxFuture<'static, T>);
        Self { inner, invocation, purse, cpu_limit_ns, whole_ns: 0, pace: Pace::Unknown, window: None, timer: None, timer_is_for_head: true }
    }

    /// It and what it calls have used so much, and it has not ended. The line knows whether it waited before; elsewhere the time used has to tell.
    fn paced(&mut self, ns: u64, has_waited: Option<bool>) {
        let now_ms = self.invocation.runtime.clock().monotonic_ms();
        let (since_ms, before_ns) = *self.window.get_or_insert((now_ms, 0));
        let used_ns = before_ns + ns;
        let is_over = has_waited.unwrap_or(ns < SLICE_NS) && now_ms.saturating_sub(since_ms) >= WINDOW_MS;
        self.window = Some(if is_over { (now_ms, 0) } else { (since_ms, used_ns) });
        self.pace = match used_ns {
            LONG_NS.. => Pace::Computes,
            _ if is_over => Pace::Waits,
            _ => Pace::Unknown,
        };
    }

    fn bill(&mut self, ns: u64) -> u64 {
        self.purse.spend(ns);
        self.invocation.cpu_ns.fetch_add(ns, Ordering::Relaxed) + ns
    }

    fn drop_inner(&mut self) {
        if let Some(inner) = self.inner.take() {
            self.invocation.set_broken();
            // A destructor that panics has already done what it could; the instance is gone either way.
            let (dropped, spent) = self.invocation.runtime.measure(|| catch_unwind(AssertUnwindSafe(|| drop(inner))));
            self.bill(spent.own_ns);
            if dropped.is_err() {
                tracing::error!(trace = %self.invocation.chain.trace, "a panic while an instance was dropped");
            }
        }
    }

    fn stop(&mut self, stop: Stop) -> Poll<Result<T, Stop>> {
        // Said before the guest goes, whose end would otherwise be taken for a cancellation.
        let failure = stopped(&self.invocation, stop);
        self.invocation.end(failure.outcome, Some(failure.for_log().to_owned()));
        self.drop_inner();
        Poll::Ready(Err(stop))
    }

    /// Whether the guest's time is over. Registers the wake-up for when it will be.
    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let head_is_out = self.invocation.head_is_out();
        if self.timer_is_for_head && head_is_out {
            self.timer_is_for_head = false;
            self.timer = None;
        }
        loop {
            let clock = self.invocation.runtime.clock();
            let timer = self.timer.get_or_insert_with(|| {
                let remaining_ms = self.invocation.due_ms().saturating_sub(clock.monotonic_ms());
                let clock = clock.clone();
                Box::pin(async move { clock.sleep(Duration::from_millis(remaining_ms)).await })
            });
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            if clock.monotonic_ms() >= self.invocation.due_ms() {
                return true;
            }
            self.timer = None;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, has_waited: Option<bool>) -> Poll<Result<T, Stop>> {
        let this = self;
        let Some(inner) = this.inner.as_mut() else { return Poll::Pending };
        let began = (this.invocation.runtime.clock(), this.invocation.started_ms);
        match this.purse.poll_covered(this.invocation.cpu_ns.load(Ordering::Relaxed), began, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(meters::Error::Exceeded(exceeded))) => return this.stop(Stop::Cap(exceeded)),
            Poll::Ready(Err(meters::Error::Database(error))) => {
                tracing::error!("what a guest uses could not be reserved: {error}");
                return this.stop(Stop::Uncounted);
            }
            Poll::Pending if this.is_overdue(cx) => return this.stop(Stop::Wall),
            Poll::Pending => return Poll::Pending,
        }
        let is_within = POLLS.replace(true);
        let (polled, spent) = this.invocation.runtime.measure(|| catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(cx))));
        POLLS.set(is_within);
        let used_ns = this.bill(spent.own_ns);
        this.whole_ns += spent.whole_ns;
        match polled {
            // One long call of the host can end the guest far over its limit without a yield in between.
            Ok(Poll::Ready(_)) if used_ns > this.cpu_limit_ns + CPU_OVERRUN_NS && !this.invocation.head_is_out() => {
                this.inner = None;
                this.stop(Stop::Cpu)
            }
            Ok(Poll::Ready(result)) => {
                this.inner = None;
                Poll::Ready(Ok(result))
            }
            Ok(Poll::Pending) if used_ns > this.cpu_limit_ns => this.stop(Stop::Cpu),
            Ok(Poll::Pending) if this.is_overdue(cx) => this.stop(Stop::Wall),
            Ok(Poll::Pending) => {
                // What is polled by its caller goes where that one does.
                if !is_within {
                    this.paced(spent.whole_ns, has_waited);
                }
                Poll::Pending
            }
            Err(_) => {
                tracing::error!(trace = %this.invocation.chain.trace, service = %this.invocation.target.id, "the host panicked inside an invocation");
                this.stop(Stop::Panic)
            }
        }
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        if self.inner.is_some() {
            self.invocation.end(Outcome::Cancelled, None);
            self.drop_inner();
        }
        if let Some(backlog) = &self.invocation.backlog {
            backlog.end(self.whole_ns);
        }
        self.purse.ended(self.invocation.runtime.clock(), self.invocation.started_ms);
    }
}
