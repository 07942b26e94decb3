//! What is there after `tovuk serve` was killed at any moment of a deploy: everything that it had acknowledged, nothing in halves, and a version that
//! serves. And what a host that is asked to end lets finish first.

mod data;
mod model;
mod moment;

use std::sync::Arc;

use http_body_util::BodyExt;
use rustix::process::Signal;
use serde_json::json;
use tovuk_tests::{Client, Served, component, component_body, full_size, saying};

use crate::TOVUK;
pub use data::at_url;
pub use moment::assert_whole;

use data::Data;
use model::Model;
use moment::{Moment, kill_at};

/// The moments at which hosts are killed follow from this.
const SEED: u64 = 0x7074_6f76_756b;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_acknowledged_is_lost_when_the_host_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut host = Served::start(TOVUK, &data).await;
    let model = Arc::new(Model::begin(&host).await);
    let mut random = fastrand::Rng::with_seed(SEED);
    for round in 0..if full_size() { 100 } else { 10 } {
        let moment = Moment::draw(&mut random);
        println!("round {round}: {moment:?}");
        let working = tokio::spawn(Model::work(model.clone(), host.api, host.token.clone()));
        host = kill_at(moment, host, &model.answers, working).await;
        model.check(&host).await;
    }
    println!("{}", model.summary());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_data_that_was_acknowledged_is_lost_when_the_host_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut host = Served::start(TOVUK, &data).await;
    let model = Arc::new(Data::begin(&host).await);
    let mut random = fastrand::Rng::with_seed(SEED);
    for round in 0..if full_size() { 200 } else { 15 } {
        let moment = Moment::draw(&mut random);
        println!("round {round}: {moment:?}");
        let working = tokio::spawn(Data::work(model.clone(), host.api, host.token.clone()));
        host = kill_at(moment, host, &model.answers, working).await;
        model.check(&host).await;
    }
    println!("{}", model.summary());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_asked_to_end_finishes_what_runs_and_loses_no_build() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut host = Served::start(TOVUK, &data).await;
    let config = json!({"routes": ["/*"]});
    let made = host.ok("POST", "/v1/deploy", Some(&component_body("drip", &component("dripper"), config.clone(), ""))).await;
    assert_eq!(host.built(made["build_job"]["id"].as_str().unwrap()).await["status"], "succeeded");

    // Its head is here, so it runs.
    let request = http::Request::get("/40?count=20").header("host", format!("drip.localhost:{}", host.public.port()));
    let running = Client::new(host.public).send(request.body(http_body_util::Empty::new()).unwrap()).await.unwrap();
    let mut builds = Vec::new();
    for number in 0..4 {
        let body = component_body(&format!("late{number}"), &saying(&format!("late{number}")), config.clone(), "");
        builds.push(host.ok("POST", "/v1/deploy", Some(&body)).await["build_job"]["id"].as_str().unwrap().to_owned());
    }
    host.program.signal(Signal::TERM);
    host.program.line(&["stopping"]).await;
    let body = running.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"tick 20\n"), "{body:?}");
    assert!(host.program.ended().await.success(), "{}", host.program.text());
    assert_whole(&data);

    // As often as it may be asked to end, a build is not at fault and has all its attempts.
    for _ in 0..4 {
        let mut host = Served::start(TOVUK, &data).await;
        host.program.signal(Signal::TERM);
        assert!(host.program.ended().await.success(), "{}", host.program.text());
    }
    let host = Served::start(TOVUK, &data).await;
    for (number, build) in builds.iter().enumerate() {
        assert_eq!(host.built(build).await["status"], "succeeded");
        assert_eq!(host.get(&format!("late{number}"), "/").await.text(), format!("late{number}"));
    }
    assert_eq!(std::fs::read_dir(data.join("uploads")).unwrap().count(), 0);
}
