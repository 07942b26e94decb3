//! Metrics as Prometheus reads them, whether the host is well, and `tovuk top`.

use std::collections::HashSet;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tovuk_resources::database::rusqlite;
use tovuk_tests::{Client, Operator, Reply, repository};

use crate::TOVUK;

async fn host() -> Operator {
    Operator::with(TOVUK, |config| config.metrics_listen = Some("127.0.0.1:0".parse().unwrap())).await
}

async fn read(host: &Operator, path: &str) -> Reply {
    let address = host.host.metrics_address().unwrap();
    Client::new(address).whole(Request::get(path).header("host", address.to_string()).body(Full::<bytes::Bytes>::default()).unwrap()).await
}

/// The value of a series.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("{series} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_say_what_happened_and_each_is_documented() {
    let host = host().await;
    host.deploy(&host.token, "shop", "kv", json!({"routes": ["/*"], "kv": ["CACHE"]})).await;
    host.deploy(&host.token, "traps", "trap", json!({"routes": ["/*"]})).await;
    for _ in 0..3 {
        assert_eq!(host.get("traps", "/ok").await.status, 200);
    }
    assert_eq!(host.get("traps", "/").await.status, 500);
    host.host.control().flush_logs().await;
    let reply = read(&host, "/metrics").await;
    assert!(reply.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = reply.text();
    assert_eq!(value(text, r#"tovuk_invocations_total{service="traps",outcome="ok"}"#), 3.0);
    assert_eq!(value(text, r#"tovuk_invocations_total{service="traps",outcome="trap"}"#), 1.0);
    assert_eq!(value(text, r#"tovuk_invocation_errors_total{service="traps"}"#), 1.0);
    assert_eq!(value(text, r#"tovuk_invocation_duration_seconds_count{service="traps"}"#), 4.0);
    assert_eq!(value(text, r#"tovuk_invocation_duration_seconds_bucket{le="+Inf",service="traps"}"#), 4.0);
    assert!(value(text, r#"tovuk_invocation_cpu_seconds_total{service="traps"}"#) > 0.0);
    assert!(value(text, r#"tovuk_slots{state="free"}"#) > 0.0);
    assert!(value(text, "tovuk_database_commit_duration_seconds_count") > 0.0);
    assert!(value(text, r#"tovuk_trace_spans_total{result="written"}"#) >= 4.0);
    assert_eq!(value(text, "tovuk_log_lines_dropped_total"), 0.0);
    assert!(text.ends_with("# EOF\n"));

    // Somebody else reads the same.
    let parsed = openmetrics_parser::openmetrics::parse_openmetrics(text).unwrap_or_else(|error| panic!("{error:?}: {text}"));
    let names: HashSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(parsed.families.len(), names.len());

    // What is documented and drawn is what there is.
    let document = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let board = std::fs::read_to_string(repository().join("docs/grafana-dashboard.json")).unwrap();
    let board: Value = serde_json::from_str(&board).unwrap();
    for name in &names {
        assert!(document.contains(&format!("| `{name}`")) || document.contains(&format!(", `{name}`")), "docs/metrics.md does not explain {name}");
    }
    let word = |text: &str| text.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_').map(str::to_owned).collect::<HashSet<_>>();
    let panels = board["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let drawn: Vec<&str> = panels.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(drawn.len() > 10);
    for named in word(&document).iter().filter(|word| word.starts_with("tovuk_") || word.starts_with("process_")) {
        assert!(names.contains(named.as_str()), "there is no metric {named}");
    }
    // A query names what is written, with the ending that its type has.
    let written: HashSet<&str> = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(['{', ' ']).next().unwrap()).collect();
    for named in drawn.iter().flat_map(|query| word(query)).filter(|word| word.starts_with("tovuk_") || word.starts_with("process_")) {
        assert!(written.contains(named.as_str()), "a panel draws {named}, which nobody writes");
    }
}

/// Waits until a series has a value that is as it should be.
async fn comes(host: &Operator, series: &str, is_so: impl Fn(f64) -> bool) {
    let began = std::time::Instant::now();
    loop {
        let is = value(read(host, "/metrics").await.text(), series);
        if is_so(is) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{series} is {is}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_the_host_move_with_what_happens() {
    let host = host().await;
    let token = host.token.clone();
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.ok("POST", "/v1/services/shop/queues", Some(json!({"name": "jobs", "consumer": "pull"}))).await;
    host.ok("POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "DB"}))).await;
    let before = read(&host, "/metrics").await;
    let grown = async |series: &str| {
        let before = value(before.text(), series);
        comes(&host, series, |now| now > before).await;
    };
    for series in ["tovuk_queue_messages", "tovuk_queue_bytes", "tovuk_queue_oldest_message_age_seconds", "tovuk_long_computations{state=\"begun\"}"]
    {
        assert_eq!(value(before.text(), series), 0.0, "{series}");
    }
    host.ok("POST", "/v1/services/shop/queues/jobs/messages", Some(json!({"body": "hello"}))).await;
    host.clock.advance(Duration::from_secs(90));
    let now = read(&host, "/metrics").await;
    assert_eq!(
        (value(now.text(), "tovuk_queues"), value(now.text(), "tovuk_queue_messages"), value(now.text(), "tovuk_queue_bytes")),
        (1.0, 1.0, 5.0)
    );
    assert!(value(now.text(), "tovuk_queue_oldest_message_age_seconds") >= 90.0);
    host.ok("POST", "/v1/services/shop/sqlite/DB/query", Some(json!({"sql": "select 1"}))).await;
    grown("tovuk_sqlite_query_duration_seconds_count").await;
    grown("tovuk_database_commit_duration_seconds_count").await;
    grown("process_cpu_seconds_total").await;
    // What was used is written within a second.
    host.clock.advance(Duration::from_secs(1));
    grown(r#"tovuk_usage_commit_duration_seconds_count{kind="write"}"#).await;

    // More of one service than may run, and each computes.
    host.deploy(&token, "loops", "spin", json!({"routes": ["/*"], "limits": {"concurrency": 1}})).await;
    let requests = (0..2).map(|_| host.get("loops", "/turns/2000"));
    let looks = async {
        comes(&host, "tovuk_places_waiting", |waiting| waiting == 1.0).await;
        comes(&host, r#"tovuk_long_computations{state="begun"}"#, |begun| begun == 1.0).await;
        comes(&host, r#"tovuk_slots{state="used"}"#, |used| used == 1.0).await;
    };
    tokio::join!(futures::future::join_all(requests), looks);
    comes(&host, "tovuk_places_waiting", |waiting| waiting == 0.0).await;

    // More lines at once than may wait.
    host.deploy(&token, "floods", "log", json!({"routes": ["/*"], "limits": {"cpu_ms": 30_000}})).await;
    let disk = rusqlite::Connection::open(host.data.join("logs.db")).unwrap();
    disk.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(host.get("floods", "/many/20000").await.status, 200);
    grown("tovuk_log_lines_dropped_total").await;
    disk.execute_batch("ROLLBACK").unwrap();
    assert!(host.log(&token, "/v1/services/floods/logs").await.iter().any(|line| line.contains("lines were dropped")));

    // Loaded from disk, for a request.
    let host = host.restart_with(|config| config.metrics_listen = Some("127.0.0.1:0".parse().unwrap())).await;
    host.get("loops", "/turns/0").await;
    comes(&host, "tovuk_cold_load_duration_seconds_count", |loads| loads >= 1.0).await;
    comes(&host, "tovuk_components_loaded", |loaded| loaded >= 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_says_whether_the_host_is_well_and_knows_nothing_else() {
    let host = host().await;
    assert_eq!((read(&host, "/healthz").await.status.as_u16(), read(&host, "/readyz").await.status.as_u16()), (200, 200));
    for path in ["/", "/v1/status", "/v1/services", "/openapi.json"] {
        assert_eq!(read(&host, path).await.code(), "api_route_not_found", "{path}");
    }
    host.ok("POST", "/v1/operator/nodes/node-1/drain", Some(json!({"draining": true}))).await;
    assert_eq!((read(&host, "/healthz").await.status.as_u16(), read(&host, "/readyz").await.code().as_str()), (200, "host_draining"));
    assert_eq!(value(read(&host, "/metrics").await.text(), "tovuk_draining"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_what_services_do_to_whoever_has_them() {
    let host = Operator::start(TOVUK).await;
    let alice = host.account("alice").await;
    host.deploy(&alice, "traps", "trap", json!({"routes": ["/*"]})).await;
    host.deploy(&host.token, "quiet", "trap", json!({"routes": ["/*"]})).await;
    for path in ["/ok", "/ok", "/ok", "/"] {
        host.get("traps", path).await;
    }
    host.get("quiet", "/ok").await;
    let own = host.ok_as(&alice, "GET", "/v1/top?sort=errors", None).await;
    assert_eq!((own["active"].as_u64(), &own["services"][0]["name"]), (Some(1), &json!("traps")));
    let rates = &own["services"][0];
    assert!(rates["perSecond"].as_f64() > rates["errorsPerSecond"].as_f64() && rates["errorsPerSecond"].as_f64() > Some(0.0), "{rates}");
    assert!(rates["p99Ms"].as_f64() > Some(0.0) && rates["cpuPercent"].is_number(), "{rates}");
    let all = host.ok("GET", "/v1/operator/top", None).await;
    assert_eq!((all["active"].as_u64(), &all["services"][0]["name"]), (Some(2), &json!("traps")));
    assert_eq!(host.refused(&alice, "GET", "/v1/operator/top", None).await, "token_scope");
    let shown = host.line("tovuk top --all --once").ok().stdout;
    assert!(shown.contains("SERVICE") && shown.contains("traps") && shown.contains("2 services: "), "{shown}");
    let shown = host.line("tovuk top").ok().stdout;
    assert!(shown.contains("quiet") && !shown.contains("traps"), "{shown}");
    assert_eq!(host.line("tovuk top --json").ok().json()["active"], 1);
}
