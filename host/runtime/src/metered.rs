//! The future of a guest: metered, bounded in time, and unable to take its neighbours down.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use tovuk_resources::meters::{self, Exceeded};

use crate::invocation::Invocation;
use crate::meter::measure;
use crate::record::Outcome;
use crate::run::stopped;
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

/// A guest's future. Dropping it drops the guest's instance, and all that it waits for.
pub struct Metered<T> {
    inner: Option<BoxFuture<'static, T>>,
    invocation: Arc<Invocation>,
    purse: Purse,
    cpu_limit_ns: u64,
    /// Made when the guest first waits, because most never do.
    timer: Option<BoxFuture<'static, ()>>,
    timer_is_for_head: bool,
}

impl<T> Metered<T> {
    /// `inner` makes, runs and drops the instance.
    pub fn new(invocation: Arc<Invocation>, purse: Purse, inner: impl Future<Output = T> + Send + 'static) -> Self {
        let cpu_limit_ns = invocation.deployment.limits.cpu_ms.saturating_mul(1_000_000);
        Self { inner: Some(Box::pin(inner)), invocation, purse, cpu_limit_ns, timer: None, timer_is_for_head: true }
    }

    fn bill(&mut self, ns: u64) -> u64 {
        self.purse.spend(ns);
        self.invocation.cpu_ns.fetch_add(ns, Ordering::Relaxed) + ns
    }

    fn drop_inner(&mut self) {
        if let Some(inner) = self.inner.take() {
            self.invocation.set_broken();
            // A destructor that panics has already done what it could; the instance is gone either way.
            let (dropped, ns) = measure(|| catch_unwind(AssertUnwindSafe(|| drop(inner))));
            self.bill(ns);
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
}

impl<T> Future for Metered<T> {
    type Output = Result<T, Stop>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
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
        let (polled, ns) = measure(|| catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(cx))));
        let used_ns = this.bill(ns);
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
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => {
                tracing::error!(trace = %this.invocation.chain.trace, service = %this.invocation.target.id, "the host panicked inside an invocation");
                this.stop(Stop::Panic)
            }
        }
    }
}

impl<T> Drop for Metered<T> {
    fn drop(&mut self) {
        if self.inner.is_some() {
            self.invocation.end(Outcome::Cancelled, None);
            self.drop_inner();
        }
        let clock = self.invocation.runtime.clock();
        self.purse.ended(clock.monotonic_ms().saturating_sub(self.invocation.started_ms));
    }
}
