//! Admission: an account has its share of the instance slots and its places, and what it does beyond that is waited for or refused on its own account.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;
use tokio::task::JoinHandle;
use tovuk_kernel::limits::CHAIN_INVOCATIONS;
use tovuk_runtime::body::Body;
use tovuk_runtime::invoke::{Budget, Event};
use tovuk_runtime::record::EventKind;
use tovuk_runtime::runtime::RuntimeConfig;
use tovuk_runtime::trace::TraceContext;
use tovuk_tests::{Host, HostConfig, Reply, ServiceConfig};

use crate::TOVUK;

/// Sleeps until it is cut off.
const LONG: &str = "/3600000";

async fn host(slots: u32, runtime: impl FnOnce(&mut RuntimeConfig) + 'static) -> Host {
    Host::with(HostConfig { slots, runtime: Box::new(runtime), ..HostConfig::new(TOVUK) }).await
}

fn send(host: &Host, service: &str, path: &str) -> JoinHandle<Reply> {
    let (client, request) = (host.client(), host.request(service, path).body(Full::<Bytes>::default()).unwrap());
    tokio::spawn(async move { client.whole(request).await })
}

async fn until(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it never came to that");
}

/// How many requests of a service run, and how many of its account wait for a place.
fn load(host: &Host, service: &str) -> (u64, usize) {
    host.runtime.services().get(&format!("service_{service}").into()).unwrap().load()
}

/// A chain of 32 services of one account, the last of which sleeps, and none of which is cut off while the test runs.
async fn deploy_sleeping_chain(host: &Host, account: &str) {
    for at in 1..CHAIN_INVOCATIONS {
        let next = format!("loud{}", at + 1);
        let service = |service: ServiceConfig| service.public().account(account).binds_url("NEXT_URL", &next).limit("wall_ms", 900_000);
        host.deploy(&format!("loud{at}"), "passthrough", service).await;
    }
    host.deploy(&format!("loud{CHAIN_INVOCATIONS}"), "sleep", |service| service.account(account).limit("wall_ms", 900_000)).await;
}

#[tokio::test]
async fn an_account_with_sleeping_chains_has_half_of_the_slots_and_others_are_answered() {
    // Nobody is told to come again while the test looks.
    let host = host(128, |runtime| runtime.admission_wait = Duration::from_secs(600)).await;
    deploy_sleeping_chain(&host, "loud").await;
    host.deploy("quiet", "chain", |service| service.public().account("quiet").binds("NEXT", "quiet")).await;
    let slots = host.runtime.slots().clone();
    assert_eq!((slots.total(), slots.account_total()), (128, 64));
    let flood: Vec<_> = (0..40).map(|_| send(&host, "loud1", LONG)).collect();
    // How many began depends on how soon the first of them called others. Together they have what they may, and none of them gives anything back.
    until(|| slots.free() == 64 && load(&host, "loud1").0 == 40).await;
    // No more than 33 begin, since each needs the rest of a chain to be free.
    let waiting = slots.waiting();
    assert!(waiting.0 >= 7, "{waiting:?}");
    for _ in 0..10 {
        assert_eq!(host.get("quiet", "/31").await.text(), "hello");
    }
    // More of its chains may have come to wait for their next meanwhile.
    assert_eq!((slots.free(), slots.waiting().0), (64, waiting.0), "all of that time");
    flood.iter().for_each(JoinHandle::abort);
    until(|| (slots.free(), slots.waiting()) == (128, (0, 0))).await;
}

#[tokio::test]
async fn accounts_take_turns_at_slots_and_a_flood_makes_room_for_others() {
    let host = host(32, |runtime| runtime.admission_queue_max = 3).await;
    for (service, account) in [("loud", "loud"), ("first", "first"), ("second", "second")] {
        host.deploy(service, "sleep", |config| config.public().account(account)).await;
    }
    let slots = host.runtime.slots().clone();
    // Of 32 slots one chain has all.
    let holder = send(&host, "loud", LONG);
    until(|| slots.free() == 31).await;
    let mut loud = Vec::new();
    for waiting in 1..=3 {
        loud.push(send(&host, "loud", "/0"));
        until(|| slots.waiting().0 == waiting).await;
    }
    let refused = host.get("loud", "/0").await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str(), &refused.headers["retry-after"]), (503, "host_busy", &"1".parse().unwrap()));
    let mut others = Vec::new();
    for service in ["first", "second"] {
        others.push(send(&host, service, "/0"));
        // Its newest request goes, and the other account's waits in its place.
        let displaced = loud.pop().unwrap().await.unwrap();
        assert_eq!((displaced.status.as_u16(), displaced.code().as_str()), (503, "host_busy"));
        assert_eq!(slots.waiting().0, 3);
    }
    holder.abort();
    for reply in loud.into_iter().chain(others) {
        assert_eq!(reply.await.unwrap().text(), "slept 0");
    }
    host.observed.ended("loud", 2).await;
    host.observed.ended("second", 1).await;
    let order: Vec<_> = host.observed.records().iter().map(|record| record.target.name.to_string()).collect();
    assert_eq!(order, ["loud", "first", "second", "loud"], "whoever had a slot is last");
}

#[tokio::test]
async fn so_many_of_a_service_and_of_an_account_run_and_the_rest_waits_in_order_or_is_refused() {
    let few = |runtime: &mut RuntimeConfig| (runtime.account_concurrency, runtime.account_waiting_max) = (3, 3);
    let host = host(64, few).await;
    for service in ["a", "b"] {
        host.deploy(service, "sleep", |config| config.public().account("loud").limit("concurrency", 2)).await;
    }
    host.deploy("other", "sleep", |config| config.public().account("other")).await;
    let mut replies = Vec::new();
    // Two of `a` run, its third waits and takes nothing from `b`, whose second has no place in the account any more.
    for (service, running, waiting) in [("a", 1, 0), ("a", 2, 0), ("a", 2, 1), ("b", 1, 1), ("b", 1, 2), ("b", 1, 3)] {
        replies.push(send(&host, service, LONG));
        until(|| load(&host, service) == (running, waiting)).await;
    }
    until(|| host.runtime.slots().total() - host.runtime.slots().free() == 3).await;
    // `b` has two that wait and `a` one, so `b` is refused.
    let refused = host.get("b", "/0").await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str(), &refused.headers["retry-after"]), (503, "service_busy", &"1".parse().unwrap()));
    assert_eq!(host.get("other", "/0").await.text(), "slept 0");
    // The one of `b` ends: a place of the account comes free, which `a` cannot use although it has waited for longer.
    replies[3].abort();
    until(|| (load(&host, "a"), load(&host, "b")) == ((2, 2), (1, 2))).await;
    // One of `a` ends, and now that is its turn; then the other, and what is left is of `b`.
    replies[0].abort();
    until(|| (load(&host, "a"), load(&host, "b")) == ((2, 1), (1, 1))).await;
    replies[1].abort();
    until(|| (load(&host, "a"), load(&host, "b")) == ((1, 0), (2, 0))).await;
    assert!([2, 4, 5].iter().all(|at: &usize| !replies[*at].is_finished()));
    replies.iter().for_each(JoinHandle::abort);
    until(|| (load(&host, "a"), load(&host, "b")) == ((0, 0), (0, 0))).await;
}

#[tokio::test]
async fn an_event_is_delivered_however_many_requests_come() {
    let host = host(64, |runtime| runtime.account_waiting_max = 2).await;
    host.deploy("app", "sleep", |config| config.public().limit("concurrency", 1)).await;
    let service = host.runtime.services().get(&"service_app".into()).unwrap();
    let holder = send(&host, "app", LONG);
    until(|| load(&host, "app") == (1, 0)).await;
    let flood = async |waiting: usize| {
        let requests = [send(&host, "app", LONG), send(&host, "app", LONG)];
        until(|| load(&host, "app") == (1, waiting)).await;
        requests
    };
    let before = flood(2).await;
    assert_eq!(host.get("app", "/0").await.code(), "service_busy");
    let event = tokio::spawn({
        let (runtime, service) = (host.runtime.clone(), service.clone());
        let request = Request::post("/.tovuk/cron/1").header("host", "app.localhost").body(Body::Empty).unwrap();
        let budget = Budget::top_level(TraceContext::of(&HeaderMap::new()));
        async move { runtime.invoke(&service, Event::Delivery(EventKind::Cron, request), budget).await.map(|started| started.response.status()) }
    });
    until(|| load(&host, "app") == (1, 3)).await;
    // Those before it have waited for as long as requests do, and others have come.
    host.clock.advance(Duration::from_secs(6));
    for reply in before {
        assert_eq!(reply.await.unwrap().code(), "service_busy");
    }
    let after = flood(3).await;
    assert!(!event.is_finished());
    holder.abort();
    assert_eq!(event.await.unwrap().unwrap(), 200);
    until(|| load(&host, "app") == (1, 1)).await;
    after.iter().for_each(JoinHandle::abort);
}
