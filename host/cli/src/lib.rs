//! The `tovuk` command.

pub mod args;
pub mod build;
pub mod check;
pub mod client;
pub mod deploy;
pub mod dev;
pub mod doctor;
pub mod env_file;
pub mod failure;
pub mod grammar;
pub mod login;
pub mod logs;
mod migrations;
pub mod new;
pub mod output;
pub mod project_file;
pub mod reference;
pub mod remote;
pub mod serve;
pub mod session;
pub mod storage;
mod suggest;
pub mod toolchain;
pub mod top;
pub mod watch;
mod words;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{ArgMatches, FromArgMatches};
use tracing_subscriber::EnvFilter;

use args::{Cli, Command, NewArgs};
pub use grammar::command;
pub use reference::reference;

use failure::Failure;
use project_file::{LoadError, Style};
use session::ClientArgs;

/// Instances make many small allocations on many threads, for which the system's allocator measured 5% slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Before anything else: a compiler or build process has limits to set and nothing to start, and the latter must have one thread.
    if let Some(code) = tovuk_runtime::compile::child_main().or_else(tovuk_server::build::sandbox::child_main) {
        return code;
    }
    let matches = match grammar::matches(std::env::args_os().collect()) {
        Ok(matches) => matches,
        Err(error) => return misunderstood(&error),
    };
    let filter = EnvFilter::try_from_env("TOVUK_HOST_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).without_time().init();
    let client = match ClientArgs::from_arg_matches(&matches) {
        Ok(client) => client,
        Err(error) => return misunderstood(&error),
    };
    match run(&matches, &client) {
        Ok(code) => code,
        Err(error) => told(&error, client.json),
    }
}

/// Tells what a command has failed with.
fn told(error: &anyhow::Error, json: bool) -> ExitCode {
    // People are shown the lines of a project file that are wrong.
    if let (Some(error), false) = (error.downcast_ref::<LoadError>(), json) {
        eprint!("{}", error.render(Style::of_stderr()));
        return ExitCode::FAILURE;
    }
    let failure = Failure::from(error);
    failure.report(json);
    failure.exit_code()
}

fn run(matches: &ArgMatches, client: &ClientArgs) -> anyhow::Result<ExitCode> {
    if let Some((rows, inner)) = remote::find(matches) {
        return in_runtime(remote::run(rows, inner, client));
    }
    if let Some(command) = storage::find(matches) {
        return in_runtime(storage::run(command?, client));
    }
    match Cli::from_arg_matches(matches)?.command {
        Command::Dev(args) => in_runtime(dev::run(args)),
        Command::Serve(settings) => in_runtime(serve::run(*settings)),
        Command::New(args) => make(&args, client.json),
        Command::Check(args) => in_runtime(check::run(args, client.json)),
        Command::Deploy(args) => in_runtime(deploy::run(args, client)),
        Command::Logs(args) => in_runtime(logs::run(args, client)),
        Command::Top(args) => in_runtime(top::run(args, client)),
        Command::Login(args) => in_runtime(login::run(args, client)),
        Command::Logout => login::out(client),
        Command::Doctor => in_runtime(doctor::run(client)),
        Command::Completions(args) => reference::completions(&args),
        Command::Man(args) => reference::man(&args),
        Command::Schema => print_schema(),
    }
}

/// Tells what is wrong with the command line. Asking for help is not wrong, and no command at all asks for help.
fn misunderstood(error: &clap::Error) -> ExitCode {
    if std::env::args_os().len() <= 1 {
        print(&grammar::command().render_help().to_string());
        return ExitCode::SUCCESS;
    }
    let failure = error.use_stderr().then(|| grammar::failure(error));
    if let (Some(failure), true) = (&failure, std::env::args_os().any(|argument| argument == "--json")) {
        failure.report(true);
        return ExitCode::FAILURE;
    }
    // Nothing is left to tell whoever cannot be printed to. The code 2 is kept for a host that failed.
    let _ = error.print();
    if let Some(instruction) = failure.filter(|failure| failure.code == "missing_service").and_then(|failure| failure.agent_instruction) {
        eprintln!("agent_instruction: {instruction}");
    }
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn in_runtime(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().on_thread_unpark(tovuk_runtime::meter::on_thread_unpark).build()?;
    runtime.block_on(command)
}

fn make(args: &NewArgs, json: bool) -> anyhow::Result<ExitCode> {
    let created = new::create(&args.directory, args.template.as_deref())?;
    output::print(&serde_json::to_value(&created)?, json, |_| created.to_string());
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
