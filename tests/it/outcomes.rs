//! Each way in which an invocation can end, in both worlds: what the client gets, and what the record says.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use tovuk_runtime::engine::Metering;
use tovuk_runtime::record::Outcome;
use tovuk_runtime::runtime::RuntimeConfig;
use tovuk_tests::HostConfig;

use crate::{TOVUK, host};

#[tokio::test]
async fn a_response() {
    let host = host().await;
    host.deploy("lean", "hello", |service| service.public()).await.deploy("wasi", "hello_p2", |service| service.public()).await;
    for service in ["lean", "wasi"] {
        let reply = host.get(service, "/some/path?q=1").await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "hello"));
        assert_eq!(reply.headers["content-length"], "5");
        let record = &host.observed.ended(service, 1).await[0];
        assert_eq!((record.outcome, record.status, record.number, record.bytes_out), (Outcome::Response, Some(200), 1, 5));
        assert_eq!(record.path, "/some/path");
        assert!(record.fuel > 100, "fuel {}", record.fuel);
        assert!(record.cpu_ns > 1_000, "cpu {}", record.cpu_ns);
        assert!(record.memory_peak_bytes >= 65_536, "memory {}", record.memory_peak_bytes);
    }
}

/// What benchmarks compare metering with: the same in all else.
#[tokio::test]
async fn without_metering_a_response_is_the_same_and_its_record_has_neither_time_nor_fuel() {
    let unmetered = |runtime: &mut RuntimeConfig| runtime.engine.metering = Metering::Off;
    let host = tovuk_tests::Host::with(HostConfig { runtime: Box::new(unmetered), ..HostConfig::new(TOVUK) }).await;
    host.deploy("lean", "hello", |service| service.public()).await.deploy("wasi", "hello_p2", |service| service.public()).await;
    for service in ["lean", "wasi"] {
        assert_eq!(host.get(service, "/").await.text(), "hello");
        let record = &host.observed.ended(service, 1).await[0];
        assert_eq!((record.outcome, record.fuel, record.cpu_ns), (Outcome::Response, 0, 0));
        assert!(record.memory_peak_bytes >= 65_536, "memory {}", record.memory_peak_bytes);
    }
}

#[tokio::test]
async fn a_trap_has_its_backtrace_in_the_record_and_none_of_it_in_public() {
    let host = host().await;
    host.deploy("traps", "trap", |service| service.public()).await;
    let reply = host.get("traps", "/").await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (500, "worker_trapped"));
    assert!(!reply.text().contains("the_function_that_traps"));
    let keys: Vec<_> = reply.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["code", "message", "request_id"]);
    let record = &host.observed.ended("traps", 1).await[0];
    assert_eq!((record.outcome, record.status), (Outcome::Trap, Some(500)));
    assert!(record.detail.as_ref().unwrap().contains("the_function_that_traps"), "{:?}", record.detail);
    assert_eq!(reply.json()["request_id"], record.trace.to_string());

    assert_eq!(host.get("traps", "/panic").await.code(), "worker_trapped");
    host.observed.line("this worker panics on purpose").await;
    assert_eq!(host.get("traps", "/ok").await.text(), "ok");
}

#[tokio::test]
async fn cpu_time_runs_out() {
    let host = host().await;
    host.deploy("spins", "spin", |service| service.public().limit("cpu_ms", 60)).await;
    for path in ["/", "/host"] {
        let reply = host.get("spins", path).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "worker_cpu_exceeded"), "{path}");
    }
    for record in host.observed.ended("spins", 2).await {
        assert_eq!(record.outcome, Outcome::Cpu);
        // One yield over the limit, with room for a crowded machine.
        assert!((60_000_000..600_000_000).contains(&record.cpu_ns), "cpu {}", record.cpu_ns);
    }
    assert_eq!(host.get("spins", "/turns/1").await.status, 200);
}

#[tokio::test]
async fn memory_runs_out() {
    let host = host().await;
    host.deploy("grows", "grow", |service| service.public().limit("memory_mb", 32)).await;
    let reply = host.get("grows", "/fill").await;
    let got: u64 = reply.text().parse().unwrap();
    assert!((20..32).contains(&got), "{got} MiB");
    let reply = host.get("grows", "/abort").await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "worker_memory_exceeded"));
    let records = host.observed.ended("grows", 2).await;
    assert_eq!(records[0].outcome, Outcome::Response);
    assert_eq!(records[1].outcome, Outcome::Memory);
    assert!(records[1].detail.as_ref().unwrap().contains("the_function_that_aborts"));
    assert!(records.iter().all(|record| record.memory_peak_bytes <= 32 << 20));
    host.memory_is_free().await;
}

#[tokio::test]
async fn wall_time_runs_out() {
    let host = host().await;
    host.deploy("sleeps", "sleep", |service| service.public()).await;
    let client = host.client();
    let request = host.request("sleeps", "/3600000").body(Full::<Bytes>::default()).unwrap();
    let waiting = tokio::spawn(async move { client.whole(request).await });
    // The worker runs once a slot is taken; from then on only the clock can end it.
    while host.runtime.slots().free() == host.runtime.slots().total() {
        tokio::task::yield_now().await;
    }
    while !waiting.is_finished() {
        host.clock.advance(Duration::from_secs(31));
        tokio::task::yield_now().await;
    }
    let reply = waiting.await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (504, "worker_timeout"));
    assert_eq!(host.observed.ended("sleeps", 1).await[0].outcome, Outcome::Wall);
}

#[tokio::test]
async fn nobody_waits_any_more() {
    let host = host().await;
    host.deploy("sleeps", "sleep", |service| service.public()).await.deploy("drips", "dripper", |service| service.public()).await;
    // Before the head.
    let mut stream = tokio::net::TcpStream::connect(host.address).await.unwrap();
    let request = format!("GET /3600000 HTTP/1.1\r\nhost: sleeps.localhost:{}\r\n\r\n", host.address.port());
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    while host.runtime.slots().free() == host.runtime.slots().total() {
        tokio::task::yield_now().await;
    }
    drop(stream);
    assert_eq!(host.observed.ended("sleeps", 1).await[0].outcome, Outcome::Cancelled);
    // After it.
    let request = host.request("drips", "/1").body(Empty::<Bytes>::new()).unwrap();
    let mut body = host.client().send(request).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().unwrap().data_ref().unwrap().starts_with(b"tick "));
    drop(body);
    let record = &host.observed.ended("drips", 1).await[0];
    assert_eq!((record.outcome, record.status), (Outcome::Cancelled, Some(200)));
    assert_eq!(host.runtime.slots().free(), host.runtime.slots().total());
}

#[tokio::test]
async fn a_worker_that_gives_no_answer() {
    let host = host().await;
    host.deploy("none", "no_response", |service| service.public()).await.deploy("exits", "exit", |service| service.public()).await;
    for (service, path) in [("none", "/"), ("exits", "/3"), ("exits", "/0")] {
        let reply = host.get(service, path).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (500, "worker_failed"), "{service}{path}");
    }
    assert!(host.observed.ended("none", 1).await[0].detail.as_ref().unwrap().contains("without a response"));
    for record in host.observed.ended("exits", 2).await {
        assert_eq!(record.outcome, Outcome::Failed);
        assert!(record.detail.as_ref().unwrap().contains("exited with status"), "{:?}", record.detail);
    }
}

#[tokio::test]
async fn too_large_a_body_is_refused() {
    let host = host().await;
    host.deploy("lean", "hello", |service| service.public().limit("body_mb", 1)).await;
    host.deploy("wasi", "sink", |service| service.public().limit("stream_body_mb", 1)).await;
    let body = vec![b'x'; (1 << 20) + 1];
    for service in ["lean", "wasi"] {
        let reply = host.post(service, "/", body.clone()).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (413, "body_too_large"), "{service}");
        assert_eq!(host.post(service, "/", body[..1 << 20].to_vec()).await.status, 200, "{service}");
    }
    // Without a length it shows only while it flows.
    let chunked = |service: &str| {
        let chunks = (0..3).map(|_| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(vec![b'x'; 1 << 19]))));
        host.request(service, "/").method("POST").body(Box::pin(http_body_util::StreamBody::new(futures_stream(chunks)))).unwrap()
    };
    for service in ["lean", "wasi"] {
        let status = host.client().send(chunked(service)).await.unwrap().status();
        // The streaming worker sees its body break and answers as it likes.
        assert!(matches!(status.as_u16(), 413 | 400), "{service} {status}");
    }
    let reply = host.get("lean", "/").await;
    assert_eq!(reply.status, 200);
    host.deploy("answers", "big_lean", |service| service.public().limit("body_mb", 1)).await;
    assert_eq!(host.get("answers", "/2").await.code(), "response_too_large");
}

fn futures_stream<T>(items: impl Iterator<Item = T>) -> impl futures::Stream<Item = T> {
    futures::stream::iter(items)
}

#[tokio::test]
async fn a_service_without_a_live_deploy_and_one_that_is_busy() {
    let host = host().await;
    host.add("later", &tovuk_tests::ServiceConfig::default().public());
    let reply = host.get("later", "/").await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "service_not_deployed"));
    assert_eq!(host.observed.refusals()[0].1.outcome, Outcome::Refused);

    host.deploy("busy", "sleep", |service| service.public().limit("concurrency", 1)).await;
    let client = host.client();
    let request = host.request("busy", "/3600000").body(Empty::<Bytes>::new()).unwrap();
    let first = tokio::spawn(async move { client.send(request).await.map(drop) });
    while host.runtime.slots().free() == host.runtime.slots().total() {
        tokio::task::yield_now().await;
    }
    let client = host.client();
    let request = host.request("busy", "/0").body(Full::<Bytes>::default()).unwrap();
    let second = tokio::spawn(async move { client.whole(request).await });
    while host.runtime.services().get(&"service_busy".into()).unwrap().load().1 == 0 {
        tokio::task::yield_now().await;
    }
    // Less than the first may take, more than the second will wait.
    host.clock.advance(Duration::from_secs(6));
    let reply = second.await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "service_busy"));
    assert_eq!(reply.headers["retry-after"], "1");
    first.abort();
}
