//! Which services have figures of their own in what Prometheus reads: the busiest, up to a number. All others are one series, `other`.
//!
//! Counters must never go down, and their sum has to be what was counted. So a service that gets its own series begins it with what had not been read as
//! part of `other`, one that loses it keeps what it had for when it comes back, and `other` is all that there is less what all of them have told.

use std::collections::HashMap;

use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::limits::{METRICS_CHOICE_SECONDS, METRICS_SERVICES_MAX};

use super::series::Totals;

/// What was told so far, and by whom.
#[derive(Default)]
pub(super) struct Export {
    told: HashMap<ServiceId, Told>,
    /// What services told that have been deleted.
    gone: Totals,
    /// What every service had done when it was last read.
    last: HashMap<ServiceId, Totals>,
    /// What every service had done when the busiest were last chosen.
    chosen: HashMap<ServiceId, u64>,
    chosen_ms: u64,
}

/// The series of a service.
#[derive(Default)]
struct Told {
    /// What it told before it lost its series.
    before: Totals,
    /// What it had done when it got its series; nothing while it has none.
    since: Option<Totals>,
}

impl Told {
    fn now(&self, totals: &Totals) -> Totals {
        self.since.map_or(self.before, |since| self.before.and(&totals.since(&since)))
    }
}

/// What is read at a time.
pub(super) struct Read {
    /// The busiest services.
    pub named: Vec<(ServiceId, Totals)>,
    /// All others together.
    pub other: Totals,
}

impl Export {
    /// What is told now, where services have done this, and deleted ones that. The time is on the clock's monotonic scale.
    pub fn read(&mut self, now_ms: u64, services: HashMap<ServiceId, Totals>, gone: &Totals) -> Read {
        let is_due = now_ms.saturating_sub(self.chosen_ms) >= METRICS_CHOICE_SECONDS * 1_000;
        let mut named = self.told.values().filter(|told| told.since.is_some()).count();
        if is_due {
            self.choose(&services);
            self.chosen = services.iter().map(|(id, totals)| (id.clone(), totals.calls())).collect();
            self.chosen_ms = now_ms;
        } else if named < METRICS_SERVICES_MAX {
            // While there is room nobody waits for the next choice.
            for id in services.keys() {
                if named == METRICS_SERVICES_MAX {
                    break;
                }
                if self.told.get(id).is_none_or(|told| told.since.is_none()) {
                    self.name(id);
                    named += 1;
                }
            }
        }
        let mut told = self.gone;
        let mut read = Read { named: Vec::new(), other: services.values().fold(*gone, |sum, totals| sum.and(totals)) };
        for (id, own) in &self.told {
            let Some(totals) = services.get(id) else { continue };
            let now = own.now(totals);
            told = told.and(&now);
            if own.since.is_some() {
                read.named.push((id.clone(), now));
            }
        }
        read.other = read.other.since(&told);
        self.last = services;
        read
    }

    /// Gives a service a series of its own.
    fn name(&mut self, id: &ServiceId) {
        // What it had done when it was last read has been told as part of the others.
        let since = self.last.get(id).copied().unwrap_or_default();
        self.told.entry(id.clone()).or_default().since = Some(since);
    }

    /// Names those that did most since the last choice. One that has its series keeps it until others do twice as much, so that series do not come and go.
    fn choose(&mut self, services: &HashMap<ServiceId, Totals>) {
        let score = |(id, totals): (&ServiceId, &Totals)| {
            let calls = totals.calls().saturating_sub(self.chosen.get(id).copied().unwrap_or_default());
            let is_named = self.told.get(id).is_some_and(|told| told.since.is_some());
            (if is_named { calls.saturating_mul(2).saturating_add(1) } else { calls }, id.clone())
        };
        let mut scores: Vec<_> = services.iter().map(score).collect();
        scores.sort_unstable_by(|one, other| other.cmp(one));
        let (named, others) = scores.split_at(scores.len().min(METRICS_SERVICES_MAX));
        for (_, id) in others {
            if let Some(told) = self.told.get_mut(id) {
                // What it has done since it was last read is told as part of the others.
                told.before = told.now(&self.last.get(id).copied().unwrap_or_default());
                told.since = None;
            }
        }
        for (_, id) in named {
            if self.told.get(id).is_none_or(|told| told.since.is_none()) {
                self.name(id);
            }
        }
    }

    /// A service has been deleted. What it did since it was last read is told as part of the others.
    pub fn forget(&mut self, service: &ServiceId) {
        let last = self.last.remove(service).unwrap_or_default();
        self.chosen.remove(service);
        if let Some(told) = self.told.remove(service) {
            self.gone = self.gone.and(&told.now(&last));
        }
    }
}
