//! An operator's host inside the test: the whole of it, with a data folder of its own and listeners on free ports.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use tempfile::TempDir;

use tovuk_kernel::clock::Clock;
use tovuk_runtime::compile::Compiler;
use tovuk_server::boot::{Host, HostConfig};

use crate::client::{Client, Reply};
use crate::guests;
use crate::process::tovuk;
use crate::serve::{Ran, ran};

/// A host that runs until it is dropped, and can be started anew on the same data.
pub struct Operator {
    /// The host.
    pub host: Host,
    /// The clock that it runs by.
    pub clock: Clock,
    /// The operator's token.
    pub token: String,
    /// Where it keeps everything.
    pub data: PathBuf,
    folder: Option<TempDir>,
    compiler: PathBuf,
}

impl Operator {
    /// A host with an empty data folder. `compiler` is the program that compiles components; cargo built it beside the tests.
    pub async fn start(compiler: &str) -> Self {
        Self::with(compiler, |_| {}).await
    }

    /// The same with other settings.
    pub async fn with(compiler: &str, change: impl FnOnce(&mut HostConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Self::open(data, Some(folder), PathBuf::from(compiler), Clock::advanceable(), change).await
    }

    /// The same with a clock of its own.
    pub async fn with_clock(compiler: &str, clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Self::open(data, Some(folder), PathBuf::from(compiler), clock, |_| {}).await
    }

    /// Runs the client as the operator, with a command line as it stands in documents. Blocks: for tests of several threads.
    pub fn line(&self, line: &str) -> Ran {
        let words = shlex::split(line).unwrap();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(words.first(), Some(&"tovuk"), "{line}");
        let mut command = tovuk(self.compiler.to_str().unwrap(), &words[1..]);
        command.env("HOME", &self.data).env_remove("XDG_CONFIG_HOME").current_dir(&self.data);
        command.env("TOVUK_API_BASE_URL", format!("http://{}", self.host.api_address())).env("TOVUK_TOKEN", &self.token);
        ran(command)
    }

    async fn open(data: PathBuf, folder: Option<TempDir>, compiler: PathBuf, clock: Clock, change: impl FnOnce(&mut HostConfig)) -> Self {
        let mut config = HostConfig::new(data.clone());
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.api_listen = "127.0.0.1:0".parse().unwrap();
        config.slots = Some(64);
        change(&mut config);
        let host = Host::start(config, Compiler::new(compiler.clone(), clock.clone()), clock.clone()).await.unwrap();
        let token = std::fs::read_to_string(host.admin_token()).unwrap().trim().to_owned();
        Self { host, clock, token, data, folder, compiler }
    }

    /// Ends the host and starts it anew on the same data, at other ports.
    pub async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// The same with other settings.
    pub async fn restart_with(mut self, change: impl FnOnce(&mut HostConfig)) -> Self {
        let folder = self.folder.take();
        // Time goes on: what had ended has still ended.
        let (data, compiler, clock) = (self.data.clone(), self.compiler.clone(), self.clock.clone());
        self.host.stop().await;
        Self::open(data, folder, compiler, clock, change).await
    }

    /// A request to the API with a token, or without.
    pub async fn api(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> Reply {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        request = request.header("host", self.host.api_address().to_string());
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        Client::new(self.host.api_address()).whole(request.body(Full::new(body)).unwrap()).await
    }

    /// The same as the operator.
    pub async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.api(method, path, Some(&self.token), body).await
    }

    /// What a request that has to succeed answers with.
    pub async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let reply = self.ask(method, path, body).await;
        assert!(reply.status.is_success(), "{method} {path}: {} {}", reply.status, reply.text());
        reply.json()
    }

    /// Makes an account; its token.
    pub async fn account(&self, handle: &str) -> String {
        let made = self.ok("POST", "/v1/operator/accounts", Some(json!({"handle": handle, "plan": "pro"}))).await;
        made["token"].as_str().unwrap().to_owned()
    }

    /// The body of a deploy of a guest, with this table of the project file.
    pub fn deploy_body(name: &str, guest: &str, config: Value) -> Value {
        json!({"service": name, "config": config, "component_base64": STANDARD.encode(guests::component(guest))})
    }

    /// Deploys a guest and waits until it is live; the answer to the deploy.
    pub async fn deploy(&self, token: &str, name: &str, guest: &str, config: Value) -> Value {
        let reply = self.api("POST", "/v1/deploy", Some(token), Some(Self::deploy_body(name, guest, config))).await;
        assert_eq!(reply.status, 202, "{}", reply.text());
        let accepted = reply.json();
        let build = self.built(token, accepted["build_job"]["id"].as_str().unwrap()).await;
        assert_eq!(build["status"], "succeeded", "{build}");
        accepted
    }

    /// What a request with a token answers with that has to succeed.
    pub async fn ok_as(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Value {
        let reply = self.api(method, path, Some(token), body).await;
        assert!(reply.status.is_success(), "{method} {path}: {} {}", reply.status, reply.text());
        reply.json()
    }

    /// The code of a request with a token that has to be refused.
    pub async fn refused(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> String {
        let reply = self.api(method, path, Some(token), body).await;
        assert!(!reply.status.is_success(), "{method} {path}: {} {}", reply.status, reply.text());
        let error = reply.json();
        assert!(error["message"].is_string() && error["agent_instruction"].is_string() && error["request_id"].is_string(), "{error}");
        reply.code()
    }

    /// Makes a secret of a service.
    pub async fn secret(&self, token: &str, service: &str, name: &str, value: &str) {
        self.ok_as(token, "PUT", &format!("/v1/services/{service}/env"), Some(json!({"name": name, "value": value}))).await;
    }

    /// All lines of a log.
    pub async fn log(&self, token: &str, path: &str) -> Vec<String> {
        self.host.control().flush_logs().await;
        let page = self.ok_as(token, "GET", &format!("{path}?limit=1000"), None).await;
        page["lines"].as_array().unwrap().iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Files under the data folder that have these bytes somewhere.
    pub fn files_with(&self, bytes: &[u8]) -> Vec<PathBuf> {
        fn visit(folder: &std::path::Path, bytes: &[u8], found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    visit(&path, bytes, found);
                } else if std::fs::read(&path).is_ok_and(|content| content.windows(bytes.len()).any(|window| window == bytes)) {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        visit(&self.data, bytes, &mut found);
        found
    }

    /// A build once it has ended.
    pub async fn built(&self, token: &str, build: &str) -> Value {
        loop {
            let reply = self.api("GET", &format!("/v1/builds/{build}?waitSeconds=20"), Some(token), None).await;
            let build = reply.json()["build"].clone();
            match build["status"].as_str() {
                Some("queued" | "running") => {}
                Some(_) => return build,
                None => panic!("{}", reply.text()),
            }
        }
    }

    /// A request to the public listener at an absolute URL, whole.
    pub async fn at(&self, method: &str, url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        let url: http::Uri = url.parse().unwrap();
        let mut request =
            Request::builder().method(method).uri(url.path_and_query().unwrap().as_str()).header("host", url.authority().unwrap().as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Client::new(self.host.public_address()).whole(request.body(Full::new(body.into())).unwrap()).await
    }

    /// A GET of a service by its public name, whole.
    pub async fn get(&self, slug: &str, path: &str) -> Reply {
        let address = self.host.public_address();
        let request = Request::get(path).header("host", format!("{slug}.localhost:{}", address.port()));
        Client::new(address).whole(request.body(Full::default()).unwrap()).await
    }
}
