//! What is on the air: from rows to a deployment that runs and the addresses where it answers.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dashmap::DashMap;
use rusqlite::Connection;
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::limits::{Plan, WorkerLimits};
use tovuk_kernel::outbound::Allowlist;
use tovuk_kernel::project;
use tovuk_kernel::resource::{Grants, Kind, Owner};
use tovuk_resources::bindings::{Binding, Bindings};
use tovuk_resources::meters::Meters;
use tovuk_runtime::artifacts::Artifact;
use tovuk_runtime::record::Identity;
use tovuk_runtime::runtime::Runtime;
use tovuk_runtime::service::{self, Deployment};

use super::accept::{Declared, kept};
use crate::assets::{AssetStore, AssetStoreConfig, Assets};
use crate::control::operations::env::context;
use crate::control::store::deploys::Deploy;
use crate::control::store::resources::{self, Resource};
use crate::control::store::services::Service;
use crate::control::store::{accounts, bindings, deploys, domains, env, services};
use crate::control::tokens::RUNTIME_TOKEN_PREFIX;
use crate::control::urls::Urls;
use crate::control::vault::Vault;
use crate::control::{Control, Refusal};
use crate::deploy::Air;
use crate::edge::routes::{Routes, Site};
use crate::logs::Logs;
use crate::tls::acme::Acme;

/// What serves.
pub(crate) struct Live {
    runtime: Runtime,
    routes: Routes,
    vault: Vault,
    logs: Logs,
    urls: Urls,
    files: AssetStore,
    acme: Option<Acme>,
    meters: Meters,
    locals: DashMap<i64, Local>,
    /// What is kept out of each service's log.
    hidden: Mutex<HashMap<ServiceId, Vec<Hidden>>>,
}

/// What one deployment was given and must not be read in its log, for as long as it runs.
struct Hidden {
    deployment: Weak<Deployment>,
    values: Vec<(String, String)>,
}

/// What a service that its author develops on this machine has beside its rows: it is theirs, and may change under it.
#[derive(Clone, Default)]
pub(crate) struct Local {
    /// The folder of static files, served as it is at each moment.
    pub assets: Option<PathBuf>,
    /// Secrets that are stored nowhere here. They stand before stored ones of the same name.
    pub secrets: Vec<(String, String)>,
}

/// All that the database says of one version of a service.
#[derive(Clone)]
pub(crate) struct Version {
    pub service: Service,
    pub suspended: bool,
    pub plan: Plan,
    pub deploy: Deploy,
    pub declared: Declared,
    bindings: Vec<bindings::Binding>,
    resources: Vec<Resource>,
    sealed: Vec<(String, Vec<u8>)>,
    domains: Vec<String>,
}

impl Version {
    /// This deploy with what its service has now.
    pub fn of(conn: &Connection, deploy: Deploy) -> Result<Self, Refusal> {
        let service = services::get(conn, deploy.service_id)?.ok_or_else(|| Refusal::no_service(&format!("service_{}", deploy.service_id)))?;
        let account = accounts::get(conn, service.account_id)?.ok_or_else(|| Refusal::internal("a service without an account"))?;
        let domains = domains::list(conn, service.id)?.into_iter().filter(|domain| domain.verified_ms.is_some()).map(|domain| domain.hostname);
        Ok(Self {
            suspended: account.suspended,
            plan: account.plan,
            declared: kept(&deploy.config)?,
            bindings: bindings::list(conn, service.id)?,
            resources: Kind::ALL.into_iter().map(|kind| resources::list(conn, service.id, kind)).collect::<Result<Vec<_>, _>>()?.concat(),
            sealed: env::sealed(conn, service.id)?,
            domains: domains.collect(),
            deploy,
            service,
        })
    }

    /// What its worker may reach.
    fn grants(&self) -> Grants {
        let owner = Owner { account: self.service.account_id, service: self.service.id, plan: self.plan };
        self.resources.iter().fold(Grants::new(owner), |grants, resource| grants.with(resource.kind, &resource.name, resource.number))
    }

    /// The live deploy of a service, if it has one.
    pub fn live(conn: &Connection, service: i64) -> Result<Option<Self>, Refusal> {
        let live = services::get(conn, service)?.and_then(|service| service.live_deploy_id);
        match live {
            Some(deploy) => deploys::get(conn, deploy)?.map(|deploy| Self::of(conn, deploy)).transpose(),
            None => Ok(None),
        }
    }
}

/// A version that can be put on the air.
pub(crate) struct Ready {
    version: Version,
    deployment: Option<Arc<Deployment>>,
    token: String,
    assets: Option<Assets>,
    secrets: Vec<(String, String)>,
}

impl Ready {
    /// A service with nothing but this version, known to nobody else: for asking it before it is promoted.
    pub fn alone(&self, services: &service::Services) -> Option<Arc<service::Service>> {
        let deployment = self.deployment.clone()?;
        let alone = services.alone(identity(&self.version.service), &deployment.limits);
        alone.promote(deployment);
        Some(alone)
    }
}

fn identity(service: &Service) -> Identity {
    Identity { id: service.service_id(), name: service.name.as_str().into(), slug: service.slug.as_str().into(), account: service.account() }
}

impl Live {
    pub fn new(runtime: Runtime, routes: Routes, vault: Vault, logs: Logs, urls: Urls, acme: Option<Acme>, meters: Meters) -> Self {
        Self {
            runtime,
            routes,
            vault,
            logs,
            urls,
            files: AssetStore::new(AssetStoreConfig::default()),
            acme,
            meters,
            locals: DashMap::new(),
            hidden: Mutex::default(),
        }
    }

    /// Makes a service known to the runtime, so that others can be bound to it before it has a deploy.
    pub fn register(&self, service: &Service) -> Arc<service::Service> {
        self.runtime.services().add(identity(service), &WorkerLimits::for_plan(Plan::Free))
    }

    /// Loads what a version needs.
    pub fn ready(&self, control: &Control, version: Version) -> Result<Ready, Refusal> {
        let local = self.local(version.service.id);
        self.ready_with(control, version, local)
    }

    /// The same with what its author has beside the rows.
    pub fn ready_with(&self, control: &Control, version: Version, local: Option<Local>) -> Result<Ready, Refusal> {
        let artifact = match version.deploy.artifact.as_deref() {
            Some(id) => Some(self.runtime.artifacts().stored(id).map_err(Refusal::internal)?),
            None => None,
        };
        let assets = version.deploy.assets.as_deref().map(|digest| super::uploads::assets_folder(&control.config().data, digest));
        self.assemble_with(version, artifact, assets, local)
    }

    /// Puts together a version of what a build has left.
    pub fn assemble(&self, version: Version, artifact: Option<Artifact>, assets: Option<PathBuf>) -> Result<Ready, Refusal> {
        let local = self.local(version.service.id);
        self.assemble_with(version, artifact, assets, local)
    }

    /// The same with what its author has beside the rows.
    pub fn assemble_with(
        &self,
        mut version: Version,
        artifact: Option<Artifact>,
        assets: Option<PathBuf>,
        local: Option<Local>,
    ) -> Result<Ready, Refusal> {
        let mut secrets = self.open_secrets(&version)?;
        let mut assets = assets.map(|folder| self.files.deployed(folder));
        if let Some(local) = local {
            secrets.retain(|(name, _)| local.secrets.iter().all(|(other, _)| other != name));
            secrets.extend(local.secrets);
            assets = assets.or_else(|| local.assets.map(Assets::live));
            // A target that the project no longer has is kept with its data, and is no target.
            version.bindings.retain(|binding| self.runtime.services().get(&format!("service_{}", binding.target_id).into()).is_some());
        }
        let token = format!(
            "{RUNTIME_TOKEN_PREFIX}{}",
            self.vault.derive(&[b"runtime token", &version.deploy.id.to_be_bytes(), &version.deploy.token_nonce])
        );
        let deployment = artifact.map(|artifact| {
            let table = Bindings::new(&version.bindings.iter().map(resolved).collect::<Vec<_>>());
            let patterns: Vec<_> = version.declared.service.outbound.iter().filter_map(|pattern| pattern.parse().ok()).collect();
            Arc::new(Deployment {
                id: format!("deploy_{}", version.deploy.id).into(),
                artifact,
                limits: limits(version.plan, &version.declared.service),
                env: self.environment(&version, &table, &secrets, &token),
                bindings: table,
                outbound: Allowlist::from(patterns),
                grants: version.grants(),
                bill: self.meters.bill(version.service.account_id, version.service.id),
            })
        });
        Ok(Ready { version, deployment, token, assets, secrets })
    }

    fn open_secrets(&self, version: &Version) -> Result<Vec<(String, String)>, Refusal> {
        let open = |(name, sealed): &(String, Vec<u8>)| {
            let value = self.vault.open(&context(version.service.id, name), sealed).and_then(|value| String::from_utf8(value).ok());
            let value = value.ok_or_else(|| Refusal::internal(format!("the secret {name} of service_{} does not open", version.service.id)))?;
            Ok((name.clone(), value))
        };
        version.sealed.iter().map(open).collect()
    }

    /// What a worker's environment says: the host's own variables, then secrets, then URLs of bindings.
    fn environment(&self, version: &Version, bindings: &Bindings, secrets: &[(String, String)], token: &str) -> Vec<(String, String)> {
        let service = &version.service;
        let own = [
            ("TOVUK_SERVICE_ID", service.service_id().to_string()),
            ("TOVUK_SERVICE_SLUG", service.slug.clone()),
            ("TOVUK_SERVICE_PLAN", version.plan.as_str().to_owned()),
            ("TOVUK_API_BASE_URL", self.urls.api.clone()),
            ("TOVUK_RUNTIME_TOKEN", token.to_owned()),
            ("TOVUK_BINDINGS_VERSION", "1".to_owned()),
        ];
        let (ids, urls): (Vec<_>, Vec<_>) = bindings.env().iter().cloned().partition(|(name, _)| name.starts_with("TOVUK_"));
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        let data = version.resources.iter().map(|resource| (resource.kind.variable(&resource.name), resource.id()));
        own.chain(ids).chain(data).chain(secrets.iter().cloned()).chain(urls).collect()
    }

    /// Puts a version on the air. Requests that run finish on what they began with.
    pub fn put(&self, control: &Control, ready: Ready) {
        self.conceal(&ready);
        let Ready { version, deployment, token, assets, .. } = ready;
        let service = &version.service;
        let running = self.register(service);
        if version.suspended {
            return self.hide(service);
        }
        let has_worker = deployment.is_some();
        if let Some(deployment) = deployment {
            control.tokens().insert_worker(&token, running.identity.id.clone(), running.identity.account.clone(), &deployment);
            running.promote(deployment);
        }
        let routes = &version.declared.service.routes;
        let hosts = self.hosts(service, version.domains.clone());
        let public = !routes.is_empty() || assets.is_some();
        let id = &running.identity.id;
        let site = public.then(|| Site::new(id.clone(), version.declared.service.kind(), routes, assets));
        if let Err(taken) = self.routes.set(id, hosts, site) {
            tracing::error!("{id} cannot have all of its host names: {taken}");
        }
        // The worker goes after the last route to it, so that no request comes between and finds neither worker nor files.
        if !has_worker {
            running.retire();
        }
        control.deliveries().promoted();
        self.want_certificates(&version.domains);
    }

    /// Makes these verified domains, and no others, lead to what a service has on the air. What runs is not touched: it keeps the secrets and bindings
    /// that it began with.
    pub fn set_domains(&self, _air: &Air<'_>, service: &Service, domains: Vec<String>) {
        self.want_certificates(&domains);
        let id = service.service_id();
        if let Err(taken) = self.routes.set_hosts(&id, self.hosts(service, domains)) {
            tracing::error!("{id} cannot have all of its host names: {taken}");
        }
    }

    /// Every host name of a service.
    fn hosts(&self, service: &Service, domains: Vec<String>) -> Vec<String> {
        std::iter::once(self.urls.host(&service.slug)).chain(domains).collect()
    }

    /// A name that was verified is a host name; an order that fails is tried again by itself.
    fn want_certificates(&self, domains: &[String]) {
        for domain in domains {
            if let Some(Err(error)) = self.acme.as_ref().map(|acme| acme.want(domain)) {
                tracing::warn!("no certificate for {domain}: {error}");
            }
        }
    }

    /// Keeps what a version was given out of its service's log, beside what those that still run were given.
    pub fn conceal(&self, ready: &Ready) {
        let Some(deployment) = &ready.deployment else { return };
        let id = ready.version.service.service_id();
        let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        let of_service = hidden.entry(id.clone()).or_default();
        of_service.retain(|earlier| earlier.deployment.strong_count() > 0);
        let token = ("TOVUK_RUNTIME_TOKEN".to_owned(), ready.token.clone());
        let values = ready.secrets.iter().cloned().chain([token]).collect();
        of_service.push(Hidden { deployment: Arc::downgrade(deployment), values });
        let all: BTreeSet<_> = of_service.iter().flat_map(|hidden| &hidden.values).map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if let Err(error) = self.logs.sink().set_secrets(&id, all) {
            tracing::error!("the secrets of {id} cannot be hidden in its log: {error}");
        }
    }

    /// Takes a service's addresses away, for as long as its account is suspended.
    pub fn hide(&self, service: &Service) {
        self.routes.remove(&service.service_id());
        if let Some(running) = self.runtime.services().get(&service.service_id()) {
            running.retire();
        }
    }

    /// No certificate is needed for this host name any more.
    pub fn forget_domain(&self, hostname: &str) {
        if let Some(acme) = &self.acme {
            acme.forget(hostname);
        }
    }

    /// Says at the address of a service that has no deploy yet that it will be there.
    pub fn announce(&self, service: &Service, declared: &project::Service) {
        let id = service.service_id();
        let public = declared.is_public() || declared.kind().has_assets();
        let site = public.then(|| Site::new(id.clone(), declared.kind(), &declared.routes, None));
        if let Err(taken) = self.routes.set(&id, vec![self.urls.host(&service.slug)], site) {
            tracing::error!("{id} cannot have its host name: {taken}");
        }
    }

    /// What the author of a service has given for it, while it is on the air.
    pub fn local(&self, service: i64) -> Option<Local> {
        self.locals.get(&service).map(|local| local.clone())
    }

    /// Remembers it.
    pub fn set_local(&self, service: i64, local: Local) {
        self.locals.insert(service, local);
    }

    /// Forgets a service.
    pub fn remove(&self, service: &Service) {
        self.locals.remove(&service.id);
        self.routes.remove(&service.service_id());
        self.runtime.services().remove(&service.service_id());
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner).remove(&service.service_id());
    }
}

fn resolved(binding: &bindings::Binding) -> Binding {
    Binding {
        name: Some(binding.name.clone()),
        target: format!("service_{}", binding.target_id).into(),
        target_name: binding.target_name.clone(),
        url_env: binding.url_env.clone(),
    }
}

/// The limits of a service under a plan.
pub(crate) fn limits(plan: Plan, service: &project::Service) -> WorkerLimits {
    let mut limits = WorkerLimits::for_plan(plan);
    for (name, value) in service.limits.entries() {
        limits.set(name, value);
    }
    limits
}
