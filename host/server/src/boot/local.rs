//! A project's own host on its author's machine: the operator's without its public side. One listener serves the services and the control API, one
//! account owns everything, and its data lies in the project's folder. What is deployed to it, and when, is the development loop's business.
//!
//! Beside the data it leaves what programs on the same machine need to use its API: a token, and while it runs its URL.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tovuk_kernel::clock::Clock;
use tovuk_kernel::limits::Plan;
use tovuk_runtime::compile::Compiler;
use tovuk_runtime::outbound::OutboundConfig;
use tovuk_runtime::record::Observer;
use tovuk_runtime::runtime::RuntimeConfig;

use super::open::{self, Opened, Parts};
use super::{SecretKey, StartError, address_of, bind, first, janitor};
use crate::control::Control;
use crate::control::urls::Urls;
use crate::control::vault::write_private;
use crate::deliver;
use crate::deploy::builds::BuildConfig;
use crate::domains::{Nameservers, Resolver};
use crate::edge::{Api, Audience};
use crate::listen::{ListenConfig, Listening};

/// The file with the token of the API, in the data folder. It is made once and kept.
pub const TOKEN_FILE: &str = first::DEV.file;
/// The file with what URLs of the API begin with, for example `http://localhost:8787`, in the data folder. It is there while the host runs; one that
/// ended without a word leaves it behind, and then nobody holds the lock on the file `lock` beside it.
pub const URL_FILE: &str = "dev-url";

/// The settings of a project's own host.
pub struct LocalConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The folder with everything that it keeps.
    pub data: PathBuf,
    /// The plan of its one account.
    pub plan: Plan,
    /// Instances at a time.
    pub slots: u32,
    /// How workers reach other hosts.
    pub outbound: OutboundConfig,
    /// How long running requests may take to end when the host stops.
    pub drain_timeout: Duration,
}

/// A project's own host that runs.
pub struct LocalHost {
    control: Control,
    listening: Listening,
    url: UrlFile,
    drain_timeout: Duration,
    _lock: File,
}

impl LocalHost {
    /// Starts a host with no services on the air. `observer` is told what the log store is told.
    pub async fn start(config: LocalConfig, compiler: Compiler, clock: Clock, observer: Arc<dyn Observer>) -> Result<Self, StartError> {
        let lock = claim(&config.data).await?;
        let vault = open::vault(&SecretKey::Generated, &config.data)?;
        let listener = bind(config.listen).await?;
        let port = address_of(&listener)?.port();
        let mut runtime = RuntimeConfig::new(config.data.join("artifacts"));
        runtime.engine.slots_max = config.slots;
        runtime.outbound = config.outbound;
        let parts = Parts {
            data: config.data.clone(),
            vault,
            urls: urls(port),
            node: "dev".to_owned(),
            builds: BuildConfig::default(),
            // A machine without a name server has none to ask about custom domains, and develops all the same.
            resolver: Resolver::new(&Nameservers::System).or_else(|_| Resolver::new(&Nameservers::Addresses(Vec::new())))?,
            acme: None,
            pricing: open::pricing(None)?,
            runtime,
            objects: open::objects_folder(&config.data),
            observer: Some(observer),
            otlp: None,
            audience: Audience::Author,
            api: Api::here,
        };
        let Opened { control, edge } = open::open(parts, compiler, clock).await?;
        first::dev_token(&control, &config.data, config.plan).await?;
        janitor::sweep_objects(&control).await;
        deliver::start(&control);
        let connections = ListenConfig { drain_timeout: config.drain_timeout, ..ListenConfig::default() };
        let listening = Listening::serve(listener, edge, connections).map_err(|source| StartError::Listen { address: config.listen, source })?;
        // Last, so that whoever finds it is answered.
        let url = UrlFile::write(config.data.join(URL_FILE), &control.urls().api)?;
        Ok(Self { control, listening, url, drain_timeout: config.drain_timeout, _lock: lock })
    }

    /// The control API.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Ends the host: no new requests, those that run are answered, files are closed.
    pub async fn stop(self) {
        drop(self.url);
        self.control.begin_to_stop();
        tokio::join!(self.listening.stop(), self.control.drain_deliveries(self.drain_timeout));
        self.control.close().await;
    }
}

/// Service and API share a listener and differ in the name: the API has `localhost` itself.
fn urls(port: u16) -> Urls {
    Urls { public_scheme: "http".to_owned(), public_domain: "localhost".to_owned(), public_port: Some(port), api: format!("http://localhost:{port}") }
}

/// Makes the data folder and keeps other processes, and version control, out of it.
async fn claim(data: &Path) -> Result<File, StartError> {
    let lock = first::claim(data).await.map_err(|error| match error {
        StartError::InUse(_) => StartError::Running { url: fs::read_to_string(data.join(URL_FILE)).ok().map(|url| url.trim().to_owned()) },
        other => other,
    })?;
    // Whoever ended without a word has left it.
    drop(UrlFile(data.join(URL_FILE)));
    let ignore = data.join(".gitignore");
    if !ignore.exists() {
        fs::write(&ignore, "*\n").map_err(|source| StartError::Data { path: ignore, source })?;
    }
    Ok(lock)
}

/// Says where the host is for as long as it exists.
struct UrlFile(PathBuf);

impl UrlFile {
    fn write(path: PathBuf, url: &str) -> Result<Self, StartError> {
        match write_private(&path, format!("{url}\n").as_bytes()) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(StartError::Data { path, source }),
        }
    }
}

impl Drop for UrlFile {
    fn drop(&mut self) {
        // One that stays is told from a running host's by the lock.
        let _ = fs::remove_file(&self.0);
    }
}
