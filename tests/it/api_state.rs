//! State over the API: what is written is there, for whom it is, within its limits, until it is deleted.

use std::fmt::Display;

use futures::future::join_all;
use serde_json::{Value, json};
use tovuk_tests::Operator;

use crate::TOVUK;

const ROOM: &str = "/v1/services/shop/state/namespaces/Room";

async fn with_class() -> Operator {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    let made = host.ok("POST", "/v1/services/shop/state/namespaces", Some(json!({"className": "Room"}))).await;
    assert_eq!((&made["namespace"]["id"], &made["stateNamespaces"][0]["name"]), (&json!("state_namespace_1"), &json!("Room")));
    host
}

async fn put(host: &Operator, object: &str, key: impl Display, value: impl Into<Value>) -> Value {
    host.ok("PUT", &format!("{ROOM}/objects/{object}/values/{key}"), Some(json!({"value": value.into()}))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_also_after_a_start() {
    let host = with_class().await;
    put(&host, "room-1", "counter", "1").await;
    put(&host, "room-1", "a%2Fb", json!({"n": 1})).await;
    assert_eq!(put(&host, "room%2F2", "k", "x").await, json!({"ok": true, "values": 1, "storageBytes": 2}));
    host.ok("PUT", &format!("{ROOM}/objects/room-3/alarm"), Some(json!({"delaySeconds": 3_600}))).await;
    let host = host.restart().await;
    let read = host.ok("GET", &format!("{ROOM}/objects/room-1/values/a%2Fb"), None).await;
    assert_eq!(read, json!({"key": "a/b", "value": "{\"n\":1}", "encoding": "text"}));
    let read = host.ok("GET", "/v1/services/shop/state/namespaces/state_namespace_1/objects/room%2F2/values/k", None).await;
    assert_eq!(read["value"], "x");
    let keys = host.ok("GET", &format!("{ROOM}/objects/room-1/keys?limit=1"), None).await;
    assert_eq!((&keys["keys"], &keys["has_more"]), (&json!([{"name": "a/b", "valueBytes": 7}]), &json!(true)));
    let cursor = keys["next_cursor"].as_str().unwrap();
    let rest = host.ok("GET", &format!("{ROOM}/objects/room-1/keys?limit=1&cursor={cursor}"), None).await;
    assert_eq!((&rest["keys"][0]["name"], &rest["has_more"]), (&json!("counter"), &json!(false)));
    let objects = host.ok("GET", &format!("{ROOM}/objects"), None).await;
    let names: Vec<_> = objects["objects"].as_array().unwrap().iter().map(|object| object["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["room-1", "room-3", "room/2"]);
    assert!(objects["objects"][1]["alarmAtUnixMs"].is_u64() && objects["objects"][0].get("alarmAtUnixMs").is_none(), "{objects}");
    let removed = host.ok("DELETE", &format!("{ROOM}/objects/room-1/values/counter"), None).await;
    assert_eq!(removed, json!({"deleted": true, "values": 1, "storageBytes": 10}));
    assert_eq!(host.ok("DELETE", &format!("{ROOM}/objects/room-1/values/counter"), None).await["deleted"], false);
    assert_eq!(host.ok("DELETE", &format!("{ROOM}/objects/room-1"), None).await["deleted"], true);
    assert_eq!(host.ok("GET", &format!("{ROOM}/objects?prefix=room-"), None).await["objects"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_a_limit_is_whole() {
    let host = with_class().await;
    for half in [0..550, 550..1_100] {
        join_all(half.map(|number| put(&host, "room", format!("k{number:04}"), number))).await;
    }
    let keys = host.ok("GET", &format!("{ROOM}/objects/room/keys"), None).await;
    assert_eq!((keys["keys"].as_array().unwrap().len(), &keys["has_more"]), (1_100, &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told() {
    let host = with_class().await;
    let token = host.token.clone();
    let (long, most) = ("k".repeat(513), "k".repeat(512));
    let largest = "x".repeat((2 << 20) - 512);
    put(&host, &most, &most, largest.clone()).await;
    // Each byte is an escape of six.
    put(&host, "room", "k", "\u{1}".repeat((2 << 20) - 1)).await;
    for (object, key, value, code) in [
        (long.as_str(), "k", json!("x"), "state_key_invalid"),
        ("room", long.as_str(), json!("x"), "state_key_invalid"),
        ("room", "%2E%2E", json!("x"), "state_key_invalid"),
        ("%2E", "k", json!("x"), "state_key_invalid"),
        ("room", "k", json!("x".repeat(2 << 20)), "state_value_too_large"),
        (most.as_str(), most.as_str(), json!(largest + "x"), "state_value_too_large"),
    ] {
        let body = Some(json!({"value": value}));
        assert_eq!(host.refused(&token, "PUT", &format!("{ROOM}/objects/{object}/values/{key}"), body).await, code, "{object:.9} {key:.9}");
    }
    let alarm = format!("{ROOM}/objects/room/alarm");
    for (body, code) in [
        (json!({}), "state_alarm_schedule_required"),
        (json!({"delaySeconds": 1, "scheduledAtUnixMs": 1}), "state_alarm_schedule_conflict"),
        (json!({"scheduledAtUnixMs": 253_402_300_800_000_u64}), "state_alarm_invalid"),
        (json!({"delaySeconds": -1}), "invalid_request"),
        (json!({"delaySeconds": 1.5}), "invalid_request"),
    ] {
        assert_eq!(host.refused(&token, "PUT", &alarm, Some(body.clone())).await, code, "{body}");
    }
    for name in ["namespaces", "1x", "state_namespace_1", ""] {
        assert_eq!(host.refused(&token, "POST", "/v1/services/shop/state/namespaces", Some(json!({"className": name}))).await, "invalid_name");
    }
    for name in ["Room", "ROOM"] {
        assert_eq!(host.refused(&token, "POST", "/v1/services/shop/state/namespaces", Some(json!({"className": name}))).await, "resource_exists");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_goes_with_what_it_belongs_to_and_belongs_to_one_account() {
    const SECRET: &str = "a value that must not be found anywhere";
    let host = with_class().await;
    let token = host.token.clone();
    let bob = host.account("bob").await;
    let value = format!("{ROOM}/objects/room/values/k");
    put(&host, "room", "k", SECRET).await;
    host.ok("PUT", &format!("{ROOM}/objects/room/alarm"), Some(json!({"delaySeconds": 3_600}))).await;
    assert_eq!(host.refused(&bob, "GET", &value, None).await, "service_not_found");
    host.ok_as(&bob, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    let by_id = "/v1/services/shop/state/namespaces/state_namespace_1/objects/room/values/k";
    assert_eq!(host.refused(&bob, "GET", by_id, None).await, "resource_not_found");

    let left = host.ok("DELETE", ROOM, None).await;
    assert_eq!(left["stateNamespaces"], json!([]));
    assert_eq!(host.refused(&token, "GET", &value, None).await, "resource_not_found");
    let again = host.ok("POST", "/v1/services/shop/state/namespaces", Some(json!({"className": "Room"}))).await;
    assert_eq!(again["namespace"]["id"], "state_namespace_2");
    assert_eq!(host.ok("GET", &format!("{ROOM}/objects"), None).await["objects"], json!([]), "a new one is empty");
    put(&host, "room", "k", SECRET).await;
    host.ok("DELETE", "/v1/services/shop", None).await;
    host.ok_as(&bob, "POST", "/v1/services/shop/state/namespaces", Some(json!({"className": "Room"}))).await;
    host.ok_as(&bob, "PUT", &value, Some(json!({"value": SECRET}))).await;
    host.ok("DELETE", "/v1/operator/accounts/bob?confirm=bob", None).await;
    let host = host.restart().await;
    while !host.files_with(SECRET.as_bytes()).is_empty() {
        tokio::task::yield_now().await;
    }
}
