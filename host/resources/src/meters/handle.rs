//! What services are charged with: the handle that whoever works for one holds, and reservations.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::meters::{METERS, Meter, Sort};

use super::Error;
use super::caps::{Asked, Cap, CapKey};
use super::counters::Counters;
use super::store::Store;
use super::window::{self, Window};
use crate::database;

/// The caps that a service works under, by meter.
pub(super) type Applying = [Vec<Arc<Cap>>; METERS];

/// What one service is charged with. Whoever works for it holds this.
pub struct ServiceMeters {
    /// The number of its account.
    pub account: i64,
    /// Its own number.
    pub service: i64,
    pub(super) counters: Counters,
    pub(super) caps: ArcSwap<Applying>,
    pub(super) store: Weak<Store>,
    pub(super) clock: Clock,
}

/// What was reserved for work that has begun. It is given back when it is dropped.
pub struct Reservation {
    meters: Arc<ServiceMeters>,
    meter: Meter,
    /// The caps that it is reserved in, and how much in each. A cap is there twice where its period has changed in between.
    held: Vec<Held>,
}

struct Held {
    cap: Arc<Cap>,
    window: Window,
    amount: u64,
}

impl ServiceMeters {
    /// Takes over the caps that apply to this service.
    pub(super) fn apply(&self, caps: &HashMap<CapKey, Arc<Cap>>) {
        let mut applying: Applying = std::array::from_fn(|_| Vec::new());
        for cap in caps.values() {
            let applies = cap.key.account == self.account && cap.key.service.is_none_or(|service| service == self.service);
            if let Some(caps) = applying.get_mut(cap.key.meter.index()).filter(|_| applies) {
                caps.push(cap.clone());
            }
        }
        self.caps.store(Arc::new(applying));
    }

    /// Charges what was used and could not be reserved. It counts in caps, and does not ask them.
    pub fn charge(&self, meter: Meter, amount: u64) {
        if amount == 0 {
            return;
        }
        let now = self.clock.now_unix_ms();
        self.counters.add(meter, amount, window::day(now));
        if let Some(caps) = self.caps.load().get(meter.index()) {
            caps.iter().for_each(|cap| cap.charge(amount, now));
        }
    }

    /// Reserves room in every cap that applies. Waits for the disk at times where there are caps, and never where there are none.
    ///
    /// # Errors
    /// [`Error::Exceeded`] when a cap has no room, or when the store fails.
    pub async fn reserve(self: &Arc<Self>, meter: Meter, amount: u64) -> Result<Reservation, Error> {
        let mut reservation = Reservation { meters: self.clone(), meter, held: Vec::new() };
        reservation.extend(amount).await?;
        Ok(reservation)
    }

    async fn ask(&self, cap: &Cap, more: u64) -> Result<Window, Error> {
        let store = self.store.upgrade().ok_or(Error::Database(database::Error::Closed))?;
        let attempt = || cap.reserve(more, store.level_of(&cap.key), self.clock.now_unix_ms());
        loop {
            match attempt() {
                Asked::Granted(window) => return Ok(window),
                Asked::Exceeded(exceeded) => return Err(exceeded.into()),
                Asked::Lease(_) => {}
            }
            let _extending = cap.extending.lock().await;
            // Somebody else may have extended it meanwhile.
            match attempt() {
                Asked::Granted(window) => return Ok(window),
                Asked::Exceeded(exceeded) => return Err(exceeded.into()),
                Asked::Lease(stored) => store.lease(cap, stored).await?,
            }
        }
    }

    /// Whether something is capped that this work would charge, so that it has to be reserved.
    pub fn is_capped(&self, meter: Meter) -> bool {
        self.caps.load().get(meter.index()).is_some_and(|caps| !caps.is_empty())
    }
}

impl Reservation {
    /// Reserves more.
    ///
    /// # Errors
    /// As [`ServiceMeters::reserve`]; what was reserved before stays.
    pub async fn extend(&mut self, more: u64) -> Result<(), Error> {
        let applying = self.meters.caps.load_full();
        let caps = applying.get(self.meter.index()).map(Vec::as_slice).unwrap_or_default();
        // Given back when one of them has no room.
        let mut asked = Self { meters: self.meters.clone(), meter: self.meter, held: Vec::new() };
        for cap in caps {
            let window = self.meters.ask(cap, more).await?;
            asked.held.push(Held { cap: cap.clone(), window, amount: more });
        }
        for new in std::mem::take(&mut asked.held) {
            match self.held.iter_mut().find(|held| Arc::ptr_eq(&held.cap, &new.cap) && held.window == new.window) {
                Some(held) => held.amount = held.amount.saturating_add(new.amount),
                None => self.held.push(new),
            }
        }
        Ok(())
    }

    /// The work has ended and has used so much. The rest is given back.
    pub fn settle(mut self, used: u64) {
        self.give_back(used);
        if self.meter.sort() == Sort::Counter {
            self.meters.counters.add(self.meter, used, window::day(self.meters.clock.now_unix_ms()));
        }
    }

    /// Counts what was used in each cap, in the latest period that it was reserved for.
    fn give_back(&mut self, used: u64) {
        while let Some(held) = self.held.pop() {
            held.cap.settle(held.amount, used, held.window);
            self.held.retain(|earlier| {
                let same = Arc::ptr_eq(&earlier.cap, &held.cap);
                if same {
                    earlier.cap.settle(earlier.amount, 0, earlier.window);
                }
                !same
            });
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(0);
    }
}
