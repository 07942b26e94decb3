//! Whom work is charged to. The stores are given it with their handle, so that an operation is charged alike whichever door it came through.

use std::sync::Arc;

use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::meters::Meter;

use super::handle::ServiceMeters;
use super::reservation::Reservation;
use super::{Error, Exceeded};

/// A service that is charged, or nobody where the host works for itself.
#[derive(Clone, Default)]
pub struct Bill(Option<Arc<ServiceMeters>>);

impl From<Arc<ServiceMeters>> for Bill {
    fn from(meters: Arc<ServiceMeters>) -> Self {
        Self(Some(meters))
    }
}

impl Bill {
    /// The account and the service that are charged.
    pub fn owner(&self) -> Option<(i64, i64)> {
        self.0.as_ref().map(|meters| (meters.account, meters.service))
    }

    /// Charges what was used and could not be reserved.
    pub fn charge(&self, meter: Meter, amount: u64) {
        if let Some(meters) = &self.0 {
            meters.charge(meter, amount);
        }
    }

    /// Whether this work has to be reserved.
    pub fn is_capped(&self, meter: Meter) -> bool {
        self.0.as_ref().is_some_and(|meters| meters.is_capped(meter))
    }

    /// How much there is room for, in the cap that has least, and how that cap refuses more. None where no cap applies.
    pub fn room(&self, meter: Meter) -> Option<(u64, Exceeded)> {
        self.0.as_ref()?.room(meter)
    }

    /// Reserves room in every cap that applies; nobody's work has room always. Waits for the disk at times where there are caps, and never where there are none.
    ///
    /// # Errors
    /// [`Error::Exceeded`] when a cap has no room, or when the store of meters fails.
    pub async fn reserve(&self, meter: Meter, amount: u64) -> Result<Charge, Error> {
        match &self.0 {
            Some(meters) => Ok(Charge(Some(meters.reserve(meter, amount).await?))),
            None => Ok(Charge(None)),
        }
    }

    /// Reserves room of a level; see [`ServiceMeters::hold`].
    ///
    /// # Errors
    /// When a cap has no room.
    pub fn hold(&self, level: Meter, amount: u64) -> Result<Charge, Exceeded> {
        self.0.as_ref().map_or(Ok(Charge(None)), |meters| Ok(Charge(Some(meters.hold(level, amount)?))))
    }

    /// The time that reservations of one moment share; see [`Bill::reserve_at_once`].
    pub fn now(&self) -> UnixMs {
        self.0.as_ref().map_or(0, |meters| meters.clock.now_unix_ms())
    }

    /// Reserves without waiting; see [`ServiceMeters::reserve_at_once`].
    pub fn reserve_at_once(&self, meter: Meter, amount: u64, now: UnixMs) -> Option<Charge> {
        match &self.0 {
            Some(meters) => Some(Charge(Some(meters.reserve_at_once(meter, amount, now)?))),
            None => Some(Charge(None)),
        }
    }

    /// The same as [`Bill::reserve`], with less where that is all that there is: as much as was reserved.
    ///
    /// # Errors
    /// As [`Bill::reserve`], when there is not even `least`.
    pub async fn reserve_some(&self, meter: Meter, most: u64, least: u64) -> Result<(Charge, u64), Error> {
        // Mostly there is room for all of it, and to ask how much there is costs more than to take it.
        match self.reserve(meter, most).await {
            Err(Error::Exceeded(_)) => {}
            reserved => return Ok((reserved?, most)),
        }
        let most = self.room(meter).map_or(most, |(room, _)| most.min(room)).max(least);
        match self.reserve(meter, most).await {
            Ok(charge) => Ok((charge, most)),
            Err(Error::Exceeded(_)) if least < most => Ok((self.reserve(meter, least).await?, least)),
            Err(error) => Err(error),
        }
    }

    /// CPU time in whole ms; see [`ServiceMeters::whole_cpu_ms`].
    pub fn whole_cpu_ms(&self, ns: u64) -> u64 {
        self.0.as_ref().map_or(0, |meters| meters.whole_cpu_ms(ns))
    }

    /// State duration; see [`ServiceMeters::whole_gb_ms`].
    pub fn whole_gb_ms(&self, wall_ms: u64) -> u64 {
        self.0.as_ref().map_or(0, |meters| meters.whole_gb_ms(wall_ms))
    }
}

/// Work that has begun, and what was reserved for it. What was not spent is given back when this is dropped.
pub struct Charge(Option<Reservation>);

impl Charge {
    /// Reserves more.
    ///
    /// # Errors
    /// As [`Bill::reserve`]; what was reserved before stays.
    pub async fn extend(&mut self, more: u64) -> Result<(), Error> {
        match &mut self.0 {
            Some(reservation) => reservation.extend(more).await,
            None => Ok(()),
        }
    }

    /// So much was used.
    pub fn spend(&mut self, used: u64) {
        if let Some(reservation) = &mut self.0 {
            reservation.spend(used);
        }
    }

    /// The work has ended and has used so much. The rest is given back.
    pub fn settle(mut self, used: u64) {
        self.spend(used);
    }
}
