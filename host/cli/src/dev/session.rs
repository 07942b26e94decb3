//! What runs of a project: built components, their deploys and their addresses. Each service is swapped alone, and only by a build that
//! succeeded.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tovuk_kernel::ids::{AccountId, ServiceId};
use tovuk_kernel::limits::{Plan, WorkerLimits};
use tovuk_kernel::outbound::Allowlist;
use tovuk_kernel::project::Service;
use tovuk_resources::bindings::{Binding, Bindings};
use tovuk_runtime::artifacts::Artifact;
use tovuk_runtime::record::Identity;
use tovuk_runtime::runtime::Runtime;
use tovuk_runtime::service::Deployment;
use tovuk_server::assets::Assets;
use tovuk_server::edge::routes::{Routes, Site};

use super::show::Show;
use crate::build::{self, Sink};
use crate::env_file::{self, EnvFile};
use crate::project_file::Loaded;

/// A project that runs.
pub(super) struct Session {
    runtime: Runtime,
    routes: Routes,
    authority: String,
    plan: Plan,
    show: Show,
    loaded: Loaded,
    ids: BTreeMap<String, ServiceId>,
    live: HashMap<String, Live>,
    deploys: u64,
}

/// The last build of a service that succeeded.
struct Live {
    artifact: Option<Artifact>,
    assets: Option<Assets>,
}

impl Session {
    pub fn new(runtime: Runtime, routes: Routes, authority: String, plan: Plan, show: Show, loaded: Loaded) -> Self {
        let mut session = Self { runtime, routes, authority, plan, show, loaded, ids: BTreeMap::new(), live: HashMap::new(), deploys: 0 };
        session.register();
        session
    }

    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Files and folders that builds write. A component without a build command is its author's to change.
    pub async fn outputs(&self) -> Vec<PathBuf> {
        let mut outputs = Vec::new();
        for service in self.loaded.project.services.values().filter(|service| service.build.is_some()) {
            // A service whose component cannot be located says so when it is built.
            outputs.extend(build::component_path(&self.loaded.directory, service).await.ok().flatten());
        }
        outputs
    }

    /// Takes another project file. Services that it no longer names are gone at once.
    pub fn replace_project(&mut self, loaded: Loaded) {
        self.loaded = loaded;
        let services = &self.loaded.project.services;
        self.ids.retain(|name, id| {
            let stays = services.contains_key(name);
            if !stays {
                self.routes.remove(id);
                self.runtime.services().remove(id);
                self.live.remove(name);
            }
            stays
        });
        self.register();
    }

    /// Gives every service its id, so that bindings find targets that are not built yet.
    fn register(&mut self) {
        for (name, service) in &self.loaded.project.services {
            let next = self.ids.values().filter_map(|id| id.as_str().strip_prefix("service_")?.parse::<u64>().ok()).max().unwrap_or(0) + 1;
            let id = self.ids.entry(name.clone()).or_insert_with(|| ServiceId::from(format!("service_{next}"))).clone();
            let identity = Identity { id, name: name.as_str().into(), slug: name.as_str().into(), account: AccountId::from("account_1") };
            self.runtime.services().add(identity, &self.limits(service));
        }
        self.publish();
    }

    /// Builds and deploys every service. A target is built before or after its callers: bindings resolve when they are called.
    pub async fn build_all(&mut self) {
        let names: Vec<_> = self.loaded.project.services.keys().cloned().collect();
        for name in names {
            self.rebuild(&name).await;
        }
    }

    /// Deploys what is built again, for a changed environment.
    pub async fn deploy_all(&mut self) {
        let names: Vec<_> = self.live.keys().cloned().collect();
        for name in names {
            if let Err(error) = self.deploy(&name) {
                self.show.failed(&name, &error.to_string());
            }
        }
    }

    /// Builds and deploys one service. On failure what ran before still runs.
    pub async fn rebuild(&mut self, name: &str) {
        let started = Instant::now();
        match self.try_rebuild(name).await {
            Ok(()) => self.show.built(name, started.elapsed()),
            Err(error) => {
                self.show.failed(name, &error.to_string());
                if self.live.contains_key(name) {
                    self.show.note(&format!("{name}: the last good build still serves"));
                }
            }
        }
    }

    async fn try_rebuild(&mut self, name: &str) -> anyhow::Result<()> {
        let Some(service) = self.loaded.project.services.get(name) else { return Ok(()) };
        let show = self.show.clone();
        let sink: Sink = Arc::new(move |line| show.build_output(line));
        let built = build::build(&self.loaded.directory, name, service, sink).await?;
        let artifact = match &built.component {
            Some(path) => {
                let wasm = std::fs::read(path)?;
                tovuk_runtime::component::check_size(&wasm, self.plan)?;
                let artifact = self.runtime.artifacts().prepare(&wasm).await;
                Some(artifact.map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?)
            }
            None => None,
        };
        self.live.insert(name.to_owned(), Live { artifact, assets: built.assets.map(Assets::live) });
        self.deploy(name)
    }

    fn deploy(&mut self, name: &str) -> anyhow::Result<()> {
        let (Some(service), Some(live), Some(id)) = (self.loaded.project.services.get(name), self.live.get(name), self.ids.get(name)) else {
            return Ok(());
        };
        if let Some(artifact) = live.artifact.clone() {
            let bindings = Bindings::new(&self.bindings(name, service));
            let env = self.environment(name, id, service, &bindings)?;
            let patterns = service.outbound.iter().map(|pattern| pattern.parse()).collect::<Result<Vec<_>, _>>()?;
            self.deploys += 1;
            let deployment = Deployment {
                id: format!("deploy_{}", self.deploys).into(),
                artifact,
                limits: self.limits(service),
                env,
                bindings,
                outbound: Allowlist::from(patterns),
            };
            if let Some(running) = self.runtime.services().get(id) {
                running.promote(Arc::new(deployment));
            }
        }
        self.publish();
        Ok(())
    }

    fn bindings(&self, name: &str, service: &Service) -> Vec<Binding> {
        let resolve = |binding: &tovuk_kernel::project::Binding| {
            let Some(target) = self.ids.get(&binding.service) else {
                self.show.note(&format!(
                    "{name}: the binding {} leads to `{}`, which this project does not have; calls of it fail here",
                    binding.name(),
                    binding.service
                ));
                return None;
            };
            Some(Binding {
                name: Some(binding.name().to_owned()),
                target: target.clone(),
                target_name: binding.service.clone(),
                url_env: binding.env.clone(),
            })
        };
        service.bindings.iter().filter_map(resolve).collect()
    }

    /// What the worker's environment says, in the order in which later entries may not shadow earlier ones.
    fn environment(&self, name: &str, id: &ServiceId, service: &Service, bindings: &Bindings) -> anyhow::Result<Vec<(String, String)>> {
        let file: EnvFile = env_file::load(&self.loaded.directory)?;
        let secrets = file.secrets_of(service);
        if !secrets.missing.is_empty() {
            self.show.note(&format!("{name}: not set in .env.local: {}", secrets.missing.join(", ")));
        }
        let fixed = [
            ("TOVUK_SERVICE_ID", id.to_string()),
            ("TOVUK_SERVICE_SLUG", name.to_owned()),
            ("TOVUK_SERVICE_PLAN", self.plan.as_str().to_owned()),
            ("TOVUK_BINDINGS_VERSION", "1".to_owned()),
        ];
        let mut env: Vec<_> = fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        env.extend(bindings.env().iter().filter(|(name, _)| name.starts_with("TOVUK_")).cloned());
        env.extend(secrets.values);
        env.extend(bindings.env().iter().filter(|(name, _)| !name.starts_with("TOVUK_")).cloned());
        Ok(env)
    }

    fn limits(&self, service: &Service) -> WorkerLimits {
        let mut limits = WorkerLimits::for_plan(self.plan);
        for (name, value) in service.limits.entries() {
            limits.set(name, value);
        }
        limits
    }

    /// Puts every public service at its address. One whose first build has not succeeded answers there that it is not deployed.
    fn publish(&self) {
        let place = |(name, service): (&String, &Service)| {
            let id = self.ids.get(name)?;
            let assets = self.live.get(name).and_then(|live| live.assets.clone());
            let is_public = service.is_public() || service.kind().has_assets();
            let site = is_public.then(|| Site::new(id.clone(), service.kind(), &service.routes, assets));
            Some((id.clone(), vec![format!("{name}.localhost")], site))
        };
        if let Err(taken) = self.routes.set_all(self.loaded.project.services.iter().filter_map(place)) {
            self.show.note(&taken.to_string());
        }
    }

    /// Where everything is.
    pub fn say_ready(&self) {
        for (name, service) in &self.loaded.project.services {
            let state = if self.live.contains_key(name) { "" } else { "  (its build failed)" };
            let public = service.is_public() || service.kind().has_assets();
            let place = if public { format!("http://{name}.{}", self.authority) } else { "private".to_owned() };
            self.show.ready(name, &format!("{place}{state}"));
        }
        self.show.note("watching for changes");
    }
}
