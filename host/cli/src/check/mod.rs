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

use crate::args::CheckArgs;
use crate::build;
use crate::project_file::{self, Style};

/// What there is to say about one component.
#[derive(Debug, Serialize)]
struct Finding {
    /// The service, when a project was checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    /// The component's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<PathBuf>,
    /// Whether it will run.
    ok: bool,
    /// What it is, when it will.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Description>,
    /// What stands in the way, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Checks a project or a component and prints what was found.
pub async fn run(args: CheckArgs, json: bool) -> anyhow::Result<ExitCode> {
    let is_component = args.path.extension().is_some_and(|extension| extension == "wasm");
    let findings = if is_component {
        vec![inspect(None, args.path.clone()).await?]
    } else {
        match project_file::load(&args.path) {
            Ok(loaded) => {
                eprint!("{}", loaded.render_warnings(Style::of_stderr()));
                let mut findings = Vec::new();
                for (name, service) in &loaded.project.services {
                    findings.push(check_service(&loaded.directory, name, service, args.build).await?);
                }
                findings
            }
            Err(error) => {
                eprint!("{}", error.render(Style::of_stderr()));
                return Ok(ExitCode::FAILURE);
            }
        }
    };
    if json {
        crate::print(&format!("{}\n", serde_json::to_string_pretty(&findings)?));
    } else {
        findings.iter().for_each(print);
    }
    Ok(if findings.iter().all(|finding| finding.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn check_service(project: &Path, name: &str, service: &Service, build_first: bool) -> anyhow::Result<Finding> {
    let problem = |text: String| Finding { service: Some(name.to_owned()), component: None, ok: false, description: None, problem: Some(text) };
    if build_first {
        let built = build::build(project, name, service, Arc::new(|line| eprintln!("{line}"))).await;
        if let Err(error) = built {
            return Ok(problem(error.to_string()));
        }
    }
    match build::component_path(project, service).await {
        Ok(Some(path)) if !path.is_file() => Ok(problem(format!(
            "{} is not built yet: run `tovuk check --build`, or build it with `{}`",
            path.display(),
            service.build.as_deref().unwrap_or("your own command")
        ))),
        Ok(Some(path)) => inspect(Some(name.to_owned()), path).await,
        Ok(None) => Ok(Finding { service: Some(name.to_owned()), component: None, ok: true, description: None, problem: None }),
        Err(error) => Ok(problem(error.to_string())),
    }
}

async fn inspect(service: Option<String>, path: PathBuf) -> anyhow::Result<Finding> {
    Ok(match describe(&path).await? {
        Ok(description) => Finding { service, component: Some(path), ok: true, description: Some(description), problem: None },
        Err(problem) => Finding { service, component: Some(path), ok: false, description: None, problem: Some(problem) },
    })
}

/// What a component is, or why it will not run. It is compiled for that, as a host does.
pub async fn describe(path: &Path) -> anyhow::Result<Result<Description, String>> {
    let wasm = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let compiler = Compiler::this_program(Clock::system()).context("cannot find this program's own file")?;
    let compatibility = tovuk_runtime::engine::compiling_engine().map(|engine| tovuk_runtime::compile::compatibility(&engine));
    let compatibility = compatibility.map_err(|error| anyhow::anyhow!("the engine cannot be set up: {error:#}"))?;
    Ok(compiler.compile(&wasm, &compatibility).await.map(|compiled| compiled.description).map_err(|error| error.to_string()))
}

fn print(finding: &Finding) {
    let subject = finding.service.clone().or_else(|| finding.component.as_ref().map(|path| path.display().to_string())).unwrap_or_default();
    if let Some(problem) = &finding.problem {
        crate::print(&format!("{subject}: will not run\n  {problem}\n"));
        return;
    }
    let Some(description) = &finding.description else {
        crate::print(&format!("{subject}: ok, files only\n"));
        return;
    };
    crate::print(&format!("{subject}: ok, serves {}\n", description.world.interface()));
    for import in &description.imports {
        crate::print(&format!("  imports {import}{}\n", meaning(import)));
    }
}

/// What an import lets a worker do here.
fn meaning(import: &str) -> &'static str {
    match import.split('@').next().unwrap_or_default() {
        "tovuk:bindings/service" => "  calls the services that it binds",
        "tovuk:http/client" | "wasi:http/outgoing-handler" => "  calls bound services, and the hosts in `outbound`",
        "wasi:filesystem/types" | "wasi:filesystem/preopens" => "  (linked, and empty)",
        name if name.starts_with("wasi:sockets/") => "  (linked, and refused)",
        _ => "",
    }
}
