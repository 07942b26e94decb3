//! What a worker is told, and what it may ask of the host's own API.

use serde_json::json;
use tovuk_tests::Operator;

use crate::TOVUK;

async fn call(host: &Operator, slug: &str, query: &str) -> (u64, String) {
    let answer = host.get(slug, &format!("/call?{query}")).await.json();
    (answer["status"].as_u64().unwrap_or_else(|| panic!("{answer}")), answer["body"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_told_who_it_is_and_what_it_is_bound_to() {
    let host = Operator::start(TOVUK).await;
    let alice = host.account("alice").await;
    host.ok_as(&alice, "POST", "/v1/services", Some(json!({"name": "auth"}))).await;
    host.ok_as(&alice, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    let binding = json!({"bindingName": "auth-service", "targetService": "auth", "urlEnv": "AUTH_INTERNAL_URL"});
    host.ok_as(&alice, "POST", "/v1/services/shop/service-bindings", Some(binding)).await;
    host.secret(&alice, "shop", "KEY", "a-value").await;
    host.deploy(&alice, "shop", "env", json!({"routes": ["/*"]})).await;
    let mut seen = host.get("shop", "/").await.json();
    let token = seen["TOVUK_RUNTIME_TOKEN"].take();
    assert!(token.as_str().unwrap().starts_with("tovuk_runtime_"), "{token}");
    let expected = json!({
        "TOVUK_SERVICE_ID": "service_2", "TOVUK_SERVICE_SLUG": "shop", "TOVUK_SERVICE_PLAN": "pro", "TOVUK_API_BASE_URL": host.host.urls().api,
        "TOVUK_RUNTIME_TOKEN": null, "TOVUK_BINDINGS_VERSION": "1", "TOVUK_BINDING_AUTH_SERVICE": "service_1",
        "KEY": "a-value", "AUTH_INTERNAL_URL": "https://auth.tovuk.internal",
    });
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_reaches_its_own_resources_and_nothing_else() {
    let host = Operator::start(TOVUK).await;
    let alice = host.account("alice").await;
    host.deploy(&alice, "auth", "own_api", json!({"routes": ["/*"]})).await;
    host.deploy(&alice, "shop", "own_api", json!({"routes": ["/*"]})).await;
    for path in ["/v1/services/service_2/resources", "/v1/services/shop/resources/", "/v1/status"] {
        let (status, body) = call(&host, "shop", &format!("path={path}")).await;
        assert_eq!(status, 200, "{path}: {body}");
    }
    for (query, wants) in [
        ("path=/v1/services/auth/resources", 404),
        ("path=/v1/services/service_99/resources", 404),
        ("path=/v1/services/shop/resources&token=nonsense", 401),
        ("path=/v1/services", 403),
        ("path=/v1/account", 403),
        ("path=/v1/services/shop/env", 403),
        ("path=/v1/services/shop/overview", 403),
        ("path=/v1/services/shop/domains", 403),
        ("path=/v1/services/shop&method=DELETE", 403),
        ("path=/v1/services/shop/restart&method=POST", 403),
        ("path=/v1/deploy&method=POST", 403),
        ("path=/v1/tokens&method=POST", 403),
        ("path=/v1/operator/nodes", 403),
        ("path=/v1/nonsense", 404),
    ] {
        let (status, body) = call(&host, "shop", query).await;
        assert_eq!(status, wants, "{query}: {body}");
    }
    // A token that somebody put into a secret works as it would anywhere.
    let (status, _) = call(&host, "shop", &format!("path=/v1/services&token={alice}")).await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_token_lives_as_long_as_its_deploy_does() {
    let host = Operator::start(TOVUK).await;
    let token = host.token.clone();
    let resources = "/v1/services/shop/resources";
    let of_live = async || host.get("shop", "/env/TOVUK_RUNTIME_TOKEN").await.text().to_owned();
    host.deploy(&token, "shop", "own_api", json!({"routes": ["/*"]})).await;
    let first = of_live().await;
    host.ok_as(&first, "GET", resources, None).await;
    let deployed = host.deploy(&token, "shop", "own_api", json!({"routes": ["/*"], "limits": {"cpu_ms": 100}})).await;
    let second = of_live().await;
    assert_ne!(first, second);
    assert_eq!(host.refused(&first, "GET", resources, None).await, "unauthorized");
    host.ok_as(&second, "GET", resources, None).await;
    host.ok("POST", "/v1/deploys/deploy_1/rollback", None).await;
    let third = of_live().await;
    assert!(third != first && third != second, "a deploy that comes back has a token of its own");
    assert_eq!(host.refused(&second, "GET", resources, None).await, "unauthorized");
    assert_eq!(deployed["deploy"]["id"], "deploy_2");
    let host = host.restart().await;
    host.ok_as(&third, "GET", resources, None).await;
}
