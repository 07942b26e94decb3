//! The place where source that tenants send is compiled: a child process in namespaces of its own, and what both sides of the pipe to it agree on.
//! There is no other way to build: where the namespaces cannot be had, building is refused.
//!
//! The child is this program started again. It has three stages, in order:
//!
//! 1. `confine`: gives up the host's user, enters new user, mount, pid, network, ipc, uts and cgroup namespaces, and puts together a file system of the toolchain
//!    (read-only) and an empty, size-limited scratch space.
//! 2. `init`: process 1 of the new pid namespace. It leaves the old file system, gives up every capability, sets limits and the filter of system
//!    calls, and only then reads what the tenant has sent.
//! 3. The build's own programs, which `init` starts, watches and ends.
//!
//! No folder is shared with the host: the source goes in through a pipe and what was built comes out through one, so that a link which hostile code
//! leaves behind is never followed outside.

mod attach;
mod confine;
mod filter;
pub(super) mod frames;
mod init;
mod output;
pub(super) use self::output::{ASSETS, COMPONENT};
mod run;
mod usage;

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use serde::{Deserialize, Serialize};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::project::{Manifest, Service};

use super::TARGET;
use super::archive::{ArchiveError, ArchiveLimits};

/// The argument by which the host's own binary is told to be the child.
pub const CHILD_ARGUMENT: &str = "__build";
/// The argument after it that tells the second stage.
const INIT_ARGUMENT: &str = "init";

/// Where the source is, inside.
const SOURCE: &str = "/build";
/// Where the toolchain is, inside.
const TOOLCHAIN: &str = "/toolchain";
/// Where the operator's cargo folder is, inside.
const OPERATOR_CARGO: &str = "/cargo";
/// The home of the build, inside.
const HOME: &str = "/home";

/// How builds from source are run.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// The program to start as the child. Its `main` has to begin with [`child_main`].
    pub program: PathBuf,
    /// The folder of the Rust toolchain, as `rustc --print sysroot` names it. It is visible to builds, read-only.
    pub toolchain: PathBuf,
    /// A cargo folder with a registry, a `vendor` folder or a `config.toml` for builds to use, read-only, under `/cargo`. Builds have no network: without
    /// this they can use only what is vendored in their source.
    pub cargo_home: Option<PathBuf>,
    /// Further folders that builds may read, under the same path. The system's own programs and libraries are always visible.
    pub read_only: Vec<PathBuf>,
    /// The user and group that builds run as when the host runs as root. They should own nothing. Otherwise builds run as the host's own user.
    pub build_user: u32,
    /// What one build may use.
    pub limits: SandboxLimits,
    /// Measures the wall clock.
    pub clock: Clock,
}

/// What one build may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxLimits {
    /// Wall clock, in ms.
    pub wall_ms: u64,
    /// CPU time of all its processes together, in seconds.
    pub cpu_seconds: u64,
    /// Memory of all its processes together. Files come on top, because they are held in memory as well.
    pub memory_bytes: u64,
    /// Files: source, intermediate results and output together.
    pub disk_bytes: u64,
    /// How many files and folders.
    pub disk_files: u64,
    /// Processes and threads at a time.
    pub processes: u64,
    /// Lines of output that are passed on.
    pub log_lines: u64,
    /// The largest component.
    pub component_bytes: u64,
    /// Static files that it may leave: all together.
    pub assets_bytes: u64,
    /// Static files that it may leave: how many.
    pub assets_files: u64,
}

impl Default for SandboxLimits {
    fn default() -> Self {
        let assets = ArchiveLimits::default();
        Self {
            wall_ms: 600_000,
            cpu_seconds: 1_200,
            memory_bytes: 2 << 30,
            disk_bytes: 2 << 30,
            disk_files: 200_000,
            processes: 512,
            log_lines: 20_000,
            component_bytes: 128 << 20,
            assets_bytes: assets.bytes,
            assets_files: assets.files,
        }
    }
}

impl SandboxConfig {
    /// A configuration for this program and the toolchain that `rustc` in `PATH` belongs to.
    pub async fn detect(clock: Clock) -> Result<Self, SandboxError> {
        let program = std::env::current_exe().map_err(|error| SandboxError::Host { text: format!("the path of this program: {error}") })?;
        Self::with_program(program, clock).await
    }

    /// The same for another program whose `main` begins with [`child_main`].
    pub async fn with_program(program: PathBuf, clock: Clock) -> Result<Self, SandboxError> {
        let mut command = tokio::process::Command::new("rustc");
        command.args(["--print", "sysroot"]).current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        let no_rust = |text: String| SandboxError::Toolchain { text: format!("`rustc --print sysroot` failed: {text}") };
        let output = command.output().await.map_err(|error| no_rust(error.to_string()))?;
        if !output.status.success() {
            return Err(no_rust(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()));
        }
        Ok(Self::with_toolchain(program, PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()), clock))
    }

    /// The same for a program and a toolchain that are known.
    pub fn with_toolchain(program: PathBuf, toolchain: PathBuf, clock: Clock) -> Self {
        Self { program, toolchain, cargo_home: None, read_only: Vec::new(), build_user: NOBODY, limits: SandboxLimits::default(), clock }
    }
}

/// The user that owns nothing, on every Linux distribution.
const NOBODY: u32 = 65_534;

/// Something of which a build has used more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// Time on the clock.
    Wall,
    /// CPU time.
    Cpu,
    /// Memory of its processes.
    Memory,
    /// The machine's memory, of which hardly any was left.
    MachineMemory,
    /// Files.
    Disk,
    /// Processes and threads.
    Processes,
}

impl Resource {
    fn exceeded(self, limits: &SandboxLimits) -> String {
        match self {
            Self::Wall => format!("took longer than {} s", limits.wall_ms / 1000),
            Self::Cpu => format!("used more than {} s of CPU time", limits.cpu_seconds),
            Self::Memory => format!("used more than {} MiB of memory", limits.memory_bytes >> 20),
            Self::MachineMemory => "left the machine without memory".to_owned(),
            Self::Disk => format!("filled its disk of {} MiB and {} files", limits.disk_bytes >> 20, limits.disk_files),
            Self::Processes => format!("ran more than {} processes and threads at a time", limits.processes),
        }
    }
}

/// Why nothing was built.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum SandboxError {
    /// This machine does not grant what confinement needs. Nothing was run.
    #[error(
        "builds from source cannot be confined on this machine, and are refused: {reason}. Allow user namespaces (sysctl user.max_user_namespaces, \
         kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns; in a container its seccomp and AppArmor profiles), then run `tovuk doctor`"
    )]
    Unavailable {
        /// What was refused, and with which error.
        reason: String,
    },
    /// The toolchain cannot be used inside.
    #[error(
        "the Rust toolchain cannot be used for builds from source: {text}. Install Rust from https://rustup.rs, run `rustup target add {TARGET}`, then `tovuk doctor`"
    )]
    Toolchain {
        /// Why.
        text: String,
    },
    /// The build command cannot be understood or its program is not there.
    #[error("the build command cannot be run: {text}")]
    Command {
        /// Why, and what to do.
        text: String,
    },
    /// A command of the build has failed.
    #[error("the build failed: `{command}` ended with {status}. Correct what it reports and deploy again")]
    Failed {
        /// The command.
        command: String,
        /// How it ended, in words.
        status: String,
        /// The last lines of its output.
        tail: Vec<String>,
    },
    /// The build was ended because it used too much.
    #[error("the build was ended because it {}. Make it do less, or build on your machine with `tovuk deploy`; operators can raise the limit", .what.exceeded(.limits))]
    Exceeded {
        /// Of what.
        what: Resource,
        /// How much there was.
        limits: Box<SandboxLimits>,
    },
    /// The build has left nothing that can be deployed.
    #[error("{text}")]
    Missing {
        /// What is missing, and what to do.
        text: String,
    },
    /// What the build has left is not accepted.
    #[error("what the build has left cannot be deployed: {0}")]
    #[serde(skip)]
    Output(ArchiveError),
    /// Whoever wanted the build does not any more.
    #[error("the build was cancelled")]
    Cancelled,
    /// The host's fault.
    #[error("the build could not be run: {text}")]
    Host {
        /// What failed.
        text: String,
    },
}

impl SandboxError {
    /// The last lines that the failed command wrote.
    pub fn tail(&self) -> &[String] {
        match self {
            Self::Failed { tail, .. } => tail,
            _ => &[],
        }
    }

    /// The row of the code table where it is about this host and not about the build.
    pub fn code(&self) -> Option<&'static Code> {
        match self {
            Self::Unavailable { .. } | Self::Toolchain { .. } => Some(&codes::BUILD_SANDBOX_UNAVAILABLE),
            Self::Host { .. } => Some(&codes::INTERNAL_ERROR),
            _ => None,
        }
    }
}

/// What the first stage is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    /// Who to be, when the host is root.
    build_user: u32,
    limits: SandboxLimits,
    mounts: Vec<Mount>,
}

/// Something of the host's file system that is visible inside.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mount {
    /// The path on the host.
    from: PathBuf,
    /// The absolute path inside.
    to: PathBuf,
    /// Whether it is a device, which has to stay usable as one.
    device: bool,
}

/// What the second stage is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    limits: SandboxLimits,
    /// Programs are looked up there.
    path: String,
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
enum What {
    /// Say whether the toolchain works.
    Probe,
    /// Build, from the source that follows.
    Build {
        name: String,
        service: Box<Service>,
        /// The service's own copy of this is not serialised.
        published: Option<Box<Manifest>>,
    },
}

/// What the child answers at its end.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Done {
    /// What the toolchain says of itself.
    pub version: String,
    pub component: bool,
    pub assets: bool,
}

impl Task {
    pub(super) fn probe(config: &SandboxConfig) -> Self {
        Self { limits: config.limits, path: search_path(config), what: What::Probe }
    }

    pub(super) fn build(config: &SandboxConfig, name: &str, service: &Service) -> Self {
        let what = What::Build { name: name.to_owned(), service: Box::new(service.clone()), published: service.published.clone() };
        Self { limits: config.limits, path: search_path(config), what }
    }
}

/// Where programs are looked up, inside. A toolchain that the system's packages installed is under `/usr` already.
fn search_path(config: &SandboxConfig) -> String {
    let system = "/usr/local/bin:/usr/bin:/bin";
    if config.toolchain.starts_with("/usr") { format!("{}/bin:{system}", config.toolchain.display()) } else { format!("{TOOLCHAIN}/bin:{system}") }
}

impl Orders {
    pub(super) fn new(config: &SandboxConfig) -> Self {
        Self { build_user: config.build_user, limits: config.limits, mounts: attach::mounts(config) }
    }
}

/// Call this first in `main`: when this process was started as a build it does that work and gives the exit code to end with.
pub fn child_main() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != CHILD_ARGUMENT) {
        return None;
    }
    let is_init = arguments.next().is_some_and(|argument| argument == INIT_ARGUMENT);
    Some(if is_init { init::main() } else { confine::main() })
}
