//! Metrics as Prometheus reads them, whether the host is well, and `tovuk top`.

use std::collections::HashSet;

use http::Request;
use http_body_util::Full;
use serde_json::json;
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

    // What is documented and drawn is what there is.
    let document = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let board = std::fs::read_to_string(repository().join("docs/grafana-dashboard.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&board).unwrap();
    let names: HashSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in &names {
        assert!(document.contains(&format!("`{name}`")), "docs/metrics.md does not explain {name}");
    }
    let word = |text: &str| text.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_').map(str::to_owned).collect::<HashSet<_>>();
    for named in word(&document).union(&word(&board)).filter(|word| word.starts_with("tovuk_")) {
        let plain = ["_total", "_bucket", "_count", "_sum"].iter().find_map(|suffix| named.strip_suffix(suffix)).unwrap_or(named);
        assert!(names.contains(named.as_str()) || names.contains(plain), "there is no metric {named}");
    }
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
