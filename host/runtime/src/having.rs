//! How long a guest has a State object, in GB-milliseconds of wall time. Where a cap applies, a slice of about a second is reserved before it begins; when that
//! is over, what has passed is charged and the next is reserved, so that nobody is refused for what a guest may need and mostly does not. Where there is
//! no room for another slice, the guest is stopped, and is charged what was reserved and no more.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::meters::Meter;
use tovuk_resources::meters::{Bill, Charge, Error, gb_ms_at_most, ms_covered};

/// What is reserved at a time, in ms.
const SLICE_MS: u64 = 1_000;
/// And where there is no more.
const LEAST_MS: u64 = 8;

const METER: Meter = Meter::StateDurationGbMilliseconds;

type Slice = (Charge, u64);

/// The time that a guest may have its object before more of it has to be reserved. All times are ms since it was admitted.
pub(crate) struct Having {
    bill: Bill,
    charge: Option<Charge>,
    covered_ms: u64,
    billed_ms: u64,
    refill: Option<BoxFuture<'static, Result<Slice, Error>>>,
    /// Runs until what is covered is over.
    timer: Option<BoxFuture<'static, ()>>,
}

/// Reserves a slice, after so many ms that were not covered.
async fn slice(bill: Bill, late_ms: u64) -> Result<Slice, Error> {
    bill.reserve_some(METER, gb_ms_at_most(late_ms.saturating_add(SLICE_MS)), gb_ms_at_most(late_ms.saturating_add(LEAST_MS))).await
}

impl Having {
    /// Reserves what a guest needs to begin.
    ///
    /// # Errors
    /// When a cap has no room, or the store of meters fails.
    pub async fn begin(bill: &Bill) -> Result<Self, Error> {
        let mut having = Self { bill: bill.clone(), charge: None, covered_ms: 0, billed_ms: 0, refill: None, timer: None };
        if bill.is_capped(METER) {
            having.fill(slice(bill.clone(), 0).await?);
        }
        Ok(having)
    }

    fn fill(&mut self, (charge, gb_ms): Slice) {
        self.charge = Some(charge);
        self.covered_ms = self.covered_ms.saturating_add(ms_covered(gb_ms));
        self.timer = None;
    }

    /// Charges what has passed, or as much of it as is covered where it has to be.
    fn bill_until(&mut self, now_ms: u64) {
        let until_ms = if self.charge.is_some() { now_ms.min(self.covered_ms) } else { now_ms };
        let gb_ms = self.bill.whole_gb_ms(until_ms.saturating_sub(self.billed_ms));
        self.billed_ms = self.billed_ms.max(until_ms);
        match &mut self.charge {
            Some(charge) => charge.spend(gb_ms),
            None => self.bill.charge(METER, gb_ms),
        }
    }

    /// Ready when the guest may go on; it was admitted then in monotonic ms. Wakes it when it may not any longer.
    pub fn poll_covered(&mut self, clock: &Clock, started_ms: u64, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.refill.is_none() && !self.bill.is_capped(METER) {
            // What was reserved while there was a cap is charged first, and what comes after it as it is without one.
            if self.charge.is_some() {
                self.bill_until(clock.monotonic_ms().saturating_sub(started_ms));
                self.charge = None;
            }
            return Poll::Ready(Ok(()));
        }
        loop {
            let now_ms = clock.monotonic_ms().saturating_sub(started_ms);
            if self.refill.is_none() && self.charge.is_none() {
                // A cap that was set meanwhile: what has passed counts in it, and it begins here.
                self.bill_until(now_ms);
                self.covered_ms = now_ms;
            }
            if self.refill.is_none() && now_ms < self.covered_ms {
                let rest = Duration::from_millis(self.covered_ms - now_ms);
                let timer = self.timer.get_or_insert_with(|| {
                    let clock = clock.clone();
                    Box::pin(async move { clock.sleep(rest).await })
                });
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Ready(Ok(()));
                }
                self.timer = None;
                continue;
            }
            let (bill, late_ms) = (&self.bill, now_ms.saturating_sub(self.covered_ms));
            let refill = self.refill.get_or_insert_with(|| Box::pin(slice(bill.clone(), late_ms)));
            let slice = ready!(refill.as_mut().poll(cx));
            self.refill = None;
            let slice = slice?;
            self.bill_until(self.covered_ms);
            self.fill(slice);
        }
    }

    /// The guest has ended, so many ms after it was admitted.
    pub fn ended(mut self, now_ms: u64) {
        self.bill_until(now_ms);
    }
}
