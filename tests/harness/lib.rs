//! Hosts for tests: real components, real sockets on port 0, the runtime as it ships.
//!
//! `Host::start().await.deploy("api", "hello", |service| service.public()).await.get("api", "/").await`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on has to stop")]

mod archive;
mod browser;
mod client;
mod dns;
mod gate;
mod guests;
mod host;
mod load;
mod observed;
mod operator;
mod process;
mod s3;
mod serve;
mod served;
mod tls;
mod versions;
mod wire;

pub use archive::tar_gz;
pub use browser::Browser;
pub use client::{Client, Reply};
pub use dns::Zone;
pub use gate::Gate;
pub use guests::{component, repository};
pub use host::{Host, HostConfig, ServiceConfig};
pub use load::{Connection, Load, Target, Versions};
pub use observed::Observed;
pub use operator::Operator;
pub use process::{Dev, Program, Project, run, tovuk};
pub use s3::serve_s3;
pub use serve::{Ran, Serve, ran};
pub use served::Served;
pub use tls::{Authority, TlsClient};
pub use versions::{component_body, files_body, saying};
pub use wire::{Frame, PREFACE, Protocol, ask, ask_raw, exchange, fields, frame, frames, statuses};

/// Whether tests run at their full size, which takes long: set `TOVUK_SOAK=1`. Otherwise they run the same code at about a tenth.
pub fn full_size() -> bool {
    std::env::var_os("TOVUK_SOAK").is_some()
}
