//! What the host delivers, serves and builds by itself is charged and capped as requests are; what a cap holds up is not lost, and was no attempt.

use std::time::Duration;

use serde_json::{Value, json};
use tovuk_kernel::meters::Meter;
use tovuk_runtime::outbound::{AddressPolicy, OutboundConfig};
use tovuk_tests::{Gate, Operator, tar_gz};

use crate::TOVUK;
use crate::usage::{ask, cap_more, used};

/// Asks until it is so, and lets a second pass after every few times, so that what has begun can end before its time is over.
async fn until(host: &Operator, holds: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        for _ in 0..20 {
            if holds().await {
                return;
            }
        }
        host.clock.advance(Duration::from_secs(1));
    }
    panic!("it is not so after ten minutes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_a_cap_holds_is_no_attempt_and_comes_later() {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    for (kind, body) in [("kv/namespaces", json!({"name": "SEEN"})), ("queues", json!({"name": "jobs", "maxBatchTimeoutSeconds": 0}))] {
        host.ok("POST", &format!("/v1/services/shop/{kind}"), Some(body)).await;
    }
    host.deploy(&host.token, "shop", "queue", json!({"routes": ["/*"]})).await;
    let queue = "/v1/services/shop/queues/jobs";
    for meter in [Meter::WorkerRequests, Meter::QueueOperations] {
        // One operation for the message itself.
        cap_more(&host, meter, u64::from(meter == Meter::QueueOperations)).await;
        host.ok("POST", &format!("{queue}/messages"), Some(json!({"body": meter.as_str()}))).await;
        // Why it is held. That it is, for longer than it takes to come to that, is no attempt either.
        let metrics = async || host.ok("GET", &format!("{queue}/metrics"), None).await.to_string();
        until(&host, async || metrics().await.contains("cap of")).await;
        host.clock.advance(Duration::from_secs(60));
        until(&host, async || metrics().await.contains("cap of")).await;
        host.ok("DELETE", &format!("/v1/usage/caps/{}/day", meter.as_str()), None).await;
        let number = if meter == Meter::WorkerRequests { 1 } else { 2 };
        let seen = format!("/v1/services/shop/kv/SEEN/values/jobs/{number}").replace("jobs/", "jobs%2F");
        until(&host, async || host.ask("GET", &seen, None).await.status == 200).await;
        let event: Value = serde_json::from_str(host.ok("GET", &seen, None).await["value"].as_str().unwrap()).unwrap();
        assert_eq!(event["event"]["messages"][0]["attempts"], 1, "{event}");
        // Each message is written, read and removed.
        until(&host, async || used(&host, Some("shop"), Meter::QueueOperations).await == 3 * number).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_and_alarms_are_invocations_and_an_alarm_is_a_call_of_state() {
    let host = Operator::start(TOVUK).await;
    host.deploy(&host.token, "app", "cron", json!({"routes": ["/*"], "crons": {"yearly": "0 0 1 1 *"}})).await;
    host.deploy(&host.token, "shop", "state", json!({"routes": ["/*"], "state": ["Room", "Log"]})).await;
    let requests = async |service| used(&host, Some(service), Meter::WorkerRequests).await;
    let ticked = requests("app").await + 1;
    host.ok("POST", "/v1/services/app/cron/yearly/run", None).await;
    until(&host, async || requests("app").await == ticked).await;
    let (before, calls) = (requests("shop").await, async || used(&host, Some("shop"), Meter::StateRequests).await);
    let alarm = "/v1/services/shop/state/namespaces/Room/objects/o/alarm";
    host.ok("PUT", alarm, Some(json!({"delaySeconds": 60}))).await;
    assert_eq!(calls().await, 1, "setting it");
    // Its delivery, and what the guest does then: it counts, writes down what came, and looks what to answer.
    until(&host, async || calls().await == 1 + 1 + 3).await;
    // Another that comes five minutes later, before which nothing else does.
    host.ok("PUT", &alarm.replace("/o/", "/p/"), Some(json!({"delaySeconds": 300}))).await;
    until(&host, async || calls().await == 10).await;
    assert_eq!((requests("app").await, requests("shop").await, calls().await), (ticked, before + 2, 10), "and nothing more");
}

#[tokio::test(flavor = "multi_thread")]
async fn static_files_and_builds_are_charged_and_capped() {
    let host = Operator::start(TOVUK).await;
    let files = tar_gz(&[("index.html", "<p>hello</p>")]);
    let files = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(&files)
    };
    let body = json!({"service": "site", "config": {"kind": "static_frontend", "assets": "."}, "assets_archive_base64": files});
    let deploy = async || {
        let made = host.ok("POST", "/v1/deploy", Some(body.clone())).await;
        host.built(&host.token, made["build_job"]["id"].as_str().unwrap()).await
    };
    assert_eq!(deploy().await["status"], "succeeded");
    assert_eq!(used(&host, Some("site"), Meter::BuildMinutes).await, 1, "a minute that was begun");
    assert_eq!(host.get("site", "/").await.text(), "<p>hello</p>");
    assert_eq!(used(&host, Some("site"), Meter::StaticTransferBytes).await, 12);
    cap_more(&host, Meter::StaticTransferBytes, 12).await;
    assert_eq!(host.get("site", "/").await.status, 200);
    let refused = host.get("site", "/").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (429, "usage_cap_exceeded".to_owned()));
    cap_more(&host, Meter::BuildMinutes, 0).await;
    let build = deploy().await;
    assert_eq!(build["status"], "failed", "{build}");
    assert!(build["message"].as_str().unwrap().starts_with("usage_cap_exceeded"), "{build}");
    assert_eq!(used(&host, None, Meter::BuildMinutes).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_charged_for_as_long_as_it_has_its_object() {
    let host = Operator::with(TOVUK, |config| {
        config.outbound = OutboundConfig { addresses: AddressPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()] }, ..OutboundConfig::default() };
    })
    .await;
    let gate = Gate::start().await;
    let url = format!("http://127.0.0.1:{}", gate.port);
    host.deploy(&host.token, "shop", "state", json!({"routes": ["/*"], "state": ["Room", "Log"], "outbound": [url]})).await;
    let steps = json!([{"op": "gate", "url": format!("{url}/")}, {"op": "put", "key": "k", "value": "x"}]);
    let call = json!([{"op": "call", "object": "a", "steps": steps}]);
    let (answered, ()) = tokio::join!(ask(&host, "shop", "/", &call), async {
        gate.arrived().await;
        host.clock.advance(Duration::from_secs(10));
        gate.pass();
    });
    assert_eq!((answered.status.as_u16(), &answered.json()[0]["status"]), (200, &json!(200)), "{}", answered.text());
    let used = async |meter| used(&host, Some("shop"), meter).await;
    // 10 s with 128 MB, and what passes by itself meanwhile.
    let first = used(Meter::StateDurationGbMilliseconds).await;
    assert!((1_280..2_560).contains(&first), "{first}");
    assert_eq!((used(Meter::StateRequests).await, used(Meter::StateSqliteRowsWritten).await, used(Meter::WorkerRequests).await), (1, 1, 2));
    // A call that may take longer than there is room for begins, and ends where the room does.
    cap_more(&host, Meter::StateDurationGbMilliseconds, 300).await;
    let quick = json!([{"op": "call", "object": "a", "steps": [{"op": "put", "key": "k", "value": "y"}]}]);
    assert_eq!(ask(&host, "shop", "/", &quick).await.json()[0]["status"], 200);
    let (before, before_ms) = (used(Meter::StateSqliteRowsWritten).await, used(Meter::StateDurationGbMilliseconds).await);
    let (refused, ()) = tokio::join!(ask(&host, "shop", "/", &call), async {
        gate.arrived().await;
        // Beyond what is reserved at first, which is charged then, and beyond what there is room for.
        host.clock.advance(Duration::from_millis(1_800));
        while used(Meter::StateDurationGbMilliseconds).await < before_ms + 128 {}
        host.clock.advance(Duration::from_millis(900));
    });
    let refused = refused.json();
    assert_eq!(refused[0]["body"]["code"], "usage_cap_exceeded", "{refused}");
    let spent = used(Meter::StateDurationGbMilliseconds).await - first;
    assert!((240..=300).contains(&spent), "no more than there was room for: {spent}");
    assert_eq!(used(Meter::StateSqliteRowsWritten).await, before, "what it did is undone");
    // With no room at all nothing begins.
    cap_more(&host, Meter::StateDurationGbMilliseconds, 0).await;
    let requests = used(Meter::StateRequests).await;
    let refused = ask(&host, "shop", "/", &quick).await.json();
    assert_eq!(refused[0]["error"], "usage_cap_exceeded", "{refused}");
    assert_eq!(used(Meter::StateRequests).await, requests, "what was refused is free");
}
