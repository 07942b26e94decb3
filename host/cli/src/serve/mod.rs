//! `tovuk serve`: the operator's host as a process. It reads settings, says where it listens, and ends as it is asked to; what the host is stands in
//! `tovuk_server::boot`.

mod objects;
mod settings;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tovuk_kernel::clock::Clock;
use tovuk_runtime::compile::Compiler;
use tovuk_server::boot::Host;

pub use self::settings::Settings;
use crate::session::DEFAULT_API;

/// Runs a host until it is told to stop.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let clock = Clock::system();
    let config = settings.with_file()?.host(&clock).await?;
    // Before the host starts, so that whoever stops it while it does is heard.
    let mut stop = Stop::listen()?;
    let drain_timeout = config.drain_timeout;
    let compiler = Compiler::this_program(clock.clone()).context("cannot find this program's own file")?;
    let host = tokio::select! {
        host = Host::start(config, compiler, clock) => host?,
        () = stop.asked() => return Ok(ExitCode::SUCCESS),
    };
    eprint!("{}", greeting(&host));
    stop.asked().await;
    eprintln!("stopping: running requests have up to {} s to end; a second signal ends them at once", drain_timeout.as_secs());
    tokio::select! {
        () = host.stop() => {
            eprintln!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        () = stop.asked() => {
            eprintln!("stopped at once");
            // Nothing that was acknowledged is lost by this: it is on disk before it is acknowledged.
            std::process::exit(1)
        }
    }
}

/// Where things are, once they can be reached. The token itself is never shown: logs are read by more people than files are.
fn greeting(host: &Host) -> String {
    let (urls, token) = (host.urls(), host.admin_token());
    let api = if urls.api == DEFAULT_API { String::new() } else { format!("TOVUK_API_BASE_URL={} ", urls.api) };
    let metrics = host.metrics_address().map(|address| format!("metrics   http://{address}/metrics\n")).unwrap_or_default();
    format!(
        "services  {}  (at {})\napi       {}  (at {})\n{metrics}token     {}  (the operator's)\n          TOVUK_TOKEN=$(cat {}) {api}tovuk service list\ntovuk {} is ready\n",
        urls.service("<service>"),
        host.public_address(),
        urls.api,
        host.api_address(),
        token.display(),
        quoted(token),
        env!("CARGO_PKG_VERSION"),
    )
}

/// The path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    shlex::try_quote(&text).map_or_else(|_| text.clone(), |quoted| quoted.into_owned())
}

/// The signals that ask a program to end.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
