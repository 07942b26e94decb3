//! Hundreds of services on one host, each with a component of its own: all are deployed by the API, all answer, and all answer again after a start anew.
//! What that takes is printed; `--nocapture` shows it.

use std::path::Path;
use std::time::Instant;

use serde_json::json;
use tovuk_tests::{Served, component_body, full_size, saying};

use crate::TOVUK;

/// The most memory that a service may keep resident beside its invocations, in KiB. It leaves room for a build without optimisation.
const RSS_KIB_OF_A_SERVICE_MAX: u64 = 2_048;

/// The answer of a service.
fn answer(number: usize) -> String {
    format!("s{number:04}")
}

fn name(number: usize) -> String {
    format!("service-{number}")
}

/// Resident memory of a process, in KiB.
fn rss_kib(host: &Served) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.program.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn size_on_disk(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

async fn assert_all_answer(host: &Served, services: usize) -> u128 {
    let started = Instant::now();
    for number in 0..services {
        assert_eq!(host.get(&name(number), "/").await.text(), answer(number));
    }
    started.elapsed().as_millis()
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_services_answer_and_answer_again_after_a_start_anew() {
    let services = if full_size() { 300 } else { 30 };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut host = Served::start(TOVUK, &data).await;
    let empty_kib = rss_kib(&host);
    let started = Instant::now();
    let mut builds = Vec::new();
    for number in 0..services {
        let body = component_body(&name(number), &saying(&answer(number)), json!({"routes": ["/*"]}), "");
        builds.push(host.ok("POST", "/v1/deploy", Some(&body)).await["build_job"]["id"].as_str().unwrap().to_owned());
    }
    for build in &builds {
        assert_eq!(host.built(build).await["status"], "succeeded");
    }
    println!("{services} services deployed in {} ms", started.elapsed().as_millis());
    println!("each asked once: {} ms", assert_all_answer(&host, services).await);
    let full_kib = rss_kib(&host);
    println!("VmRSS: {empty_kib} KiB empty, {full_kib} KiB with all of them");
    println!("artifacts: {} KiB", size_on_disk(&data.join("artifacts")) / 1_024);
    host.kill().await;

    let started = Instant::now();
    let host = Served::start(TOVUK, &data).await;
    println!("ready after {} ms, VmRSS {} KiB", started.elapsed().as_millis(), rss_kib(&host));
    println!("each asked once: {} ms, VmRSS {} KiB", assert_all_answer(&host, services).await, rss_kib(&host));
    let grown = full_kib.saturating_sub(empty_kib) / services as u64;
    assert!(grown < RSS_KIB_OF_A_SERVICE_MAX, "{grown} KiB for each service");
}
