//! Workers that mean harm, each while a neighbour keeps answering.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use tovuk_runtime::record::Outcome;
use tovuk_tests::Host;

use crate::host;

/// Asks the neighbour again and again while `attacks` runs, and fails if it is ever kept waiting for a minute.
async fn while_the_neighbour_answers<T>(host: &Host, attacks: impl Future<Output = T>) -> T {
    host.deploy("neighbour", "hello", |service| service.public().account("account_2")).await;
    let answers = async {
        loop {
            let reply = tokio::time::timeout(Duration::from_secs(60), host.get("neighbour", "/")).await.expect("the neighbour was kept waiting");
            assert_eq!(reply.text(), "hello");
        }
    };
    tokio::select! {
        result = attacks => {
            assert_eq!(host.get("neighbour", "/").await.text(), "hello");
            result
        }
        () = answers => unreachable!(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loops_and_recursion() {
    let host = host().await;
    host.deploy("spins", "spin", |service| service.public().limit("cpu_ms", 100)).await;
    host.deploy("recurses", "recurse", |service| service.public()).await;
    while_the_neighbour_answers(&host, async {
        let spinning: Vec<_> = (0..8)
            .map(|_| {
                let (client, request) = (host.client(), host.request("spins", "/").body(Full::<Bytes>::default()).unwrap());
                tokio::spawn(async move { client.whole(request).await })
            })
            .collect();
        for path in ["/", "/frames"] {
            assert_eq!(host.get("recurses", path).await.code(), "worker_trapped");
        }
        for reply in spinning {
            assert_eq!(reply.await.unwrap().code(), "worker_cpu_exceeded");
        }
    })
    .await;
    let recursed = host.observed.ended("recurses", 2).await;
    assert!(recursed[0].detail.as_ref().unwrap().contains("call stack exhausted"), "{:?}", recursed[0].detail);
    assert!(recursed[0].detail.as_ref().unwrap().contains("the_function_that_recurses"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_to_the_end_and_past_the_hosts_budget() {
    let config = tovuk_tests::HostConfig {
        runtime: Box::new(|runtime| runtime.guest_memory_bytes = Some(256 << 20)),
        ..tovuk_tests::HostConfig::new(crate::TOVUK)
    };
    let host = Host::with(config).await;
    host.deploy("grows", "grow", |service| service.public().limit("memory_mb", 1024)).await;
    while_the_neighbour_answers(&host, async {
        for path in ["/pages", "/fill"] {
            let reply = host.get("grows", path).await;
            assert!(matches!(reply.status.as_u16(), 200 | 503), "{path}: {}", reply.text());
        }
        let peaks: Vec<_> = host.observed.ended("grows", 2).await.iter().map(|record| record.memory_peak_bytes).collect();
        assert!(peaks.iter().all(|peak| *peak <= 257 << 20), "{peaks:?}");
    })
    .await;
    host.memory_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_without_end_is_cut_at_its_limit() {
    let host = host().await;
    host.deploy("big", "big", |service| service.public().limit("stream_body_mb", 100)).await;
    while_the_neighbour_answers(&host, async {
        let request = host.request("big", "/10240").body(Empty::<Bytes>::new()).unwrap();
        let mut body = host.client().send(request).await.unwrap().into_body();
        let mut bytes = 0_u64;
        let error = loop {
            match body.frame().await {
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        assert!(error.is_some(), "the cut looks like an end");
        assert!(bytes <= 100 << 20, "{bytes}");
        assert!(bytes >= 99 << 20, "{bytes}");
    })
    .await;
    let record = &host.observed.ended("big", 1).await[0];
    assert_eq!(record.outcome, Outcome::Refused);
    assert!(record.detail.as_ref().unwrap().contains("cut"));
}

#[tokio::test]
async fn what_a_guest_may_make_the_host_keep() {
    let host = host().await;
    host.deploy("fields", "fields", |service| service.public()).await;
    for path in ["/headers/100000", "/large/4096", "/lists/100000", "/pollables/100000", "/requests/100000"] {
        let reply = host.get("fields", path).await;
        // Refused to the guest in words, or the guest ended for it; never granted.
        if reply.status == 200 {
            assert!(reply.json()["refused"].is_string(), "{path}: {}", reply.text());
        } else {
            assert_eq!(reply.code(), "worker_trapped", "{path}: {}", reply.text());
        }
    }
    host.deploy("random", "random_time", |service| service.public()).await;
    assert_eq!(host.get("random", "/bytes/1024").await.text(), "1024");
    assert_eq!(host.get("random", "/bytes/1000000").await.code(), "worker_trapped");
}

#[tokio::test]
async fn nothing_of_the_machine_is_reached() {
    let host = host().await;
    host.deploy("fs", "fs", |service| service.public()).await;
    let said = host.get("fs", "/").await.json();
    for what in ["read_file", "write_file", "list_directory", "tcp_connect", "tcp_listen", "udp_bind", "resolve"] {
        assert!(said[what].as_str().unwrap().starts_with("refused"), "{what}: {said}");
    }
    assert_eq!((said["preopens"].as_str(), said["arguments"].as_str()), (Some("[]"), Some("[]")));
}

#[tokio::test]
async fn a_body_that_was_not_finished_is_not_taken_for_whole() {
    let host = host().await;
    host.deploy("drops", "early_drop", |service| service.public()).await;
    for path in ["/", "/head", "/short", "/trap"] {
        let request = host.request("drops", path).body(Full::<Bytes>::default()).unwrap();
        let whole = host.client().try_whole(request).await;
        assert!(whole.is_err(), "{path}: {whole:?}");
    }
}

#[tokio::test]
async fn a_flood_of_lines_is_cut_and_said_to_be() {
    let host = host().await;
    host.deploy("logs", "log", |service| service.public()).await;
    assert_eq!(host.get("logs", "/many/30000").await.text(), "logged");
    host.observed.line("the rest is dropped").await;
    assert!(host.observed.lines().len() <= 10_001);
}

#[tokio::test]
async fn silent_connections_lose_their_place() {
    let listen = tovuk_server::edge::ListenConfig { connections_max: 1, ..Default::default() };
    let host = Host::with(tovuk_tests::HostConfig { listen, ..tovuk_tests::HostConfig::new(crate::TOVUK) }).await;
    host.deploy("hello", "hello", |service| service.public()).await;
    let mut silent = tokio::net::TcpStream::connect(host.address).await.unwrap();
    let (client, request) = (host.client(), host.request("hello", "/").body(Full::<Bytes>::default()).unwrap());
    let waiting = tokio::spawn(async move { client.whole(request).await });
    // The clock may move before the silent connection's time has begun, so it is moved until the host has had enough.
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(&mut silent, &mut byte);
    tokio::pin!(read);
    while tokio::time::timeout(Duration::from_millis(20), &mut read).await.is_err() {
        host.clock.advance(Duration::from_secs(31));
    }
    assert_eq!(waiting.await.unwrap().text(), "hello");
}
