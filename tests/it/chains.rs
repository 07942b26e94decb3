//! The cap on chains: 32 invocations for each request from outside, whatever the shape of the tree; and that a chain which began can always finish.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use tokio::task::JoinSet;
use tovuk_runtime::record::{EventKind, Outcome};
use tovuk_runtime::runtime::RuntimeConfig;
use tovuk_tests::HostConfig;

use crate::{TOVUK, host};

#[tokio::test]
async fn depth_is_capped_at_exactly_32_in_both_worlds() {
    let host = host().await;
    host.deploy("lean", "chain", |service| service.public().binds("NEXT", "lean")).await;
    host.deploy("next", "chain_p2", |service| service.public().binds_url("NEXT_URL", "next")).await;
    for service in ["lean", "next"] {
        let reply = host.get(service, "/31").await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "hello"), "{service}");
        let records = host.observed.ended(service, 32).await;
        let numbers: BTreeSet<_> = records.iter().map(|record| record.number).collect();
        assert_eq!(numbers, (1..=32).collect(), "{service}");
        assert!(records.iter().all(|record| record.trace == records[0].trace));
        for record in &records {
            assert_eq!(record.event, if record.number == 1 { EventKind::Http } else { EventKind::Binding });
            assert_eq!(record.caller.is_some(), record.number != 1);
        }

        let reply = host.get(service, "/32").await;
        assert_eq!(reply.status, 502, "{service}: {}", reply.text());
        assert_eq!(host.observed.ended(service, 64).await.len(), 64, "{service}: number 33 was made");
    }
    // The lean world is told the hops.
    let hops = host.get("lean", "/40").await.json()["hops"].clone();
    let hops = hops.as_array().unwrap();
    assert_eq!(hops.len(), 32);
    assert_eq!((hops[0]["number"].as_u64(), hops[0]["path"].as_str(), hops[0]["service"].as_str()), (Some(1), Some("/40"), Some("lean")));
    assert_eq!((hops[31]["number"].as_u64(), hops[31]["path"].as_str()), (Some(32), Some("/9")));
    assert_eq!(host.get("next", "/40").await.json()["error"], "loop-detected");
}

#[tokio::test]
async fn an_unhandled_chain_limit_is_508_with_the_code_alone() {
    let host = host().await;
    host.deploy("lean", "chain", |service| service.public().binds("NEXT", "lean")).await;
    host.deploy("next", "chain_p2", |service| service.public().binds_url("NEXT_URL", "next")).await;
    for service in ["lean", "next"] {
        let reply = host.get(service, "/32?unhandled").await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (508, "binding_chain_limit"), "{service}");
        let keys: Vec<_> = reply.json().as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["code", "message", "request_id"]);
    }
}

#[tokio::test]
async fn fan_out_is_capped_at_exactly_32() {
    let host = host().await;
    host.deploy("self", "fan", |service| service.public().binds("SELF", "self")).await;
    host.deploy("wasi", "fan_p2", |service| service.public().binds_url("SELF_URL", "wasi")).await;
    for service in ["self", "wasi"] {
        // Wide, deep, and mixed: what ran and what was refused adds up to what was asked.
        for (path, ok, refused) in [("/31/1", 32, 0), ("/32/1", 32, 1), ("/40/1", 32, 9), ("/2/2", 7, 0), ("/1/31", 32, 0), ("/1/35", 32, 1)] {
            let tally = host.get(service, path).await.json();
            assert_eq!(
                (tally["ok"].as_u64(), tally["refused"].as_u64(), tally["failed"].as_u64()),
                (Some(ok), Some(refused), Some(0)),
                "{service}{path}"
            );
        }
        for path in ["/3/3", "/2/5", "/5/2", "/6/6"] {
            let tally = host.get(service, path).await.json();
            let ran = tally["ok"].as_u64().unwrap();
            assert!(tally["refused"].as_u64().unwrap() > 0 || ran <= 32, "{path}");
            assert_eq!(ran, if path == "/5/2" { 31 } else { 32 }, "{service}{path} {tally}");
        }
    }
    assert_eq!(host.runtime.slots().free(), host.runtime.slots().total());
}

#[tokio::test]
async fn two_hundred_chains_of_32_finish_on_a_small_pool() {
    for slots in [33, 40, 64] {
        // Patience is not the subject: on so few slots the last chain waits for all others.
        let patient = |runtime: &mut RuntimeConfig| runtime.admission_wait = Duration::from_secs(3600);
        let host = tovuk_tests::Host::with(HostConfig { slots, runtime: Box::new(patient), ..HostConfig::new(TOVUK) }).await;
        host.deploy("lean", "chain", |service| service.public().binds("NEXT", "lean")).await;
        host.deploy("next", "chain_p2", |service| service.public().binds_url("NEXT_URL", "next")).await;
        host.deploy("fan", "fan", |service| service.public().binds("SELF", "fan")).await;
        let mut requests = JoinSet::new();
        for at in 0..200 {
            let (service, path) = [("lean", "/31"), ("next", "/31"), ("fan", "/2/9")][at % 3];
            let (client, request) = (host.client(), host.request(service, path).body(Full::<Bytes>::default()).unwrap());
            requests.spawn(async move { (service, client.whole(request).await) });
        }
        while let Some(done) = requests.join_next().await {
            let (service, reply) = done.unwrap();
            assert_eq!(reply.status, 200, "{service} on {slots} slots: {}", reply.text());
            if service == "fan" {
                assert_eq!(reply.json()["ok"], 32);
            }
        }
        assert_eq!(host.runtime.slots().free(), host.runtime.slots().total());
        assert!(host.observed.records().iter().all(|record| record.outcome == Outcome::Response));
    }
}

#[tokio::test]
async fn a_full_queue_is_host_busy_and_chains_that_began_are_not_touched() {
    let config = HostConfig { slots: 32, runtime: Box::new(|runtime| runtime.admission_queue_max = 2), ..HostConfig::new(TOVUK) };
    let host = tovuk_tests::Host::with(config).await;
    host.deploy("holds", "sleep", |service| service.public()).await.deploy("lean", "chain", |service| service.public().binds("NEXT", "lean")).await;
    let send = |service: &str, path: &str| {
        let (client, request) = (host.client(), host.request(service, path).body(Full::<Bytes>::default()).unwrap());
        tokio::spawn(async move { client.whole(request).await })
    };
    // With 32 slots one tree runs at a time; the second and third wait, the fourth is turned away.
    let holder = send("holds", "/3600000");
    while host.runtime.slots().free() == 32 {
        tokio::task::yield_now().await;
    }
    let waiting = [send("lean", "/31"), send("lean", "/31")];
    while host.runtime.slots().waiting().0 < 2 {
        tokio::task::yield_now().await;
    }
    let reply = host.get("lean", "/0").await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "host_busy"));
    holder.abort();
    for reply in waiting {
        assert_eq!(reply.await.unwrap().text(), "hello");
    }
}

#[tokio::test]
async fn a_calls_b_calls_a() {
    let host = host().await;
    host.deploy("a", "chain", |service| service.public().binds("NEXT", "b")).await.deploy("b", "chain", |service| service.binds("NEXT", "a")).await;
    assert_eq!(host.get("a", "/7").await.text(), "hello");
    assert_eq!(host.observed.ended("a", 4).await.len(), 4);
    assert_eq!(host.observed.ended("b", 4).await.len(), 4);
}

#[tokio::test]
async fn a_chain_ends_with_its_client_and_with_its_time() {
    let host = host().await;
    // lean → wasi → lean → a worker that waits.
    host.deploy("one", "passthrough", |service| service.public().binds_url("NEXT_URL", "two")).await;
    host.deploy("two", "passthrough", |service| service.binds_url("NEXT_URL", "three")).await;
    host.deploy("three", "sleep", |service| service).await;
    let started = |count: usize| {
        let slots = host.runtime.slots().clone();
        async move {
            while slots.total() - slots.free() < count as u32 {
                tokio::task::yield_now().await;
            }
        }
    };
    let (client, request) = (host.client(), host.request("one", "/3600000").body(Full::<Bytes>::default()).unwrap());
    let waiting = tokio::spawn(async move { client.whole(request).await });
    started(3).await;
    waiting.abort();
    for service in ["one", "two", "three"] {
        assert_eq!(host.observed.ended(service, 1).await[0].outcome, Outcome::Cancelled, "{service}");
    }
    let (client, request) = (host.client(), host.request("one", "/3600000").body(Full::<Bytes>::default()).unwrap());
    let waiting = tokio::spawn(async move { client.whole(request).await });
    started(3).await;
    while !waiting.is_finished() {
        host.clock.advance(std::time::Duration::from_secs(31));
        tokio::task::yield_now().await;
    }
    assert_eq!(waiting.await.unwrap().status, 504);
    for service in ["one", "two", "three"] {
        host.observed.ended(service, 2).await;
    }
    assert_eq!(host.runtime.slots().free(), host.runtime.slots().total());
}
