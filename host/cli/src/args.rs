//! The commands that this program knows by itself; `remote` adds those of the table of operations. What a command does stands in its own module.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use tovuk_kernel::limits::Plan;

use crate::deploy::DeployArgs;
use crate::login::LoginArgs;
use crate::logs::LogsArgs;
use crate::reference::{CompletionsArgs, ManArgs};
use crate::serve::Settings;
use crate::session::ClientArgs;
use crate::top::TopArgs;

/// Runs WebAssembly workers: on this machine as in production.
#[derive(Debug, Parser)]
#[command(
    name = "tovuk",
    version,
    disable_version_flag = true,
    max_term_width = 110,
    after_help = "Start with:\n  tovuk new hello && cd hello && tovuk dev\n"
)]
pub struct Cli {
    /// Which host to ask, and how to answer.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Print version
    #[arg(long, short = 'V', short_alias = 'v', action = ArgAction::Version)]
    version: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run every service of a project on this machine, and rebuild on change
    Dev(DevArgs),
    /// Run a host for many accounts: control API, deploys, front door
    Serve(Box<Settings>),
    /// Make a new project
    New(NewArgs),
    /// Say what is wrong with a project file or a component
    Check(CheckArgs),
    /// Build services and put them live, and see and undo what was deployed
    Deploy(DeployArgs),
    /// Show the log of a service, a build or a deploy
    Logs(LogsArgs),
    /// Show what services do right now: rates, errors, CPU time, latency
    Top(TopArgs),
    /// Log in to a host, and keep the token for it
    Login(LoginArgs),
    /// Forget the token of a host
    Logout,
    /// Look at everything that the other commands rely on
    Doctor,
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write the pages of all commands
    Man(ManArgs),
    /// Print the JSON schema of tovuk.toml, for editors
    Schema,
}

/// `tovuk dev`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tovuk dev\n  tovuk dev examples/shop --listen 127.0.0.1:9000\n  tovuk dev --plan pro --outbound-allow-addresses 127.0.0.0/8\n"
)]
pub struct DevArgs {
    /// The folder with tovuk.toml
    #[arg(default_value = ".")]
    pub directory: PathBuf,
    /// Where to listen; port 0 takes a free one
    #[arg(long, env = "TOVUK_LISTEN", default_value = "127.0.0.1:8787")]
    pub listen: SocketAddr,
    /// The plan whose limits apply
    #[arg(long, value_enum, default_value = "free")]
    pub plan: PlanArg,
    /// Networks that workers may reach although they are not public, for example a database on this machine
    #[arg(long, env = "TOVUK_OUTBOUND_ALLOW_ADDRESSES", value_delimiter = ',', value_name = "NETWORK")]
    pub outbound_allow_addresses: Vec<IpNet>,
}

/// `tovuk new`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tovuk new hello\n  tovuk new shop --template fullstack\n  tovuk new hello-js --template js\n")]
pub struct NewArgs {
    /// The folder to make, or one with sources
    #[arg(default_value = ".")]
    pub directory: PathBuf,
    /// rust, rust-wasi-http, fullstack, js or static; rust when the folder is new
    #[arg(long)]
    pub template: Option<String>,
}

/// `tovuk check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tovuk check\n  tovuk check --build\n  tovuk check target/wasm32-wasip2/release/hello.wasm\n")]
pub struct CheckArgs {
    /// A folder with tovuk.toml, or a component
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Build the services first
    #[arg(long)]
    pub build: bool,
}

/// A plan as it is named on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PlanArg {
    /// The defaults of the free plan
    Free,
    /// The defaults of the pro plan
    Pro,
}

impl From<PlanArg> for Plan {
    fn from(plan: PlanArg) -> Self {
        match plan {
            PlanArg::Free => Self::Free,
            PlanArg::Pro => Self::Pro,
        }
    }
}
