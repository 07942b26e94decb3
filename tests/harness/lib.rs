//! Hosts for tests: real components, real sockets on port 0, the runtime as it ships.
//!
//! `Host::start().await.deploy("api", "hello", |service| service.public()).await.get("api", "/").await`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on has to stop")]

mod client;
mod guests;
mod host;
mod observed;
mod operator;
mod process;
mod tls;
mod wire;

pub use client::{Client, Reply};
pub use guests::{component, repository};
pub use host::{Host, HostConfig, ServiceConfig};
pub use observed::Observed;
pub use operator::Operator;
pub use process::{Dev, Program, Project, run, tovuk};
pub use tls::{Authority, TlsClient};
pub use wire::{Frame, PREFACE, Protocol, ask, ask_raw, exchange, fields, frame, frames, statuses};

/// Whether tests run at their full size, which takes long: set `TOVUK_SOAK=1`. Otherwise they run the same code at about a tenth.
pub fn full_size() -> bool {
    std::env::var_os("TOVUK_SOAK").is_some()
}
