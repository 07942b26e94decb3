//! The servers that are compared, each on one core.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::command::HttpArguments;
use crate::server::{Server, free_address, this_program};
use crate::{guests, machine};

use super::SERVER_CORE;
use super::rows::Row;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Hyper without any worker.
    Native,
    /// The host, with all its services.
    Host,
    /// workerd with a hello in JavaScript.
    Workerd,
    /// workerd with a chain of 32 workers.
    WorkerdChain,
    /// `wasmtime serve` as it comes.
    WasmtimeServe,
}

impl Kind {
    /// In the order in which they are measured.
    pub const ALL: [Self; 5] = [Self::Native, Self::Host, Self::Workerd, Self::WasmtimeServe, Self::WorkerdChain];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Host => "host",
            Self::Workerd | Self::WorkerdChain => "workerd",
            Self::WasmtimeServe => "wasmtime serve",
        }
    }
}

/// Where npm puts the binary, below `node_modules`. `.bin/workerd` may be a script that starts it.
const WORKERD_IN_NODE_MODULES: [&str; 2] = ["@cloudflare/workerd-linux-64/bin/workerd", "@cloudflare/workerd-linux-arm64/bin/workerd"];

/// The servers that run.
#[derive(Default)]
pub struct Servers {
    running: Vec<(Kind, Server)>,
    /// What was not found, for the report.
    pub missing: Vec<String>,
}

impl Servers {
    /// Starts a server and waits until it accepts connections. False when its program is not installed.
    pub async fn start(&mut self, kind: Kind, arguments: &HttpArguments) -> anyhow::Result<bool> {
        let address = free_address()?;
        let Some(program) = program(kind, address, arguments)? else {
            let name = kind.name();
            let text = format!(
                "`{name}` was not found and is left out: benches/README.md says how to install it, --{} where it is",
                name.split(' ').next().unwrap_or(name)
            );
            if !self.missing.contains(&text) {
                eprintln!("{text}");
                self.missing.push(text);
            }
            return Ok(false);
        };
        let server = Server::start(&format!("{kind:?}").to_lowercase(), Some(SERVER_CORE), address, program).await?;
        self.running.push((kind, server));
        Ok(true)
    }

    /// The server that answers this row.
    pub fn of(&self, row: &Row) -> anyhow::Result<&Server> {
        self.running(row.server).with_context(|| format!("{} does not run", row.server.name()))
    }

    /// Resident memory of a server, in KiB.
    pub fn rss_kib(&self, kind: Kind) -> Option<u64> {
        self.running(kind)?.rss_kib()
    }

    fn running(&self, kind: Kind) -> Option<&Server> {
        self.running.iter().find(|(running, _)| *running == kind).map(|(_, server)| server)
    }

    /// Asks once and compares the answer.
    pub async fn check(&self, row: &Row) -> anyhow::Result<()> {
        let server = self.of(row)?;
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::get(format!("http://{}{}", server.address, row.path()));
        if let Some(host) = row.host {
            request = request.header(header::HOST, host);
        }
        let response = client.request(request.body(Empty::new())?).await.with_context(|| format!("see {}", server.log.display()))?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == 200 && *body == *b"hello", "it answered {status} and `{}`; see {}", String::from_utf8_lossy(&body), server.log.display());
        Ok(())
    }
}

/// Program and arguments; `None` when a peer is not installed.
fn program(kind: Kind, address: SocketAddr, arguments: &HttpArguments) -> anyhow::Result<Option<Vec<std::ffi::OsString>>> {
    let own = |command: &str| -> anyhow::Result<_> { Ok(Some(vec![this_program()?.into(), command.into(), address.to_string().into()])) };
    match kind {
        Kind::Native => own("native"),
        Kind::Host => own("host"),
        Kind::Workerd => workerd("hello.capnp", address, arguments),
        Kind::WorkerdChain => workerd("chain.capnp", address, arguments),
        Kind::WasmtimeServe => {
            let Some(wasmtime) = given_or(arguments.wasmtime.as_deref(), || machine::in_path("wasmtime"))? else { return Ok(None) };
            // Without `-S cli` a component made by Rust's standard library does not start; everything else is as it comes.
            let guest = guests::path("hello_p2")?;
            Ok(Some(vec![wasmtime.into(), "serve".into(), "-S".into(), "cli".into(), "--addr".into(), address.to_string().into(), guest.into()]))
        }
    }
}

fn workerd(config: &str, address: SocketAddr, arguments: &HttpArguments) -> anyhow::Result<Option<Vec<std::ffi::OsString>>> {
    let installed = || {
        let folders = [Path::new("."), guests::repository(), Path::new(env!("CARGO_MANIFEST_DIR"))];
        let in_folders = folders.iter().flat_map(|folder| WORKERD_IN_NODE_MODULES.map(|path| folder.join("node_modules").join(path)));
        in_folders
            .chain(folders.iter().map(|folder| folder.join("node_modules/.bin/workerd")))
            .find(|path| is_binary(path))
            .or_else(|| machine::in_path("workerd").filter(|path| is_binary(path)))
    };
    let Some(workerd) = given_or(arguments.workerd.as_deref(), installed)? else { return Ok(None) };
    ensure!(
        is_binary(&workerd),
        "{} is a script that starts workerd, so the time of workerd itself would not be counted: give the binary, node_modules/@cloudflare/workerd-linux-64/bin/workerd",
        workerd.display()
    );
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/workerd").join(config);
    Ok(Some(vec![workerd.into(), "serve".into(), "--socket-addr".into(), format!("http={address}").into(), config.into()]))
}

fn given_or(given: Option<&Path>, find: impl FnOnce() -> Option<PathBuf>) -> anyhow::Result<Option<PathBuf>> {
    let Some(given) = given else { return Ok(find()) };
    ensure!(machine::is_program(given), "{} is no program", given.display());
    Ok(Some(given.to_owned()))
}

fn is_binary(path: &Path) -> bool {
    let mut start = [0; 4];
    std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start)).is_ok() && start == *b"\x7fELF"
}
