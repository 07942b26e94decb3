//! Databases of a host that is killed: what was answered is there, also what workers wrote, what was not is not there in halves, and backups are whole.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tovuk_tests::{Protocol, Served, ask, component, component_body, full_size};

use crate::TOVUK;

const DB: &str = "/v1/services/shop/sqlite/DB";
/// Writers over the API, and as many in workers.
const WRITERS: u64 = 4;

async fn sql(host: &Served, sql: &str) -> Value {
    host.ok("POST", &format!("{DB}/query"), Some(&json!({"sql": sql}))).await
}

async fn prepared(data: &Path) -> Served {
    let host = Served::start(TOVUK, data).await;
    host.ok("POST", "/v1/services", Some(&json!({"name": "shop"}))).await;
    host.ok("POST", "/v1/services/shop/sqlite/databases", Some(&json!({"name": "DB"}))).await;
    host
}

/// A row with this number and its half, in one transaction; whether that was answered.
async fn write(host: &Served, number: u64, in_worker: bool) -> bool {
    let statements = json!([{"sql": "insert into t values (?)", "params": [number]}, {"sql": "insert into halves values (?)", "params": [number]}]);
    if !in_worker {
        let body = json!({"statements": statements});
        return host.try_api(&host.token, "POST", &format!("{DB}/query"), Some(&body)).await.is_some_and(|reply| reply.status.is_success());
    }
    let (path, body) = match number % 3 {
        0 => ("/tx", json!({"statements": statements, "end": "commit"})),
        _ => ("/batch", statements),
    };
    let request = Request::post(path).header("host", format!("shop.localhost:{}", host.public.port()));
    let Ok(stream) = TcpStream::connect(host.public).await else { return false };
    let asked = ask(stream, Protocol::Http1, request.body(Full::new(Bytes::from(body.to_string()))).unwrap()).await;
    asked.is_ok_and(|reply| reply.status.is_success() && reply.json().get("error").is_none_or(Value::is_null))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut host = prepared(&data).await;
    for table in ["t", "halves"] {
        sql(&host, &format!("create table {table} (id integer primary key)")).await;
    }
    let deploy = component_body("shop", &component("sqlite"), json!({"routes": ["/*"]}), "");
    let made = host.ok("POST", "/v1/deploy", Some(&deploy)).await;
    assert_eq!(host.built(made["build_job"]["id"].as_str().unwrap()).await["status"], "succeeded");
    let (next, answered) = (AtomicU64::new(1), Mutex::new(BTreeSet::new()));
    let mut random = fastrand::Rng::with_seed(0x73_716c);
    for kill in 0..if full_size() { 200 } else { 5 } {
        let enough = answered.lock().unwrap().len() + random.usize(1..60);
        let killed = AtomicBool::new(false);
        let writer = async |in_worker: bool| {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if !write(&host, number, in_worker).await {
                    return;
                }
                let many = {
                    let mut answered = answered.lock().unwrap();
                    answered.insert(number);
                    answered.len()
                };
                if many >= enough && !killed.swap(true, Ordering::Relaxed) {
                    host.program.signal(rustix::process::Signal::KILL);
                }
            }
        };
        // A backup and a restore of it may be cut off at any step.
        let backups = async {
            while let Some(made) = host.try_api(&host.token, "POST", &format!("{DB}/backups"), None).await {
                assert!(made.status.is_success() || made.code() == "sqlite_busy", "{}", made.text());
            }
        };
        let writers = futures::future::join_all((0..2 * WRITERS).map(|number| writer(number % 2 == 0)));
        tokio::join!(writers, backups);
        host.program.ended().await;
        host = Served::start(TOVUK, &data).await;
        assert_eq!(sql(&host, "pragma integrity_check").await["rows"], json!([{"integrity_check": "ok"}]), "kill {kill}");
        assert_eq!(
            sql(&host, "select count(*) as n from t full join halves using (id) where t.id is null or halves.id is null").await["rows"][0]["n"],
            0
        );
        let rows = sql(&host, "select id from t").await;
        let kept: BTreeSet<_> = rows["rows"].as_array().unwrap().iter().map(|row| row["id"].as_u64().unwrap()).collect();
        let lost: Vec<_> = answered.lock().unwrap().difference(&kept).copied().collect();
        assert!(lost.is_empty(), "kill {kill}: {lost:?} were answered");
        // What is listed is whole.
        let listed = host.ok("GET", &format!("{DB}/backups"), None).await;
        if let Some(newest) = listed["backups"][0]["id"].as_str() {
            let restored = host.ok("POST", &format!("{DB}/backups/{newest}/restore"), None).await;
            let back = restored["preRestoreBackup"]["id"].as_str().unwrap();
            host.ok("POST", &format!("{DB}/backups/{back}/restore"), None).await;
        }
    }
    println!("{} writes were answered", answered.lock().unwrap().len());
}
