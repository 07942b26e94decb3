//! KV over the API: what is written is read, by whom it may be, until it is deleted or expires.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tovuk_resources::database::rusqlite::Connection;
use tovuk_tests::{Client, Operator};

use crate::TOVUK;

async fn with_namespace() -> Operator {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    let created = host.ok("POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": "CACHE"}))).await;
    assert_eq!((&created["namespace"]["id"], &created["namespace"]["env"]), (&json!("kv_1"), &json!("TOVUK_KV_CACHE")));
    assert_eq!(created["kvNamespaces"][0]["name"], "CACHE");
    host
}

const CACHE: &str = "/v1/services/shop/kv/CACHE";

async fn put(host: &Operator, key: &str, body: Value) -> Value {
    host.ok("PUT", &format!("{CACHE}/values/{key}"), Some(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_also_after_a_start() {
    let host = with_namespace().await;
    let body = json!({"value": "{\"name\":\"Ada\"}", "encoding": "text", "metadata": {"kind": "profile"}, "expirationTtlSeconds": 3600});
    assert_eq!(put(&host, "user:1", body).await["keys"], 1);
    put(&host, "a%2Fb", json!({"value": "AP8=", "encoding": "base64"})).await;
    let host = host.restart().await;
    let read = host.ok("GET", &format!("{CACHE}/values/user:1"), None).await;
    assert_eq!((&read["value"], &read["encoding"], &read["metadata"]), (&json!("{\"name\":\"Ada\"}"), &json!("text"), &json!({"kind": "profile"})));
    let read = host.ok("GET", "/v1/services/shop/kv/kv_1/values/a%2Fb", None).await;
    assert_eq!((&read["key"], &read["value"], &read["encoding"]), (&json!("a/b"), &json!("AP8="), &json!("base64")));

    let keys = host.ok("GET", &format!("{CACHE}/keys?limit=1"), None).await;
    assert_eq!((&keys["keys"][0]["name"], &keys["has_more"]), (&json!("a/b"), &json!(true)));
    let cursor = keys["next_cursor"].as_str().unwrap();
    let rest = host.ok("GET", &format!("{CACHE}/keys?limit=1&cursor={cursor}"), None).await;
    assert_eq!((&rest["keys"][0]["name"], &rest["keys"][0]["metadata"]["kind"]), (&json!("user:1"), &json!("profile")));
    assert_eq!(host.ok("GET", &format!("{CACHE}/keys?prefix=user"), None).await["keys"].as_array().unwrap().len(), 1);

    host.clock.advance(Duration::from_secs(3_602));
    let token = host.token.clone();
    assert_eq!(host.refused(&token, "GET", &format!("{CACHE}/values/user:1"), None).await, "kv_key_not_found");
    assert_eq!(host.ok("GET", &format!("{CACHE}/keys"), None).await["keys"].as_array().unwrap().len(), 1);
    assert_eq!(host.ok("DELETE", &format!("{CACHE}/values/a%2Fb"), None).await["deleted"], true);
    assert_eq!(host.ok("DELETE", &format!("{CACHE}/values/a%2Fb"), None).await["deleted"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_any_json_and_stays_as_it_was_given() {
    let host = with_namespace().await;
    let given = [r#"{"b": [1, "x \\\" y"], "a": 123456789012345678901234567890}"#, r#""profile""#, "7", "[ true ]", "false"];
    for (number, metadata) in given.iter().enumerate() {
        // As text: a tree of it would round the long number before it is sent.
        let body = format!(r#"{{"value": "x", "metadata": {metadata}}}"#);
        let request = Request::put(format!("{CACHE}/values/k{number}")).header("host", host.host.api_address().to_string());
        let request = request.header("authorization", format!("Bearer {}", host.token)).body(Full::new(Bytes::from(body))).unwrap();
        let put = Client::new(host.host.api_address()).whole(request).await;
        assert_eq!(put.status, 200, "{}", put.text());
    }
    let keys = host.ask("GET", &format!("{CACHE}/keys"), None).await.text().to_owned();
    for metadata in [r#"{"b":[1,"x \\\" y"],"a":123456789012345678901234567890}"#, r#""profile""#, "7", "[true]", "false"] {
        assert!(keys.contains(&format!(r#""metadata":{metadata}"#)), "{metadata} in {keys}");
    }
    put(&host, "none", json!({"value": "x", "metadata": null})).await;
    assert!(host.ok("GET", &format!("{CACHE}/keys?prefix=none"), None).await["keys"][0].get("metadata").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_go_in_one_request() {
    let host = with_namespace().await;
    let entries: Vec<_> = (0..1_500).map(|number| json!({"key": format!("k{number:04}"), "value": number})).collect();
    assert_eq!(host.ok("PUT", &format!("{CACHE}/bulk"), Some(json!({"entries": entries}))).await["written"], 1_500);
    let keys = host.ok("GET", &format!("{CACHE}/keys"), None).await;
    assert_eq!((keys["keys"].as_array().unwrap().len(), &keys["has_more"]), (1_500, &json!(false)), "a list without a limit is whole");
    let read = host.ok("POST", &format!("{CACHE}/bulk"), Some(json!({"keys": ["k0001", "none", "k0002"]}))).await;
    assert_eq!((&read["values"][1]["value"], &read["missing"]), (&json!("2"), &json!(["none"])));
    let token = host.token.clone();
    let many: Vec<_> = (0..101).map(|number| format!("k{number}")).collect();
    assert_eq!(host.refused(&token, "POST", &format!("{CACHE}/bulk"), Some(json!({"keys": many}))).await, "kv_bulk_too_large");
    // All or nothing.
    let mixed = json!({"entries": [{"key": "new", "value": "x"}, {"key": "..", "value": "x"}]});
    assert_eq!(host.refused(&token, "PUT", &format!("{CACHE}/bulk"), Some(mixed)).await, "kv_key_invalid");
    assert_eq!(host.refused(&token, "GET", &format!("{CACHE}/values/new"), None).await, "kv_key_not_found");
    let removed = host.ok("POST", &format!("{CACHE}/bulk/removals"), Some(json!({"keys": ["k0001", "none"]}))).await;
    assert_eq!((&removed["removed"], &removed["keys"]), (&json!(1), &json!(1_499)));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told() {
    let host = with_namespace().await;
    let token = host.token.clone();
    let long = "k".repeat(513);
    let now = host.clock.now_unix_ms() / 1_000;
    for (key, body, code) in [
        (long.as_str(), json!({"value": "x"}), "kv_key_invalid"),
        ("k", json!({"value": "x", "expirationTtlSeconds": 29}), "kv_expiration_too_soon"),
        ("k", json!({"value": "x", "expiration": now + 20}), "kv_expiration_too_soon"),
        ("k", json!({"value": "x", "metadata": {"text": "x".repeat(1_024)}}), "kv_metadata_invalid"),
        ("k", json!({"value": "x".repeat((25 << 20) + 1)}), "kv_value_too_large"),
        ("k", json!({"value": "?", "encoding": "base64"}), "invalid_request"),
        ("k", json!({}), "invalid_request"),
    ] {
        assert_eq!(host.refused(&token, "PUT", &format!("{CACHE}/values/{key}"), Some(body)).await, code);
    }
    put(&host, "k", json!({"value": "x", "expirationTtlSeconds": 60, "expiration": 1})).await;
    for name in ["namespaces", "1x", "kv_1", ""] {
        assert_eq!(host.refused(&token, "POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": name}))).await, "invalid_name");
    }
    for name in ["CACHE", "cache"] {
        assert_eq!(host.refused(&token, "POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": name}))).await, "resource_exists");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_goes_with_what_it_belongs_to_and_belongs_to_one_account() {
    let host = with_namespace().await;
    let token = host.token.clone();
    let bob = host.account("bob").await;
    put(&host, "k", json!({"value": "first"})).await;
    assert_eq!(host.refused(&bob, "GET", &format!("{CACHE}/values/k"), None).await, "service_not_found");
    host.ok_as(&bob, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    assert_eq!(host.refused(&bob, "GET", "/v1/services/shop/kv/kv_1/values/k", None).await, "resource_not_found");

    let left = host.ok("DELETE", "/v1/services/shop/kv/namespaces/CACHE", None).await;
    assert_eq!(left["kvNamespaces"], json!([]));
    assert_eq!(host.refused(&token, "GET", &format!("{CACHE}/values/k"), None).await, "resource_not_found");
    let again = host.ok("POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": "CACHE"}))).await;
    assert_eq!(again["namespace"]["id"], "kv_2");
    assert_eq!(host.ok("GET", &format!("{CACHE}/keys"), None).await["keys"], json!([]), "a new one is empty");

    put(&host, "k", json!({"value": "second"})).await;
    host.ok("DELETE", "/v1/services/shop", None).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    assert_eq!(host.ok("POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": "CACHE"}))).await["namespace"]["id"], "kv_3");
    assert_eq!(host.ok("GET", &format!("{CACHE}/keys"), None).await["keys"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_told_its_namespaces_and_uses_them_with_its_token() {
    let host = with_namespace().await;
    let token = host.token.clone();
    host.deploy(&token, "shop", "own_api", json!({"routes": ["/*"]})).await;
    assert_eq!(host.get("shop", "/env/TOVUK_KV_CACHE").await.text(), "kv_1");
    put(&host, "k", json!({"value": "x"})).await;
    let read = host.get("shop", "/call?path=/v1/services/service_1/kv/kv_1/values/k").await.json();
    assert_eq!((&read["status"], read["body"].to_string().contains("kv_key")), (&json!(200), false), "{read}");
    let made = host.get("shop", "/call?method=POST&path=/v1/services/service_1/kv/namespaces").await.json();
    assert_eq!(made["status"], 403, "{made}");
    host.ok("POST", "/v1/services", Some(json!({"name": "other"}))).await;
    host.ok("POST", "/v1/services/other/kv/namespaces", Some(json!({"name": "CACHE"}))).await;
    let foreign = host.get("shop", "/call?path=/v1/services/service_2/kv/CACHE/keys").await.json();
    assert_eq!(foreign["status"], 404, "{foreign}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_no_more_than_it_may_whoever_writes() {
    let host = Operator::start(TOVUK).await;
    let made = host.ok("POST", "/v1/operator/accounts", Some(json!({"handle": "ada", "plan": "free"}))).await;
    let ada = made["token"].as_str().unwrap().to_owned();
    for name in ["shop", "blog"] {
        host.ok_as(&ada, "POST", "/v1/services", Some(json!({"name": name}))).await;
        host.ok_as(&ada, "POST", &format!("/v1/services/{name}/kv/namespaces"), Some(json!({"name": "CACHE"}))).await;
    }
    let other = "/v1/services/blog/kv/CACHE";
    host.ok_as(&ada, "PUT", &format!("{other}/values/k"), Some(json!({"value": "x"}))).await;
    host.deploy(&ada, "shop", "kv", json!({"routes": ["/*"], "limits": {"cpu_ms": 20_000}})).await;
    // The other service has all but 10 bytes of what a free account may have.
    let file = host.data.join("kv/02.db");
    let host = host
        .restart_with(|_| {
            let connection = Connection::open(file).unwrap();
            assert_eq!(connection.execute("UPDATE namespaces SET bytes = 999999990 WHERE number = 2", []).unwrap(), 1);
        })
        .await;
    host.ok_as(&ada, "PUT", &format!("{CACHE}/values/k"), Some(json!({"value": "123456789"}))).await;
    let more = json!({"value": "1234567890"});
    let refused = host.api("PUT", &format!("{CACHE}/values/k"), Some(&ada), Some(more)).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "kv_storage_full"));
    assert!(refused.text().contains("1000000001 bytes") && refused.text().contains("1000000000"), "{}", refused.text());
    let bulk = json!({"entries": [{"key": "a", "value": "x"}]});
    assert_eq!(host.refused(&ada, "PUT", &format!("{CACHE}/bulk"), Some(bulk)).await, "kv_storage_full");
    for step in [json!({"op": "put", "key": "n", "value": "v"}), json!({"op": "increment", "key": "n", "delta": 1})] {
        let address = host.host.public_address();
        let url = format!("http://shop.localhost:{}/", address.port());
        let answer = host.at("POST", &url, &[], json!([step]).to_string()).await;
        assert!(answer.text().contains("kv_storage_full"), "{}", answer.text());
    }
    host.ok_as(&ada, "DELETE", "/v1/services/blog/kv/namespaces/CACHE", None).await;
    host.ok_as(&ada, "PUT", &format!("{CACHE}/values/k"), Some(json!({"value": "x".repeat(10_000)}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_count_as_host_memory_until_the_client_has_them() {
    let host = Operator::with(TOVUK, |config| config.guest_memory_bytes = Some(40 << 20)).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.ok("POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": "CACHE"}))).await;
    put(&host, "a", json!({"value": "x".repeat(6 << 20)})).await;
    put(&host, "large", json!({"value": "x".repeat(24 << 20)})).await;
    // The value, then the answer that is made of it, then the values.
    let busy = [
        ("GET", format!("{CACHE}/values/large"), None),
        ("POST", format!("{CACHE}/bulk"), Some(json!({"keys": ["a", "a", "a", "a"]}))),
        ("POST", format!("{CACHE}/bulk"), Some(json!({"keys": ["large", "large"]}))),
    ];
    for (method, path, body) in busy {
        let refused = host.ask(method, &path, body).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "host_busy"));
        // It was given back, or the next would not fit.
        let read = host.ok("GET", &format!("{CACHE}/values/a"), None).await;
        assert_eq!(read["value"].as_str().unwrap().len(), 6 << 20);
    }
    // What is small is answered whatever guests take.
    put(&host, "small", json!({"value": "x"})).await;
    assert_eq!(host.ok("POST", &format!("{CACHE}/bulk"), Some(json!({"keys": ["small"]}))).await["values"][0]["value"], "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_long_keys_ends_where_it_is_large_enough_and_goes_on_from_there() {
    let host = with_namespace().await;
    let metadata = "m".repeat(1_022);
    let key = |number: usize| format!("{number:05}{}", "\u{1}".repeat(507));
    for part in 0..2 {
        let entries: Vec<_> = (0..5_500).map(|entry| json!({"key": key(part * 5_500 + entry), "value": "", "metadata": metadata})).collect();
        host.ok("PUT", &format!("{CACHE}/bulk"), Some(json!({"entries": entries}))).await;
    }
    let first = host.ask("GET", &format!("{CACHE}/keys"), None).await;
    let (bytes, first) = (first.body.len(), first.json());
    assert!((32 << 20..38 << 20).contains(&bytes), "{bytes}");
    assert_eq!(first["has_more"], true);
    let rest = host.ok("GET", &format!("{CACHE}/keys?cursor={}", first["next_cursor"].as_str().unwrap()), None).await;
    assert_eq!(rest["has_more"], false);
    let names: Vec<_> = [&first, &rest].into_iter().flat_map(|page| page["keys"].as_array().unwrap()).map(|key| &key["name"]).collect();
    assert_eq!(names.len(), 11_000);
    assert!(names.iter().enumerate().all(|(number, name)| **name == key(number)));
}
