//! Places of requests from outside, of which every service and every account has so many at a time.
//!
//! A request takes a place of its service and one of its account together or neither, so that nobody holds one while waiting for the other. Those that
//! wait stand in a line for their service, and the oldest whose service has a place left is next, so a service that is full bars no other service of its
//! account. All of that lies under one lock per account: accounts have nothing to do with each other here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::lines::{Full, Joined, Lines, Standing};

/// The places of one account.
pub(crate) struct Places {
    max: u64,
    state: Mutex<State>,
}

struct State {
    taken: u64,
    last_service: u64,
    services: BTreeMap<u64, Service>,
    lines: Lines<u64, oneshot::Sender<Place>>,
    /// Services that have a place left and a line, by the oldest in it.
    ready: BTreeSet<(u64, u64)>,
}

struct Service {
    seats: Arc<Seats>,
    taken: u64,
    max: u64,
    /// What stands in `ready` for it.
    ready: Option<u64>,
}

/// The places of one service, which are among those of its account.
pub(crate) struct ServicePlaces(Arc<Seats>);

/// Outlives its service as long as somebody has a place of it.
struct Seats {
    account: Arc<Places>,
    service: u64,
}

/// Held by a request from outside while it runs.
pub(crate) struct Place(Option<Arc<Seats>>);

impl Places {
    /// So many places for which so many requests may wait.
    pub fn new(max: u32, waiting_max: usize) -> Arc<Self> {
        let state = State { taken: 0, last_service: 0, services: BTreeMap::new(), lines: Lines::new(waiting_max), ready: BTreeSet::new() };
        Arc::new(Self { max: max.into(), state: Mutex::new(state) })
    }

    /// A service of the account, with so many places.
    pub fn service(self: &Arc<Self>, max: u64) -> ServicePlaces {
        let mut state = self.lock();
        state.last_service += 1;
        let seats = Arc::new(Seats { account: self.clone(), service: state.last_service });
        state.services.insert(seats.service, Service { seats: seats.clone(), taken: 0, max, ready: None });
        ServicePlaces(seats)
    }

    /// How many requests wait for one.
    pub fn waiting(&self) -> usize {
        self.lock().lines.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic between two related changes, so a poisoned lock guards a consistent state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServicePlaces {
    /// From now on the service has so many places. Those that are taken beyond that are given back as requests end.
    pub fn set_max(&self, max: u64) {
        let places = &self.0.account;
        let mut state = places.lock();
        if let Some(service) = state.services.get_mut(&self.0.service) {
            service.max = max;
        }
        state.show_ready(self.0.service);
        let undelivered = state.grant(places.max);
        drop(state);
        drop(undelivered);
    }

    /// How many places are taken, and how many requests of the account wait for one.
    pub fn load(&self) -> (u64, usize) {
        let state = self.0.account.lock();
        (state.services.get(&self.0.service).map_or(0, |service| service.taken), state.lines.len())
    }

    /// A place, if there is one now.
    pub fn try_enter(&self) -> Option<Place> {
        let places = &self.0.account;
        places.lock().take(self.0.service, places.max).then(|| Place(Some(self.0.clone())))
    }

    /// A place, waiting in the line of the service.
    ///
    /// # Errors
    /// As many requests of the account wait as may.
    pub async fn enter(&self, standing: Standing) -> Result<Place, Full> {
        let (wait, displaced) = {
            let places = &self.0.account;
            let mut state = places.lock();
            if state.take(self.0.service, places.max) {
                return Ok(Place(Some(self.0.clone())));
            }
            let (wake, receiver) = oneshot::channel();
            let Joined { id, displaced } = state.lines.join(self.0.service, standing, wake)?;
            state.show_ready(self.0.service);
            if let Some((service, _)) = &displaced {
                state.show_ready(*service);
            }
            (Wait { seats: self.0.clone(), id, receiver: Some(receiver) }, displaced)
        };
        // That is how it learns of it.
        drop(displaced);
        wait.granted().await.ok_or(Full)
    }
}

impl Drop for ServicePlaces {
    fn drop(&mut self) {
        // Nobody can wait any more, and those who have a place give it back to the account alone.
        self.0.account.lock().services.remove(&self.0.service);
    }
}

impl State {
    /// Takes a place of the account and of the service, if both have one. Where both have one nobody of the service waits.
    fn take(&mut self, service: u64, max: u64) -> bool {
        let Some(service) = self.services.get_mut(&service) else { return false };
        let is_free = self.taken < max && service.taken < service.max;
        if is_free {
            self.taken += 1;
            service.taken += 1;
        }
        is_free
    }

    /// Shows the head of a service's line, if the service has a place left.
    fn show_ready(&mut self, number: u64) {
        let Some(service) = self.services.get_mut(&number) else { return };
        let head = self.lines.first(number).filter(|_| service.taken < service.max);
        if head != service.ready {
            if let Some(id) = service.ready {
                self.ready.remove(&(id, number));
            }
            if let Some(id) = head {
                self.ready.insert((id, number));
            }
            service.ready = head;
        }
    }

    /// Gives places to those who wait, the oldest first. What could not be delivered is to be dropped once the lock is released.
    fn grant(&mut self, max: u64) -> Vec<Place> {
        let mut undelivered = Vec::new();
        while self.taken < max {
            let Some((_, number)) = self.ready.first().copied() else { break };
            let (waiter, taken) = (self.lines.remove_first(number), self.take(number, max));
            self.show_ready(number);
            let seats = self.services.get(&number).map(|service| service.seats.clone());
            if let (Some(wake), true, Some(seats)) = (waiter, taken, seats)
                && let Err(place) = wake.send(Place(Some(seats)))
            {
                undelivered.push(place);
            }
        }
        undelivered
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(seats) = self.0.take() else { return };
        let mut state = seats.account.lock();
        state.taken -= 1;
        if let Some(service) = state.services.get_mut(&seats.service) {
            service.taken -= 1;
        }
        state.show_ready(seats.service);
        let undelivered = state.grant(seats.account.max);
        drop(state);
        drop(undelivered);
    }
}

/// A place in the line of a service. Dropping it gives the place up, and what was granted meanwhile.
struct Wait {
    seats: Arc<Seats>,
    id: u64,
    receiver: Option<oneshot::Receiver<Place>>,
}

impl Wait {
    /// What was waited for, or none if another has taken the place in the line.
    async fn granted(mut self) -> Option<Place> {
        let place = self.receiver.as_mut()?.await.ok();
        self.receiver = None;
        place
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.receiver.is_none() {
            return;
        }
        // Taken out of its line before the receiver goes, so that a place is never sent to nobody.
        let mut state = self.seats.account.lock();
        let gone = state.lines.remove(self.seats.service, self.id);
        state.show_ready(self.seats.service);
        drop(state);
        drop(gone);
    }
}

#[cfg(test)]
mod tests;
