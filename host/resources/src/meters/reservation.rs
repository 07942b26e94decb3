//! What work has reserved in the caps that apply to it, from before it begins until it has ended.

use std::sync::Arc;

use smallvec::SmallVec;
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::meters::{Meter, Sort};

use super::Error;
use super::caps::{Asked, Cap};
use super::handle::ServiceMeters;
use super::window::{self, Window};

/// What was reserved for work that has begun. What of it was not spent is given back when this is dropped.
pub struct Reservation {
    meters: Arc<ServiceMeters>,
    meter: Meter,
    /// The day that what is spent counts for: that of the latest reservation, so that what was granted on a day is never more than its cap.
    day: u32,
    /// The caps that it is reserved in, and how much in each. A cap is there twice where its period has changed in between.
    held: SmallVec<[Held; 2]>,
}

struct Held {
    cap: Arc<Cap>,
    window: Window,
    amount: u64,
}

impl Reservation {
    pub(super) fn nothing(meters: Arc<ServiceMeters>, meter: Meter, now: UnixMs) -> Self {
        Self { meters, meter, day: window::day(now), held: SmallVec::new() }
    }

    /// Reserves the first where that needs neither the disk nor the stores, which is nearly always. False where it does, or where a cap refuses.
    pub(super) fn begin_at_once(&mut self, amount: u64, now: UnixMs) -> bool {
        if amount == 0 {
            return true;
        }
        let caps = self.meters.caps.load();
        for cap in caps.get(self.meter.index()).map(Vec::as_slice).unwrap_or_default() {
            let asked = if self.meter.sort() == Sort::Level { None } else { Some(cap.reserve(amount, || 0, now)) };
            let Some(Asked::Granted(window)) = asked else {
                give_back(&mut self.held);
                return false;
            };
            self.held.push(Held { cap: cap.clone(), window, amount });
        }
        true
    }

    /// So much was granted by that cap.
    pub(super) fn keep(&mut self, cap: Arc<Cap>, window: Window, amount: u64) {
        self.held.push(Held { cap, window, amount });
    }

    /// Reserves more.
    ///
    /// # Errors
    /// As [`ServiceMeters::reserve`]; what was reserved before stays.
    pub async fn extend(&mut self, more: u64) -> Result<(), Error> {
        // What needs nothing is not held up by a cap that was lowered below what is used.
        if more == 0 || !self.meters.is_capped(self.meter) {
            return Ok(());
        }
        let applying = self.meters.caps.load_full();
        let caps = applying.get(self.meter.index()).map(Vec::as_slice).unwrap_or_default();
        // Given back when one of them has no room.
        let mut asked = Self::nothing(self.meters.clone(), self.meter, self.meters.clock.now_unix_ms());
        for cap in caps {
            let window = self.meters.ask(cap, more).await?;
            asked.keep(cap.clone(), window, more);
        }
        self.day = asked.day;
        for new in std::mem::take(&mut asked.held) {
            match self.held.iter_mut().find(|held| Arc::ptr_eq(&held.cap, &new.cap) && held.window == new.window) {
                Some(held) => held.amount = held.amount.saturating_add(new.amount),
                None => self.held.push(new),
            }
        }
        Ok(())
    }

    /// So much was used. What was used beyond what was reserved counts as well; of a level only the store knows what there is.
    pub fn spend(&mut self, used: u64) {
        if used == 0 || self.meter.sort() == Sort::Level {
            return;
        }
        // Before the caps are looked at: one that is set meanwhile has added this up already, or is among them. It may count twice there, and is never missed.
        self.meters.counters.add(self.meter, used, self.day);
        for cap in self.meters.caps.load().get(self.meter.index()).map(Vec::as_slice).unwrap_or_default() {
            match self.held.iter_mut().rev().find(|held| Arc::ptr_eq(&held.cap, cap)) {
                Some(held) => {
                    let part = held.amount.min(used);
                    held.amount -= part;
                    held.cap.settle(part, used, held.window);
                }
                // One that was set meanwhile.
                None => cap.charge(used, self.meters.clock.now_unix_ms()),
            }
        }
    }

    /// The work has ended and has used so much. The rest is given back.
    pub fn settle(mut self, used: u64) {
        self.spend(used);
    }
}

fn give_back(held: &mut SmallVec<[Held; 2]>) {
    for held in held.drain(..).filter(|held| held.amount > 0) {
        held.cap.settle(held.amount, 0, held.window);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        give_back(&mut self.held);
    }
}
