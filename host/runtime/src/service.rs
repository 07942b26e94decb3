//! Services as the runtime sees them: who they are, what of them is live, and how many of their requests run.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use dashmap::DashMap;

use tovuk_kernel::ids::{AccountId, DeployId, ServiceId};
use tovuk_kernel::limits::WorkerLimits;
use tovuk_kernel::outbound::Allowlist;
use tovuk_kernel::resource::Grants;
use tovuk_resources::bindings::Bindings;
use tovuk_resources::meters::Bill;

use crate::artifacts::Artifact;
use crate::places::{Places, ServicePlaces};
use crate::record::Identity;
use crate::slots::{AccountSlots, Slots};
use crate::turns::backlog::Backlog;

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
    places: ServicePlaces,
    slots: AccountSlots,
    backlog: Arc<Backlog>,
}

/// What the services of one account share.
#[derive(Clone)]
struct Account {
    places: Arc<Places>,
    slots: AccountSlots,
    backlog: Arc<Backlog>,
}

impl Service {
    fn new(identity: Identity, limits: &WorkerLimits, Account { places, slots, backlog }: Account) -> Self {
        let places = places.service(concurrency(limits));
        Self { identity: Arc::new(identity), live: ArcSwapOption::empty(), places, slots, backlog }
    }

    /// The live deploy, if there is one.
    pub fn live(&self) -> Option<Arc<Deployment>> {
        self.live.load_full()
    }

    /// Makes a deploy the live one. Invocations that run finish on the one they began with.
    pub fn promote(&self, deployment: Arc<Deployment>) {
        let concurrency = concurrency(&deployment.limits);
        self.live.store(Some(deployment));
        self.places.set_max(concurrency);
    }

    /// Takes the service off the air.
    pub fn retire(&self) {
        self.live.store(None);
    }

    /// How many of its requests from outside run now, and how many of its account wait for a place.
    pub fn load(&self) -> (u64, usize) {
        self.places.load()
    }

    /// Its places among the requests that run.
    pub(crate) fn places(&self) -> &ServicePlaces {
        &self.places
    }

    /// What its account has begun.
    pub(crate) fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// The slots of its account.
    pub(crate) fn slots(&self) -> &AccountSlots {
        &self.slots
    }
}

fn concurrency(limits: &WorkerLimits) -> u64 {
    limits.concurrency.max(1)
}

/// The services of a host, by id.
pub struct Services {
    slots: Slots,
    account_concurrency: u32,
    account_waiting_max: usize,
    by_id: DashMap<ServiceId, Arc<Service>>,
    accounts: DashMap<AccountId, Account>,
}

impl Services {
    /// None yet. Their chains will have these slots; of each account so many requests will run, and so many wait for that.
    pub(crate) fn new(slots: Slots, account_concurrency: u32, account_waiting_max: usize) -> Self {
        Self { slots, account_concurrency, account_waiting_max, by_id: DashMap::new(), accounts: DashMap::new() }
    }

    /// Adds a service without a live deploy, or returns the one that is there.
    pub fn add(&self, identity: Identity, limits: &WorkerLimits) -> Arc<Service> {
        let account = self.account(&identity.account);
        self.by_id.entry(identity.id.clone()).or_insert_with(|| Arc::new(Service::new(identity, limits, account))).clone()
    }

    /// A service that no table has, for asking a version before it is promoted. It has places of its own, so that an account whose requests are many can
    /// still deploy; its chain is one of its account's.
    pub fn alone(&self, identity: Identity, limits: &WorkerLimits) -> Arc<Service> {
        let account = Account { places: self.account_places(), ..self.account(&identity.account) };
        Arc::new(Service::new(identity, limits, account))
    }

    fn account_places(&self) -> Arc<Places> {
        Places::new(self.account_concurrency, self.account_waiting_max)
    }

    fn account(&self, id: &AccountId) -> Account {
        let new = || Account { places: self.account_places(), slots: self.slots.account(), backlog: Arc::default() };
        self.accounts.entry(id.clone()).or_insert_with(new).clone()
    }

    /// The service with this id.
    pub fn get(&self, id: &ServiceId) -> Option<Arc<Service>> {
        self.by_id.get(id).map(|service| service.clone())
    }

    /// How many requests wait because as many of their service or of its account run as may.
    pub fn waiting(&self) -> usize {
        self.accounts.iter().map(|account| account.places.waiting()).sum()
    }

    /// Removes a service. What of it runs ends as it would.
    pub fn remove(&self, id: &ServiceId) {
        if let Some((_, service)) = self.by_id.remove(id) {
            service.retire();
        }
    }
}
