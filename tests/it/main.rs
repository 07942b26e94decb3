//! What the host does, asked through real sockets of real components. One file per subject.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on has to stop")]

mod api_access;
mod api_accounts;
mod api_bindings;
mod api_cron;
mod api_deploys;
mod api_domains;
mod api_env;
mod api_http;
mod api_kv;
mod api_operator;
mod api_queues;
mod api_races;
mod api_runtime;
mod api_services;
mod api_source;
mod api_sqlite;
mod api_state;
mod api_storage;
mod bindings;
mod chains;
mod check;
mod cli_client;
mod cli_data;
mod cli_deploy;
mod cli_kv;
mod cli_queues;
mod cli_serve;
mod cli_storage;
mod cron;
mod density;
mod deploy_load;
mod deploys;
mod dev;
mod dev_api;
mod disk_full;
mod edge_acme;
mod edge_http;
mod edge_limits;
mod edge_objects;
mod edge_tls;
mod example_guestbook;
mod examples;
mod fairness;
mod fairness_admission;
mod files;
mod headers;
mod hostile;
mod hosts;
mod kill;
mod kill_objects;
mod kv_worker;
mod logs;
mod objects;
mod observe_logs;
mod observe_metrics;
mod observe_top;
mod observe_traces;
mod openapi;
mod outbound;
mod outcomes;
mod pages;
mod project_data;
mod queues;
mod refused;
mod restored;
mod simulation;
mod source_builds;
mod sqlite_durable;
mod state;
mod streaming;
mod templates;
mod tidy;
mod usage;
mod usage_caps;
mod usage_doors;
mod usage_events;
mod usage_told;
mod worker_sqlite;

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
