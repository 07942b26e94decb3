//! Service bindings over the API.

use serde_json::{Value, json};
use tovuk_tests::Operator;

use crate::TOVUK;

async fn with_services(names: &[&str]) -> Operator {
    let host = Operator::start(TOVUK).await;
    for name in names {
        host.ok("POST", "/v1/services", Some(json!({"name": name}))).await;
    }
    host
}

fn names(resources: &Value) -> Vec<&str> {
    resources["serviceBindings"].as_array().unwrap().iter().map(|binding| binding["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_answers_with_what_the_service_has_now() {
    let host = with_services(&["shop", "auth"]).await;
    let token = host.token.clone();
    let bind = async |body| host.api("POST", "/v1/services/shop/service-bindings", Some(&token), Some(body)).await;
    let made = bind(json!({"bindingName": "AUTH_SERVICE", "targetService": "service_2", "urlEnv": "AUTH_URL"})).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    for kind in ["sqliteDatabases", "kvNamespaces", "queues", "cronTriggers", "stateNamespaces", "usageCaps"] {
        assert_eq!(made[kind], json!([]), "{kind}");
    }
    let binding = &made["serviceBindings"][0];
    let expected = json!({"name": "AUTH_SERVICE", "targetServiceId": "service_2", "targetServiceName": "auth", "env": "TOVUK_BINDING_AUTH_SERVICE",
        "url": "https://auth.tovuk.internal", "urlEnv": "AUTH_URL", "createdAt": binding["createdAt"]});
    assert_eq!(binding, &expected);
    assert_eq!(bind(json!({"bindingName": "SELF", "targetService": "shop"})).await.status, 201, "a service may be bound to itself");
    for (name, target, code) in [
        ("AUTH_SERVICE", "auth", "resource_exists"),
        ("auth-service", "auth", "resource_exists"),
        ("X", "nowhere", "binding_target_not_found"),
        ("X", "service_99", "binding_target_not_found"),
        ("1X", "auth", "invalid_name"),
        ("", "auth", "invalid_name"),
        ("namespaces", "auth", "invalid_name"),
        ("binding_1", "auth", "invalid_name"),
    ] {
        assert_eq!(bind(json!({"bindingName": name, "targetService": target})).await.code(), code, "{name}");
    }
    for url_env in ["TOVUK_X", "A-B", ""] {
        assert_eq!(bind(json!({"bindingName": "X", "targetService": "auth", "urlEnv": url_env})).await.code(), "invalid_name", "{url_env}");
    }
    assert_eq!(bind(json!({"bindingName": "X", "targetService": "auth", "urlEnv": "AUTH_URL"})).await.code(), "resource_exists");
    let left = host.ok("DELETE", "/v1/services/shop/service-bindings/AUTH_SERVICE", None).await;
    assert_eq!(names(&left), ["SELF"]);
    assert_eq!(left["kvNamespaces"], json!([]));
    assert_eq!(host.refused(&token, "DELETE", "/v1/services/shop/service-bindings/AUTH_SERVICE", None).await, "binding_not_found");
    assert_eq!(host.ok("GET", "/v1/services/shop/resources", None).await["serviceBindings"], left["serviceBindings"]);
    // A service of another account is no target, by name or id.
    let alice = host.account("alice").await;
    host.ok_as(&alice, "POST", "/v1/services", Some(json!({"name": "mine"}))).await;
    for target in ["auth", "service_2"] {
        let body = json!({"bindingName": "X", "targetService": target});
        assert_eq!(host.refused(&alice, "POST", "/v1/services/mine/service-bindings", Some(body)).await, "binding_target_not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_frontend_neither_calls_nor_is_called() {
    let host = with_services(&["shop", "auth"]).await;
    let token = host.token.clone();
    host.ok("POST", "/v1/services", Some(json!({"name": "site", "kind": "static_frontend"}))).await;
    for (caller, target) in [("shop", "site"), ("site", "auth"), ("site", "site")] {
        let body = json!({"bindingName": "X", "targetService": target});
        assert_eq!(host.refused(&token, "POST", &format!("/v1/services/{caller}/service-bindings"), Some(body)).await, "binding_refused");
    }
    // Nor does one come about when a worker that is bound becomes a frontend.
    host.ok("POST", "/v1/services/shop/service-bindings", Some(json!({"bindingName": "AUTH", "targetService": "auth"}))).await;
    for service in ["shop", "auth"] {
        let files = tovuk_tests::tar_gz(&[("index.html", "hi")]);
        let body = json!({"service": service, "config": {"kind": "static_frontend", "assets": "."}, "assets_archive_base64": base64(&files)});
        let reply = host.ask("POST", "/v1/deploy", Some(body)).await;
        assert_eq!(reply.code(), "binding_refused", "{}", reply.text());
        assert!(reply.json()["agent_instruction"].as_str().unwrap().contains("tovuk binding delete --service shop AUTH"), "{}", reply.text());
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_others_call_is_deleted_with_force_only() {
    let host = with_services(&["a", "b", "c"]).await;
    let token = host.token.clone();
    for (caller, target) in [("a", "b"), ("b", "a"), ("b", "b"), ("c", "b")] {
        let body = json!({"bindingName": target.to_uppercase(), "targetService": target});
        host.ok("POST", &format!("/v1/services/{caller}/service-bindings"), Some(body)).await;
    }
    let refused = host.ask("DELETE", "/v1/services/b", None).await;
    assert_eq!(refused.code(), "service_in_use");
    assert_eq!(refused.json()["bindings"], json!([{"service": "a", "bindingName": "B"}, {"service": "c", "bindingName": "B"}]));
    assert_eq!(host.refused(&token, "DELETE", "/v1/services/b?force=false", None).await, "service_in_use");
    assert_eq!(host.refused(&token, "DELETE", "/v1/services/b?force=perhaps", None).await, "invalid_request");
    let deleted = host.ok("DELETE", "/v1/services/b?force=true", None).await;
    assert_eq!((&deleted["deleted"], &deleted["service"]), (&json!(true), &json!({"id": "service_2", "name": "b"})));
    assert_eq!(deleted["services"].as_array().unwrap().len(), 2);
    assert_eq!(names(&host.ok("GET", "/v1/services/c/resources", None).await), Vec::<&str>::new());
    host.ok("DELETE", "/v1/services/a", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_makes_the_bindings_that_it_declares_and_calls_follow_them() {
    let host = with_services(&[]).await;
    let token = host.token.clone();
    host.deploy(&token, "auth", "hello", json!({})).await;
    let binding = json!([{"type": "service", "service": "auth", "name": "NEXT"}]);
    host.deploy(&token, "shop", "chain", json!({"routes": ["/*"], "bindings": binding})).await;
    assert_eq!(host.get("shop", "/1").await.text(), "hello");
    assert_eq!(host.get("auth", "/").await.code(), "service_not_found", "a service without routes is private");
    let missing = json!([{"type": "service", "service": "nowhere", "name": "NEXT"}]);
    let reply = host.ask("POST", "/v1/deploy", Some(Operator::deploy_body("shop", "chain", json!({"routes": ["/*"], "bindings": missing})))).await;
    assert_eq!(reply.code(), "binding_target_not_found", "{}", reply.text());
    // A cycle is fine, and ends with the chain's cap.
    let back = json!([{"type": "service", "service": "shop", "name": "NEXT"}]);
    host.deploy(&token, "auth", "chain", json!({"bindings": back})).await;
    assert_eq!(host.get("shop", "/31").await.text(), "hello");
    assert_eq!(host.get("shop", "/32").await.json()["error"], "binding_chain_limit");
    // Its target gone, the call fails and the caller goes on.
    host.ok("DELETE", "/v1/services/auth?force=true", None).await;
    assert_eq!(host.get("shop", "/0").await.text(), "hello");
    assert_ne!(host.get("shop", "/1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_five_thousand_bound_resources_and_no_more() {
    let host = with_services(&["shop", "auth"]).await;
    let token = host.token.clone();
    let path = "/v1/services/shop/service-bindings";
    let bind =
        async |number: usize| host.api("POST", path, Some(&token), Some(json!({"bindingName": format!("B{number}"), "targetService": "auth"}))).await;
    // The declared bindings of one deploy fill it: one request instead of thousands.
    let declared: Vec<_> = (0..4_999).map(|number| json!({"type": "service", "service": "auth", "name": format!("B{number}")})).collect();
    host.deploy(&token, "shop", "hello", json!({"bindings": declared})).await;
    assert_eq!(bind(4_999).await.status, 201);
    assert_eq!(bind(5_000).await.code(), "resource_limit");
    let listed = host.ok("GET", "/v1/services", None).await;
    assert_eq!(listed["services"][0]["resources"]["serviceBindings"], 5_000);
    host.ok("DELETE", &format!("{path}/B0"), None).await;
    assert_eq!(bind(5_000).await.status, 201);
}
