//! Traces through the whole host: calls between services, operations on data, deliveries, requests outside, and who sees what.

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tovuk_tests::{Client, Operator};

use crate::TOVUK;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn traced(host: &Operator, slug: &str, path: &str) -> u16 {
    let address = host.host.public_address();
    let request = Request::get(path)
        .header("host", format!("{slug}.localhost:{}", address.port()))
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    Client::new(address).whole(request.body(Full::<bytes::Bytes>::default()).unwrap()).await.status.as_u16()
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
