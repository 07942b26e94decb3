//! `tovuk dev`: every service of a project on this machine, on the engine and limits of production.
//!
//! `session` holds what runs and swaps it, `show` prints what happens. A build that fails changes nothing that runs.

mod session;
mod show;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tovuk_kernel::clock::Clock;
use tovuk_runtime::compile::Compiler;
use tovuk_runtime::outbound::{AddressPolicy, OutboundConfig};
use tovuk_runtime::runtime::{Runtime, RuntimeConfig};
use tovuk_server::edge::routes::Routes;
use tovuk_server::edge::{Audience, Edge, ListenConfig, Listening};

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
    let loaded = match project_file::load(&args.directory) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprint!("{}", error.render(Style::of_stderr()));
            return Ok(ExitCode::FAILURE);
        }
    };
    let show = Show::start();
    show.text(&loaded.render_warnings(Style::of_stderr()));
    let listener =
        Listening::bind(args.listen).await.with_context(|| format!("cannot listen at {}: choose another with --listen 127.0.0.1:0", args.listen))?;
    let address = listener.local_addr()?;
    let authority = format!("localhost:{}", address.port());
    let runtime = start_runtime(&args, &loaded, &show)?;
    let routes = Routes::default();
    let edge = Edge::new(runtime.clone(), routes.clone(), Audience::Author, authority.clone());
    let listening = Listening::serve(listener, edge, ListenConfig { drain_timeout: DRAIN_TIMEOUT, ..ListenConfig::default() })?;
    let mut session = Session::new(runtime, routes, authority, args.plan.into(), show.clone(), loaded);
    tokio::select! {
        result = follow(&mut session, &show) => result?,
        result = interrupted() => result?,
    }
    show.note("stopping");
    listening.stop().await;
    show.finish();
    Ok(ExitCode::SUCCESS)
}

fn start_runtime(args: &DevArgs, loaded: &Loaded, show: &Show) -> anyhow::Result<Runtime> {
    let data = loaded.directory.join(DATA_FOLDER);
    std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    let mut config = RuntimeConfig::new(data.join("artifacts"));
    config.engine.slots_max = SLOTS;
    config.outbound = OutboundConfig { addresses: AddressPolicy { allow: args.outbound_allow_addresses.clone() }, ..OutboundConfig::default() };
    let clock = Clock::advanceable();
    let compiler = Compiler::this_program(clock.clone()).context("cannot find this program's own file")?;
    Ok(Runtime::new(config, compiler, clock, Arc::new(show.clone()))?)
}

/// Builds everything once, then whatever changes. Ends only when the system's notifications do.
async fn follow(session: &mut Session, show: &Show) -> anyhow::Result<()> {
    // Watched before the first build, so that a file saved while it runs is not missed.
    let mut watcher = watch(session).await?;
    session.build_all().await;
    session.say_ready();
    while let Some(changes) = watcher.next().await {
        if changes.project_file {
            match project_file::load(&session.loaded().directory) {
                Ok(loaded) => {
                    show.note("tovuk.toml has changed");
                    show.text(&loaded.render_warnings(Style::of_stderr()));
                    session.replace_project(loaded);
                    watcher = watch(session).await?;
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
