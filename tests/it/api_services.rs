//! Services over the API: the list, the snapshot, and how the published client reads both.

use serde_json::{Value, json};
use tovuk_kernel::names::SERVICE_NAME_CHARS_MAX;
use tovuk_tests::Operator;

use crate::TOVUK;

const CAPABILITIES: [&str; 17] = [
    "static_frontend",
    "worker",
    "sqlite",
    "object_storage",
    "kv",
    "state",
    "queue",
    "cron",
    "service_bindings",
    "secrets",
    "custom_domains",
    "logs",
    "builds",
    "usage_caps",
    "billing",
    "support",
    "abuse",
];

fn assert_capabilities(value: &Value) {
    let map = value.as_object().unwrap();
    assert_eq!(map.len(), CAPABILITIES.len());
    assert!(CAPABILITIES.iter().all(|key| map[*key].is_boolean()), "{value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_and_the_snapshot_have_the_fields_that_clients_read() {
    let host = Operator::start(TOVUK).await;
    let alice = host.account("alice").await;
    assert_eq!(host.ok_as(&alice, "GET", "/v1/services", None).await, json!({"services": []}));
    host.ok_as(&alice, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    let new = host.ok_as(&alice, "GET", "/v1/services/shop/overview", None).await;
    assert_eq!(new["status"]["service"]["runtime_status"], "not_deployed");
    assert!(new["status"]["latest_deploy"].is_null() && new["status"]["latest_build_job"].is_null());
    assert!(new["next_actions"][0].as_str().unwrap().contains("tovuk deploy"), "{new}");

    host.secret(&alice, "shop", "KEY", "a-value").await;
    host.ok_as(&alice, "POST", "/v1/services/shop/domains", Some(json!({"domain": "shop.example.com"}))).await;
    host.ok_as(&alice, "POST", "/v1/services/shop/service-bindings", Some(json!({"bindingName": "SELF", "targetService": "shop"}))).await;
    let deployed = host.deploy(&alice, "shop", "hello", json!({"routes": ["/*"]})).await;
    let list = host.ok_as(&alice, "GET", "/v1/services", None).await;
    let entry = &list["services"][0];
    assert_eq!((&entry["name"], &entry["kind"], &entry["runtimeStatus"]), (&json!("shop"), &json!("rust_worker"), &json!("running")));
    assert_eq!(entry["serviceId"], deployed["service"]["id"]);
    let url = format!("http://shop.localhost:{}", host.host.public_address().port());
    assert_eq!((entry["url"].as_str().unwrap(), deployed["service"]["url"].as_str().unwrap()), (url.as_str(), url.as_str()));
    let counts = json!({"sqliteDatabases": 0, "storageObjects": 0, "kvNamespaces": 0, "queues": 0, "cronTriggers": 0, "stateNamespaces": 0,
        "serviceBindings": 1, "secrets": 1, "customDomains": 1});
    assert_eq!(entry["resources"], counts);
    assert_capabilities(&entry["capabilities"]);

    let shown = host.ok_as(&alice, "GET", "/v1/services/service_1/overview", None).await;
    let status = &shown["status"];
    assert_eq!(status["service"]["runtime_status"], "running");
    assert_eq!((&status["service"]["url"], &status["service"]["kind"]), (&json!(url), &json!("rust_worker")));
    assert_capabilities(&status["service"]["capabilities"]);
    assert_eq!(status["latest_deploy"]["id"], deployed["deploy"]["id"]);
    assert_eq!(status["latest_deploy"]["build_job_id"], deployed["build_job"]["id"]);
    assert_eq!(status["live_deploy"]["status"], "live");
    assert_eq!((&status["latest_build_job"]["id"], &status["latest_build_job"]["status"]), (&deployed["build_job"]["id"], &json!("succeeded")));
    assert_eq!(status["latest_build_job"]["message"], "");
    for (kind, length) in [
        ("sqliteDatabases", 0),
        ("kvNamespaces", 0),
        ("queues", 0),
        ("cronTriggers", 0),
        ("stateNamespaces", 0),
        ("serviceBindings", 1),
        ("usageCaps", 0),
    ] {
        assert_eq!(shown["resources"][kind].as_array().unwrap().len(), length, "{kind}");
    }
    for (list, length) in [("env", 1), ("domains", 1), ("deploys", 1), ("builds", 1)] {
        assert_eq!(shown[list].as_array().unwrap().len(), length, "{list}");
    }
    for number in ["storageObjectCount", "objectStorageMib", "serviceCount"] {
        assert!(shown["accountUsage"][number].is_u64(), "{number}: {}", shown["accountUsage"]);
    }
    assert!(shown["billingEstimate"]["lineItems"].is_array() && shown["limits"]["projects"].is_u64() && shown["logs"]["lines"].is_array());
    assert!(shown["next_actions"].as_array().unwrap().iter().all(Value::is_string));
    assert!(shown["next_actions"][0].as_str().unwrap().contains("tovuk domains verify --service shop shop.example.com"), "{}", shown["next_actions"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_and_capabilities_have_the_fields_that_clients_read() {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    let usage = host.ok("GET", "/v1/usage", None).await;
    assert!(usage["limits"]["projects"].as_u64().unwrap() > 0, "without it the client refuses every first deploy");
    assert_eq!(usage["usage"]["serviceCount"], 1);
    assert!(usage["billingEstimate"]["lineItems"].is_array() && usage["billingEstimate"]["estimatedMonthlyTotalUsdMicros"].is_u64(), "{usage}");
    let catalog = host.api("GET", "/v1/capabilities", Some("a stale token does no harm"), None).await.json();
    let keys: Vec<_> = catalog["products"].as_array().unwrap().iter().map(|product| product["key"].as_str().unwrap()).collect();
    assert!(
        ["worker", "static_frontend", "service_bindings", "secrets", "custom_domains", "builds", "logs"].iter().all(|key| keys.contains(key)),
        "{keys:?}"
    );
    let api = &host.host.urls().api;
    assert_eq!((&catalog["docs_url"], &catalog["openapi_url"]), (&json!(format!("{api}/docs")), &json!(format!("{api}/openapi.json"))));
    assert!(catalog["plans"][0]["limits"]["projects"].is_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_checked_and_slugs_are_the_hosts() {
    let host = Operator::start(TOVUK).await;
    let (alice, bob) = (host.account("alice").await, host.account("bob").await);
    let make = async |token: &str, name: &str| host.api("POST", "/v1/services", Some(token), Some(json!({"name": name}))).await;
    let long = "a".repeat(SERVICE_NAME_CHARS_MAX + 1);
    for name in ["", "-a", "a-", "A", "a_b", "a.b", "..", "namespaces", "ä", "a b", long.as_str()] {
        assert_eq!(make(&alice, name).await.code(), "invalid_name", "{name}");
    }
    assert_eq!(make(&alice, "shop").await.json()["service"]["slug"], "shop");
    assert_eq!(make(&alice, "shop").await.code(), "service_exists");
    let bobs = make(&bob, "shop").await.json();
    assert_eq!((&bobs["service"]["name"], &bobs["service"]["slug"]), (&json!("shop"), &json!("shop-2")));
    assert_eq!(make(&bob, "api").await.json()["service"]["slug"], "api-2", "the host's own names are not given out");
    host.deploy(&alice, "shop", "hello", json!({"routes": ["/*"]})).await;
    host.deploy(&bob, "shop", "echo", json!({"routes": ["/*"]})).await;
    assert_eq!(host.get("shop", "/").await.text(), "hello");
    assert_eq!(host.get("shop-2", "/").await.json()["uri"], "/");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_as_many_services_as_its_plan_allows() {
    let host = Operator::start(TOVUK).await;
    let made = host.ok("POST", "/v1/operator/accounts", Some(json!({"handle": "free"}))).await;
    let token = made["token"].as_str().unwrap();
    let most = host.ok_as(token, "GET", "/v1/usage", None).await["limits"]["projects"].as_u64().unwrap();
    for number in 0..most {
        host.ok_as(token, "POST", "/v1/services", Some(json!({"name": format!("s{number}")}))).await;
    }
    assert_eq!(host.refused(token, "POST", "/v1/services", Some(json!({"name": "more"}))).await, "service_limit");
    let deploy = Operator::deploy_body("more", "hello", json!({"routes": ["/*"]}));
    assert_eq!(host.refused(token, "POST", "/v1/deploy", Some(deploy)).await, "service_limit");
    host.ok("PUT", "/v1/operator/accounts/free/plan", Some(json!({"plan": "pro"}))).await;
    host.deploy(token, "more", "hello", json!({"routes": ["/*"]})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_service_leaves_nothing_behind() {
    let host = Operator::start(TOVUK).await;
    let token = host.token.clone();
    host.secret(
        &token,
        &{
            host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
            "shop".to_owned()
        },
        "KEY",
        "a-value",
    )
    .await;
    let deployed = host.deploy(&token, "shop", "own_api", json!({"routes": ["/*"]})).await;
    host.get("shop", "/print/TOVUK_SERVICE_ID").await;
    let worker = host.get("shop", "/env/TOVUK_RUNTIME_TOKEN").await.text().to_owned();
    assert_eq!(std::fs::read_dir(host.data.join("uploads")).unwrap().count(), 0, "an upload is removed with its build");
    host.ok("DELETE", "/v1/services/shop", None).await;
    assert_eq!(host.get("shop", "/healthz").await.code(), "service_not_found");
    assert_eq!(host.refused(&worker, "GET", "/v1/services/service_1/resources", None).await, "unauthorized");
    for (kind, path) in [("deploy", "deploys"), ("build_job", "builds")] {
        let id = deployed[kind]["id"].as_str().unwrap();
        assert_eq!(host.ask("GET", &format!("/v1/{path}/{id}"), None).await.status, 404);
        assert_eq!(host.ask("GET", &format!("/v1/{path}/{id}/logs"), None).await.status, 404);
    }
    for folder in ["artifacts", "assets", "uploads"] {
        assert_eq!(std::fs::read_dir(host.data.join(folder)).unwrap().count(), 0, "{folder}");
    }
    // A new one of that name begins with nothing, under another id.
    let again = host.deploy(&token, "shop", "own_api", json!({"routes": ["/*"]})).await;
    assert_eq!(again["service"]["id"], "service_2");
    assert_eq!(host.get("shop", "/env/KEY").await.text(), "");
    assert_eq!(host.log(&token, "/v1/services/shop/logs").await.iter().filter(|line| line.contains("service_1")).count(), 0);
}
