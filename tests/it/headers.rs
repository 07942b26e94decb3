//! Headers that only the host sets, and those that a worker may not.

use http_body_util::Full;
use serde_json::Value;

use crate::host;

fn value<'a>(seen: &'a Value, name: &str) -> Vec<&'a str> {
    seen["headers"].as_array().unwrap().iter().filter(|field| field[0] == name).filter_map(|field| field[1].as_str()).collect()
}

#[tokio::test]
async fn public_traffic_cannot_set_the_hosts_headers() {
    let host = host().await;
    host.deploy("lean", "echo", |service| service.public()).await.deploy("wasi", "echo_p2", |service| service.public()).await;
    for service in ["lean", "wasi"] {
        let request = host
            .request(service, "/")
            .header("x-tovuk-caller", "service_forged")
            .header("X-Tovuk-Invocation", "99")
            .header("x-tovuk-event", "cron")
            .header("x-tovuk-anything", "1")
            .header("x-tovukx", "kept")
            .body(Full::default())
            .unwrap();
        let seen = host.client().whole(request).await.json();
        assert_eq!(value(&seen, "x-tovuk-invocation"), ["1"], "{service}");
        for name in ["x-tovuk-caller", "x-tovuk-event", "x-tovuk-anything"] {
            assert!(value(&seen, name).is_empty(), "{service} {name}");
        }
        assert_eq!(value(&seen, "x-tovukx"), ["kept"]);
        assert_eq!(value(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    }
}

#[tokio::test]
async fn a_worker_cannot_set_the_hosts_headers() {
    let host = host().await;
    host.deploy("next", "echo", |service| service).await;
    host.deploy("forges", "headers", |service| service.public().binds("NEXT", "next")).await;
    let reply = host.get("forges", "/").await;
    let seen = reply.json();
    assert_eq!(value(&seen, "x-tovuk-caller"), ["service_forges"]);
    assert_eq!(value(&seen, "x-tovuk-invocation"), ["2"]);
    assert!(value(&seen, "x-tovuk-event").is_empty());
    assert_eq!(value(&seen, "x-keep"), ["kept"]);
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("x-tovuk-")));
    assert_eq!(reply.headers["x-keep"], "kept");
}

#[tokio::test]
async fn the_trace_goes_through() {
    let host = host().await;
    host.deploy("next", "echo", |service| service).await;
    host.deploy("calls", "headers", |service| service.public().binds("NEXT", "next")).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = host.request("calls", "/").header("traceparent", parent).body(Full::default()).unwrap();
    let seen = host.client().whole(request).await.json();
    let (first, second) = (host.observed.ended("calls", 1).await.remove(0), host.observed.ended("next", 1).await.remove(0));
    assert_eq!(first.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(format!("{:016x}", first.parent_span), "b7ad6b7169203331");
    assert_eq!((second.trace, second.parent_span), (first.trace, first.span));
    assert_eq!(value(&seen, "traceparent"), [format!("00-{}-{:016x}-01", second.trace, second.span)]);
}

#[tokio::test]
async fn a_worker_does_not_frame_its_own_response() {
    let host = host().await;
    host.deploy("frames", "headers", |service| service.public()).await;
    let reply = host.get("frames", "/framing").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "twelve bytes"));
    assert_eq!(reply.headers["content-length"], "12");
    for name in ["transfer-encoding", "keep-alive", "upgrade"] {
        assert!(!reply.headers.contains_key(name), "{name}");
    }
    for path in ["/newline", "/name", "/status/0", "/status/99", "/status/100", "/status/600", "/status/65535"] {
        assert_eq!(host.get("frames", path).await.code(), "worker_failed", "{path}");
    }
    assert_eq!(host.get("frames", "/status/204").await.status, 204);
    assert_eq!(host.get("frames", "/cookies").await.headers.get_all("set-cookie").iter().count(), 2);
}
