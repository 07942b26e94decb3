//! Hosts, whole: they open what is in the data folder, listen, and on the way out lose nothing. The operator's is here, a project's own on its author's
//! machine in `local`; `open` has what is the same in both. What a host is made of is elsewhere.

mod config;
mod first;
mod janitor;
pub mod local;
mod open;

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tovuk_kernel::clock::Clock;
use tovuk_resources::stores;
use tovuk_runtime::compile::Compiler;
use tovuk_runtime::runtime::{self, RuntimeConfig};

pub use config::{AcmeSettings, HostConfig, SecretKey};
pub use tovuk_resources::objects::{Place as ObjectsPlace, S3};

use crate::control::urls::Urls;
use crate::control::vault;
use crate::control::{Control, OpenError};
use crate::deliver;
use crate::domains::{Resolver, ResolverError};
use crate::edge::redirect::Redirect;
use crate::edge::{Api, Audience};
use crate::listen::{ListenConfig, Listening};
use crate::logs;
use crate::metrics::Operations;
use crate::tls::acme::{Acme, HttpChallenges};
use crate::tls::{CertificateFiles, CertificateStore, FileError, Tls};
use crate::traces;
use open::{Opened, Parts};

/// Why a host does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting makes no sense, or not with the others.
    #[error("{0}")]
    Setting(String),
    /// The data folder cannot be used.
    #[error("the data folder {path}: {source}")]
    Data {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process uses the data folder.
    #[error("another tovuk uses the data folder {0}: stop it, or start with another --data")]
    InUse(PathBuf),
    /// The project runs already.
    #[error("another `tovuk dev` runs this project{}: use it, or stop it first", .url.as_ref().map_or_else(String::new, |url| format!(" at {url}")))]
    Running {
        /// Where, if it says so.
        url: Option<String>,
    },
    /// An address cannot be listened at.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key of secrets.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The control database.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The data of services.
    #[error(transparent)]
    Stores(#[from] stores::OpenError),
    /// The log store.
    #[error(transparent)]
    Logs(#[from] logs::Error),
    /// The store of traces.
    #[error(transparent)]
    Traces(#[from] traces::Error),
    /// The engine.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The DNS resolver.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// A certificate or its key.
    #[error(transparent)]
    Certificate(#[from] FileError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// A host that runs.
pub struct Host {
    control: Control,
    public: Listening,
    api: Listening,
    plain: Option<Listening>,
    metrics: Option<Listening>,
    /// Watch their files while they exist.
    _certificates: Vec<CertificateFiles>,
    janitor: JoinHandle<()>,
    drain_timeout: Duration,
    admin_token: PathBuf,
    _lock: File,
}

impl Host {
    /// Starts a host.
    pub async fn start(config: HostConfig, compiler: Compiler, clock: Clock) -> Result<Self, StartError> {
        config.check()?;
        let lock = first::claim(&config.data).await?;
        let vault = open::vault(&config.secret_key, &config.data)?;
        // Listened before anything is opened, so that an address in use is told at once and no request is refused meanwhile: clients wait.
        let public = bind(config.listen).await?;
        let api = bind(config.api_listen).await?;
        let plain = match config.listen_http {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let metrics = match config.metrics_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let urls = config.urls(address_of(&public)?, address_of(&api)?);
        let store = CertificateStore::default();
        let acme = match &config.acme {
            Some(settings) => {
                let started = Acme::start(settings.config(&config.data), store.clone(), clock.clone());
                Some(started.map_err(|source| StartError::Data { path: config.data.join("acme"), source })?)
            }
            None => None,
        };
        let mut certificates = Vec::new();
        let mut tls = None;
        if let Some(files) = &config.tls {
            certificates.push(CertificateFiles::start(files.clone(), store.clone(), clock.clone())?);
        }
        if config.tls.is_some() || acme.is_some() {
            tls = Some(Tls::new(store).map_err(|error| StartError::Tls(error.to_string()))?);
        }
        let mut api_tls = None;
        if let Some(files) = &config.api_tls {
            let store = CertificateStore::default();
            certificates.push(CertificateFiles::start(files.clone(), store.clone(), clock.clone())?);
            api_tls = Some(Tls::new(store).map_err(|error| StartError::Tls(error.to_string()))?);
        }
        let parts = Parts {
            data: config.data.clone(),
            vault,
            urls: urls.clone(),
            node: config.node.clone(),
            builds: config.builds.clone(),
            resolver: Resolver::new(&config.nameservers)?,
            acme: acme.clone(),
            pricing: open::pricing(config.pricing.clone())?,
            runtime: runtime_config(&config),
            objects: config.objects.clone().unwrap_or_else(|| open::objects_folder(&config.data)),
            observer: None,
            otlp: config.otlp.clone(),
            audience: Audience::Public,
            api: Api::elsewhere,
        };
        let Opened { control, edge } = open::open(parts, compiler, clock.clone()).await?;
        let admin_token = first::admin_token(&control, &config.data).await?;
        deliver::start(&control);
        let listen = |tls| ListenConfig { drain_timeout: config.drain_timeout, tls, ..config.connections.clone() };
        let serving = |source| StartError::Listen { address: config.listen, source };
        let https_port = address_of(&public)?.port();
        let challenges = acme.as_ref().map_or_else(HttpChallenges::default, Acme::http_challenges);
        let redirect = Redirect::new(clock, challenges, urls.public_port.unwrap_or(if urls.public_scheme == "https" { 443 } else { https_port }));
        Ok(Self {
            public: Listening::serve(public, edge, listen(tls)).map_err(serving)?,
            api: Listening::serve(api, control.clone(), listen(api_tls)).map_err(serving)?,
            plain: plain.map(|plain| Listening::serve(plain, redirect, listen(None))).transpose().map_err(serving)?,
            metrics: metrics.map(|metrics| Listening::serve(metrics, Operations::new(control.clone()), listen(None))).transpose().map_err(serving)?,
            _certificates: certificates,
            janitor: tokio::spawn(janitor::run(control.clone())),
            drain_timeout: config.drain_timeout,
            control,
            admin_token,
            _lock: lock,
        })
    }

    /// Where the public listener is.
    pub fn public_address(&self) -> SocketAddr {
        self.public.address()
    }

    /// Where the control API is.
    pub fn api_address(&self) -> SocketAddr {
        self.api.address()
    }

    /// Where figures are served, if they are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(Listening::address)
    }

    /// What URLs that are given out begin with.
    pub fn urls(&self) -> &Urls {
        self.control.urls()
    }

    /// The file with the operator's token.
    pub fn admin_token(&self) -> &std::path::Path {
        &self.admin_token
    }

    /// The control API.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Ends the host: no new requests, those that run are answered, builds are left where they can be begun again, files are closed.
    pub async fn stop(self) {
        self.control.begin_to_stop();
        self.janitor.abort();
        let plain = async {
            if let Some(plain) = self.plain {
                plain.stop().await;
            }
        };
        let metrics = async {
            if let Some(metrics) = self.metrics {
                metrics.stop().await;
            }
        };
        tokio::join!(self.public.stop(), self.api.stop(), plain, metrics, self.control.drain_deliveries(self.drain_timeout));
        self.control.close().await;
    }
}

fn runtime_config(config: &HostConfig) -> RuntimeConfig {
    let mut runtime = RuntimeConfig::new(config.data.join("artifacts"));
    runtime.outbound = config.outbound.clone();
    if let Some(slots) = config.slots {
        runtime.engine.slots_max = slots;
    }
    runtime.guest_memory_bytes = config.guest_memory_bytes;
    runtime
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    Listening::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Listen { address: SocketAddr::from(([0, 0, 0, 0], 0)), source })
}

/// How often the janitor looks.
const JANITOR_INTERVAL: Duration = Duration::from_secs(3_600);
