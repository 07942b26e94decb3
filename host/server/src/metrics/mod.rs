//! What the host counts, for operators and for whoever looks at services while they run. The runtime tells of each invocation when it has ended;
//! what it tells is added to the figures of the service, which costs a few additions and waits for nothing. Everything else is read where it is kept when
//! somebody asks: slots, memory, queues, databases.
//!
//! There are two ways out. [`Metrics::top`] has what services did in the last seconds, from two samples that are taken every few seconds. `exposition` is
//! the text that Prometheus reads, in which the number of services is bounded (`export`), because each is some thirty lines there.
//!
//! It keeps nothing on disk: what is metered for bills is counted elsewhere.

mod export;
mod exposition;
mod listener;
mod series;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::ids::{AccountId, ServiceId};
use tovuk_runtime::failure::Failure;
use tovuk_runtime::record::{Identity, Record};

pub use listener::Operations;

use export::Export;
use series::Series;
pub use series::Totals;

/// How often a sample is taken. What services did lately is what they did since the sample before the last.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Samples that are kept.
const SAMPLES: usize = 2;

/// The figures of a host. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    clock: Clock,
    services: DashMap<ServiceId, Arc<Known>>,
    /// What services did that have been deleted.
    gone: Mutex<Totals>,
    samples: Mutex<VecDeque<Sample>>,
    export: Mutex<Export>,
}

/// A service with its figures.
struct Known {
    identity: Identity,
    series: Series,
}

/// What every service had done at a time.
struct Sample {
    /// On the clock's monotonic scale.
    at_ms: u64,
    totals: HashMap<ServiceId, Totals>,
}

/// What a service did lately.
#[derive(Clone, Debug)]
pub struct Lately {
    /// The service.
    pub identity: Identity,
    /// What it did.
    pub totals: Totals,
    /// Within how many seconds.
    pub seconds: f64,
}

impl Lately {
    /// Nothing, of no service.
    pub(crate) fn nothing() -> Self {
        let identity = Identity { id: "".into(), name: "".into(), slug: "".into(), account: "".into() };
        Self { identity, totals: Totals::default(), seconds: 1.0 }
    }

    /// What was done besides, within the same time.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        (self.totals, self.seconds) = (self.totals.and(&other.totals), other.seconds);
        self
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    /// Figures in which nothing was counted. Needs a runtime for the task that takes samples, which ends with the last clone.
    pub fn new(clock: Clock) -> Self {
        let samples = Mutex::new(VecDeque::from([Sample { at_ms: clock.monotonic_ms(), totals: HashMap::new() }]));
        let inner = Arc::new(Inner { clock: clock.clone(), services: DashMap::new(), gone: Mutex::default(), samples, export: Mutex::default() });
        let weak = Arc::downgrade(&inner);
        tokio::spawn(async move {
            loop {
                clock.sleep(SAMPLE_EVERY).await;
                let Some(inner) = weak.upgrade() else { return };
                Self(inner).sample();
            }
        });
        Self(inner)
    }

    /// An invocation has ended.
    pub fn invocation(&self, record: &Record) {
        self.of(&record.target).series.add(record);
    }

    /// A service has turned something away.
    pub fn refused(&self, service: &Identity, _failure: &Failure) {
        self.of(service).series.add_refused();
    }

    /// A service has been deleted: what it did counts, and its name is told no more.
    pub fn forget(&self, service: &ServiceId) {
        // Held for all of it, so that nobody reads between the steps.
        let mut export = locked(&self.0.export);
        if let Some((_, known)) = self.0.services.remove(service) {
            let mut gone = locked(&self.0.gone);
            *gone = gone.and(&known.series.read());
            export.forget(service);
        }
    }

    /// What is told to Prometheus: figures of the busiest services, by slug, and of all others.
    fn export(&self) -> (Vec<(Arc<str>, Totals)>, Totals) {
        let mut export = locked(&self.0.export);
        let services = self.totals();
        let gone = *locked(&self.0.gone);
        let read = export.read(self.0.clock.monotonic_ms(), services, &gone);
        let slug = |id: &ServiceId| self.0.services.get(id).map(|known| known.identity.slug.clone());
        let mut named: Vec<_> = read.named.into_iter().filter_map(|(id, totals)| Some((slug(&id)?, totals))).collect();
        named.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        (named, read.other)
    }

    fn of(&self, identity: &Identity) -> Arc<Known> {
        if let Some(known) = self.0.services.get(&identity.id) {
            return known.clone();
        }
        let known = || Arc::new(Known { identity: identity.clone(), series: Series::default() });
        self.0.services.entry(identity.id.clone()).or_insert_with(known).clone()
    }

    fn totals(&self) -> HashMap<ServiceId, Totals> {
        self.0.services.iter().map(|known| (known.key().clone(), known.series.read())).collect()
    }

    fn sample(&self) {
        let sample = Sample { at_ms: self.0.clock.monotonic_ms(), totals: self.totals() };
        let mut samples = locked(&self.0.samples);
        samples.push_back(sample);
        while samples.len() > SAMPLES {
            samples.pop_front();
        }
    }

    /// What services did lately, those of one account or all, in no order. Those that did nothing are left out.
    pub fn top(&self, account: Option<&AccountId>) -> Vec<Lately> {
        let now_ms = self.0.clock.monotonic_ms();
        let samples = locked(&self.0.samples);
        let Some(earlier) = samples.front() else { return Vec::new() };
        let seconds = now_ms.saturating_sub(earlier.at_ms).max(1) as f64 / 1e3;
        let services = self.0.services.iter().filter(|known| account.is_none_or(|account| known.identity.account == *account));
        let lately = services.map(|known| {
            let before = earlier.totals.get(known.key()).copied().unwrap_or_default();
            Lately { identity: known.identity.clone(), totals: known.series.read().since(&before), seconds }
        });
        lately.filter(|lately| lately.totals.calls() > 0).collect()
    }
}
