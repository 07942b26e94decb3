//! One host inside the test: runtime, edge and a socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use tovuk_kernel::clock::Clock;
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::limits::{Plan, WorkerLimits};
use tovuk_kernel::outbound::Allowlist;
use tovuk_kernel::project::Kind;
use tovuk_kernel::resource::{self, Grants, Owner};
use tovuk_resources::bindings::{Binding, Bindings};
use tovuk_resources::meters::Bill;
use tovuk_resources::stores::Stores;
use tovuk_runtime::compile::Compiler;
use tovuk_runtime::record::Identity;
use tovuk_runtime::runtime::{Runtime, RuntimeConfig};
use tovuk_runtime::service::Deployment;
use tovuk_server::assets::Assets;
use tovuk_server::edge::routes::{Routes, Site};
use tovuk_server::edge::{Audience, Edge, ListenConfig, Listening};

use crate::client::{Client, Reply};
use crate::guests;
use crate::observed::Observed;

/// How a test's host differs from the default.
pub struct HostConfig {
    /// Instance slots.
    pub slots: u32,
    /// The runtime's settings.
    pub runtime: Box<dyn FnOnce(&mut RuntimeConfig)>,
    /// Whom the edge answers.
    pub audience: Audience,
    /// The listener's settings.
    pub listen: ListenConfig,
    /// The program that compiles components; cargo built it beside the tests.
    pub compiler: PathBuf,
    /// The data of services. None unless a test opens some.
    pub stores: Option<Stores>,
}

impl HostConfig {
    /// A small host that speaks to the public.
    pub fn new(compiler: &str) -> Self {
        Self {
            slots: 64,
            runtime: Box::new(|_| {}),
            audience: Audience::Public,
            listen: ListenConfig::default(),
            compiler: compiler.into(),
            stores: None,
        }
    }
}

/// A service as a test declares it.
pub struct ServiceConfig {
    routes: Vec<String>,
    bindings: Vec<(Option<String>, String, Option<String>)>,
    env: Vec<(String, String)>,
    outbound: Vec<String>,
    limits: WorkerLimits,
    assets: Option<Assets>,
    account: String,
    resources: Vec<(resource::Kind, String, i64)>,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            bindings: Vec::new(),
            env: Vec::new(),
            outbound: Vec::new(),
            limits: WorkerLimits::for_plan(Plan::Pro),
            assets: None,
            account: "account_1".to_owned(),
            resources: Vec::new(),
        }
    }
}

impl ServiceConfig {
    /// Reachable on every path.
    pub fn public(mut self) -> Self {
        self.routes.push("/*".to_owned());
        self
    }

    /// Bound to a service by name.
    pub fn binds(mut self, name: &str, service: &str) -> Self {
        self.bindings.push((Some(name.to_owned()), service.to_owned(), None));
        self
    }

    /// Bound to a service by URL, which the variable receives.
    pub fn binds_url(mut self, env: &str, service: &str) -> Self {
        self.bindings.push((None, service.to_owned(), Some(env.to_owned())));
        self
    }

    /// With a variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// May reach this target.
    pub fn outbound(mut self, pattern: &str) -> Self {
        self.outbound.push(pattern.to_owned());
        self
    }

    /// With this limit.
    pub fn limit(mut self, name: &str, value: u64) -> Self {
        assert!(self.limits.set(name, value), "{name}");
        self
    }

    /// Of this account.
    pub fn account(mut self, account: &str) -> Self {
        self.account = account.to_owned();
        self
    }

    /// With data of this kind, name and number.
    pub fn resource(mut self, kind: resource::Kind, name: &str, number: i64) -> Self {
        self.resources.push((kind, name.to_owned(), number));
        self
    }

    /// With these files.
    pub fn assets(mut self, assets: Assets) -> Self {
        self.assets = Some(assets);
        self
    }
}

/// A host that runs until it is dropped.
pub struct Host {
    /// The runtime.
    pub runtime: Runtime,
    /// The clock that it runs by.
    pub clock: Clock,
    /// What it said.
    pub observed: Observed,
    /// Where it listens.
    pub address: SocketAddr,
    /// Which host names lead where.
    pub routes: Routes,
    edge: Edge,
    listening: Listening,
}

impl Host {
    /// A small host.
    pub async fn start(compiler: &str) -> Self {
        Self::with(HostConfig::new(compiler)).await
    }

    /// A host with these settings.
    pub async fn with(config: HostConfig) -> Self {
        let clock = Clock::advanceable();
        let observed = Observed::default();
        // Compiled code is kept between runs: it is named by its content, so a stale one cannot be taken.
        let mut runtime_config = RuntimeConfig::new(guests::repository().join("target/test-artifacts"));
        runtime_config.engine.slots_max = config.slots;
        (config.runtime)(&mut runtime_config);
        let compiler = Compiler::new(config.compiler, clock.clone());
        let runtime = Runtime::new(runtime_config, compiler, clock.clone(), Arc::new(observed.clone()), config.stores).unwrap();
        let listener = Listening::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Routes::default();
        let edge = Edge::new(runtime.clone(), routes.clone(), config.audience, format!("localhost:{}", address.port()));
        let listening = Listening::serve(listener, edge.clone(), config.listen).unwrap();
        Self { runtime, clock, observed, address, routes, edge, listening }
    }

    /// Adds a service without a deploy.
    pub fn add(&self, name: &str, config: &ServiceConfig) -> ServiceId {
        let id = ServiceId::from(format!("service_{name}"));
        let identity = Identity { id: id.clone(), name: name.into(), slug: name.into(), account: config.account.as_str().into() };
        self.runtime.services().add(identity, &config.limits);
        if !config.routes.is_empty() || config.assets.is_some() {
            let kind = if config.assets.is_some() { Kind::Fullstack } else { Kind::RustWorker };
            let site = Site::new(id.clone(), kind, &config.routes, config.assets.clone());
            self.routes.set(&id, vec![format!("{name}.localhost")], Some(site)).unwrap();
        }
        id
    }

    /// Deploys files as a service without a worker.
    pub fn deploy_files(&self, name: &str, assets: Assets) {
        let id = ServiceId::from(format!("service_{name}"));
        let site = Site::new(id.clone(), Kind::StaticFrontend, &["/*".to_owned()], Some(assets));
        self.routes.set(&id, vec![format!("{name}.localhost")], Some(site)).unwrap();
    }

    /// Deploys a guest of `tests/guests` as a service.
    pub async fn deploy(&self, name: &str, guest: &str, config: impl FnOnce(ServiceConfig) -> ServiceConfig) -> &Self {
        self.deploy_bytes(name, &guests::component(guest), config(ServiceConfig::default())).await.unwrap();
        self
    }

    /// Deploys these bytes as a service.
    pub async fn deploy_bytes(&self, name: &str, wasm: &[u8], config: ServiceConfig) -> Result<(), tovuk_runtime::artifacts::Error> {
        let artifact = self.runtime.artifacts().prepare(wasm).await?;
        let id = self.add(name, &config);
        let bindings: Vec<_> = config
            .bindings
            .into_iter()
            .map(|(name, target, url_env)| Binding { name, target: format!("service_{target}").into(), target_name: target, url_env })
            .collect();
        let bindings = Bindings::new(&bindings);
        let mut env = vec![("TOVUK_SERVICE_ID".to_owned(), id.to_string())];
        env.extend(config.env);
        env.extend_from_slice(bindings.env());
        let outbound = Allowlist::from_iter(config.outbound.iter().map(|pattern| pattern.parse().unwrap()));
        let none = Grants::new(Owner { account: 1, service: 1, plan: Plan::Free });
        let grants = config.resources.iter().fold(none, |grants, (kind, name, number)| grants.with(*kind, name, *number));
        let deployment =
            Deployment { id: "deploy_1".into(), artifact, limits: config.limits, env, bindings, outbound, grants, bill: Bill::default() };
        self.runtime.services().get(&id).unwrap().promote(Arc::new(deployment));
        Ok(())
    }

    /// Serves the same services at another address.
    pub async fn also_listens(&self, config: ListenConfig) -> Listening {
        let listener = Listening::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        Listening::serve(listener, self.edge.clone(), config).unwrap()
    }

    /// Makes a service answer at another host name, and at its own.
    pub fn also_at(&self, hostname: &str, service: &str) {
        let own = format!("{service}.localhost");
        let site = Site::clone(&self.routes.find(&own).unwrap());
        self.routes.set(&site.service.clone(), vec![own, hostname.to_owned()], Some(site)).unwrap();
    }

    /// Stops listening, once running requests have been answered.
    pub async fn stop(self) {
        self.listening.stop().await;
    }

    /// Returns once no guest has memory any more: an instance goes after the last byte of its response.
    pub async fn memory_is_free(&self) {
        let free = async {
            while self.runtime.memory().used_bytes() > 0 {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(30), free).await;
        assert!(waited.is_ok(), "guests still have {} bytes", self.runtime.memory().used_bytes());
    }

    /// A client of this host.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// The beginning of a request to a service.
    pub fn request(&self, service: &str, path: &str) -> http::request::Builder {
        Request::builder().uri(path).header("host", format!("{service}.localhost:{}", self.address.port()))
    }

    /// A GET, whole.
    pub async fn get(&self, service: &str, path: &str) -> Reply {
        self.client().whole(self.request(service, path).body(Full::default()).unwrap()).await
    }

    /// A POST, whole.
    pub async fn post(&self, service: &str, path: &str, body: impl Into<Bytes>) -> Reply {
        self.client().whole(self.request(service, path).method("POST").body(Full::new(body.into())).unwrap()).await
    }
}
