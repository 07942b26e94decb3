//! Secrets: in they go, and out they come nowhere but in the worker.

use serde_json::json;
use tovuk_tests::Operator;

use crate::TOVUK;

const VALUE: &str = "correct-horse-battery-staple";

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_seen_by_its_worker_and_nowhere_else() {
    let host = Operator::start(TOVUK).await;
    let alice = host.account("alice").await;
    host.ok_as(&alice, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    let set = host.ok_as(&alice, "PUT", "/v1/services/shop/env", Some(json!({"name": "KEY", "value": VALUE}))).await;
    assert_eq!((set["env"][0]["name"].as_str(), set["env"][0]["value"].as_str()), (Some("KEY"), None));
    assert!(set["next_actions"].is_null(), "nothing runs yet");
    // Its first chance to be printed is the health request, before anything is live.
    host.deploy(&alice, "shop", "own_api", json!({"routes": ["/*"], "health": "/healthz", "secrets": ["KEY"]})).await;
    assert_eq!(host.get("shop", "/env/KEY").await.text(), VALUE);
    host.get("shop", "/print/KEY").await;
    let token = host.get("shop", "/env/TOVUK_RUNTIME_TOKEN").await.text().to_owned();
    host.get("shop", "/print/TOVUK_RUNTIME_TOKEN").await;

    let lines = host.log(&alice, "/v1/services/shop/logs").await.join("\n");
    assert!(lines.contains("KEY is [secret KEY]") && lines.contains("TOVUK_RUNTIME_TOKEN is [secret TOVUK_RUNTIME_TOKEN]"), "{lines}");
    assert!(!lines.contains(VALUE) && !lines.contains(&token), "{lines}");
    for path in
        ["/v1/services/shop/env", "/v1/services/shop/overview", "/v1/services", "/v1/account/activity", "/v1/deploys", "/v1/services/shop/resources"]
    {
        let text = host.ok_as(&alice, "GET", path, None).await.to_string();
        assert!(!text.contains(VALUE) && !text.contains("tovuk_runtime_"), "{path}: {text}");
    }
    assert!(host.files_with(VALUE.as_bytes()).is_empty() && host.files_with(token.as_bytes()).is_empty());

    let changed = host.ok_as(&alice, "PUT", "/v1/services/shop/env", Some(json!({"name": "KEY", "value": "another-value"}))).await;
    assert!(changed["next_actions"][0].as_str().unwrap().contains("tovuk service restart shop"), "{changed}");
    assert_eq!(host.get("shop", "/env/KEY").await.text(), VALUE, "a worker keeps what it began with");
    host.ok_as(&alice, "POST", "/v1/services/shop/restart", None).await;
    assert_eq!(host.get("shop", "/env/KEY").await.text(), "another-value");
    assert_eq!(host.get("shop", "/env/TOVUK_RUNTIME_TOKEN").await.text(), token, "one token for each deploy");

    let host = host.restart().await;
    assert_eq!(host.get("shop", "/env/KEY").await.text(), "another-value");
    host.get("shop", "/print/KEY").await;
    assert!(!host.log(&alice, "/v1/services/shop/logs").await.join("\n").contains("another-value"));
    let left = host.ok_as(&alice, "DELETE", "/v1/services/shop/env/KEY", None).await;
    assert_eq!((&left["env"], left["serviceBindings"].is_array()), (&json!([]), true), "{left}");
    assert_eq!(host.refused(&alice, "DELETE", "/v1/services/shop/env/KEY", None).await, "env_not_found");
    assert_eq!(host.get("shop", "/env/KEY").await.text(), "another-value");
    host.ok_as(&alice, "POST", "/v1/services/shop/restart", None).await;
    assert_eq!(host.get("shop", "/env/KEY").await.text(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_values_and_counts_have_their_limits() {
    let host = Operator::start(TOVUK).await;
    let token = host.token.clone();
    for service in ["shop", "auth"] {
        host.ok("POST", "/v1/services", Some(json!({"name": service}))).await;
    }
    let set = async |name: &str, value: &str| {
        host.api("PUT", "/v1/services/shop/env", Some(&token), Some(json!({"name": name, "value": value}))).await.code()
    };
    for name in ["TOVUK_X", "TOVUK_RUNTIME_TOKEN", "1A", "", "A-B", "A=B", "A B", "Ä", &"A".repeat(129)] {
        assert_eq!(set(name, "x").await, "invalid_name", "{name}");
    }
    assert_eq!(set("NUL", "a\0b").await, "invalid_request");
    assert_eq!(set("LONG", &"x".repeat(5 * 1024 + 1)).await, "invalid_request");
    for value in ["", "x", &"ü".repeat(2_560), "{\"json\": \"\n\"}"] {
        assert_eq!(set("ANY", value).await, "200");
    }
    let binding = json!({"bindingName": "AUTH", "targetService": "auth", "urlEnv": "AUTH_URL"});
    host.ok("POST", "/v1/services/shop/service-bindings", Some(binding)).await;
    assert_eq!(set("AUTH_URL", "x").await, "resource_exists");
    let other = json!({"bindingName": "OTHER", "targetService": "auth", "urlEnv": "ANY"});
    assert_eq!(host.refused(&token, "POST", "/v1/services/shop/service-bindings", Some(other)).await, "resource_exists");
    for number in 1..64 {
        assert_eq!(set(&format!("N{number}"), "x").await, "200");
    }
    assert_eq!(set("N64", "x").await, "env_limit");
    assert_eq!(set("N1", "changed").await, "200", "one that is there can be changed");
    let listed = host.ok("GET", "/v1/services/shop/env", None).await;
    assert_eq!(listed["env"].as_array().unwrap().len(), 64);
    // The value is not repeated in what is said of a request that fails.
    let reply = host.api("PUT", "/v1/services/nowhere/env", Some(&token), Some(json!({"name": "A", "value": "correct-horse"}))).await;
    assert!(reply.status == 404 && !reply.text().contains("correct-horse"));
}
