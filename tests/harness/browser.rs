//! A real browser, driven over WebDriver: Debian's Chromium without a window, without a profile, and without any host but this machine's.

use std::process::Command;

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::process::Program;

const PACKAGES: &str = "apt-get install -y --no-install-recommends chromium chromium-driver";

/// A browser that ends with this value.
pub struct Browser {
    /// What drives it.
    pub client: Client,
    /// The browser itself, which a driver that is killed would leave behind.
    process: Option<Pid>,
    _driver: Program,
    _profile: tempfile::TempDir,
}

/// Installs the browser where that can be done without asking anybody.
fn ensure() {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if has("chromium") && has("chromedriver") {
        return;
    }
    if rustix::process::geteuid().is_root() {
        eprintln!("installing a browser: {PACKAGES}");
        let installed = Command::new("sh").args(["-c", &format!("apt-get update && {PACKAGES}")]).status().is_ok_and(|status| status.success());
        assert!(installed, "no browser could be installed: `{PACKAGES}` failed");
    } else {
        panic!("these tests need a browser: run `sudo {PACKAGES}`");
    }
}

impl Browser {
    /// Starts one.
    pub async fn start() -> Self {
        tovuk_kernel::threads::spawn_blocking(ensure).await.unwrap();
        let mut command = Command::new("chromedriver");
        command.arg("--port=0");
        let mut driver = Program::start(command);
        let line = driver.line(&["started successfully on port "]).await;
        let port: u16 = line.rsplit(' ').next().unwrap().trim_end_matches('.').parse().unwrap();
        let profile = tempfile::tempdir().unwrap();
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        // Chromium's own sandbox refuses to start for root.
        if rustix::process::geteuid().is_root() {
            arguments.push("--no-sandbox".to_owned());
        }
        let capabilities = json!({
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        });
        let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
        builder.capabilities(capabilities.as_object().unwrap().clone());
        let client = builder.connect(&format!("http://127.0.0.1:{port}")).await.unwrap();
        let process = client.capabilities().and_then(|capabilities| capabilities.get("goog:processID")?.as_i64());
        let process = process.and_then(|pid| Pid::from_raw(pid.try_into().unwrap()));
        assert!(process.is_some(), "{:?}", client.capabilities());
        Self { client, process, _driver: driver, _profile: profile }
    }

    /// What the console says, since this was last asked: errors of scripts, refusals of the page's policy, failed requests.
    pub async fn console(&self) -> Vec<String> {
        self.log("browser").await.iter().map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// The URLs that pages have asked for, since this was last asked.
    pub async fn requests(&self) -> Vec<String> {
        let mut urls = Vec::new();
        for entry in self.log("performance").await {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            if event["message"]["method"] == "Network.requestWillBeSent" {
                urls.push(event["message"]["params"]["request"]["url"].as_str().unwrap().to_owned());
            }
        }
        urls
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        self.extension("se/log", json!({"type": kind})).await.as_array().unwrap().clone()
    }

    /// A command of the DevTools protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.extension("goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    async fn extension(&self, path: &'static str, body: Value) -> Value {
        self.client.issue_cmd(Extension { path, body }).await.unwrap()
    }

    /// Closes its window, and with it the browser.
    pub async fn close(mut self) {
        self.process = None;
        self.client.clone().close().await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(process) = self.process {
            // A test has failed. Its browser may have ended already.
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

/// A command that WebDriver itself does not have.
#[derive(Debug)]
struct Extension {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Extension {
    fn endpoint(&self, base_url: &url::Url, session_id: Option<&str>) -> Result<url::Url, url::ParseError> {
        base_url.join(&format!("session/{}/{}", session_id.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}
