//! Alarms: one for each object, in time, at least once, tried again as the documents say, and never lost.

use std::time::Duration;

use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_tests::{Operator, Served};

use super::{LOG, ROOM, at, config, one, value};
use crate::TOVUK;

/// 31 May 2026, 00:00 UTC.
const THEN: u64 = 1_780_185_600_000;

/// What has come to the worker so far.
async fn rung(host: &Operator) -> Vec<Value> {
    let keys = host.ok("GET", &format!("{LOG}/objects/alarms/keys?prefix=alarm-"), None).await;
    let mut rung = Vec::new();
    for key in keys["keys"].as_array().unwrap() {
        let entry = host.ok("GET", &format!("{LOG}/objects/alarms/values/{}", key["name"].as_str().unwrap()), None).await;
        rung.push(serde_json::from_str(entry["value"].as_str().unwrap()).unwrap());
    }
    rung
}

/// Waits until so many have come.
async fn until_rung(host: &Operator, count: usize) -> Vec<Value> {
    loop {
        let rung = rung(host).await;
        if rung.len() >= count {
            return rung;
        }
        tokio::task::yield_now().await;
    }
}

async fn alarm(host: &Operator, object: &str) -> Value {
    host.ok("GET", &format!("{ROOM}/objects/{object}/alarm"), None).await["alarm"].clone()
}

async fn set(host: &Operator, object: &str, body: Value) -> u64 {
    let set = host.ok("PUT", &format!("{ROOM}/objects/{object}/alarm"), Some(body)).await;
    set["alarm"]["scheduledAtUnixMs"].as_u64().unwrap()
}

async fn answer(host: &Operator, status: u16) {
    host.ok("PUT", &format!("{LOG}/objects/alarms/values/answer"), Some(json!({"value": status}))).await;
}

/// Waits until the alarm was settled after a failed delivery: how often it has failed, and when it rings next.
async fn failed(host: &Operator, object: &str, times: u64) -> u64 {
    loop {
        let alarm = alarm(host, object).await;
        if alarm["retryCount"] == times {
            return alarm["nextDeliveryAtUnixMs"].as_u64().unwrap();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_rings_when_it_is_time_and_a_new_one_takes_its_place() {
    let host = at("state", THEN).await;
    let first = set(&host, "a%2Fb%20c", json!({"delaySeconds": 60})).await;
    assert!((THEN + 60_000..THEN + 240_000).contains(&first), "{first}");
    let second = set(&host, "a%2Fb%20c", json!({"scheduledAtUnixMs": THEN + 3_600_000})).await;
    assert_eq!((second, alarm(&host, "a%2Fb%20c").await["scheduledAt"].as_str()), (THEN + 3_600_000, Some("2026-05-31T01:00:00.000Z")));
    host.clock.advance(Duration::from_secs(600));
    assert_eq!(rung(&host).await, Vec::<Value>::new(), "the first one is none any more");
    host.clock.advance(Duration::from_secs(3_100));
    let body = json!({"retryCount": 0, "isRetry": false, "scheduledTimeMs": second});
    assert_eq!(until_rung(&host, 1).await, [json!({"path": "/.tovuk/state/Room/a%2Fb%20c/alarm", "event": "alarm", "body": body})]);
    while !host.ok("GET", &format!("{ROOM}/objects"), None).await["objects"].as_array().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    // What has passed rings now; what was removed does not.
    set(&host, "late", json!({"delaySeconds": 10})).await;
    host.ok("DELETE", &format!("{ROOM}/objects/late/alarm"), None).await;
    host.clock.advance(Duration::from_secs(60));
    set(&host, "now", json!({"scheduledAtUnixMs": 5})).await;
    let rung = until_rung(&host, 2).await;
    assert_eq!((&rung[1]["path"], &rung[1]["body"]["scheduledTimeMs"]), (&json!("/.tovuk/state/Room/now/alarm"), &json!(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_alarm_is_tried_six_times_at_growing_intervals_and_then_cleared() {
    let host = at("state", THEN).await;
    answer(&host, 500).await;
    let scheduled = set(&host, "room", json!({"delaySeconds": 0})).await;
    for (retry, seconds) in [2, 4, 8, 16, 32, 64].into_iter().enumerate() {
        let rung = until_rung(&host, retry + 1).await;
        assert_eq!(rung[retry]["body"], json!({"retryCount": retry, "isRetry": retry > 0, "scheduledTimeMs": scheduled}));
        let next = failed(&host, "room", retry as u64 + 1).await;
        let now = host.clock.now_unix_ms();
        assert!((now + seconds * 1_000).abs_diff(next) < 1_900, "retry {retry} in {} ms", next - now);
        // Any status but 2xx is a failure.
        answer(&host, [404, 405, 302, 400, 503, 500][retry]).await;
        host.clock.advance(Duration::from_millis(next - now + 1));
    }
    assert_eq!(until_rung(&host, 7).await.len(), 7);
    while !alarm(&host, "room").await.is_null() {
        tokio::task::yield_now().await;
    }
    host.clock.advance(Duration::from_secs(600));
    set(&host, "other", json!({"delaySeconds": 0})).await;
    assert_eq!(until_rung(&host, 8).await[7]["path"], "/.tovuk/state/Room/other/alarm");
    let log = host.log(&host.token, "/v1/services/shop/logs").await;
    assert!(log.iter().any(|line| line == "the alarm of Room `room` has failed and is tried again in 2 s: the worker answered with 500"), "{log:#?}");
    assert!(log.iter().any(|line| line.starts_with("the alarm of Room `room` has failed 7 times and is cleared: ")), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_be_reached_keeps_its_alarms_and_counts_no_attempt() {
    let host = Operator::with_clock(TOVUK, Clock::advanceable_at(THEN)).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    for class in ["Room", "Log"] {
        host.ok("POST", "/v1/services/shop/state/namespaces", Some(json!({"className": class}))).await;
    }
    for number in 0..100 {
        set(&host, &format!("r{number}"), json!({"delaySeconds": 0})).await;
    }
    // One that waits and is removed or set anew is not delivered as it was.
    host.clock.advance(Duration::from_secs(30));
    host.ok("DELETE", &format!("{ROOM}/objects/r7/alarm"), None).await;
    host.deploy(&host.token, "shop", "state", config()).await;
    // One is there at once. The others have gone back to the store and follow within the minute.
    until_rung(&host, 1).await;
    host.clock.advance(Duration::from_secs(61));
    let rung = until_rung(&host, 99).await;
    assert!(rung.iter().all(|rung| rung["body"]["retryCount"] == 0), "{rung:?}");
    assert!(rung.iter().all(|rung| rung["path"] != "/.tovuk/state/Room/r7/alarm"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_service_does_not_keep_the_alarms_of_another() {
    let host = at("state", THEN).await;
    // The first service is not there any more for long.
    host.ok("POST", "/v1/services", Some(json!({"name": "gone"}))).await;
    host.ok("POST", "/v1/services/gone/state/namespaces", Some(json!({"className": "Room"}))).await;
    for number in 0..300 {
        let path = format!("/v1/services/gone/state/namespaces/Room/objects/{number}/alarm");
        host.ok("PUT", &path, Some(json!({"delaySeconds": 0}))).await;
    }
    set(&host, "room", json!({"delaySeconds": 0})).await;
    assert_eq!(until_rung(&host, 1).await[0]["path"], "/.tovuk/state/Room/room/alarm");
    host.ok("DELETE", "/v1/services/gone", None).await;
    set(&host, "again", json!({"delaySeconds": 0})).await;
    until_rung(&host, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_of_alarms_has_its_object_and_is_undone_when_it_fails() {
    let host = at("state_alarm", THEN).await;
    let put = async |key: &str| {
        host.ok("PUT", &format!("{ROOM}/objects/room/values/{key}"), Some(json!({"value": "1"}))).await;
    };
    let scheduled = set(&host, "room", json!({"delaySeconds": 0})).await;
    while value(&host, "room", "rung").await != "1" {
        tokio::task::yield_now().await;
    }
    let last = value(&host, "room", "last").await;
    assert_eq!(last, json!(json!(["Room", "room", scheduled, 0, false]).to_string()));
    for (fails, says) in [("fail", "the alarm fails on purpose"), ("trap", "trapped")] {
        put(fails).await;
        put("again").await;
        let scheduled = set(&host, "room", json!({"delaySeconds": 0})).await;
        let next = failed(&host, "room", 1).await;
        // It had set the next one, which is undone with all else.
        assert_eq!((value(&host, "room", "rung").await, &alarm(&host, "room").await["scheduledAtUnixMs"]), (json!("1"), &json!(scheduled)));
        let log = host.log(&host.token, "/v1/services/shop/logs").await;
        assert!(log.iter().any(|line| line.starts_with("the alarm of Room `room` has failed and") && line.contains(says)), "{log:#?}");
        for key in [fails, "again"] {
            host.ok("DELETE", &format!("{ROOM}/objects/room/values/{key}"), None).await;
        }
        host.clock.advance(Duration::from_millis(next - host.clock.now_unix_ms() + 1));
        while value(&host, "room", "rung").await != "2" {
            tokio::task::yield_now().await;
        }
        assert_eq!(value(&host, "room", "last").await, json!(json!(["Room", "room", scheduled, 1, true]).to_string()));
        host.ok("PUT", &format!("{ROOM}/objects/room/values/rung"), Some(json!({"value": "1"}))).await;
    }
    // What it sets while it runs is the next one.
    put("again").await;
    set(&host, "room", json!({"delaySeconds": 0})).await;
    while value(&host, "room", "rung").await != "2" {
        tokio::task::yield_now().await;
    }
    let next = alarm(&host, "room").await["scheduledAtUnixMs"].as_u64().unwrap();
    assert!(next.abs_diff(host.clock.now_unix_ms() + 60_000) < 30_000, "{next}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_sets_alarms_and_deletes_them() {
    let host = at("state", THEN).await;
    let at = one(&host, json!({"op": "set_alarm", "seconds": 30, "object": "mine"})).await.as_u64().unwrap();
    assert!((THEN + 30_000..THEN + 200_000).contains(&at));
    one(&host, json!({"op": "set_alarm", "seconds": 30, "object": "not-mine"})).await;
    assert_eq!(one(&host, json!({"op": "delete_alarm", "object": "not-mine"})).await, json!(true));
    host.clock.advance(Duration::from_secs(40));
    let rung = until_rung(&host, 1).await;
    assert_eq!((rung.len(), &rung[0]["body"]["scheduledTimeMs"]), (1, &json!(at)));
}

#[tokio::test(flavor = "multi_thread")]
async fn alarms_outlive_a_host_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Served::start(TOVUK, folder.path()).await;
    let body = Operator::deploy_body("shop", "state", config());
    let accepted = host.ok("POST", "/v1/deploy", Some(&body)).await;
    assert_eq!(host.built(accepted["build_job"]["id"].as_str().unwrap()).await["status"], "succeeded");
    let now = Clock::system().now_unix_ms();
    for number in 0..20 {
        // Some are due while it is down, some ring before.
        let at = if number % 2 == 0 { now + 3_000 } else { 1 };
        host.ok("PUT", &format!("{ROOM}/objects/r{number}/alarm"), Some(&json!({"scheduledAtUnixMs": at}))).await;
    }
    host.kill().await;
    let host = Served::start(TOVUK, folder.path()).await;
    loop {
        let keys = host.ok("GET", &format!("{LOG}/objects/alarms/keys?prefix=alarm-"), None).await;
        let mut objects: Vec<String> = Vec::new();
        for key in keys["keys"].as_array().unwrap() {
            let entry = host.ok("GET", &format!("{LOG}/objects/alarms/values/{}", key["name"].as_str().unwrap()), None).await;
            let rung: Value = serde_json::from_str(entry["value"].as_str().unwrap()).unwrap();
            objects.push(rung["path"].as_str().unwrap().to_owned());
        }
        objects.sort();
        objects.dedup();
        if objects.len() == 20 {
            break;
        }
        tokio::task::yield_now().await;
    }
}
