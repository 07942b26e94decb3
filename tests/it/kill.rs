//! What is there after `tovuk serve` was killed at any moment of a deploy: everything that it had acknowledged, nothing in halves, and a version that
//! serves. And what a host that is asked to end lets finish first.

mod model;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::BodyExt;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tovuk_resources::database::rusqlite::Connection;
use tovuk_tests::{Client, Served, component, component_body, full_size, saying};

use crate::TOVUK;
use model::Model;

/// The moments at which hosts are killed follow from this.
const SEED: u64 = 0x7074_6f76_756b;

/// What the end of a host waits for.
#[derive(Debug)]
enum Moment {
    /// So many answers of the API.
    Answers(u64),
    /// So many changes of what is on disk.
    Changes(u32),
    /// So many answers, and then so many bytes of a deploy that are sent.
    Bytes(u64, usize),
}

impl Moment {
    fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u8(0..4) {
            0 => Self::Answers(random.u64(1..60)),
            1 => Self::Bytes(random.u64(1..60), random.usize(1..60_000)),
            _ => Self::Changes(random.u32(1..120)),
        }
    }

    /// Waits for it. `stop` ends what would wait for ever.
    async fn wait(self, host: &Served, model: &Model, stop: Arc<AtomicBool>) {
        match self {
            Self::Answers(count) => model.answers(count).await,
            Self::Changes(count) => {
                let data = host.data.clone();
                tokio::task::spawn_blocking(move || changes(&data, count, &stop)).await.unwrap();
            }
            Self::Bytes(answers, count) => {
                model.answers(answers).await;
                let body = component_body("half", &saying("other"), json!({}), "").to_string();
                let head = format!(
                    "POST /v1/deploy HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
                    host.api,
                    host.token,
                    body.len()
                );
                let request = (head + &body).into_bytes();
                let mut stream = TcpStream::connect(host.api).await.unwrap();
                stream.write_all(&request[..count.min(request.len())]).await.unwrap();
            }
        }
    }
}

/// Looks at what is on disk until it has changed so many times.
fn changes(data: &Path, mut count: u32, stop: &AtomicBool) {
    let entries = |folder: &str| std::fs::read_dir(data.join(folder)).map_or(0, Iterator::count);
    let length = |file: &str| std::fs::metadata(data.join(file)).map_or(0, |metadata| metadata.len());
    let look = || (entries("uploads"), entries("artifacts"), entries("assets"), length("control.db-wal"), length("logs.db-wal"));
    let mut before = look();
    while count > 0 && !stop.load(Ordering::Relaxed) {
        std::thread::yield_now();
        let now = look();
        count -= u32::from(now != before);
        before = now;
    }
}

/// The databases of a host that does not run are whole. Copies are looked at, so that it is the host which has to bring them back.
fn assert_whole(data: &Path) {
    let copies = tempfile::tempdir().unwrap();
    for name in ["control.db", "logs.db"] {
        for suffix in ["", "-wal"] {
            let file = format!("{name}{suffix}");
            if data.join(&file).exists() {
                std::fs::copy(data.join(&file), copies.path().join(&file)).unwrap();
            }
        }
        let database = Connection::open(copies.path().join(name)).unwrap();
        let said: String = database.query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(said, "ok", "{name}");
        let dangling = database.prepare("pragma foreign_key_check").unwrap().exists([]).unwrap();
        assert!(!dangling, "{name} has rows that refer to nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_acknowledged_is_lost_when_the_host_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut host = Served::start(TOVUK, &data).await;
    let model = Arc::new(Model::begin(&host).await);
    for round in 0..if full_size() { 100 } else { 10 } {
        let moment = Moment::draw(&mut random);
        println!("round {round}: {moment:?}");
        let mut working = tokio::spawn(Model::work(model.clone(), host.api, host.token.clone()));
        let stop = Arc::new(AtomicBool::new(false));
        tokio::select! {
            () = moment.wait(&host, &model, stop.clone()) => {}
            ended = &mut working => {
                stop.store(true, Ordering::Relaxed);
                panic!("nobody works any more: {ended:?}; the host said:\n{}", host.program.text());
            }
        }
        host.kill().await;
        working.await.unwrap();
        assert_whole(&data);
        host = Served::start(TOVUK, &data).await;
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
