//! The lines that alarms stand in on their way to the workers, one for each service. Nothing here waits or delivers: it says who is next, and who has to
//! go back to the store.
//!
//! All room is shared: a service has a part of it, and so has an account, however many services it has. A service that cannot be reached has no line but
//! one alarm, which tries it again after a pause.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tovuk_kernel::limits::{DELIVERIES_ALARM_ACCOUNT_MAX, DELIVERIES_ALARM_MAX, DELIVERIES_ALARM_SERVICE_MAX};

/// Alarms that stand in all lines.
const WAITING_MAX: usize = 65_536;
/// Alarms that stand in the lines of one account.
const SHARE_MAX: usize = 16_384;
/// The same when half of all room is taken.
const CROWDED_SHARE_MAX: usize = 1_024;
/// How long a service that could not be reached is left alone the first time, in ms. Each further pause is twice as long.
const PAUSE_MS: u64 = 2_000;
/// How long it is left alone at most, in ms.
const PAUSE_MS_MAX: u64 = 60_000;
/// How long an alarm goes back to the store at least for want of room, in ms. Each further one of the service goes back for 1 ms more.
pub(super) const PUT_OFF_MS: u64 = 1_000;

/// The line of one service.
struct Line<R> {
    account: i64,
    waiting: VecDeque<R>,
    /// The one that tries a service again that could not be reached.
    probe: Option<R>,
    running: usize,
    is_paused: bool,
    /// It stands among those that may be looked at.
    is_ready: bool,
    /// Alarms that went back to the store since the line last had room.
    put_off: u64,
    /// How often the service was left alone since something was last delivered to it.
    pauses: u32,
}

impl<R> Line<R> {
    fn new(account: i64) -> Self {
        Self { account, waiting: VecDeque::new(), probe: None, running: 0, is_paused: false, is_ready: false, put_off: 0, pauses: 0 }
    }

    fn may_run(&self) -> bool {
        !self.is_paused && self.running < DELIVERIES_ALARM_SERVICE_MAX && !self.waiting.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running == 0 && !self.is_paused && !self.is_ready
    }

    fn pause_ms(&self) -> u64 {
        PAUSE_MS.saturating_mul(1 << self.pauses.saturating_sub(1).min(16)).min(PAUSE_MS_MAX)
    }

    /// For how long the next one goes back to the store.
    fn put_off(&mut self, at_least_ms: u64) -> u64 {
        self.put_off += 1;
        at_least_ms.saturating_add(self.put_off)
    }
}

/// What an account has of all room.
#[derive(Default)]
struct Share {
    waiting: usize,
    running: usize,
    /// Services that may deliver as soon as another delivery of the account has ended.
    blocked: Vec<i64>,
}

/// What follows when a service could not be reached.
pub(super) struct Paused<R> {
    /// What goes back to the store, each for so many ms.
    pub put_off: Vec<(R, u64)>,
    /// After which time [`Lines::resume`] is to be called, unless it was said before.
    pub resume_in: Option<Duration>,
}

/// All lines.
pub(super) struct Lines<R> {
    lines: HashMap<i64, Line<R>>,
    accounts: HashMap<i64, Share>,
    /// Services whose next alarm may be delivered, in turn.
    ready: VecDeque<i64>,
    waiting: usize,
    running: usize,
}

impl<R> Lines<R> {
    pub fn new() -> Self {
        Self { lines: HashMap::new(), accounts: HashMap::new(), ready: VecDeque::new(), waiting: 0, running: 0 }
    }

    /// How many more may be taken from the store.
    pub fn room(&self) -> usize {
        WAITING_MAX.saturating_sub(self.waiting)
    }

    /// Whether an alarm may stand in the line of a service. If so, whether it has to wait there; if not, for how many ms it goes back to the store.
    pub fn admit(&mut self, service: i64, account: i64) -> Result<bool, u64> {
        let line = self.lines.entry(service).or_insert_with(|| Line::new(account));
        if line.is_paused {
            let pause_ms = line.pause_ms();
            return Err(line.put_off(pause_ms));
        }
        let share_max = if self.waiting > WAITING_MAX / 2 { CROWDED_SHARE_MAX } else { SHARE_MAX };
        let share = self.accounts.get(&account);
        if share.is_some_and(|share| share.waiting >= share_max) {
            let put_off = line.put_off(PUT_OFF_MS);
            self.look_at(service);
            return Err(put_off);
        }
        line.put_off = 0;
        let is_busy = share.is_some_and(|share| share.running >= DELIVERIES_ALARM_ACCOUNT_MAX);
        Ok(is_busy || line.running >= DELIVERIES_ALARM_SERVICE_MAX || !line.waiting.is_empty() || self.running >= DELIVERIES_ALARM_MAX)
    }

    /// Lets one stand in line that was admitted.
    pub fn push(&mut self, service: i64, ring: R) {
        let Some(line) = self.lines.get_mut(&service) else { return };
        line.waiting.push_back(ring);
        self.accounts.entry(line.account).or_default().waiting += 1;
        self.waiting += 1;
        self.look_at(service);
    }

    /// Sees to it that a service has its turn, if it has something to deliver.
    fn look_at(&mut self, service: i64) {
        let Some(line) = self.lines.get_mut(&service) else { return };
        if line.may_run() && !line.is_ready {
            line.is_ready = true;
            self.ready.push_back(service);
        }
        if line.is_empty() {
            let account = line.account;
            self.lines.remove(&service);
            if self.accounts.get(&account).is_some_and(|share| share.waiting == 0 && share.running == 0 && share.blocked.is_empty()) {
                self.accounts.remove(&account);
            }
        }
    }

    /// The next one that is to be delivered now, and whose it is. [`Lines::ended`] is to be told when it was.
    pub fn next(&mut self) -> Option<(i64, R)> {
        while self.running < DELIVERIES_ALARM_MAX {
            let service = self.ready.pop_front()?;
            let Some(line) = self.lines.get_mut(&service) else { continue };
            line.is_ready = false;
            let share = self.accounts.entry(line.account).or_default();
            if line.may_run() && share.running >= DELIVERIES_ALARM_ACCOUNT_MAX {
                line.is_ready = true;
                share.blocked.push(service);
                continue;
            }
            let next = if line.may_run() { line.waiting.pop_front() } else { None };
            if next.is_some() {
                line.running += 1;
                share.running += 1;
                share.waiting = share.waiting.saturating_sub(1);
                self.running += 1;
                self.waiting = self.waiting.saturating_sub(1);
            }
            self.look_at(service);
            if let Some(ring) = next {
                return Some((service, ring));
            }
        }
        None
    }

    /// A delivery has ended. With the alarm if the service could not be reached.
    pub fn ended(&mut self, service: i64, held: Option<R>) -> Paused<R> {
        self.running = self.running.saturating_sub(1);
        let mut paused = Paused { put_off: Vec::new(), resume_in: None };
        // A line stays as long as something of it runs.
        let Some(line) = self.lines.get_mut(&service) else { return paused };
        line.running = line.running.saturating_sub(1);
        let share = self.accounts.entry(line.account).or_default();
        share.running = share.running.saturating_sub(1);
        self.ready.extend(share.blocked.drain(..));
        match held {
            None => line.pauses = 0,
            Some(ring) if line.is_paused => {
                let pause_ms = line.pause_ms();
                paused.put_off.push((ring, line.put_off(pause_ms)));
            }
            Some(ring) => {
                line.is_paused = true;
                line.probe = Some(ring);
                line.pauses = line.pauses.saturating_add(1);
                let pause_ms = line.pause_ms();
                paused.resume_in = Some(Duration::from_millis(pause_ms));
                let waiting = std::mem::take(&mut line.waiting);
                share.waiting = share.waiting.saturating_sub(waiting.len());
                self.waiting = self.waiting.saturating_sub(waiting.len());
                paused.put_off.extend(waiting.into_iter().map(|ring| (ring, line.put_off(pause_ms))));
            }
        }
        self.look_at(service);
        paused
    }

    /// A service may be tried again.
    pub fn resume(&mut self, service: i64) {
        let Some(line) = self.lines.get_mut(&service) else { return };
        line.is_paused = false;
        line.put_off = 0;
        if let Some(probe) = line.probe.take() {
            line.waiting.push_front(probe);
            self.accounts.entry(line.account).or_default().waiting += 1;
            self.waiting += 1;
        }
        self.look_at(service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(lines: &mut Lines<u32>, service: i64, account: i64, count: u32) -> usize {
        let mut added = 0;
        for number in 0..count {
            if lines.admit(service, account).is_ok() {
                lines.push(service, number);
                added += 1;
            }
        }
        added
    }

    fn all_next(lines: &mut Lines<u32>) -> Vec<(i64, u32)> {
        std::iter::from_fn(|| lines.next()).collect()
    }

    #[test]
    fn an_account_delivers_a_part_of_all_however_many_services_it_has() {
        let mut lines = Lines::new();
        for service in 0..10 {
            add(&mut lines, service, 1, 100);
        }
        let running = all_next(&mut lines);
        assert_eq!(running.len(), DELIVERIES_ALARM_ACCOUNT_MAX);
        add(&mut lines, 77, 2, 1);
        assert_eq!(all_next(&mut lines), [(77, 0)], "another account does not wait for it");
        // What ends makes room for another service of the account, also if that is the last of its line.
        let mut delivered = running.len();
        let mut running = VecDeque::from(running);
        while let Some((service, _)) = running.pop_front() {
            lines.ended(service, None);
            let next = all_next(&mut lines);
            delivered += next.len();
            running.extend(next);
        }
        assert_eq!(delivered, 1_000);
        lines.ended(77, None);
        assert_eq!((lines.lines.len(), lines.accounts.len(), lines.waiting, lines.running), (0, 0, 0, 0));
    }

    #[test]
    fn a_service_that_cannot_be_reached_keeps_one_alarm_and_no_room() {
        let mut lines = Lines::new();
        for service in 0..100 {
            add(&mut lines, service, service, 1_000);
            let mut back = 0;
            let mut paused = 0;
            for (service, ring) in all_next(&mut lines) {
                let ended = lines.ended(service, Some(ring));
                assert!(ended.put_off.iter().all(|(_, wait_ms)| *wait_ms > PAUSE_MS));
                back += ended.put_off.len();
                paused += usize::from(ended.resume_in == Some(Duration::from_secs(2)));
            }
            assert_eq!((back, paused), (999, 1));
            assert!(lines.admit(service, service).is_err());
        }
        assert_eq!((lines.room(), lines.running), (WAITING_MAX, 0));
        for seconds in [4, 8, 16, 32, 60, 60] {
            lines.resume(5);
            let (service, ring) = lines.next().unwrap();
            assert_eq!(lines.ended(service, Some(ring)).resume_in, Some(Duration::from_secs(seconds)));
        }
        lines.resume(5);
        assert_eq!(lines.next().map(|(service, _)| service), Some(5));
        assert!(lines.ended(5, None).put_off.is_empty());
        assert!(!lines.lines.contains_key(&5) && !lines.accounts.contains_key(&5));
    }

    #[test]
    fn slow_workers_of_one_account_leave_room_for_the_alarms_of_others() {
        let mut lines = Lines::new();
        let added: usize = (0..50).map(|service| add(&mut lines, service, 1, 16_000)).sum();
        assert_eq!(added, SHARE_MAX);
        assert_eq!(add(&mut lines, 77, 2, 1), 1);
    }
}
