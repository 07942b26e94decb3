//! What runs of a project: which services were built, and what is said of them. Each service is swapped alone, and only by a build that succeeded. How
//! one is put on the air is the host's business.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use tovuk_kernel::codes;
use tovuk_kernel::project::Service;
use tovuk_server::control::{Control, Refusal};
use tovuk_server::deploy::local::{self, LocalDeploy, Missing};

use super::show::Show;
use crate::build::{self, Sink};
use crate::project_file::Loaded;
use crate::{env_file, migrations};

/// A project that runs.
pub(super) struct Session {
    control: Control,
    authority: String,
    show: Show,
    loaded: Loaded,
    /// The services that have been built at least once.
    live: BTreeSet<String>,
}

impl Session {
    /// A project of which nothing is built.
    pub async fn new(control: Control, authority: String, show: Show, loaded: Loaded) -> anyhow::Result<Self> {
        let mut session = Self { control, authority, show, loaded, live: BTreeSet::new() };
        session.declare().await?;
        Ok(session)
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

    /// Takes another project file. Services that it no longer names answer no more.
    pub async fn replace_project(&mut self, loaded: Loaded) -> anyhow::Result<()> {
        let before = std::mem::replace(&mut self.loaded, loaded);
        let declared = self.declare().await;
        if declared.is_err() {
            self.loaded = before;
        }
        declared
    }

    async fn declare(&mut self) -> anyhow::Result<()> {
        let services = &self.loaded.project.services;
        for name in local::declare(&self.control, services).await.map_err(said)? {
            self.show
                .note(&format!("{name}: tovuk.toml names it no longer, so it is off the air; its data is kept until `tovuk service delete {name}`"));
        }
        self.live.retain(|name| services.contains_key(name));
        Ok(())
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
        for name in &self.live {
            if let Err(error) = self.refresh(name).await {
                self.show.failed(name, &error.to_string());
            }
        }
    }

    async fn refresh(&self, name: &str) -> anyhow::Result<()> {
        let Some(service) = self.loaded.project.services.get(name) else { return Ok(()) };
        let missing = local::refresh(&self.control, name, self.secrets(service)?).await.map_err(said)?;
        self.say_missing(name, &missing);
        Ok(())
    }

    /// Builds and deploys one service. On failure what ran before still runs.
    pub async fn rebuild(&mut self, name: &str) {
        let started = Instant::now();
        match self.try_rebuild(name).await {
            Ok(()) => self.show.built(name, started.elapsed()),
            Err(error) => {
                self.show.failed(name, &error.to_string());
                if self.live.contains(name) {
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
        let component = match &built.component {
            Some(path) => Some(std::fs::read(path).map_err(|error| anyhow!("{}: {error}", path.display()))?),
            None => None,
        };
        let deploy = LocalDeploy {
            name: name.to_owned(),
            service: service.clone(),
            component,
            assets: built.assets,
            migrations: migrations::of(&self.loaded.directory, service).map_err(|error| anyhow!(error))?,
            secrets: self.secrets(service)?,
        };
        let deployed = local::put(&self.control, deploy).await.map_err(|refusal| match &built.component {
            Some(path) if refusal.code == &codes::COMPONENT_REFUSED => anyhow!("{}: {}", path.display(), refusal.message),
            _ => said(refusal),
        })?;
        deployed.applied.iter().for_each(|line| self.show.note(&format!("{name}: {line}")));
        self.say_missing(name, &deployed.missing);
        self.live.insert(name.to_owned());
        Ok(())
    }

    fn secrets(&self, service: &Service) -> anyhow::Result<Vec<(String, String)>> {
        Ok(env_file::load(&self.loaded.directory)?.secrets_of(service).values.into_iter().collect())
    }

    fn say_missing(&self, name: &str, missing: &Missing) {
        if !missing.secrets.is_empty() {
            self.show.note(&format!("{name}: not set in {}: {}", env_file::FILE_NAME, missing.secrets.join(", ")));
        }
        for (binding, target) in &missing.targets {
            self.show.note(&format!("{name}: the binding {binding} leads to `{target}`, which this project does not have; calls of it fail here"));
        }
    }

    /// Where everything is.
    pub fn say_ready(&self) {
        for (name, service) in &self.loaded.project.services {
            let state = if self.live.contains(name) { "" } else { "  (its build failed)" };
            let public = service.is_public() || service.kind().has_assets();
            let place = if public { format!("http://{name}.{}", self.authority) } else { "private".to_owned() };
            self.show.ready(name, &format!("{place}{state}"));
        }
        self.show.note("watching for changes");
    }
}

/// A refusal of the host as its author reads it.
fn said(refusal: Refusal) -> anyhow::Error {
    match refusal.instruction {
        Some(instruction) => anyhow!("{}. {instruction}", refusal.message),
        None => anyhow!("{}", refusal.message),
    }
}
