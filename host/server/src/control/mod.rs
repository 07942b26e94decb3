//! The control API: who owns what, and everything that people and their programs can ask of the host.
//!
//! `store/` has the tables, `operations/` what can be asked, one file for each subject; `api` is the way from a request to an operation. Nothing here
//! knows sockets, and nothing outside knows the tables.

pub mod api;
mod base64;
mod bodies;
mod caller;
pub(crate) mod data;
mod decode;
pub mod handler;
pub mod operations;
mod pages;
pub mod reference;
mod refusal;
pub(crate) mod store;
pub(crate) mod tokens;
pub mod urls;
pub mod vault;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashSet;
use http::{Request, Response};
use rusqlite::Connection;
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::task::TaskTracker;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::pricing::Pricing;
use tovuk_resources::cron::Crons;
use tovuk_resources::database::{self, Database, Options};
use tovuk_resources::kv::Kv;
use tovuk_resources::meters::{Bill, Meters};
use tovuk_resources::objects::{Links, Objects, Signer};
use tovuk_resources::queue::Queues;
use tovuk_resources::sqlite::Sqlites;
use tovuk_resources::state::State;
use tovuk_resources::stores::Stores;
use tovuk_runtime::body::Body;
use tovuk_runtime::runtime::Runtime;

pub use self::caller::{Caller, Credential, Scope};
pub use self::refusal::Refusal;
use self::store::resources::Removal;
use self::store::services::Service;
use self::tokens::Tokens;
use self::urls::Urls;
use self::vault::Vault;
use crate::deliver::Deliveries;
use crate::deploy::builds::Builds;
use crate::deploy::live::Live;
use crate::domains::{DnsRecord, Resolver, record_for};
use crate::edge::routes::Routes;
use crate::listen::{Answer, Peer};
use crate::logs::{Line, Logs};
use crate::metrics::Metrics;
use crate::observed::Observed;
use crate::tls::acme::Acme;
use crate::traces::Traces;

/// How a control API is set up.
pub struct ControlConfig {
    /// Where the host keeps its data.
    pub data: PathBuf,
    /// What URLs that are given out begin with.
    pub urls: Urls,
    /// The name of this node.
    pub node: String,
    /// Whether it is a project's own host on its author's machine.
    pub is_development: bool,
    /// How builds run.
    pub builds: crate::deploy::builds::BuildConfig,
    /// Who is asked for DNS records.
    pub resolver: Resolver,
    /// What usage costs.
    pub pricing: Arc<Pricing>,
    /// Who orders certificates of custom domains, if anybody does.
    pub acme: Option<Acme>,
}

/// Why a host could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its database.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// Its key.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The key is not the one that its secrets were sealed with.
    #[error("the key is not the one that the secrets in {0} were sealed with: start with the key file or TOVUK_SECRET_KEY of that time")]
    WrongKey(PathBuf),
    /// An operation that is part of starting.
    #[error("{0}")]
    Refused(String),
}

impl From<Refusal> for OpenError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.to_string())
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The control API of one host. Clones are the same one.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    db: Database,
    vault: Vault,
    runtime: Runtime,
    tokens: Tokens,
    live: Live,
    builds: Builds,
    deliveries: Deliveries,
    stores: Stores,
    observed: Observed,
    config: ControlConfig,
    draining: AtomicBool,
    bodies: bodies::Bodies,
    /// Operations that change something and have begun.
    operations: TaskTracker,
    air: Mutex<()>,
    records: Records,
    /// Data that somebody is removing.
    removing: DashSet<Removal>,
    pages: pages::Pages,
}

/// The DNS records that custom domains need.
#[derive(Clone)]
pub(crate) struct Records {
    key: Arc<str>,
    public_domain: Arc<str>,
}

impl Records {
    /// The record of a service's domain.
    pub fn of(&self, service: i64, hostname: &str) -> DnsRecord {
        record_for(&format!("service_{service}").into(), hostname, self.key.as_bytes(), &self.public_domain)
    }
}

impl Control {
    /// Opens the control database and puts on the air what was live.
    pub async fn open(
        config: ControlConfig,
        vault: Vault,
        runtime: Runtime,
        stores: Stores,
        routes: Routes,
        observed: Observed,
    ) -> Result<Self, OpenError> {
        let path = config.data.join("control.db");
        let db = Database::open(&path, store::MIGRATIONS, Options::new(*b"tvkc"))?;
        check_key(&db, &vault, &path).await?;
        let tokens = Tokens::load(&db).await?;
        let live =
            Live::new(runtime.clone(), routes, vault.clone(), observed.logs.clone(), config.urls.clone(), config.acme.clone(), stores.meters.clone());
        let builds = Builds::new(config.builds.clone());
        let signer = Signer::new(&vault.derive_key(&[b"object urls"]));
        stores.objects.set_links(Links::new(config.urls.of_host(&config.urls.storage_host()), signer));
        let records = Records { key: vault.derive(&[b"domains"]).into(), public_domain: config.urls.public_domain.as_str().into() };
        let control = Self(Arc::new(Inner {
            records,
            db,
            vault,
            runtime,
            tokens,
            live,
            builds,
            deliveries: Deliveries::new(),
            stores,
            observed,
            config,
            draining: AtomicBool::new(false),
            bodies: bodies::Bodies::new(),
            operations: TaskTracker::new(),
            air: Mutex::new(()),
            removing: DashSet::new(),
            pages: pages::Pages::default(),
        }));
        control.settle_data().await?;
        crate::deploy::boot::put_on_air(&control).await?;
        control.remove_data().await;
        Ok(control)
    }

    /// Runs a job that reads.
    pub(crate) async fn read<T, F>(&self, job: F) -> Result<T, Refusal>
    where
        F: FnOnce(&Connection) -> Result<T, Refusal> + Send + 'static,
        T: Send + 'static,
    {
        self.0.db.read(job).await
    }

    /// Runs a job that writes, whole or not at all; on disk when this returns.
    pub(crate) async fn write<T, F>(&self, job: F) -> Result<T, Refusal>
    where
        F: FnOnce(&Connection) -> Result<T, Refusal> + Send + 'static,
        T: Send + 'static,
    {
        self.0.db.write(|transaction| job(transaction)).await
    }

    /// The account's service of this id or name.
    pub(crate) async fn service(&self, caller: &Caller, id_or_name: &str) -> Result<Service, Refusal> {
        let (caller, name) = (caller.clone(), id_or_name.to_owned());
        self.read(move |conn| service_for(conn, &caller, &name)).await
    }

    pub(crate) fn now_ms(&self) -> i64 {
        i64::try_from(self.clock().now_unix_ms()).unwrap_or(i64::MAX)
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.0.runtime.clock()
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.0.vault
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    pub(crate) fn live(&self) -> &Live {
        &self.0.live
    }

    pub(crate) fn builds(&self) -> &Builds {
        &self.0.builds
    }

    pub(crate) fn logs(&self) -> &Logs {
        &self.0.observed.logs
    }

    /// Writes a line of the host itself into the log of a service, and shows it to whoever watches.
    pub(crate) fn say(&self, line: Line) {
        let service = self.runtime().services().get(&line.service);
        self.0.observed.say(line, service.as_deref().map(|service| &*service.identity));
    }

    pub(crate) fn traces(&self) -> &Traces {
        &self.0.observed.traces
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.observed.metrics
    }

    pub(crate) fn config(&self) -> &ControlConfig {
        &self.0.config
    }

    fn removing(&self) -> &DashSet<Removal> {
        &self.0.removing
    }

    fn pages(&self) -> &pages::Pages {
        &self.0.pages
    }

    pub(crate) fn records(&self) -> Records {
        self.0.records.clone()
    }

    pub(crate) fn resolver(&self) -> &Resolver {
        &self.0.config.resolver
    }

    /// The right to change what is on the air. Whoever changes rows that say so holds it from before the commit until what serves has followed, so that
    /// the last commit is what serves: a build cannot put a service back that was deleted or suspended meanwhile, and a host name that moves from one
    /// service to another is free before it is taken. It is held for one commit, never while something is built.
    pub(crate) async fn air(&self) -> MutexGuard<'_, ()> {
        self.0.air.lock().await
    }

    /// What is brought to workers.
    pub(crate) fn deliveries(&self) -> &Deliveries {
        &self.0.deliveries
    }

    /// Usage and caps.
    pub(crate) fn meters(&self) -> &Meters {
        &self.0.stores.meters
    }

    /// Where what is done for a service is charged.
    pub(crate) fn bill(&self, account: i64, service: i64) -> Bill {
        self.meters().bill(account, service)
    }

    /// KV.
    pub(crate) fn kv(&self) -> &Kv {
        &self.0.stores.kv
    }

    /// Tenants' databases.
    pub(crate) fn sqlite(&self) -> &Sqlites {
        &self.0.stores.sqlite
    }

    /// Object storage.
    pub(crate) fn objects(&self) -> &Objects {
        &self.0.stores.objects
    }

    /// Queues.
    pub(crate) fn queues(&self) -> &Queues {
        &self.0.stores.queues
    }

    /// Cron triggers.
    pub(crate) fn crons(&self) -> &Crons {
        &self.0.stores.crons
    }

    /// State.
    pub(crate) fn state(&self) -> &State {
        &self.0.stores.state
    }

    /// The account of a service whose objects are served: it is there, and its account is not suspended.
    pub(crate) async fn serves_objects_of(&self, service: i64) -> Result<Option<i64>, Refusal> {
        let service = self.read(move |conn| Ok(store::services::get(conn, service)?)).await?;
        Ok(service.map(|service| service.account_id).filter(|account| !self.tokens().is_suspended(*account)))
    }

    /// What URLs that are given out begin with.
    pub fn urls(&self) -> &Urls {
        &self.0.config.urls
    }

    /// Whether the node takes no new deploys and finishes what runs.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Says whether it does.
    pub fn set_draining(&self, draining: bool) {
        self.0.draining.store(draining, Ordering::Release);
    }

    /// The host is about to end: it takes nothing new, and migrations do not go on.
    pub fn begin_to_stop(&self) {
        self.set_draining(true);
        self.0.stores.sqlite.stop_migrations();
        self.0.deliveries.begin_to_stop();
    }

    /// Returns once everything that was being brought to workers has ended, or has to.
    pub async fn drain_deliveries(&self, timeout: Duration) {
        self.clock().timeout(timeout, self.0.deliveries.finished()).await;
    }

    /// Returns once every line and every span that was told until now can be read.
    pub async fn flush_logs(&self) {
        self.0.observed.logs.flush().await;
        self.0.observed.traces.flush().await;
    }

    /// Ends builds where they can be begun again, and closes the databases.
    pub async fn close(&self) {
        self.begin_to_stop();
        self.0.operations.close();
        self.0.operations.wait().await;
        self.0.builds.stop().await;
        self.0.deliveries.stop().await;
        self.0.observed.logs.close().await;
        self.0.observed.traces.close().await;
        self.0.stores.close().await;
        if let Err(error) = self.0.db.close().await {
            tracing::warn!("the control database was not closed cleanly: {error}");
        }
    }
}

impl Answer for Control {
    async fn answer(&self, request: Request<Body>, peer: &Peer) -> Response<Body> {
        self.respond(request, Some(peer.address())).await
    }

    fn clock(&self) -> &Clock {
        Self::clock(self)
    }
}

/// The account's service of this id or name, within a transaction.
pub(crate) fn service_of(conn: &Connection, account: i64, id_or_name: &str) -> Result<Service, Refusal> {
    store::services::find(conn, account, id_or_name)?.ok_or_else(|| Refusal::no_service(id_or_name))
}

/// The same for a caller that may be a worker, for whom there is its own service only.
pub(crate) fn service_for(conn: &Connection, caller: &Caller, id_or_name: &str) -> Result<Service, Refusal> {
    let service = service_of(conn, caller.account_number(), id_or_name)?;
    match &caller.credential {
        Credential::Worker(own) if *own != service.service_id() => Err(Refusal::no_service(id_or_name)),
        _ => Ok(service),
    }
}

/// Compares the key with the one that the database was begun with.
async fn check_key(db: &Database, vault: &Vault, path: &std::path::Path) -> Result<(), OpenError> {
    const CHECK: &str = "vault check";
    let sealed = vault.seal(CHECK, CHECK.as_bytes())?;
    let stored = db
        .write(move |tx| {
            tx.execute("insert into meta (key, value) values ('vault_check', ?1) on conflict (key) do nothing", [sealed])?;
            Ok::<Vec<u8>, OpenError>(tx.query_row("select value from meta where key = 'vault_check'", [], |row| row.get(0))?)
        })
        .await?;
    vault.open(CHECK, &stored).map(drop).ok_or_else(|| OpenError::WrongKey(path.to_owned()))
}
