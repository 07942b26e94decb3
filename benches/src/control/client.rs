//! The host as its clients see it: a process, connections that are kept, and the time of each answer.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::net::TcpStream;

/// A host that runs as a process, until it is dropped.
pub struct Served {
    child: Child,
    /// Where the public is served.
    pub public: SocketAddr,
    /// Where the API is served.
    pub api: SocketAddr,
    /// The operator's token.
    pub token: String,
    /// From the start of the process until it was ready, in ms.
    pub ready_ms: f64,
}

impl Served {
    /// Starts this program as a host with that data folder.
    pub fn start(data: &Path) -> anyhow::Result<Self> {
        let started = Instant::now();
        let mut child = Command::new(std::env::current_exe()?).arg("operator").arg(data).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("the host has no output")?).lines();
        let mut next = || lines.next().context("the host has ended")?.map_err(anyhow::Error::from);
        let (public, api) = (next()?.parse()?, next()?.parse()?);
        let ready_ms = started.elapsed().as_secs_f64() * 1e3;
        let token = std::fs::read_to_string(data.join("admin-token"))?.trim().to_owned();
        Ok(Self { child, public, api, token, ready_ms })
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) -> anyhow::Result<()> {
        kill_process(self.pid(), Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the host ended with {status}");
        Ok(())
    }

    /// A connection to the API.
    pub async fn api(&self) -> anyhow::Result<Connection> {
        Connection::open(self.api, self.api.to_string(), Some(&self.token)).await
    }

    /// A connection to a service.
    pub async fn service(&self, slug: &str) -> anyhow::Result<Connection> {
        Connection::open(self.public, format!("{slug}.localhost:{}", self.public.port()), None).await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that is kept.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    authorization: Option<String>,
}

impl Connection {
    /// A connection to a listener, as whoever has the token.
    pub async fn open(address: SocketAddr, host: String, token: Option<&str>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host, authorization: token.map(|token| format!("Bearer {token}")) })
    }

    /// Whether the other end has closed it, between two requests.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request and reads the whole answer, which has to be good; how long that took, in ms, and the body.
    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<(f64, Bytes)> {
        let started = Instant::now();
        let (status, body) = self.ask(method, path, body).await?;
        let ms = started.elapsed().as_secs_f64() * 1e3;
        ensure!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
        Ok((ms, body))
    }

    /// The same with any answer: its status, and the body.
    pub async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
        self.sender.ready().await?;
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(Full::new(body))?;
        let (parts, body) = self.sender.send_request(request).await?.into_parts();
        Ok((parts.status, body.collect().await?.to_bytes()))
    }

    /// The same with JSON both ways.
    pub async fn json(&mut self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<(f64, Value)> {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let (ms, body) = self.send(method, path, body).await?;
        Ok((ms, serde_json::from_slice(&body)?))
    }
}
