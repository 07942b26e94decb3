//! Builds a service: runs its commands, shows their output as it comes and finds the component they leave. It decides nothing about when to
//! build (`watch` and the dev loop do) and does not look into the component.

mod locate;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tovuk_kernel::project::Service;
use tovuk_server::build::command;
pub use tovuk_server::build::command::CommandError;
pub use tovuk_server::build::component::ComponentError;

use crate::project_file::service_directory;
use crate::toolchain::{self, ToolchainError};

/// Takes lines of output, each with the service's prefix and without its line break.
pub type Sink = Arc<dyn Fn(&str) + Send + Sync>;

/// What a build has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The worker's component; absent for a static frontend.
    pub component: Option<PathBuf>,
    /// The folder of static files, where the service has one.
    pub assets: Option<PathBuf>,
    /// How long it took.
    pub duration: Duration,
}

/// Why a build has failed. Each text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The command cannot be understood.
    #[error("the build command of `{service}` cannot be run: {source}")]
    Command {
        /// The service.
        service: String,
        /// Why.
        source: CommandError,
    },
    /// Rust cannot build workers.
    #[error("`{service}` cannot be built: {source}")]
    Toolchain {
        /// The service.
        service: String,
        /// Why.
        source: ToolchainError,
    },
    /// There is no such program.
    #[error("`{service}` cannot be built: the program `{program}` of the build command `{command}` was not found. {}", command::how_to_install(.program))]
    NotFound {
        /// The service.
        service: String,
        /// The program.
        program: String,
        /// The whole command.
        command: String,
    },
    /// A program could not be started or watched.
    #[error("`{service}` cannot be built: running `{command}` in {} failed: {source}", .directory.display())]
    Run {
        /// The service.
        service: String,
        /// The command.
        command: String,
        /// Where it was to run.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A command has failed. Its output has gone to the sink; the end of it is kept for places that have not seen the rest.
    #[error("the build of `{service}` failed: `{command}` ended with {status}. Correct what it reports and save, or run it yourself in {}", .directory.display())]
    Failed {
        /// The service.
        service: String,
        /// The command.
        command: String,
        /// Where it ran.
        directory: PathBuf,
        /// How it ended, in words.
        status: String,
        /// The last lines of its output, without prefix.
        tail: Vec<String>,
    },
    /// There is no component where it should be.
    #[error("{source}")]
    Component {
        /// The service.
        service: String,
        /// Why.
        source: ComponentError,
    },
    /// There are no static files where they should be.
    #[error("the build of `{service}` has left no static files: the folder {} does not exist. Correct `assets` in tovuk.toml, or what the build writes", .path.display())]
    NoAssets {
        /// The service.
        service: String,
        /// The folder that was looked at.
        path: PathBuf,
    },
}

impl BuildError {
    /// The last lines that the failed command wrote.
    pub fn tail(&self) -> &[String] {
        match self {
            Self::Failed { tail, .. } => tail,
            _ => &[],
        }
    }
}

/// Builds one service of the project in `project`. The service must have its defaults filled in, as `project_file::load` does.
///
/// Dropping the future ends the build with all processes it has started.
pub async fn build(project: &Path, name: &str, service: &Service, sink: Sink) -> Result<Built, BuildError> {
    let started = Instant::now();
    let root = service_directory(project, service);
    if let Some(frontend) = service.frontend_build() {
        run_all(name, frontend.command.as_deref(), &project.join(frontend.root), &sink).await?;
    }
    run_all(name, service.build.as_deref(), &root, &sink).await?;
    let component = match service.kind().has_worker() {
        true => {
            let found = locate::find(name, service, &root).await;
            Some(found.map_err(|source| BuildError::Component { service: name.to_owned(), source })?)
        }
        false => None,
    };
    let assets = service.assets.as_ref().map(|assets| root.join(assets));
    if let Some(path) = assets.as_ref().filter(|path| !path.is_dir()) {
        return Err(BuildError::NoAssets { service: name.to_owned(), path: path.clone() });
    }
    Ok(Built { component, assets, duration: started.elapsed() })
}

/// Where the component of a service will be, without building it: for watching, and for telling the author. Nothing for a static frontend.
pub async fn component_path(project: &Path, service: &Service) -> Result<Option<PathBuf>, ComponentError> {
    if !service.kind().has_worker() {
        return Ok(None);
    }
    locate::locate(service, &service_directory(project, service)).await.map(Some)
}

async fn run_all(service: &str, command: Option<&str>, directory: &Path, sink: &Sink) -> Result<(), BuildError> {
    let Some(command) = command else { return Ok(()) };
    let in_command = |source| BuildError::Command { service: service.to_owned(), source };
    let steps = command::split(command).map_err(in_command)?;
    let steps = command::with_dependencies(steps, directory);
    for step in steps {
        let line = step.join(" ");
        let Some((program, arguments)) = step.split_first() else { continue };
        if program == "cargo" {
            let say = |text: &str| sink(&format!("{service} | {text}"));
            let ensured = toolchain::ensure_wasm_target(directory, &say).await;
            ensured.map_err(|source| BuildError::Toolchain { service: service.to_owned(), source })?;
        }
        let ended = process::run(program, arguments, directory, service, sink).await.map_err(|source| match source.kind() {
            // The same kind is told for a missing folder, which is then the thing to say.
            std::io::ErrorKind::NotFound if directory.is_dir() => {
                BuildError::NotFound { service: service.to_owned(), program: program.clone(), command: command.to_owned() }
            }
            _ => BuildError::Run { service: service.to_owned(), command: line.clone(), directory: directory.to_owned(), source },
        })?;
        if !ended.status.success() {
            let status = command::in_words(ended.status);
            return Err(BuildError::Failed { service: service.to_owned(), command: line, directory: directory.to_owned(), status, tail: ended.tail });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
