//! `tovuk dev`: every service of a project on this machine, on the engine and limits of production.
//!
//! `session` holds what runs and swaps it, `show` prints what happens. A build that fails changes nothing that runs.

mod session;
mod show;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tovuk_kernel::clock::Clock;
use tovuk_runtime::compile::Compiler;
use tovuk_runtime::outbound::{AddressPolicy, OutboundConfig};
use tovuk_server::boot::StartError;
use tovuk_server::boot::local::{LocalConfig, LocalHost};

use crate::args::DevArgs;
use crate::project_file::{self, Loaded, Style};
use crate::watch::Watcher;
use session::Session;
use show::Show;

/// Instances at a time. A laptop needs no more, and a smaller pool starts faster.
const SLOTS: u32 = 512;
/// Where a project's data is kept.
const DATA_FOLDER: &str = ".tovuk";
/// How long running responses may go on after an interrupt. One without an end, such as a stream of events, must not hold the terminal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the project until it is interrupted.
pub async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let loaded = project_file::load(&args.directory)?;
    let show = Show::start();
    show.text(&loaded.render_warnings(Style::of_stderr()));
    let host = start(&args, &loaded, &show).await?;
    let result = tokio::select! {
        result = follow(&host, &show, loaded) => result,
        result = interrupted() => result,
    };
    if result.is_ok() {
        show.note("stopping");
    }
    host.stop().await;
    show.finish();
    result.map(|()| ExitCode::SUCCESS)
}

async fn start(args: &DevArgs, loaded: &Loaded, show: &Show) -> anyhow::Result<LocalHost> {
    let config = LocalConfig {
        listen: args.listen,
        data: loaded.directory.join(DATA_FOLDER),
        plan: args.plan.into(),
        slots: SLOTS,
        outbound: OutboundConfig { addresses: AddressPolicy { allow: args.outbound_allow_addresses.clone() }, ..OutboundConfig::default() },
        drain_timeout: DRAIN_TIMEOUT,
    };
    let clock = Clock::advanceable();
    let compiler = Compiler::this_program(clock.clone()).context("cannot find this program's own file")?;
    LocalHost::start(config, compiler, clock, Arc::new(show.clone())).await.map_err(|error| match error {
        StartError::Listen { .. } => anyhow!("{error}: choose another with --listen 127.0.0.1:0"),
        // As text, because it names its cause already.
        error => anyhow!("{error}"),
    })
}

/// Builds everything once, then whatever changes. Ends only when the system's notifications do.
async fn follow(host: &LocalHost, show: &Show, loaded: Loaded) -> anyhow::Result<()> {
    let authority = host.control().urls().public_authority();
    let mut session = Session::new(host.control().clone(), authority, show.clone(), loaded).await?;
    // Watched before the first build, so that a file saved while it runs is not missed.
    let mut watcher = watch(&session).await?;
    session.build_all().await;
    session.say_ready();
    while let Some(changes) = watcher.next().await {
        if changes.project_file {
            match project_file::load(&session.loaded().directory) {
                Ok(loaded) => {
                    show.note("tovuk.toml has changed");
                    show.text(&loaded.render_warnings(Style::of_stderr()));
                    if let Err(error) = session.replace_project(loaded).await {
                        show.note(&format!("tovuk.toml cannot be applied: {error}"));
                        show.note("what ran before still runs");
                        continue;
                    }
                    watcher = watch(&session).await?;
                    session.build_all().await;
                    session.say_ready();
                }
                Err(error) => {
                    show.text(&error.render(Style::of_stderr()));
                    show.note("tovuk.toml cannot be used; what ran before still runs");
                }
            }
            continue;
        }
        if changes.env_file {
            show.note(".env.local has changed");
            session.deploy_all().await;
            show.note("its new values are live");
        }
        for name in &changes.services {
            session.rebuild(name).await;
        }
    }
    Ok(())
}

async fn watch(session: &Session) -> anyhow::Result<Watcher> {
    let outputs = session.outputs().await;
    Watcher::new(session.loaded(), &outputs).context("changes cannot be followed")
}

async fn interrupted() -> anyhow::Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminated.recv() => {}
    }
    Ok(())
}
