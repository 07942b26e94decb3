//! Traces through the whole host: calls between services, operations on data, deliveries, requests outside, and who sees what.

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tovuk_tests::{Client, Operator};

use crate::TOVUK;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn traced(host: &Operator, slug: &str, path: &str) -> u16 {
    posted(host, slug, path, None).await
}

async fn posted(host: &Operator, slug: &str, path: &str, body: Option<Value>) -> u16 {
    let address = host.host.public_address();
    let request = Request::builder()
        .method(if body.is_some() { "POST" } else { "GET" })
        .uri(path)
        .header("host", format!("{slug}.localhost:{}", address.port()))
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let body = body.map(|body| bytes::Bytes::from(body.to_string())).unwrap_or_default();
    Client::new(address).whole(request.body(Full::new(body)).unwrap()).await.status.as_u16()
}

/// What each operation of the trace was about, how it ended, and what it did.
async fn operations(host: &Operator) -> Vec<(String, String, String)> {
    let shown = host.ok("GET", &format!("/v1/traces/{TRACE}"), None).await;
    let text = |span: &Value, name: &str| span[name].as_str().unwrap_or_default().to_owned();
    let operations = shown["spans"].as_array().unwrap().iter().filter(|span| span["invocation"].is_null());
    operations.map(|span| (format!("{} {}", text(span, "kind"), text(span, "name")), text(span, "outcome"), text(span, "did"))).collect()
}

fn spans(trace: &Value) -> Vec<(String, String, String)> {
    let text = |span: &Value, name: &str| span[name].as_str().unwrap_or_default().to_owned();
    trace["spans"].as_array().unwrap().iter().map(|span| (text(span, "kind"), text(span, "service"), text(span, "name"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_all_that_it_caused_are_one_trace() {
    let host = Operator::start(TOVUK).await;
    let alice = host.account("alice").await;
    host.ok_as(&alice, "POST", "/v1/services", Some(json!({"name": "second"}))).await;
    let binding = json!([{"type": "service", "service": "second", "name": "NEXT"}]);
    host.deploy(&alice, "second", "chain", json!({})).await;
    host.deploy(&alice, "first", "chain", json!({"routes": ["/*"], "bindings": binding})).await;
    assert_eq!(traced(&host, "first", "/1").await, 200);
    let shown = host.ok_as(&alice, "GET", &format!("/v1/traces/{TRACE}"), None).await;
    let read = spans(&shown);
    assert_eq!((read[0].0.as_str(), read[0].1.as_str()), ("http", "first"), "{shown}");
    assert_eq!((read[1].0.as_str(), read[1].1.as_str()), ("binding", "second"), "{shown}");
    let list = shown["spans"].as_array().unwrap();
    assert_eq!((&list[0]["parent_span_id"], &list[1]["parent_span_id"]), (&json!("00f067aa0ba902b7"), &list[0]["span_id"]));
    assert_eq!((&list[0]["invocation"], &list[1]["invocation"], &list[0]["outcome"]), (&json!(1), &json!(2), &json!("ok")));
    // The target ran within its caller, whose CPU time is without it.
    assert!(list[1]["offset_ms"].as_f64().unwrap() >= 0.0 && list[0]["duration_ms"].as_f64() >= list[1]["duration_ms"].as_f64(), "{shown}");
    assert!(list[0]["cpu_ms"].as_f64().unwrap() > 0.0);
    let listed = host.ok_as(&alice, "GET", "/v1/services/first/traces", None).await;
    assert_eq!((listed["traces"].as_array().unwrap().len(), &listed["traces"][0]["trace_id"]), (1, &json!(TRACE)));
    // Nobody else learns that there is such a trace.
    assert_eq!(host.api("GET", &format!("/v1/traces/{TRACE}"), Some(&host.token), None).await.code(), "trace_not_found");
    host.ok_as(&alice, "DELETE", "/v1/services/first", None).await;
    let left = host.ok_as(&alice, "GET", &format!("/v1/traces/{TRACE}"), None).await;
    assert_eq!(spans(&left).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_on_data_are_spans_and_the_command_draws_them() {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.secret(&host.token, "shop", "KEY", "hunter2-hunter2").await;
    host.deploy(&host.token, "shop", "kv", json!({"routes": ["/*"], "kv": ["CACHE"]})).await;
    assert_eq!(traced(&host, "shop", "/get/hunter2-hunter2").await, 200);
    let shown = host.ok("GET", &format!("/v1/traces/{TRACE}"), None).await;
    let read = spans(&shown);
    assert!(read.iter().any(|(kind, service, name)| kind.starts_with("kv.") && service == "shop" && name == "CACHE"), "{shown}");
    let list = shown["spans"].as_array().unwrap();
    assert_eq!(list[0]["name"], "GET /get/[secret KEY]");
    assert!(list[1..].iter().all(|span| span["parent_span_id"] == list[0]["span_id"]), "{shown}");
    let drawn = host.line(&format!("tovuk trace {TRACE}")).ok().stdout;
    assert!(drawn.contains("└ kv.") && drawn.contains("CACHE") && drawn.contains('█') && drawn.contains("cpu "), "{drawn}");
    assert!(host.line("tovuk traces --service shop").ok().stdout.contains(TRACE));
    assert_eq!(host.line("tovuk trace 00000000000000000000000000000001 --json").refused().failure()["code"], "trace_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_operations_say_how_they_ended_and_what_they_did() {
    let host = Operator::start(TOVUK).await;
    host.deploy(&host.token, "shop", "kv", json!({"routes": ["/*"], "kv": ["CACHE"]})).await;
    let steps = json!([{"op": "put", "key": "a", "value": "12345"}, {"op": "get", "key": "a"}, {"op": "get", "key": "b"}, {"op": "put", "key": ""},
                       {"op": "get_many", "keys": ["a", "b"]}, {"op": "get", "namespace": "OTHER", "key": "a"}, {"op": "delete", "key": "a"}]);
    assert_eq!(posted(&host, "shop", "/", Some(steps)).await, 200);
    let read = operations(&host).await;
    let read: Vec<_> = read.iter().map(|(what, outcome, did)| (what.as_str(), outcome.as_str(), did.as_str())).collect();
    assert_eq!(
        read,
        [
            ("kv.put CACHE", "ok", ""),
            ("kv.get CACHE", "ok", "found 5 bytes"),
            ("kv.get CACHE", "ok", "found nothing"),
            ("kv.put CACHE", "kv_key_invalid", ""),
            ("kv.get-many CACHE", "ok", "found 1 of 2"),
            ("kv.get OTHER", "resource_not_found", ""),
            ("kv.delete CACHE", "ok", "deleted it"),
        ]
    );
    let drawn = host.line(&format!("tovuk trace {TRACE}")).ok().stdout;
    assert!(drawn.contains("found 5 bytes") && drawn.contains("kv.get OTHER resource_not_found"), "{drawn}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_turned_away_is_a_span_as_well() {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "second"}))).await;
    let binding = json!([{"type": "service", "service": "second", "name": "NEXT"}]);
    host.deploy(&host.token, "first", "chain", json!({"routes": ["/*"], "bindings": binding})).await;
    traced(&host, "first", "/1").await;
    let read = operations(&host).await;
    assert_eq!(read.len(), 1, "{read:?}");
    assert_eq!((read[0].0.starts_with("binding GET /0 of "), read[0].1.as_str()), (true, "service_not_deployed"), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_are_told_the_span_of_the_request() {
    let (address, mut received) = server().await;
    let host = Operator::with(TOVUK, |config| config.outbound.addresses.allow = vec!["127.0.0.0/8".parse().unwrap()]).await;
    host.deploy(&host.token, "calls", "outbound", json!({"routes": ["/*"], "outbound": [format!("http://{address}")]})).await;
    for url in [format!("http://{address}/"), "http://127.0.0.1:1/".to_owned()] {
        traced(&host, "calls", &format!("/?url={url}")).await;
    }
    let told = received.recv().await.unwrap();
    let shown = host.ok("GET", &format!("/v1/traces/{TRACE}"), None).await;
    let outbound: Vec<_> = shown["spans"].as_array().unwrap().iter().filter(|span| span["kind"] == "outbound").collect();
    assert_eq!((&outbound[0]["outcome"], &outbound[0]["status"], &outbound[1]["outcome"]), (&json!("ok"), &json!(204), &json!("denied")), "{shown}");
    assert_eq!(told, format!("00-{TRACE}-{}-01", outbound[0]["span_id"].as_str().unwrap()));
}

/// A server that answers everything with 204, and tells the trace context of what came.
async fn server() -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let told = request.headers().get("traceparent").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
                sender.send(told).unwrap();
                async { http::Response::builder().status(204).body(Full::<bytes::Bytes>::default()) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(stream), service));
        }
    });
    (address, receiver)
}

/// A collector that speaks OTLP over HTTP: it takes one batch, after it has first refused it for want of time.
async fn collector() -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<(http::HeaderMap, Value)>) {
    use http_body_util::BodyExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let refused = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sender, refused) = (sender.clone(), refused.clone());
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let (sender, refused) = (sender.clone(), refused.clone());
                async move {
                    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let mut response = http::Response::new(Full::<bytes::Bytes>::from("{}"));
                    if refused.swap(true, std::sync::atomic::Ordering::Relaxed) {
                        sender.send((parts.headers, serde_json::from_slice(&body).unwrap())).unwrap();
                    } else {
                        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                    }
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(stream), service));
        }
    });
    (address, receiver)
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_a_collector_also_when_it_was_busy() {
    let (address, mut received) = collector().await;
    let host = Operator::with(TOVUK, |config| {
        let headers = http::HeaderMap::from_iter([(http::header::AUTHORIZATION, http::HeaderValue::from_static("Bearer collector"))]);
        config.otlp = Some(tovuk_server::traces::Otlp::new(&format!("http://{address}"), headers).unwrap());
    })
    .await;
    host.deploy(&host.token, "traps", "trap", json!({"routes": ["/*"]})).await;
    assert_eq!(traced(&host, "traps", "/").await, 500);
    host.host.control().flush_logs().await;
    // It is sent again after a second, which passes by itself.
    let (headers, body) = tokio::time::timeout(std::time::Duration::from_secs(60), received.recv()).await.unwrap().unwrap();
    assert_eq!((headers["content-type"].to_str().unwrap(), headers["authorization"].to_str().unwrap()), ("application/json", "Bearer collector"));
    let of_service = &body["resourceSpans"][0];
    assert_eq!(of_service["resource"]["attributes"][0], json!({"key": "service.name", "value": {"stringValue": "traps"}}));
    let span = &of_service["scopeSpans"][0]["spans"][0];
    assert_eq!((&span["traceId"], &span["parentSpanId"], &span["name"]), (&json!(TRACE), &json!("00f067aa0ba902b7"), &json!("GET /")));
    assert_eq!((&span["kind"], &span["status"]), (&json!(2), &json!({"code": 2, "message": "trap"})));
    let nanoseconds = |name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    assert!(nanoseconds("endTimeUnixNano") >= nanoseconds("startTimeUnixNano"));
    let now_ms = host.clock.now_unix_ms();
    assert!((nanoseconds("startTimeUnixNano") / 1_000_000).abs_diff(now_ms) < 120_000);
}

/// A host whose spans go to this collector.
async fn exporting(address: std::net::SocketAddr) -> Operator {
    Operator::with(TOVUK, |config| {
        config.otlp = Some(tovuk_server::traces::Otlp::new(&format!("http://{address}"), http::HeaderMap::new()).unwrap());
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_spans_reach_the_collector_before_the_host_ends() {
    let (address, mut received) = collector().await;
    let host = exporting(address).await;
    host.deploy(&host.token, "shop", "kv", json!({"routes": ["/*"], "kv": ["CACHE"]})).await;
    assert_eq!(posted(&host, "shop", "/", Some(json!([{"op": "put", "key": ""}, {"op": "get", "key": "a"}]))).await, 200);
    let Operator { host, .. } = host;
    host.stop().await;
    // The collector has refused it once, which takes a second of the five that there are.
    let (_, body) = received.try_recv().unwrap();
    let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    let named = |name: &str| spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("{name}: {body}"));
    assert_eq!((&named("kv.put CACHE")["status"], &named("POST /")["status"]), (&json!({"code": 2, "message": "kv_key_invalid"}), &json!({})));
    let attribute = |name: &str| named("kv.get CACHE")["attributes"].as_array().unwrap().iter().find(|one| one["key"] == name).cloned();
    assert_eq!(attribute("tovuk.did").unwrap()["value"]["stringValue"], "found nothing");
    assert_eq!(attribute("tovuk.outcome").unwrap()["value"]["stringValue"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_holds_up_nobody() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = exporting(listener.local_addr().unwrap()).await;
    host.deploy(&host.token, "traps", "trap", json!({"routes": ["/*"]})).await;
    for _ in 0..3 {
        assert_eq!(traced(&host, "traps", "/ok").await, 200);
        assert_eq!(host.ok("GET", &format!("/v1/traces/{TRACE}"), None).await["has_more"], false);
    }
    // It has the connection, and says nothing.
    let _connection = listener.accept().await.unwrap();
    let (clock, Operator { host, .. }) = (host.clock.clone(), host);
    let mut stopping = std::pin::pin!(host.stop());
    while tokio::time::timeout(std::time::Duration::from_millis(20), stopping.as_mut()).await.is_err() {
        clock.advance(std::time::Duration::from_secs(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_delivers_begins_a_trace() {
    let host = Operator::start(TOVUK).await;
    host.deploy(&host.token, "app", "cron", json!({"routes": ["/*"], "crons": {"nightly": "0 0 1 1 *", "traps": "0 0 1 1 *"}})).await;
    for trigger in ["nightly", "traps"] {
        host.ok("POST", &format!("/v1/services/app/cron/{trigger}/run"), None).await;
    }
    let named = async |query: &str, count: usize| loop {
        let listed = host.ok("GET", &format!("/v1/services/app/traces{query}"), None).await;
        let traces = listed["traces"].as_array().unwrap();
        if traces.len() >= count {
            let mut names: Vec<_> = traces.iter().map(|trace| (trace["kind"].to_string(), trace["name"].as_str().unwrap().to_owned())).collect();
            names.sort();
            return names;
        }
    };
    let cron = |name: &str| ("\"cron\"".to_owned(), name.to_owned());
    assert_eq!(named("", 2).await, [cron("cron/nightly"), cron("cron/traps")]);
    assert_eq!(named("?failed=true", 1).await, [cron("cron/traps")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_clients_choose_again_and_again_hides_nothing_and_shows_nothing_of_others() {
    let host = Operator::start(TOVUK).await;
    let alice = host.account("alice").await;
    host.deploy(&alice, "hers", "trap", json!({"routes": ["/*"]})).await;
    host.deploy(&host.token, "mine", "trap", json!({"routes": ["/*"]})).await;
    for _ in 0..20 {
        assert_eq!(traced(&host, "mine", "/ok").await, 200);
    }
    assert_eq!(traced(&host, "hers", "/hers-alone").await, 500);
    // Both find what is theirs under the same id, each request with a span of its own.
    let mine = host.ok("GET", &format!("/v1/traces/{TRACE}"), None).await;
    let ids: std::collections::HashSet<_> = mine["spans"].as_array().unwrap().iter().map(|span| span["span_id"].to_string()).collect();
    assert_eq!((ids.len(), mine.to_string().contains("hers")), (20, false), "{mine}");
    let hers = host.ok_as(&alice, "GET", &format!("/v1/traces/{TRACE}"), None).await;
    assert_eq!(spans(&hers), [("http".to_owned(), "hers".to_owned(), "GET /hers-alone".to_owned())]);
    assert_eq!(host.line(&format!("tovuk trace {TRACE}")).ok().stdout.matches("mine GET /ok 200").count(), 20);
    host.host.control().flush_logs().await;
    let log = host.ok("GET", &format!("/v1/services/mine/logs?trace={TRACE}"), None).await;
    assert_eq!(log["lines"].as_array().unwrap().len(), 20);
}
