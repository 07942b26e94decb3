//! What services are charged with: the handle that whoever works for one holds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use tovuk_kernel::clock::{Clock, UnixMs};
use tovuk_kernel::meters::{METERS, Meter};

use super::Error;
use super::caps::{Asked, Cap, CapKey, Exceeded};
use super::counters::Counters;
use super::reservation::Reservation;
use super::store::Store;
use super::window::{self, Window};
use crate::database;

/// The memory that State duration is counted with, in MB.
const OBJECT_MB: u64 = 128;

/// What a handler with a State object is charged at the most that runs for so many ms.
pub fn gb_ms_at_most(wall_ms: u64) -> u64 {
    wall_ms.saturating_mul(OBJECT_MB).div_ceil(1_000).saturating_add(1)
}

/// For how many ms so much is enough, whatever earlier calls have left of one GB-ms.
pub fn ms_covered(gb_ms: u64) -> u64 {
    gb_ms.saturating_sub(1).saturating_mul(1_000) / OBJECT_MB
}

/// What is measured in a smaller unit than it is charged in. No part of it is lost between two charges, and none is charged twice.
#[derive(Default)]
pub(super) struct Fractions(AtomicU64);

impl Fractions {
    /// Adds so many small units, and says how many large ones have become whole by it.
    fn add(&self, small: u64, per_large: u64) -> u64 {
        let before = self.0.fetch_add(small, Ordering::Relaxed);
        (before.wrapping_add(small) / per_large).wrapping_sub(before / per_large)
    }
}

/// The caps that a service works under, by meter.
pub(super) type Applying = [Vec<Arc<Cap>>; METERS];

/// What one service is charged with. Whoever works for it holds this.
pub struct ServiceMeters {
    /// The number of its account.
    pub account: i64,
    /// Its own number.
    pub service: i64,
    pub(super) counters: Counters,
    pub(super) cpu_ns: Fractions,
    pub(super) mb_ms: Fractions,
    pub(super) caps: ArcSwap<Applying>,
    pub(super) store: Weak<Store>,
    pub(super) clock: Clock,
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

    /// How many whole ms this makes, with what earlier calls have left of one. For CPU time, which is measured in ns.
    pub fn whole_cpu_ms(&self, ns: u64) -> u64 {
        self.cpu_ns.add(ns, 1_000_000)
    }

    /// How many GB-ms a handler with an object's memory has taken that ran for so many ms, with what earlier calls have left of one.
    pub fn whole_gb_ms(&self, wall_ms: u64) -> u64 {
        self.mb_ms.add(wall_ms.saturating_mul(OBJECT_MB), 1_000)
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
        let now = self.clock.now_unix_ms();
        if let Some(reservation) = self.reserve_at_once(meter, amount, now) {
            return Ok(reservation);
        }
        let mut reservation = Reservation::nothing(self.clone(), meter, now);
        // Boxed, because few need it, and a small future moves faster.
        Box::pin(reservation.extend(amount)).await?;
        Ok(reservation)
    }

    /// Reserves room where that needs neither the disk nor the stores, which is nearly always. None where it does, or where a cap refuses: [`ServiceMeters::reserve`]
    /// says. For whoever knows what time it is: to ask for it is a good part of what this costs.
    pub fn reserve_at_once(self: &Arc<Self>, meter: Meter, amount: u64, now: UnixMs) -> Option<Reservation> {
        let mut reservation = Reservation::nothing(self.clone(), meter, now);
        reservation.begin_at_once(amount, now).then_some(reservation)
    }

    /// Reserves room of a level, for which no disk has to be waited.
    ///
    /// # Errors
    /// When a cap has no room.
    pub fn hold(self: &Arc<Self>, level: Meter, amount: u64) -> Result<Reservation, Exceeded> {
        let now = self.clock.now_unix_ms();
        let mut reservation = Reservation::nothing(self.clone(), level, now);
        let (caps, store) = (self.caps.load(), self.store.upgrade());
        for cap in caps.get(level.index()).filter(|_| amount > 0).map(Vec::as_slice).unwrap_or_default() {
            let level = || store.as_ref().map_or(0, |store| store.level_of(&cap.key));
            match cap.reserve(amount, level, now) {
                Asked::Granted(window) => reservation.keep(cap.clone(), window, amount),
                Asked::Exceeded(exceeded) => return Err(exceeded),
                // Levels have no leases.
                Asked::Lease => {}
            }
        }
        Ok(reservation)
    }

    /// Waits for room in one cap.
    pub(super) async fn ask(&self, cap: &Arc<Cap>, more: u64) -> Result<Window, Error> {
        let store = self.store.upgrade().ok_or(Error::Database(database::Error::Closed))?;
        loop {
            match cap.reserve(more, || store.level_of(&cap.key), self.clock.now_unix_ms()) {
                Asked::Granted(window) => return Ok(window),
                Asked::Exceeded(exceeded) => return Err(exceeded.into()),
                Asked::Lease => {}
            }
            // In a task of its own: whoever asks may have to wait for its turn to go on, and others wait for the lease.
            tokio::spawn(store.clone().extend(cap.clone(), more)).await.map_err(|_| database::Error::Closed)??;
        }
    }

    /// How much there is room for, in the cap that has least, and how that cap refuses more. None where no cap applies.
    pub fn room(&self, meter: Meter) -> Option<(u64, Exceeded)> {
        let (caps, now) = (self.caps.load(), self.clock.now_unix_ms());
        let store = self.store.upgrade()?;
        caps.get(meter.index())?.iter().map(|cap| cap.room(|| store.level_of(&cap.key), now)).min_by_key(|(room, _)| *room)
    }

    /// Whether something is capped that this work would charge, so that it has to be reserved.
    pub fn is_capped(&self, meter: Meter) -> bool {
        self.caps.load().get(meter.index()).is_some_and(|caps| !caps.is_empty())
    }
}
