//! The `tovuk` command.

pub mod args;
pub mod build;
pub mod check;
pub mod deploy;
pub mod dev;
pub mod env_file;
pub mod new;
pub mod project_file;
pub mod serve;
pub mod session;
mod suggest;
pub mod toolchain;
pub mod watch;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command, NewArgs};

/// Instances make many small allocations on many threads, for which the system's allocator measured 5% slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Before anything else: a compiler or build process has limits to set and nothing to start, and the latter must have one thread.
    if let Some(code) = tovuk_runtime::compile::child_main().or_else(tovuk_server::build::sandbox::child_main) {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to tell whoever cannot be printed to. The code 2 is kept for a host that failed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let filter = EnvFilter::try_from_env("TOVUK_HOST_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).without_time().init();
    let result = match cli.command {
        Command::Dev(args) => in_runtime(dev::run(args)),
        Command::Serve(settings) => in_runtime(serve::run(*settings)),
        Command::New(args) => make(&args),
        Command::Check(args) => in_runtime(check::run(args)),
        Command::Schema => print_schema(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn in_runtime(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().on_thread_unpark(tovuk_runtime::meter::on_thread_unpark).build()?;
    runtime.block_on(command)
}

fn make(args: &NewArgs) -> anyhow::Result<ExitCode> {
    print(&new::create(&args.directory, args.template.as_deref())?.to_string());
    Ok(ExitCode::SUCCESS)
}

/// Prints to standard output. A reader that has read enough and is gone, as in `tovuk schema | head`, is no error.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn print_schema() -> anyhow::Result<ExitCode> {
    print(&format!("{}\n", serde_json::to_string_pretty(&tovuk_kernel::project::schema())?));
    Ok(ExitCode::SUCCESS)
}
