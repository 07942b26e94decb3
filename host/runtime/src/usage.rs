//! What an invocation is charged: itself before it begins, its CPU time and the time that it has a State object while it runs, the bytes of its answer as they
//! leave. Where a cap applies, each is reserved first, times in slices; where none does, nothing waits.

use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::meters::Meter;
use tovuk_resources::meters::{Bill, Charge, Error};

use crate::failure::Failure;
use crate::having::Having;
use crate::record::EventKind;

/// CPU time that is reserved at a time, in ms.
const SLICE_MS: u64 = 10;
/// And where there is no more.
const LEAST_MS: u64 = 1;

/// An invocation that may begin.
pub(crate) struct Beginning {
    request: Charge,
    /// For one that has a State object.
    of_object: Option<Charge>,
    purse: Purse,
}

/// Reserves what an invocation needs to begin.
pub(crate) async fn begin(bill: &Bill, event: EventKind) -> Result<Beginning, Failure> {
    let now = bill.now();
    let request = match bill.reserve_at_once(Meter::WorkerRequests, 1, now) {
        Some(charge) => charge,
        None => bill.reserve(Meter::WorkerRequests, 1).await?,
    };
    let mut purse = Purse { bill: bill.clone(), charge: None, covered_ns: 0, refill: None, having: None };
    if bill.is_capped(Meter::WorkerCpuMs) {
        let filled = match bill.reserve_at_once(Meter::WorkerCpuMs, SLICE_MS, now) {
            Some(charge) => (charge, SLICE_MS),
            None => slice(bill).await?,
        };
        purse.fill(filled, 0);
    }
    let mut of_object = None;
    if matches!(event, EventKind::State | EventKind::Alarm) {
        of_object = Some(bill.reserve(Meter::StateRequests, 1).await?);
        purse.having = Some(Box::new(Having::begin(bill).await?));
    }
    Ok(Beginning { request, of_object, purse })
}

impl Beginning {
    /// It has begun, and is charged.
    pub fn begun(self) -> Purse {
        self.request.settle(1);
        if let Some(charge) = self.of_object {
            charge.settle(1);
        }
        self.purse
    }
}

type Slice = (Charge, u64);

async fn slice(bill: &Bill) -> Result<Slice, Error> {
    bill.reserve_some(Meter::WorkerCpuMs, SLICE_MS, LEAST_MS).await
}

/// The CPU time that a guest may use before more of it has to be reserved.
pub(crate) struct Purse {
    bill: Bill,
    charge: Option<Charge>,
    /// How much the invocation may have used, in ns.
    covered_ns: u64,
    refill: Option<BoxFuture<'static, Result<Slice, Error>>>,
    /// For one that has a State object.
    having: Option<Box<Having>>,
}

impl Purse {
    fn fill(&mut self, (charge, ms): Slice, used_ns: u64) {
        // What is left of the slice before, which is less than a ms, is given back.
        self.charge = Some(charge);
        self.covered_ns = used_ns.saturating_add(ms.saturating_mul(1_000_000));
    }

    /// Charges what was used.
    pub fn spend(&mut self, ns: u64) {
        let ms = self.bill.whole_cpu_ms(ns);
        match &mut self.charge {
            _ if ms == 0 => {}
            Some(charge) => charge.spend(ms),
            None => self.bill.charge(Meter::WorkerCpuMs, ms),
        }
    }

    /// The guest has ended, which was admitted then in monotonic ms.
    pub fn ended(&mut self, clock: &Clock, started_ms: u64) {
        if let Some(having) = self.having.take() {
            having.ended(clock.monotonic_ms().saturating_sub(started_ms));
        }
    }

    /// Ready when a guest may go on that has used so much, and was admitted then in monotonic ms.
    pub fn poll_covered(&mut self, used_ns: u64, (clock, started_ms): (&Clock, u64), cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(having) = &mut self.having {
            ready!(having.poll_covered(clock, started_ms, cx))?;
        }
        if self.refill.is_none() && (used_ns < self.covered_ns || !self.bill.is_capped(Meter::WorkerCpuMs)) {
            return Poll::Ready(Ok(()));
        }
        let bill = &self.bill;
        let refill = self.refill.get_or_insert_with(|| {
            let bill = bill.clone();
            Box::pin(async move { slice(&bill).await })
        });
        let filled = ready!(refill.as_mut().poll(cx));
        self.refill = None;
        self.fill(filled?, used_ns);
        Poll::Ready(Ok(()))
    }
}

/// Charges bytes of an answer, which may leave then.
pub(crate) async fn send(bill: &Bill, bytes: u64) -> Result<(), Error> {
    bill.reserve(Meter::WorkerTransferBytes, bytes).await?.settle(bytes);
    Ok(())
}
