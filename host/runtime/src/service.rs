//! Services as the runtime sees them: who they are, what of them is live, and how many of their requests run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use tovuk_kernel::ids::{AccountId, DeployId, ServiceId};
use tovuk_kernel::limits::{ACCOUNT_CONCURRENCY, WorkerLimits};
use tovuk_kernel::outbound::Allowlist;
use tovuk_kernel::resource::Grants;
use tovuk_resources::bindings::Bindings;
use tovuk_resources::meters::Bill;

use crate::artifacts::Artifact;
use crate::record::Identity;

/// One version of a service, ready to run.
pub struct Deployment {
    /// Which deploy it came from.
    pub id: DeployId,
    /// Its component.
    pub artifact: Artifact,
    /// The limits that apply to it.
    pub limits: WorkerLimits,
    /// The environment its worker sees, complete.
    pub env: Vec<(String, String)>,
    /// The services it may call.
    pub bindings: Bindings,
    /// The hosts it may call.
    pub outbound: Allowlist,
    /// The data it may reach.
    pub grants: Grants,
    /// Where what it does is charged.
    pub bill: Bill,
}

/// A service of this host.
pub struct Service {
    /// Its names.
    pub identity: Arc<Identity>,
    live: ArcSwapOption<Deployment>,
    /// How many permits `running` has, in use or not.
    concurrency: AtomicUsize,
    running: Arc<Semaphore>,
    account: Arc<Semaphore>,
}

fn permits(limits: &WorkerLimits) -> usize {
    usize::try_from(limits.concurrency).unwrap_or(Semaphore::MAX_PERMITS).clamp(1, Semaphore::MAX_PERMITS)
}

impl Service {
    /// A service that no table has, for asking a version before it is promoted.
    pub fn alone(identity: Identity, limits: &WorkerLimits) -> Arc<Self> {
        Arc::new(Self::new(identity, permits(limits), Arc::new(Semaphore::new(ACCOUNT_CONCURRENCY as usize))))
    }

    fn new(identity: Identity, concurrency: usize, account: Arc<Semaphore>) -> Self {
        Self {
            identity: Arc::new(identity),
            live: ArcSwapOption::empty(),
            concurrency: AtomicUsize::new(concurrency),
            running: Arc::new(Semaphore::new(concurrency)),
            account,
        }
    }

    /// The live deploy, if there is one.
    pub fn live(&self) -> Option<Arc<Deployment>> {
        self.live.load_full()
    }

    /// Makes a deploy the live one. Invocations that run finish on the one they began with.
    pub fn promote(&self, deployment: Arc<Deployment>) {
        let wanted = permits(&deployment.limits);
        let before = self.concurrency.swap(wanted, Ordering::AcqRel);
        self.live.store(Some(deployment));
        match wanted.checked_sub(before) {
            Some(more) => self.running.add_permits(more),
            None => {
                // Those in use cannot be taken back; the rest follows as they are returned.
                let fewer = before - wanted;
                let running = self.running.clone();
                tokio::spawn(async move {
                    if let Ok(permits) = running.acquire_many_owned(u32::try_from(fewer).unwrap_or(u32::MAX)).await {
                        permits.forget();
                    }
                });
            }
        }
    }

    /// Takes the service off the air.
    pub fn retire(&self) {
        self.live.store(None);
    }

    /// A place among the requests that run, of the service and of its account, if both have one.
    pub(crate) fn try_enter(&self) -> Option<Place> {
        let service = self.running.clone().try_acquire_owned().ok()?;
        let account = self.account.clone().try_acquire_owned().ok()?;
        Some(Place { _service: service, _account: account })
    }

    /// The same, waiting for both.
    async fn enter(&self) -> Option<Place> {
        let service = self.running.clone().acquire_owned().await.ok()?;
        let account = self.account.clone().acquire_owned().await.ok()?;
        Some(Place { _service: service, _account: account })
    }
}

/// Held by a request from outside while it runs.
pub(crate) struct Place {
    _service: OwnedSemaphorePermit,
    _account: OwnedSemaphorePermit,
}

/// The services of a host, by id.
#[derive(Default)]
pub struct Services {
    by_id: DashMap<ServiceId, Arc<Service>>,
    accounts: DashMap<AccountId, Arc<Semaphore>>,
    /// Requests from outside that wait for a place.
    waiting: AtomicUsize,
}

/// A request that is counted among those that wait for a place.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Services {
    /// Adds a service without a live deploy, or returns the one that is there.
    pub fn add(&self, identity: Identity, limits: &WorkerLimits) -> Arc<Service> {
        let account = self.accounts.entry(identity.account.clone()).or_insert_with(|| Arc::new(Semaphore::new(ACCOUNT_CONCURRENCY as usize))).clone();
        let concurrency = permits(limits);
        self.by_id.entry(identity.id.clone()).or_insert_with(|| Arc::new(Service::new(identity, concurrency, account))).clone()
    }

    /// The service with this id.
    pub fn get(&self, id: &ServiceId) -> Option<Arc<Service>> {
        self.by_id.get(id).map(|service| service.clone())
    }

    /// How many requests wait because as many of their service or of its account run as may.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits for a place of a service.
    pub(crate) async fn enter(&self, service: &Service) -> Option<Place> {
        let _waiting = Waiting::new(&self.waiting);
        service.enter().await
    }

    /// Removes a service. What of it runs ends as it would.
    pub fn remove(&self, id: &ServiceId) {
        if let Some((_, service)) = self.by_id.remove(id) {
            service.retire();
        }
    }
}
