//! What the host does, asked through real sockets of real components. One file per subject.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on has to stop")]

mod bindings;
mod chains;
mod check;
mod deploys;
mod dev;
mod edge_acme;
mod edge_http;
mod edge_limits;
mod edge_tls;
mod examples;
mod files;
mod headers;
mod hostile;
mod hosts;
mod logs;
mod outbound;
mod outcomes;
mod refused;
mod source_builds;
mod streaming;
mod templates;
mod tidy;

use tovuk_tests::{Host, HostConfig};

/// The host's binary, as cargo built it for these tests.
const TOVUK: &str = env!("CARGO_BIN_EXE_tovuk-under-test");

async fn host() -> Host {
    Host::start(TOVUK).await
}

/// A host whose errors say everything.
async fn author_host() -> Host {
    Host::with(HostConfig { audience: tovuk_server::edge::Audience::Author, ..HostConfig::new(TOVUK) }).await
}
