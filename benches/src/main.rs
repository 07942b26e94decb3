//! `bench`: measures the host in process and over HTTP, beside its peers. It measures and prints; it decides nothing, and no test depends on it.

mod bill;
mod command;
mod control;
mod fair;
mod guests;
mod host;
mod http;
mod inproc;
mod kinds;
mod machine;
mod native;
mod output;
mod server;
mod stats;

use std::process::ExitCode;

// Links the host's command for its global allocator and its set of features: what is measured here is what runs there.
use tovuk_cli as _;

fn main() -> ExitCode {
    // Before anything else: components are compiled by this program, started again.
    if let Some(code) = tovuk_runtime::compile::child_main() {
        return code;
    }
    match command::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
