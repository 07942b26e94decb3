//! `tovuk serve` as a process, on free ports and with a data folder that outlives it: started, asked, killed, started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::client::Reply;
use crate::process::{Program, tovuk};
use crate::wire::{self, Protocol};

/// A host that runs as a process.
pub struct Served {
    /// The process.
    pub program: Program,
    /// Where the public is served.
    pub public: SocketAddr,
    /// Where the API is served.
    pub api: SocketAddr,
    /// The operator's token.
    pub token: String,
    /// Where it keeps everything.
    pub data: PathBuf,
    /// Where its disk is mounted, if it has one of its own: a folder that is removed takes the mount with it.
    _disk: Option<tempfile::TempDir>,
}

impl Served {
    /// Starts the program with this data folder, and waits until it is ready.
    pub async fn start(program: &str, data: &Path) -> Self {
        Self::of(Program::start(serve(program, data)), |_| data.to_owned()).await
    }

    /// Starts the program with an empty data folder on a file system of so many MiB, which nobody else has and which is gone when it ends. Nothing where
    /// the system lets nobody mount one.
    pub async fn on_small_disk(program: &str, mib: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let alone = |script: &str| {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--mount", "sh", "-ec", script]).stdin(Stdio::null());
            command
        };
        let mount = format!("mount -t tmpfs -o size={mib}m tmpfs {}", folder.path().display());
        if !alone(&mount).status().is_ok_and(|status| status.success()) {
            return None;
        }
        let host = serve(program, &folder.path().join("data"));
        let mut command = alone(&format!("{mount}; exec \"$0\" \"$@\""));
        command.arg(host.get_program()).args(host.get_args());
        for (name, value) in host.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let data = |program: &Program| {
            let inside = folder.path().join("data");
            Path::new("/proc").join(program.id().to_string()).join("root").join(inside.strip_prefix("/").unwrap())
        };
        let host = Self::of(Program::start(command), data).await;
        Some(Self { _disk: Some(folder), ..host })
    }

    /// Waits until a host is ready. `data` says where its folder is seen from here.
    async fn of(mut program: Program, data: impl FnOnce(&Program) -> PathBuf) -> Self {
        let public = address(&program.line(&["services ", "(at "]).await);
        let api = address(&program.line(&["api ", "(at "]).await);
        program.line(&[" is ready"]).await;
        let data = data(&program);
        let token = std::fs::read_to_string(data.join("admin-token")).unwrap().trim().to_owned();
        Self { program, public, api, token, data, _disk: None }
    }

    /// A request to the API with this token; nothing when the host was gone before it had answered.
    pub async fn try_api(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Option<Reply> {
        Self::ask_at(self.api, token, method, path, body).await
    }

    /// The same of whoever listens there.
    pub async fn ask_at(api: SocketAddr, token: &str, method: &str, path: &str, body: Option<&Value>) -> Option<Reply> {
        let stream = TcpStream::connect(api).await.ok()?;
        let request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path).header("host", api.to_string());
        let request = request.header("authorization", format!("Bearer {token}"));
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        wire::ask(stream, Protocol::Http1, request.body(Full::new(body)).unwrap()).await.ok()
    }

    /// The same as the operator; what is refused fails the test.
    pub async fn try_ok(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        let reply = self.try_api(&self.token, method, path, body).await?;
        assert!(reply.status.is_success(), "{method} {path}: {} {}", reply.status, reply.text());
        Some(reply.json())
    }

    /// The same of a host that has to be there.
    pub async fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let reply = self.try_ok(method, path, body).await;
        reply.unwrap_or_else(|| panic!("{method} {path}: the host is gone; it said:\n{}", self.program.text()))
    }

    /// A GET of a service by its public name, whole.
    pub async fn get(&self, slug: &str, path: &str) -> Reply {
        let request = Request::get(path).header("host", format!("{slug}.localhost:{}", self.public.port()));
        let stream = TcpStream::connect(self.public).await.unwrap();
        wire::ask(stream, Protocol::Http1, request.body(Full::default()).unwrap()).await.unwrap()
    }

    /// A build once it has ended.
    pub async fn built(&self, build: &str) -> Value {
        loop {
            let build = self.ok("GET", &format!("/v1/builds/{build}?waitSeconds=20"), None).await["build"].clone();
            if !matches!(build["status"].as_str(), Some("queued" | "running")) {
                return build;
            }
        }
    }

    /// Ends the process at once, as a power cut would for everything but the machine, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.program.signal(Signal::KILL);
        self.program.ended().await;
    }
}

fn serve(program: &str, data: &Path) -> Command {
    let fixed = ["serve", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--slots", "64", "--data", data.to_str().unwrap()];
    tovuk(program, &fixed)
}

/// The address in a line that ends in `(at <address>)`.
fn address(line: &str) -> SocketAddr {
    let text = line.split("(at ").nth(1).and_then(|rest| rest.split(')').next());
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no address in `{line}`"))
}
