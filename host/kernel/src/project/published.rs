//! The published client's form of `tovuk.toml`: one service, named at the top level. It has rules of its own, which are enforced here, and is then
//! turned into the same model as the `[services]` form. What it says about native processes (`run`, ports) is checked and otherwise unused, because
//! a worker here is a component.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::capabilities::{ALWAYS, Capabilities};
use super::model::{Kind, Limits, Service};
use super::paths::is_safe_relative;
use super::rules::Report;
use crate::names::check_service_name;

/// The build command of a worker that declares none.
pub const DEFAULT_WORKER_BUILD: &str = "cargo build --release --target wasm32-wasip2";

/// Programs that run JavaScript; a Rust worker is neither built nor run by one.
const JAVASCRIPT_RUNTIMES: [&str; 13] =
    ["astro", "bun", "deno", "next", "node", "npm", "npx", "pnpm", "svelte-kit", "tsx", "ts-node", "vite", "yarn"];

/// One service in the published form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "tovuk.toml (one service)")]
pub struct Manifest {
    /// The service's name.
    pub name: String,
    /// What is deployed.
    #[serde(default = "rust_worker")]
    pub kind: Kind,
    /// Which products the service uses. All 17 flags are required.
    pub capabilities: Capabilities,
    /// Check and build of a service that is not `fullstack`.
    #[serde(default)]
    pub build: Build,
    /// The native process of a `rust_worker`.
    #[serde(default)]
    pub run: Run,
    /// The worker half of a `fullstack` service.
    #[serde(default)]
    pub worker: Worker,
    /// The frontend half of a `fullstack` service.
    #[serde(default)]
    pub frontend: Frontend,
    /// Size of the native process.
    #[serde(default)]
    pub resources: Resources,
    /// Ports on the author's machine.
    #[serde(default, skip_serializing)]
    pub dev: Dev,
}

fn rust_worker() -> Kind {
    Kind::RustWorker
}

/// `[build]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Build {
    /// The command that checks the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// The command that builds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The folder of static files that the build leaves; not for a `rust_worker`. Default `dist`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// `[run]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// The native binary's command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The port of the native binary. Default 3000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path that must answer before promotion. Default `/healthz`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
}

/// `[worker]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// The worker's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The command that checks the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// The command that builds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// The native binary's command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The port of the native binary. Default 3000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path that must answer before promotion. Default `/api/healthz`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
}

/// `[frontend]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Frontend {
    /// The frontend's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The command that checks the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// The command that builds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// The folder of static files that the build leaves. Default `dist`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// `[resources]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// Memory: a number with `mb`, `mib`, `gb` or `gib`, equal to 128 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// CPU share: a decimal number equal to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Minutes without a request after which the native process stops, 1 to 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_minutes: Option<u16>,
}

/// `[dev]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dev {
    /// The worker's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_port: Option<u16>,
    /// The frontend's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frontend_port: Option<u16>,
}

/// How the frontend half of a `fullstack` service is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendBuild {
    /// The frontend's folder, relative to the project file.
    pub root: String,
    /// The command; absent when the default of the package manager applies.
    pub command: Option<String>,
}

impl Manifest {
    /// The frontend's own build, for a `fullstack` service.
    pub fn frontend_build(&self) -> Option<FrontendBuild> {
        let root = self.frontend.root.clone().filter(|_| self.kind == Kind::Fullstack)?;
        Some(FrontendBuild { root, command: self.frontend.build.clone() })
    }

    /// The same service in the model of the `[services]` form, reachable on every path.
    pub fn into_service(self) -> Service {
        let mut service = Service { kind: Some(self.kind), routes: vec!["/*".to_owned()], ..Service::default() };
        service.object_storage = self.capabilities.object_storage;
        if self.kind.has_worker() {
            service.limits = Limits { memory_mb: Some(128), ..Limits::default() };
        }
        match self.kind {
            Kind::RustWorker => {
                service.build = Some(for_wasm(self.build.command.as_deref()));
                service.health = Some(self.run.health.clone().unwrap_or_else(|| "/healthz".to_owned()));
            }
            Kind::StaticFrontend => {
                service.build = self.build.command.clone();
                service.assets = Some(self.build.output.clone().unwrap_or_else(|| "dist".to_owned()));
            }
            Kind::Fullstack => {
                let worker_root = self.worker.root.clone().unwrap_or_default();
                let frontend_root = self.frontend.root.clone().unwrap_or_default();
                let up = "../".repeat(worker_root.split('/').count());
                let output = self.frontend.output.as_deref().unwrap_or("dist");
                service.assets = Some(match output {
                    "." => format!("{up}{frontend_root}"),
                    output => format!("{up}{frontend_root}/{output}"),
                });
                service.root = Some(worker_root);
                service.build = Some(for_wasm(self.worker.build.as_deref()));
                service.health = Some(self.worker.health.clone().unwrap_or_else(|| "/api/healthz".to_owned()));
            }
        }
        service.published = Some(Box::new(self));
        service
    }

    /// Checks what the schema cannot say.
    pub(crate) fn check(&self, report: &mut Report<'_>) {
        if let Err(error) = check_service_name(&self.name) {
            report.error("name", error.to_string(), "write a name such as name = \"auth-service\"");
        }
        self.check_capabilities(report);
        match self.kind {
            Kind::RustWorker => self.check_rust_worker(report),
            Kind::StaticFrontend => self.check_static_frontend(report),
            Kind::Fullstack => self.check_fullstack(report),
        }
        if self.kind.has_worker() {
            self.resources.check(report);
        }
    }

    fn check_capabilities(&self, report: &mut Report<'_>) {
        for (name, value) in self.capabilities.entries() {
            let path = format!("capabilities.{name}");
            let (forced, reason) = match name {
                "static_frontend" => (self.kind.has_assets(), format!("kind is `{}`", self.kind.as_str())),
                "worker" => (self.kind.has_worker(), format!("kind is `{}`", self.kind.as_str())),
                name if ALWAYS.contains(&name) => (true, "every service has it".to_owned()),
                _ => continue,
            };
            // A flag that is missing altogether has been reported already.
            if value != forced && report.has(&path) {
                report.error(&path, format!("`{path}` must be {forced}: {reason}"), &format!("write {name} = {forced}"));
            }
        }
    }

    fn check_rust_worker(&self, report: &mut Report<'_>) {
        not_empty(report, "build.check", self.build.check.as_deref());
        cargo_build(report, "build.command", self.build.command.as_deref());
        if self.build.output.is_some() {
            report.error("build.output", "`build.output` is not for a `rust_worker`".to_owned(), "remove the line: the component is found by itself");
        }
        native_binary(report, "run.command", self.run.command.as_deref());
        port(report, "run.port", self.run.port);
        health(report, "run.health", self.run.health.as_deref());
    }

    fn check_static_frontend(&self, report: &mut Report<'_>) {
        not_empty(report, "build.check", self.build.check.as_deref());
        not_empty(report, "build.command", self.build.command.as_deref());
        output(report, "build.output", self.build.output.as_deref());
    }

    fn check_fullstack(&self, report: &mut Report<'_>) {
        folder(report, "worker", self.worker.root.as_deref());
        folder(report, "frontend", self.frontend.root.as_deref());
        if self.worker.root.is_some() && self.worker.root == self.frontend.root {
            let message = "`frontend.root` is the same folder as `worker.root`".to_owned();
            report.error("frontend.root", message, "give each half a folder of its own, for example \"api\" and \"web\"");
        }
        not_empty(report, "worker.check", self.worker.check.as_deref());
        cargo_build(report, "worker.build", self.worker.build.as_deref());
        native_binary(report, "worker.command", self.worker.command.as_deref());
        port(report, "worker.port", self.worker.port);
        health(report, "worker.health", self.worker.health.as_deref());
        not_empty(report, "frontend.build", self.frontend.build.as_deref());
        output(report, "frontend.output", self.frontend.output.as_deref());
    }
}

impl Resources {
    fn check(&self, report: &mut Report<'_>) {
        if self.memory.as_deref().is_some_and(|memory| memory_bytes(memory) != Some(128 << 20)) {
            report.error("resources.memory", "`resources.memory` must be 128 MiB".to_owned(), "write memory = \"128mb\"");
        }
        if self.cpu.as_deref().is_some_and(|cpu| !is_one(cpu)) {
            report.error("resources.cpu", "`resources.cpu` must be 1".to_owned(), "write cpu = \"1\"");
        }
        if self.idle_timeout_minutes.is_some_and(|minutes| !(1..=60).contains(&minutes)) {
            let message = "`resources.idle_timeout_minutes` must be 1 to 60".to_owned();
            report.error("resources.idle_timeout_minutes", message, "write idle_timeout_minutes = 15");
        }
    }
}

/// Bytes of a text such as `128mb`. The form counts `mb` and `mib` alike: in it 128mb is 128 MiB.
fn memory_bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let shift = match unit {
        "mb" | "mib" => 20,
        "gb" | "gib" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn is_one(text: &str) -> bool {
    let decimal = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    decimal && text.parse::<f64>().is_ok_and(|number| (number - 1.0).abs() < 0.000_5)
}

/// The command with the target that workers are built for: the published client built native binaries.
fn for_wasm(command: Option<&str>) -> String {
    match command {
        None => DEFAULT_WORKER_BUILD.to_owned(),
        Some(command) if command.split_whitespace().any(|word| word.starts_with("--target")) => command.to_owned(),
        Some(command) => {
            let words = command.split_whitespace().flat_map(|word| match word {
                "--release" => vec![word, "--target", "wasm32-wasip2"],
                word => vec![word],
            });
            words.collect::<Vec<_>>().join(" ")
        }
    }
}

fn not_empty(report: &mut Report<'_>, path: &str, command: Option<&str>) {
    if command.is_some_and(|command| command.trim().is_empty()) {
        report.error(path, format!("`{path}` must not be empty"), "give a command, or remove the line to use the default");
    }
}

fn cargo_build(report: &mut Report<'_>, path: &str, command: Option<&str>) {
    let Some(command) = command else { return };
    let has = |wanted: &str| command.split_whitespace().any(|word| word == wanted);
    if !(has("cargo") && has("build") && has("--release")) {
        let message = format!("`{path}` must contain `cargo`, `build` and `--release`");
        report.error(path, message, &format!("write \"{DEFAULT_WORKER_BUILD}\", or remove the line to use it"));
    }
    no_javascript(report, path, command);
}

fn native_binary(report: &mut Report<'_>, path: &str, command: Option<&str>) {
    let Some(command) = command else { return };
    if !command.split_whitespace().any(|word| word.contains("target/release/")) {
        report.error(path, format!("`{path}` must name a binary under `target/release/`"), "remove the line: a component needs no command to run");
    }
    no_javascript(report, path, command);
}

fn no_javascript(report: &mut Report<'_>, path: &str, command: &str) {
    let program = |word: &str| word.rsplit('/').next().is_some_and(|name| JAVASCRIPT_RUNTIMES.contains(&name));
    if let Some(word) = command.split_whitespace().find(|word| program(word)) {
        let message = format!("`{path}` runs `{word}`, but a Rust worker is not built or run by a JavaScript runtime");
        report.error(path, message, "move it to `frontend.build`, or describe the service in the `[services]` form");
    }
}

fn port(report: &mut Report<'_>, path: &str, port: Option<u16>) {
    if port == Some(0) {
        report.error(path, format!("`{path}` must be 1 to 65535"), "remove the line: a component listens on no port");
    }
}

fn health(report: &mut Report<'_>, path: &str, health: Option<&str>) {
    if health.is_some_and(|health| !health.starts_with('/')) {
        report.error(path, format!("`{path}` must start with `/`"), "write a path such as \"/healthz\"");
    }
}

fn output(report: &mut Report<'_>, path: &str, output: Option<&str>) {
    if output.is_some_and(|output| output != "." && !is_safe_relative(output)) {
        report.error(path, format!("`{path}` must be a relative path without `.`, `..` and `\\`"), "write a folder such as \"dist\"");
    }
}

fn folder(report: &mut Report<'_>, section: &str, root: Option<&str>) {
    let path = format!("{section}.root");
    match root {
        None => report.error(section, format!("a `fullstack` service needs `{path}`"), &format!("add root = \"…\" to `[{section}]`")),
        Some(root) if !is_safe_relative(root) => {
            report.error(
                &path,
                format!("`{path}` must be a folder below the project's, without `.`, `..` and `\\`"),
                "write a folder such as \"api\"",
            );
        }
        Some(_) => {}
    }
}
