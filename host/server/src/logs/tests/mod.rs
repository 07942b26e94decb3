//! The log store as its users see it: what goes in comes out in pages, bounded, redacted and for as long as it is kept.
#![allow(clippy::unwrap_used)]

mod flood;
mod follow;
mod kept;
mod observed;
mod pages;

use std::path::Path;

use tempfile::TempDir;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::ids::{AccountId, ServiceId};

use super::{Config, Line, Logs, Page, Query, Stream, Subject};

fn open(folder: &Path) -> Logs {
    Logs::open(folder, Clock::advanceable()).unwrap()
}

fn service(name: &str) -> ServiceId {
    ServiceId::from(name)
}

fn line(service_name: &str, message: impl Into<String>) -> Line {
    Line::new(service(service_name), AccountId::from("account_1"), Stream::Stdout, message)
}

async fn read(logs: &Logs, service_name: &str, limit: u32, cursor: Option<&str>) -> Page {
    let query = Query { limit: Some(limit), cursor: cursor.map(str::to_owned), ..Query::default() };
    logs.read(Subject::Service(service(service_name)), &query).await.unwrap()
}

/// The messages of a service's newest lines, oldest first.
async fn messages(logs: &Logs, service_name: &str) -> Vec<String> {
    read(logs, service_name, 1_000, None).await.lines.into_iter().map(|line| line.message).collect()
}
