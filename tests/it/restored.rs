//! A control database that is older than the data beside it, as after it alone was restored: what is made from then on is empty.

use serde_json::json;
use tovuk_tests::Operator;

use crate::TOVUK;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_finds_in_new_things_what_others_have_left() {
    let host = Operator::start(TOVUK).await;
    let (alice, bob) = (host.account("alice").await, host.account("bob").await);
    let aside = tempfile::tempdir().unwrap();
    let old = aside.path().join("control.db");
    // A host that has ended has everything in the file.
    let host = host.restart_with(|config| assert!(std::fs::copy(config.data.join("control.db"), &old).is_ok())).await;
    let fill = async |token: &str, value: &str| {
        host.ok_as(token, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
        host.ok_as(token, "POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": "CACHE"}))).await;
        host.ok_as(token, "PUT", "/v1/services/shop/kv/CACHE/values/secret", Some(json!({"value": value}))).await;
        host.ok_as(token, "POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "DB"}))).await;
        let sql = format!("create table secrets as select '{value}' as secret");
        host.ok_as(token, "POST", "/v1/services/shop/sqlite/DB/query", Some(json!({"sql": sql}))).await;
        let new = json!({"path": "s.txt", "contentType": "text/plain", "sizeBytes": value.len(), "publicRead": false});
        let upload = host.ok_as(token, "POST", "/v1/services/shop/storage/upload-url", Some(new)).await;
        assert!(host.at("PUT", upload["url"].as_str().unwrap(), &[], value.to_owned()).await.status.is_success());
        host.ok_as(token, "POST", "/v1/services/shop/storage/complete", Some(json!({"path": "s.txt"}))).await;
    };
    fill(&alice, "alices password").await;

    let host = host.restart_with(|config| assert!(std::fs::copy(&old, config.data.join("control.db")).is_ok())).await;
    host.ok_as(&bob, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.ok_as(&bob, "POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": "CACHE"}))).await;
    host.ok_as(&bob, "POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "DB"}))).await;
    assert_eq!(host.refused(&bob, "GET", "/v1/services/shop/kv/CACHE/values/secret", None).await, "kv_key_not_found");
    assert_eq!(host.ok_as(&bob, "GET", "/v1/services/shop/storage", None).await["objects"], json!([]));
    let tables = json!({"sql": "select count(*) as n from sqlite_schema where name = 'secrets'"});
    assert_eq!(host.ok_as(&bob, "POST", "/v1/services/shop/sqlite/DB/query", Some(tables)).await["rows"][0]["n"], json!(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_had_only_a_queue_or_a_trigger_are_known_by_their_numbers() {
    for (path, body) in [("queues", json!({"name": "jobs"})), ("cron", json!({"name": "often", "cronExpression": "* * * * *"}))] {
        let host = Operator::start(TOVUK).await;
        let (alice, bob) = (host.account("alice").await, host.account("bob").await);
        let aside = tempfile::tempdir().unwrap();
        let old = aside.path().join("control.db");
        let host = host.restart_with(|config| assert!(std::fs::copy(config.data.join("control.db"), &old).is_ok())).await;
        let number = async |host: &Operator, token: &str| {
            let services = host.ok_as(token, "GET", "/v1/services", None).await;
            services["services"][0]["serviceId"].as_str().unwrap().trim_start_matches("service_").parse::<u64>().unwrap()
        };
        host.ok_as(&alice, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
        host.ok_as(&alice, "POST", &format!("/v1/services/shop/{path}"), Some(body)).await;
        let alices = number(&host, &alice).await;
        let host = host.restart_with(|config| assert!(std::fs::copy(&old, config.data.join("control.db")).is_ok())).await;
        host.ok_as(&bob, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
        let bobs = number(&host, &bob).await;
        assert!(bobs > alices, "service_{bobs} would get what service_{alices} has left in {path}");
    }
}
