//! SQLite as workers have it: through the component boundary and the SDK, with the limits, the bill and the end of an invocation.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::resource::Kind;
use tovuk_resources::objects::Place;
use tovuk_resources::stores::Stores;
use tovuk_tests::{Client, Host, HostConfig, Operator};

use crate::TOVUK;

/// A host with the guest live as `shop`, with the database `DB`.
async fn deployed(plan: &str, config: Value) -> (Operator, String) {
    let host = Operator::start(TOVUK).await;
    let token = host.ok("POST", "/v1/operator/accounts", Some(json!({"handle": "ada", "plan": plan}))).await["token"].as_str().unwrap().to_owned();
    host.ok_as(&token, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    create(&host, &token, "DB").await;
    let mut table = json!({"routes": ["/*"]});
    table.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    host.deploy(&token, "shop", "sqlite", table).await;
    (host, token)
}

async fn create(host: &Operator, token: &str, name: &str) {
    host.ok_as(token, "POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": name}))).await;
}

/// What the guest answers.
async fn ask(host: &Operator, path: &str, body: Value) -> Value {
    let address = host.host.public_address();
    let request = Request::post(path).header("host", format!("shop.localhost:{}", address.port()));
    let reply = Client::new(address).whole(request.body(Full::new(Bytes::from(body.to_string()))).unwrap()).await;
    serde_json::from_slice(&reply.body).unwrap_or_else(|_| panic!("{path}: {} {}", reply.status, String::from_utf8_lossy(&reply.body)))
}

async fn sql(host: &Operator, sql: &str) -> Value {
    ask(host, "/query", json!({"sql": sql})).await
}

/// The same over the API.
async fn api(host: &Operator, token: &str, sql: &str) -> Value {
    host.ok_as(token, "POST", "/v1/services/shop/sqlite/DB/query", Some(json!({"sql": sql}))).await
}

const ENDLESS: &str = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_reads_and_writes_what_the_api_does() {
    let (host, token) = deployed("pro", json!({})).await;
    sql(&host, "create table t (i integer, r real, s text, b blob)").await;
    let values = json!([9_223_372_036_854_775_807_i64, 1.5, "a\u{0}b", [0, 255]]);
    let written = ask(&host, "/query", json!({"sql": "insert into t values (?, ?, ?, ?)", "params": values})).await;
    assert_eq!((&written["rowsWritten"], &written["lastInsertRowid"], &written["columns"]), (&json!(1), &json!(1), &json!([])));
    ask(&host, "/query", json!({"sql": "insert into t (i, s) values (:i, @s)", "params": {"i": -1, "@s": null}})).await;
    let read = sql(&host, "select *, i from t order by rowid").await;
    assert_eq!(read["columns"], json!(["i", "r", "s", "b", "i:2"]));
    let big = 9_223_372_036_854_775_807_i64;
    assert_eq!(read["rows"], json!([[big, 1.5, "a\u{0}b", [0, 255], big], [-1, null, null, null, -1]]));
    assert!(read["rowsRead"].as_u64().unwrap() >= 2 && read["vmSteps"].as_u64().unwrap() > 0 && read["storageBytes"].as_u64().unwrap() > 0, "{read}");
    assert_eq!(api(&host, &token, "select b from t where b is not null").await["rows"], json!([{"b": {"base64": "AP8="}}]));
    assert_eq!(ask(&host, "/query?db=sqlite_1", json!({"sql": "select count(*) from t"})).await["rows"], json!([[2]]));

    let batch = ask(&host, "/batch", json!([{"sql": "delete from t where i = ?", "params": [-1]}, {"sql": "select count(*) from t"}])).await;
    assert_eq!((&batch[0]["rowsWritten"], &batch[1]["rows"]), (&json!(1), &json!([[1]])));
    let failed = ask(&host, "/batch", json!([{"sql": "delete from t"}, {"sql": "nonsense"}])).await;
    assert_eq!(failed["code"], "sqlite_query_failed");
    assert!(failed["message"].as_str().unwrap().contains("statement 2"), "{failed}");

    let tx = async |statements: &[&str], end: &str| {
        let statements: Vec<_> = statements.iter().map(|sql| json!({"sql": sql})).collect();
        ask(&host, "/tx", json!({"statements": statements, "end": end})).await
    };
    let done = tx(&["insert into t (i) values (5)", "oops", "select count(*) from t"], "commit").await;
    assert_eq!(
        (&done["results"][1]["code"], &done["results"][2]["rows"], &done["error"]),
        (&json!("sqlite_query_failed"), &json!([[2]]), &Value::Null)
    );
    assert_eq!(tx(&["delete from t"], "trap").await["code"], "worker_trapped");
    assert_eq!(sql(&host, "select count(*) from t").await["rows"], json!([[2]]), "what a trap leaves open is rolled back");

    // A result that is larger than any answer comes in pages.
    let fill = "insert into t (b) with recursive n(i) as (select 1 union all select i + 1 from n where i < 12) select zeroblob(1000000) from n";
    sql(&host, fill).await;
    let streamed = ask(&host, "/stream", json!({"sql": "select b from t"})).await;
    assert_eq!((&streamed["rows"], &streamed["error"]), (&json!(14), &Value::Null), "{streamed}");
    assert!(streamed["pages"].as_u64().unwrap() >= 10, "{streamed}");
    assert_eq!(sql(&host, "select b from t").await["code"], "sqlite_budget_exceeded");
    assert_eq!(ask(&host, "/stream", json!({"sql": "delete from t"})).await["error"]["code"], "sqlite_forbidden");
    // A new start finds all of it.
    let host = host.restart().await;
    assert_eq!(sql(&host, "select count(*) from t").await["rows"], json!([[14]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_may_not_do_is_refused() {
    let (host, token) = deployed("pro", json!({"limits": {"cpu_ms": 10_000}})).await;
    for statement in [
        "attach 'x.db' as x",
        "vacuum into 'x.db'",
        "select load_extension('x')",
        "pragma writable_schema = on",
        "pragma journal_mode = delete",
        "update sqlite_schema set sql = ''",
        "create virtual table v using csv(filename='/etc/passwd')",
        "select readfile('/etc/passwd')",
        "commit",
    ] {
        for path in ["/query", "/stream"] {
            let answer = ask(&host, path, json!({"sql": statement})).await;
            let code = answer["code"].as_str().or_else(|| answer["error"]["code"].as_str()).unwrap_or_default();
            assert!(matches!(code, "sqlite_forbidden" | "sqlite_query_failed"), "{path} {statement}: {answer}");
        }
        let inside = ask(&host, "/tx", json!({"statements": [{"sql": statement}], "end": "commit"})).await;
        assert!(inside["results"][0]["code"].is_string(), "{statement}: {inside}");
    }
    for (path, body, code) in [
        ("/query?db=NONE", json!({"sql": "select 1"}), "resource_not_found"),
        ("/query?db=sqlite_2", json!({"sql": "select 1"}), "resource_not_found"),
        ("/query", json!({"sql": "select ?"}), "sqlite_query_failed"),
        ("/query", json!({"sql": "select 1; select 2"}), "sqlite_query_failed"),
        ("/batch", json!([]), "sqlite_query_failed"),
        ("/batch", Value::Array(vec![json!({"sql": "select 1"}); 1_001]), "sqlite_query_failed"),
        ("/query", json!({"sql": "select randomblob(2097153)"}), "sqlite_query_failed"),
    ] {
        assert_eq!(ask(&host, path, body).await["code"], code, "{path}");
    }
    // Another account has a database of that id, and this worker does not.
    let bob = host.account("bob").await;
    host.ok_as(&bob, "POST", "/v1/services", Some(json!({"name": "bobs"}))).await;
    host.ok_as(&bob, "POST", "/v1/services/bobs/sqlite/databases", Some(json!({"name": "BOBS"}))).await;
    for name in ["sqlite_2", "BOBS"] {
        assert_eq!(ask(&host, &format!("/query?db={name}"), json!({"sql": "select 1"})).await["code"], "resource_not_found");
    }
    // What a guest holds open is bounded, and comes back.
    for number in 1..=8 {
        create(&host, &token, &format!("DB{number}")).await;
    }
    host.ok_as(&token, "POST", "/v1/services/shop/restart", None).await;
    let held = ask(&host, "/held", json!(null)).await;
    assert_eq!((&held["held"], &held["refused"]["code"], &held["again"]), (&json!(16), &json!("sqlite_busy"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_streams_hands_rows_on_while_it_reads_them() {
    let (host, token) = deployed("pro", json!({})).await;
    host.deploy(&token, "shop", "sqlite_p2", json!({"routes": ["/*"]})).await;
    api(&host, &token, "create table t (body blob)").await;
    api(&host, &token, "insert into t with recursive n(i) as (select 1 union all select i + 1 from n where i < 40) select zeroblob(1000000) from n")
        .await;
    let address = host.host.public_address();
    let read = || {
        Request::get("/?sql=select%20body%20from%20t")
            .header("host", format!("shop.localhost:{}", address.port()))
            .body(Full::<Bytes>::default())
            .unwrap()
    };
    let whole = Client::new(address).whole(read()).await;
    assert_eq!((whole.status.as_u16(), whole.body.len()), (200, 40_000_000));
    // Clients that go away in the middle leave no reader behind: a database that is deleted waits for all of them.
    for _ in 0..8 {
        let mut body = Client::new(address).send(read()).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data());
    }
    host.ok_as(&token, "DELETE", "/v1/services/shop/sqlite/databases/DB", None).await;
    let lines = host.log(&token, "/v1/services/shop/logs").await;
    assert!(!lines.iter().any(|line| line.contains("sqlite_")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_sqlite_takes_is_the_invocations() {
    let (host, token) = deployed("pro", json!({"limits": {"cpu_ms": 60}})).await;
    sql(&host, "create table t (a)").await;
    // It would take some seconds to use up the steps of this plan.
    for statement in [ENDLESS.to_owned(), format!("insert into t {ENDLESS}")] {
        let answer = sql(&host, &statement).await;
        let code = answer["code"].as_str().unwrap();
        // The guest has a millisecond to say what it was told, if it has not been stopped before.
        assert!(code == "worker_cpu_exceeded" || answer["message"].as_str().unwrap().contains("CPU time"), "{answer}");
    }
    let steps = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000) select count(*) from n";
    let many: Vec<_> = (0..100).map(|_| json!({"sql": steps})).collect();
    assert_eq!(ask(&host, "/tx", json!({"statements": many, "end": "commit"})).await["code"], "worker_cpu_exceeded");
    assert_eq!(api(&host, &token, "select count(*) as n from t").await["rows"], json!([{"n": 0}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_goes_away_holds_nothing() {
    let (host, token) = deployed("pro", json!({})).await;
    sql(&host, "create table t (a)").await;
    let address = host.host.public_address();
    for turn in 1..=3 {
        let request = Request::get("/linger").header("host", format!("shop.localhost:{}", address.port()));
        let client = tokio::spawn(async move { Client::new(address).try_whole(request.body(Full::default()).unwrap()).await.map(drop) });
        while host.log(&token, "/v1/services/shop/logs").await.iter().filter(|line| line.contains("begun")).count() < turn {
            tokio::task::yield_now().await;
        }
        client.abort();
        // It has the writer until it is gone, so this is answered when it is.
        api(&host, &token, "insert into t values ('after')").await;
    }
    assert_eq!(api(&host, &token, "select a, count(*) as n from t").await["rows"], json!([{"a": "after", "n": 3}]));
    // A deleted database is gone for a version that still runs, for ever.
    host.ok_as(&token, "DELETE", "/v1/services/shop/sqlite/databases/DB", None).await;
    assert_eq!(sql(&host, "select 1").await["code"], "resource_not_found");
    create(&host, &token, "DB").await;
    assert_eq!(sql(&host, "select 1").await["code"], "resource_not_found", "the version has the old one");
    host.ok_as(&token, "POST", "/v1/services/shop/restart", None).await;
    assert_eq!(sql(&host, "select count(*) from sqlite_schema").await["rows"], json!([[0]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_hands_over_counts_as_host_memory() {
    let folder = tempfile::tempdir().unwrap();
    let stores = Stores::open(folder.path(), &Place::Folder(folder.path().join("objects")), &Clock::system()).await.unwrap();
    stores.sqlite.create(1).await.unwrap();
    // The guest itself fits with the blob, and then the blob does not once more.
    let runtime = Box::new(|config: &mut tovuk_runtime::runtime::RuntimeConfig| config.guest_memory_bytes = Some(24 << 20));
    let host = Host::with(HostConfig { stores: Some(stores.clone()), runtime, ..HostConfig::new(TOVUK) }).await;
    host.deploy("shop", "sqlite", |service| service.public().resource(Kind::Sqlite, "DB", 1)).await;
    let refused = host.post("shop", &format!("/large?bytes={}", 15 << 20), "").await.json();
    for way in refused.as_array().unwrap() {
        assert_eq!((&way["code"], &way["retryable"]), (&json!("host_busy"), &json!(true)), "{refused}");
    }
    assert_eq!(host.post("shop", "/large?bytes=1000", "").await.json(), json!([null, null, null, null, null]));
    host.memory_is_free().await;
    stores.close().await;
}
