//! Who may do what, for every operation of the API: generated from the table of operations, so that a new one cannot be left out.

use serde_json::{Value, json};
use tovuk_kernel::operation::{Access, Method, Operation};
use tovuk_server::control::api::operations;
use tovuk_tests::{Operator, Reply};

use crate::TOVUK;

/// What `alice` has, and others must not learn of.
pub(crate) struct World {
    host: Operator,
    pub(crate) alice: String,
    bob: String,
    suspended: String,
    read: String,
    /// The tokens of the workers of alice's `shop` and `auth`.
    pub(crate) shop_worker: String,
    auth_worker: String,
    ids: Vec<(&'static str, String)>,
    /// What has completed an upload in parts, and can be sent again.
    completed_parts: Value,
}

impl World {
    pub(crate) async fn new() -> Self {
        let host = Operator::start(TOVUK).await;
        let (alice, bob, suspended) = (host.account("alice").await, host.account("bob").await, host.account("carol").await);
        for service in ["auth", "shop"] {
            host.ok_as(&alice, "POST", "/v1/services", Some(json!({"name": service}))).await;
        }
        host.secret(&alice, "shop", "ALICES_SECRET", "alices-value").await;
        host.ok_as(&alice, "POST", "/v1/services/shop/service-bindings", Some(json!({"bindingName": "ALICES_AUTH", "targetService": "auth"}))).await;
        host.ok_as(&alice, "POST", "/v1/services/shop/domains", Some(json!({"domain": "alice.example.com"}))).await;
        host.ok_as(&alice, "POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": "ALICES_CACHE"}))).await;
        host.ok_as(&alice, "PUT", "/v1/services/shop/kv/ALICES_CACHE/values/alices-key", Some(json!({"value": "alices-value"}))).await;
        host.ok_as(&alice, "POST", "/v1/services/shop/state/namespaces", Some(json!({"className": "AlicesRoom"}))).await;
        let value = "/v1/services/shop/state/namespaces/AlicesRoom/objects/alices-object/values/alices-key";
        host.ok_as(&alice, "PUT", value, Some(json!({"value": "alices-value"}))).await;
        host.ok_as(&alice, "POST", "/v1/services/shop/cron", Some(json!({"name": "alices-cron", "cronExpression": "0 0 1 1 *"}))).await;
        host.ok_as(&alice, "POST", "/v1/services/shop/queues", Some(json!({"name": "ALICES_QUEUE", "consumer": "pull"}))).await;
        host.ok_as(&alice, "POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "ALICES_DB"}))).await;
        host.ok_as(&alice, "POST", "/v1/services/shop/sqlite/ALICES_DB/backups", None).await;
        let read = host.ok_as(&alice, "POST", "/v1/tokens", Some(json!({"name": "alices-token", "scope": "read"}))).await;
        let deployed = host.deploy(&alice, "shop", "own_api", json!({"routes": ["/*"]})).await;
        host.deploy(&alice, "auth", "own_api", json!({"routes": ["/*"]})).await;
        host.ok_as(&bob, "POST", "/v1/services", Some(json!({"name": "bobs"}))).await;
        let worker = async |slug: &str| host.get(slug, "/env/TOVUK_RUNTIME_TOKEN").await.text().to_owned();
        let (shop_worker, auth_worker) = (worker("shop").await, worker("auth").await);
        assert!(shop_worker.starts_with("tovuk_runtime_"), "{shop_worker}");
        host.ok("PUT", "/v1/operator/accounts/carol/suspended", None).await;
        let trace = host.get("shop", "/env/TOVUK_SERVICE_ID").await;
        assert_eq!(trace.status, 200);
        host.host.control().flush_logs().await;
        let traces = host.ok_as(&alice, "GET", "/v1/services/shop/traces", None).await;
        let trace = traces["traces"][0]["trace_id"].as_str().unwrap().to_owned();
        let id = |value: &Value| value.as_str().unwrap().to_owned();
        let ids = vec![
            ("service", id(&deployed["service"]["id"])),
            ("deploy", id(&deployed["deploy"]["id"])),
            ("build", id(&deployed["build_job"]["id"])),
            ("token", id(&read["details"]["id"])),
            ("name", "ALICES_SECRET".to_owned()),
            ("binding", "ALICES_AUTH".to_owned()),
            ("domain", "alice.example.com".to_owned()),
            ("namespace", "ALICES_CACHE".to_owned()),
            ("key", "alices-key".to_owned()),
            ("class", "AlicesRoom".to_owned()),
            ("object", "alices-object".to_owned()),
            ("trigger", "alices-cron".to_owned()),
            ("queue", "ALICES_QUEUE".to_owned()),
            ("database", "ALICES_DB".to_owned()),
            ("backup", "sqlite_backup_1".to_owned()),
            ("trace", trace),
        ];
        let completed_parts = store(&host, &alice).await;
        Self { completed_parts, read: id(&read["token"]), host, alice, bob, suspended, shop_worker, auth_worker, ids }
    }

    /// The operation's path with ids of things that are alice's.
    fn path(&self, operation: &Operation) -> String {
        let mut path = operation.path.to_owned();
        for field in operation.path_fields() {
            let value = self.ids.iter().find(|(name, _)| *name == field).map_or("some-1", |(_, id)| id.as_str());
            path = path.replace(&format!("{{{field}}}"), value);
        }
        path
    }

    /// What alice has used.
    pub(crate) async fn usage(&self) -> Value {
        self.host.ok_as(&self.alice, "GET", "/v1/usage", None).await
    }

    pub(crate) async fn call(&self, operation: &Operation, token: Option<&str>) -> Reply {
        let body = match operation.name {
            "env.set" => json!({"name": "A", "value": "b"}),
            "binding.create" => json!({"bindingName": "A", "targetService": "auth"}),
            "domain.add" => json!({"domain": "other.example.com"}),
            "cron.create" => json!({"name": "OTHER", "cronExpression": "0 0 1 1 *"}),
            "cron.update" => json!({"enabled": true}),
            "usage.cap.set" => json!({"period": "day", "capValue": 1_000_000}),
            "usage.webhook.set" => json!({"url": "https://hooks.example.com/tovuk"}),
            "kv.create" | "queue.create" => json!({"name": "OTHER"}),
            "queue.update" => json!({"maxRetries": 1}),
            "queue.send" => json!({"body": "x"}),
            "queue.send_batch" => json!({"messages": [{"body": "x"}]}),
            "queue.ack" => json!({"acks": ["1-1-0123456789abcdef"]}),
            "sqlite.create" => json!({"name": "OTHER"}),
            "sqlite.query" => json!({"sql": "select 1"}),
            "sqlite.migrate" => json!({"migrations": []}),
            "kv.put" | "state.put" => json!({"value": "x"}),
            "state.create" => json!({"className": "Other"}),
            "state.alarm.set" => json!({"delaySeconds": 60}),
            "kv.bulk.put" => json!({"entries": [{"key": "k", "value": "x"}]}),
            "storage.upload" => json!({"path": "new.txt", "sizeBytes": 1}),
            "storage.complete" | "storage.download" => json!({"path": "alices-object"}),
            "storage.multipart.create" => json!({"path": "large.bin", "sizeBytes": 1}),
            "storage.multipart.complete" => self.completed_parts.clone(),
            "storage.multipart.abort" => json!({"path": "large.bin", "uploadId": "upload_1"}),
            "kv.bulk.get" | "kv.bulk.delete" => json!({"keys": ["k"]}),
            _ => json!({}),
        };
        let query = match operation.name {
            "storage.delete" => "?path=none",
            _ if operation.streams => "?waitSeconds=0",
            _ => "",
        };
        self.send(operation, token, query, body).await
    }

    /// Asks alice's host as alice.
    pub(crate) async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        self.host.ok_as(&self.alice, method, path, body).await
    }

    pub(crate) async fn send(&self, operation: &Operation, token: Option<&str>, query: &str, body: Value) -> Reply {
        let body = operation.method.has_body().then_some(body);
        self.host.api(operation.method.as_str(), &(self.path(operation) + query), token, body).await
    }
}

/// Makes alice's objects: one that was sent as a whole and one that was sent in parts.
async fn store(host: &Operator, alice: &str) -> Value {
    let storage = "/v1/services/shop/storage";
    let begun = host.ok_as(alice, "POST", &format!("{storage}/upload-url"), Some(json!({"path": "alices-object", "sizeBytes": 1}))).await;
    host.at("PUT", begun["url"].as_str().unwrap(), &[], "x").await;
    host.ok_as(alice, "POST", &format!("{storage}/complete"), Some(json!({"path": "alices-object"}))).await;
    let begun = host.ok_as(alice, "POST", &format!("{storage}/multipart/create"), Some(json!({"path": "alices-large", "sizeBytes": 1}))).await;
    let sent = host.at("PUT", begun["parts"][0]["url"].as_str().unwrap(), &[], "x").await;
    let parts = json!([{"partNumber": 1, "etag": sent.headers["etag"].to_str().unwrap()}]);
    let body = json!({"path": "alices-large", "uploadId": begun["uploadId"], "parts": parts});
    host.ok_as(alice, "POST", &format!("{storage}/multipart/complete"), Some(body.clone())).await;
    body
}

fn all() -> impl Iterator<Item = &'static Operation> {
    operations().iter().map(|registered| registered.operation)
}

fn said(operation: &Operation, who: &str, reply: &Reply) -> String {
    format!("{} {} by {who}: {} {}", operation.method.as_str(), operation.path, reply.status, String::from_utf8_lossy(&reply.body))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_open_to_whom_it_says_and_to_nobody_else() {
    let world = World::new().await;
    for operation in all() {
        let public = operation.access == Access::Public;
        let expect = async |who: &str, token: Option<&str>, code: &str| {
            let reply = world.call(operation, token).await;
            if public {
                assert!(!matches!(reply.status.as_u16(), 401 | 403), "{}", said(operation, who, &reply));
            } else {
                assert_eq!(reply.code(), code, "{}", said(operation, who, &reply));
                assert_eq!(reply.headers.contains_key("www-authenticate"), code == "unauthorized");
            }
        };
        expect("nobody", None, "unauthorized").await;
        for garbage in ["garbage", "tovuk_", "tovuk_runtime_x", ""] {
            expect("garbage", Some(garbage), "unauthorized").await;
        }
        expect("a suspended account", Some(&world.suspended), "account_suspended").await;
        if operation.access != Access::Runtime {
            expect("a worker", Some(&world.shop_worker), "token_scope").await;
        }
        if operation.access == Access::Operator {
            expect("an account", Some(&world.alice), "token_scope").await;
        }
        if operation.access == Access::Operator || operation.method != Method::Get {
            expect("a token that reads", Some(&world.read), "token_scope").await;
        } else {
            let reply = world.call(operation, Some(&world.read)).await;
            let fits = reply.status.as_u16() == operation.status || reply.code() == "not_on_this_host" || public;
            assert!(fits, "{}", said(operation, "a token that reads", &reply));
        }
        if operation.access == Access::Runtime {
            let own = world.call(operation, Some(&world.shop_worker)).await;
            assert_eq!(own.status.as_u16(), operation.status, "{}", said(operation, "its worker", &own));
            let other = world.call(operation, Some(&world.auth_worker)).await;
            assert_eq!(other.code(), "service_not_found", "{}", said(operation, "the worker of another service", &other));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_account_has_does_not_exist() {
    let world = World::new().await;
    let hidden: Vec<&str> = world.ids.iter().map(|(_, id)| id.as_str()).chain(["alice", "shop", "auth"]).collect();
    for operation in all().filter(|operation| matches!(operation.access, Access::Account | Access::Runtime)) {
        for (who, token) in [("bob", &world.bob), ("the operator", &world.host.token)] {
            let names_something = operation.path_fields().any(|field| world.ids.iter().any(|(name, _)| *name == field));
            // These change who asks, and say nothing of anybody.
            if !names_something && operation.method != Method::Get {
                continue;
            }
            let reply = world.call(operation, Some(token)).await;
            if names_something {
                assert_eq!(reply.status, 404, "{}", said(operation, who, &reply));
            } else if reply.status.is_success() && who == "bob" {
                let text = String::from_utf8_lossy(&reply.body).into_owned();
                // Ids of the same kind in both accounts differ, so none of alice's may occur.
                assert!(!hidden.iter().any(|id| text.contains(&format!("\"{id}\""))), "{}", said(operation, who, &reply));
            }
        }
    }
    // Nothing was changed by all that.
    let shown = world.host.ok_as(&world.alice, "GET", "/v1/services/shop/overview", None).await;
    assert_eq!(shown["env"][0]["name"], "ALICES_SECRET");
    assert_eq!(shown["domains"][0]["domain"], "alice.example.com");
    assert_eq!(shown["resources"]["serviceBindings"][0]["name"], "ALICES_AUTH");
    assert_eq!(world.host.get("shop", "/healthz").await.text(), "ok");
}

#[test]
fn every_operation_is_found_at_its_own_route() {
    let mut seen = std::collections::HashSet::new();
    for operation in all() {
        assert!(seen.insert((operation.method, operation.path)), "{} {} is there twice", operation.method.as_str(), operation.path);
        assert!(operation.path.starts_with("/v1/") && !operation.path.ends_with('/'), "{}", operation.path);
        assert!(
            operation.access != Access::Runtime || operation.path.contains("{service}"),
            "{}: a worker reaches its own service only",
            operation.name
        );
    }
}
