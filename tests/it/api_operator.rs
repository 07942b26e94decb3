//! What the operator does to accounts and nodes, and what their owners see of it.

use serde_json::json;
use tovuk_tests::Operator;

use crate::TOVUK;

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_account_is_as_if_it_did_not_exist_until_it_is_resumed() {
    let host = Operator::start(TOVUK).await;
    let (alice, bob) = (host.account("alice").await, host.account("bob").await);
    host.deploy(&alice, "shop", "own_api", json!({"routes": ["/*"]})).await;
    host.deploy(&bob, "bobs", "hello", json!({"routes": ["/*"]})).await;
    let worker = host.get("shop", "/env/TOVUK_RUNTIME_TOKEN").await.text().to_owned();
    let suspended = host.ok("PUT", "/v1/operator/accounts/alice/suspended", None).await;
    assert_eq!(suspended["account"]["suspended"], true);
    for token in [&alice, &worker] {
        let code = host.refused(token, "GET", "/v1/services/shop/resources", None).await;
        assert!(code == "account_suspended" || code == "unauthorized", "{code}");
    }
    let unknown = host.get("nowhere", "/").await;
    let hidden = host.get("shop", "/").await;
    assert_eq!((hidden.status, hidden.code()), (unknown.status, unknown.code()));
    assert_eq!(host.get("bobs", "/").await.text(), "hello");
    let host = host.restart().await;
    assert_eq!(host.get("shop", "/").await.code(), "service_not_found");
    assert_eq!(host.refused(&alice, "GET", "/v1/account", None).await, "account_suspended");
    host.ok("PUT", "/v1/operator/accounts/account_2/suspended", Some(json!({"suspended": false}))).await;
    assert_eq!(host.get("shop", "/healthz").await.text(), "ok");
    host.ok_as(&worker, "GET", "/v1/services/shop/resources", None).await;
    assert_eq!(host.refused(&host.token, "PUT", "/v1/operator/accounts/nobody/suspended", None).await, "account_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_applies_at_once_to_what_runs() {
    let host = Operator::start(TOVUK).await;
    let made = host.ok("POST", "/v1/operator/accounts", Some(json!({"handle": "alice", "displayName": "Alice"}))).await;
    assert_eq!((&made["account"]["plan"], &made["account"]["displayName"]), (&json!("free"), &json!("Alice")));
    let alice = made["token"].as_str().unwrap();
    host.deploy(alice, "shop", "spin", json!({"routes": ["/*"]})).await;
    host.deploy(alice, "own", "own_api", json!({"routes": ["/*"]})).await;
    // More CPU time than the free plan gives to one request, and less than the other does.
    assert_eq!(host.get("shop", "/turns/400").await.code(), "worker_cpu_exceeded");
    let token = host.get("own", "/env/TOVUK_RUNTIME_TOKEN").await.text().to_owned();
    host.ok("PUT", "/v1/operator/accounts/alice/plan", Some(json!({"plan": "pro"}))).await;
    assert_eq!(host.get("shop", "/turns/400").await.status, 200);
    assert_eq!(host.get("own", "/env/TOVUK_SERVICE_PLAN").await.text(), "pro");
    assert_eq!(host.get("own", "/env/TOVUK_RUNTIME_TOKEN").await.text(), token);
    host.ok_as(&token, "GET", "/v1/services/own/resources", None).await;
    assert_eq!(host.refused(&host.token, "PUT", "/v1/operator/accounts/alice/plan", Some(json!({"plan": "gold"}))).await, "invalid_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_leaves_nothing_behind() {
    let host = Operator::start(TOVUK).await;
    let alice = host.account("alice").await;
    host.deploy(&alice, "one", "own_api", json!({"routes": ["/*"]})).await;
    host.deploy(&alice, "two", "own_api", json!({"routes": ["/*"]})).await;
    let delete = |query: &str| format!("/v1/operator/accounts/alice{query}");
    for query in ["", "?confirm=", "?confirm=bob", "?confirm=ALICE"] {
        assert_eq!(host.refused(&host.token, "DELETE", &delete(query), None).await, "invalid_request", "{query}");
    }
    let left = host.ok("DELETE", &delete("?confirm=alice"), None).await;
    assert_eq!(left["accounts"].as_array().unwrap().len(), 1);
    assert_eq!(host.refused(&alice, "GET", "/v1/account", None).await, "unauthorized");
    for slug in ["one", "two"] {
        assert_eq!(host.get(slug, "/healthz").await.code(), "service_not_found");
    }
    assert_eq!(std::fs::read_dir(host.data.join("artifacts")).unwrap().count(), 0);
    assert_eq!(host.refused(&host.token, "DELETE", &delete("?confirm=alice"), None).await, "account_not_found");
    let own = "/v1/operator/accounts/operator?confirm=operator";
    assert_eq!(host.refused(&host.token, "DELETE", own, None).await, "invalid_request", "nobody saws at their own branch");
    let again = host.ok("POST", "/v1/operator/accounts", Some(json!({"handle": "alice"}))).await;
    assert_eq!(again["account"]["id"], "account_3", "numbers are not given out twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_serves_and_takes_no_deploys() {
    let host = Operator::start(TOVUK).await;
    let token = host.token.clone();
    host.deploy(&token, "shop", "hello", json!({"routes": ["/*"]})).await;
    let nodes = host.ok("GET", "/v1/operator/nodes", None).await;
    assert_eq!(
        (&nodes["nodes"][0]["id"], &nodes["nodes"][0]["status"], &nodes["nodes"][0]["services"]),
        (&json!("node-1"), &json!("ready"), &json!(1))
    );
    let drain = async |draining: bool| host.ok("POST", "/v1/operator/nodes/node-1/drain", Some(json!({"draining": draining}))).await;
    assert_eq!(drain(true).await["nodes"][0]["draining"], true);
    let again = Operator::deploy_body("shop", "echo", json!({"routes": ["/*"]}));
    assert_eq!(host.refused(&token, "POST", "/v1/deploy", Some(again.clone())).await, "host_draining");
    assert_eq!(host.refused(&token, "POST", "/v1/deploys/deploy_1/rollback", None).await, "host_draining");
    assert_eq!(host.api("GET", "/readyz", None, None).await.status, 503);
    assert_eq!(host.api("GET", "/v1/status", None, None).await.json()["status"], "draining");
    assert_eq!(host.api("GET", "/healthz", None, None).await.status, 200);
    assert_eq!(host.get("shop", "/").await.text(), "hello");
    drain(false).await;
    host.deploy(&token, "shop", "echo", json!({"routes": ["/*"]})).await;
    assert_eq!(host.refused(&token, "POST", "/v1/operator/nodes/node-2/drain", Some(json!({"draining": true}))).await, "node_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_makes_sure_that_somebody_can_operate_the_host() {
    let host = Operator::start(TOVUK).await;
    // The file is another database's, or was spoilt.
    std::fs::write(host.host.admin_token(), "tovuk_of_another_host\n").unwrap();
    let host = host.restart().await;
    host.ok("GET", "/v1/operator/nodes", None).await;
    // Who has another token of the operator has meant it.
    let made = host.ok("POST", "/v1/tokens", Some(json!({"name": "laptop", "scope": "operator"}))).await;
    let (laptop, laptop_id) = (made["token"].as_str().unwrap(), made["details"]["id"].as_str().unwrap());
    let of_file = async |host: &Operator, token: &str| {
        let listed = host.ok_as(token, "GET", "/v1/tokens", None).await;
        let of_file = listed["tokens"].as_array().unwrap().iter().find(|token| token["name"] == "admin-token file").cloned();
        of_file.map(|token| token["id"].as_str().unwrap().to_owned())
    };
    let id = of_file(&host, laptop).await.unwrap();
    host.ok_as(laptop, "DELETE", &format!("/v1/tokens/{id}"), None).await;
    let revoked = host.token.clone();
    let host = host.restart().await;
    assert_eq!((host.token.as_str(), of_file(&host, laptop).await), (revoked.as_str(), None));
    assert_eq!(host.refused(&revoked, "GET", "/v1/operator/nodes", None).await, "unauthorized");
    // Who has none is given one.
    host.ok_as(laptop, "DELETE", &format!("/v1/tokens/{laptop_id}"), None).await;
    let host = host.restart().await;
    assert_ne!(host.token, revoked);
    host.ok("GET", "/v1/operator/nodes", None).await;
}
