//! `tovuk doctor`: looks at everything that the other commands rely on, and says for each what to do. It changes nothing and installs nothing.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::process::Command;
use tovuk_kernel::clock::Clock;
use tovuk_runtime::engine::{EngineConfig, shortcomings};
use tovuk_server::build::probe;
use tovuk_server::build::sandbox::SandboxConfig;

use crate::client::{Call, Client};
use crate::output;
use crate::session::ClientArgs;
use crate::toolchain::{self, TARGET};

/// Where `tovuk dev` and `tovuk serve` listen unless they are told otherwise.
const PORTS: [u16; 2] = [8787, 8788];
/// Free space that builds and data need, in GiB. Less is worth a word.
const FREE_GIB: u64 = 2;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// As it should be.
    Ok,
    /// Something will be missing or slower.
    Warn,
    /// Something will not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    state: State,
    message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, state: State::Ok, message: message.into(), next: None }
    }

    fn warn(name: &'static str, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, state: State::Warn, message: message.into(), next: Some(next.into()) }
    }

    fn fail(name: &'static str, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { state: State::Fail, ..Self::warn(name, message, next) }
    }
}

/// Looks at everything.
pub async fn run(args: &ClientArgs) -> anyhow::Result<ExitCode> {
    let mut findings = vec![rust().await, node().await];
    findings.extend(PORTS.map(port));
    findings.push(disk());
    findings.extend(kernel());
    findings.push(sandbox().await);
    findings.extend(host(args).await);
    let ok = findings.iter().all(|finding| finding.state != State::Fail);
    output::print(&json!({"ok": ok, "checks": findings}), args.json, |_| findings.iter().map(line).collect());
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(finding: &Finding) -> String {
    let state = match finding.state {
        State::Ok => "ok  ",
        State::Warn => "warn",
        State::Fail => "FAIL",
    };
    let next = finding.next.as_ref().map_or_else(String::new, |next| format!("                {}\n", output::one_line(next)));
    format!("{state}  {:<8}  {}\n{next}", finding.name, output::one_line(&finding.message))
}

async fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output().await.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn rust() -> Finding {
    match toolchain::can_build(Path::new(".")).await {
        Ok(true) => Finding::ok("rust", format!("{}, builds for {TARGET}", version("rustc").await.unwrap_or_default())),
        Ok(false) => Finding::warn(
            "rust",
            format!("Rust cannot build for {TARGET} yet"),
            format!("Run `rustup target add {TARGET}`; building a worker does it by itself."),
        ),
        Err(error) => {
            Finding::fail("rust", error.to_string(), format!("Install Rust from https://rustup.rs, then run `rustup target add {TARGET}`."))
        }
    }
}

async fn node() -> Finding {
    match version("node").await {
        Some(version) => Finding::ok("node", version),
        None => Finding::warn(
            "node",
            "Node.js is not installed",
            "Install Node.js 20 or newer if a service is written in JavaScript or has a frontend that is built.",
        ),
    }
}

fn port(port: u16) -> Finding {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Finding::ok("port", format!("{port} is free")),
        Err(error) => Finding::warn(
            "port",
            format!("{port} cannot be listened at: {error}"),
            "If that is no tovuk host of yours, choose others with --listen and --api-listen.",
        ),
    }
}

fn disk() -> Finding {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    match rustix::fs::statvfs(&here) {
        Ok(free) => {
            let gib = free.f_bavail.saturating_mul(free.f_frsize) >> 30;
            let message = format!("{gib} GiB are free in {}", here.display());
            if gib >= FREE_GIB { Finding::ok("disk", message) } else { Finding::warn("disk", message, "Free some: builds and data need room.") }
        }
        Err(error) => Finding::warn("disk", format!("{}: {error}", here.display()), "Look at `df .`."),
    }
}

fn kernel() -> Vec<Finding> {
    let found = shortcomings(&EngineConfig::default());
    if found.is_empty() {
        return vec![Finding::ok("kernel", "has all that workers run fastest with")];
    }
    let told = |text: String| match text.split_once(": ") {
        Some((what, next)) => Finding::warn("kernel", what, next),
        None => Finding::warn("kernel", text, "Nothing has to be done."),
    };
    found.into_iter().map(told).collect()
}

async fn sandbox() -> Finding {
    let probed = match SandboxConfig::detect(Clock::system()).await {
        Ok(config) => probe(&config).await,
        Err(error) => Err(error),
    };
    match probed {
        Ok(version) => Finding::ok("sandbox", format!("source can be built for others (`tovuk serve --remote-build`) with {version}")),
        Err(error) => Finding::warn("sandbox", error.to_string(), "This matters to operators only, and only with `tovuk serve --remote-build`."),
    }
}

/// The host that commands would ask, and the token that they would show.
async fn host(args: &ClientArgs) -> Vec<Finding> {
    let client = match Client::anonymous(args) {
        Ok(client) => client,
        Err(failure) => return vec![Finding::fail("api", failure.message, failure.agent_instruction.unwrap_or_default())],
    };
    let status = match client.call(Call::get("/v1/status")).await {
        Ok(status) => status,
        Err(failure) => {
            let next = "`tovuk serve` starts a host here; --api or TOVUK_API_BASE_URL names another. `tovuk dev` needs none.";
            // Nobody has to have a host, unless one was named.
            let found = if args.names_api() { Finding::fail("api", failure.message, next) } else { Finding::warn("api", failure.message, next) };
            return vec![found];
        }
    };
    let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (theirs, ours) = (text(&status, "/version"), env!("CARGO_PKG_VERSION"));
    let message = format!("{} is version {theirs}, status {}", client.api(), text(&status, "/status"));
    let api = if theirs == ours {
        Finding::ok("api", message)
    } else {
        Finding::warn("api", message, format!("This program is version {ours}; use the same on both sides."))
    };
    let account = match Client::new(args) {
        Ok(client) => client.call(Call::get("/v1/account")).await,
        Err(failure) => Err(failure),
    };
    let token = match account {
        Ok(account) => {
            Finding::ok("token", format!("of the account `{}`, scope {}", text(&account, "/account/handle"), text(&account, "/token/scope")))
        }
        Err(failure) => Finding::fail("token", failure.message, failure.agent_instruction.unwrap_or_default()),
    };
    vec![api, token]
}
