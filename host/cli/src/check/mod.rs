//! `tovuk check`: says what is wrong with a project file or a component before anything runs, and what a component will be able to do.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::project::Service;
use tovuk_runtime::compile::Compiler;
use tovuk_runtime::component::Description;
use tovuk_runtime::engine::{self, Metering};

use crate::args::CheckArgs;
use crate::build;
use crate::output::printable;
use crate::project_file::{self, Style};

/// What was checked, and what came of it.
#[derive(Serialize)]
struct Report {
    /// Whether everything will run.
    ok: bool,
    /// The project's folder, or the component's file.
    project: PathBuf,
    /// The project file, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<PathBuf>,
    checks: Vec<Check>,
}

/// What there is to say about one component.
#[derive(Serialize)]
struct Check {
    /// The service, or the component's file.
    name: String,
    /// Whether it will run.
    ok: bool,
    /// What it is, or what stands in the way.
    message: String,
    /// What to do about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_instruction: Option<String>,
    /// The component's file, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<PathBuf>,
    /// What it can do, when it will run.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Description>,
}

impl Check {
    fn failed(name: &str, message: String, agent_instruction: Option<String>) -> Self {
        Self { name: name.to_owned(), ok: false, message, agent_instruction, component: None, description: None }
    }
}

/// Checks a project or a component and prints what was found.
pub async fn run(args: CheckArgs, json: bool) -> anyhow::Result<ExitCode> {
    let is_component = args.path.extension().is_some_and(|extension| extension == "wasm");
    let (project, config, checks) = if is_component {
        let check = inspect(&args.path.display().to_string(), args.path.clone()).await?;
        (args.path, None, vec![check])
    } else {
        let loaded = project_file::load(&args.path)?;
        eprint!("{}", loaded.render_warnings(Style::of_stderr()));
        let mut checks = Vec::new();
        for (name, service) in &loaded.project.services {
            checks.push(check_service(&loaded.directory, name, service, args.build).await?);
        }
        (loaded.directory, Some(loaded.path), checks)
    };
    let report = Report { ok: checks.iter().all(|check| check.ok), project, config, checks };
    if json {
        crate::print(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    } else {
        report.checks.iter().for_each(print);
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn check_service(project: &Path, name: &str, service: &Service, build_first: bool) -> anyhow::Result<Check> {
    if build_first {
        let built = build::build(project, name, service, Arc::new(|line| eprintln!("{line}"))).await;
        if let Err(error) = built {
            return Ok(Check::failed(name, error.to_string(), None));
        }
    }
    match build::component_path(project, service).await {
        Ok(Some(path)) if !path.is_file() => {
            let command = service.build.as_deref().unwrap_or("your own command");
            let next = format!("Run `tovuk check --build`, or build it with `{command}`.");
            Ok(Check::failed(name, format!("{} is not built yet", path.display()), Some(next)))
        }
        Ok(Some(path)) => inspect(name, path).await,
        Ok(None) => Ok(Check {
            name: name.to_owned(),
            ok: true,
            message: "files only".to_owned(),
            agent_instruction: None,
            component: None,
            description: None,
        }),
        Err(error) => Ok(Check::failed(name, error.to_string(), None)),
    }
}

async fn inspect(name: &str, path: PathBuf) -> anyhow::Result<Check> {
    let check = match describe(&path).await? {
        Ok(description) => {
            let message = format!("serves {}", description.world.interface());
            Check { name: name.to_owned(), ok: true, message, agent_instruction: None, component: None, description: Some(description) }
        }
        Err(problem) => Check::failed(name, problem, None),
    };
    Ok(Check { component: Some(path), ..check })
}

/// What a component is, or why it will not run. It is compiled for that, as a host does.
pub async fn describe(path: &Path) -> anyhow::Result<Result<Description, String>> {
    let wasm = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let compiler = Compiler::this_program(Clock::system()).context("cannot find this program's own file")?;
    let compatibility = engine::compiling_engine(Metering::On).map(|engine| tovuk_runtime::compile::compatibility(&engine));
    let compatibility = compatibility.map_err(|error| anyhow::anyhow!("the engine cannot be set up: {error:#}"))?;
    Ok(compiler.compile(&wasm, &compatibility).await.map(|compiled| compiled.description).map_err(|error| error.to_string()))
}

fn print(check: &Check) {
    let name = printable(&check.name);
    if !check.ok {
        let next = check.agent_instruction.iter().map(|next| format!("  {}\n", printable(next))).collect::<String>();
        return crate::print(&format!("{name}: will not run\n  {}\n{next}", printable(&check.message)));
    }
    crate::print(&format!("{name}: ok, {}\n", check.message));
    for import in check.description.iter().flat_map(|description| &description.imports) {
        crate::print(&format!("  imports {import}{}\n", meaning(import)));
    }
}

/// What an import lets a worker do here.
fn meaning(import: &str) -> &'static str {
    match import.split('@').next().unwrap_or_default() {
        "tovuk:bindings/service" => "  calls the services that it binds",
        "tovuk:http/client" | "wasi:http/outgoing-handler" => "  calls bound services, and the hosts in `outbound`",
        "tovuk:kv/store" => "  reads and writes the KV namespaces of its service",
        "tovuk:queue/producer" => "  sends to the queues of its service",
        "tovuk:state/store" => "  reads and writes the State objects of its service",
        "tovuk:state/calls" => "  calls the handlers of its service's State objects",
        name if name.starts_with("wasi:keyvalue/") => "  reads and writes the KV namespaces of its service",
        "wasi:filesystem/types" | "wasi:filesystem/preopens" => "  (linked, and empty)",
        name if name.starts_with("wasi:sockets/") => "  (linked, and refused)",
        _ => "",
    }
}
