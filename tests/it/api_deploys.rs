//! Deploys over the API: what is accepted, what is refused and with which words, and what is left of each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tovuk_tests::{Operator, component, tar_gz};

use crate::TOVUK;

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Asks for a deploy that has to be accepted; its build once it has ended.
async fn build_of(host: &Operator, body: Value) -> Value {
    let accepted = host.ok("POST", "/v1/deploy", Some(body)).await;
    host.built(&host.token, accepted["build_job"]["id"].as_str().unwrap()).await
}

/// What the published client sends as `config` for a plain static project.
fn published_static(name: &str) -> Value {
    let mut capabilities = serde_json::Map::new();
    for key in ["worker", "sqlite", "object_storage", "kv", "state", "queue", "cron", "service_bindings", "secrets", "custom_domains"] {
        capabilities.insert(key.to_owned(), json!(false));
    }
    for key in ["static_frontend", "logs", "builds", "usage_caps", "billing", "support", "abuse"] {
        capabilities.insert(key.to_owned(), json!(true));
    }
    json!({"name": name, "kind": "static_frontend", "capabilities": capabilities, "build": {"command": ":", "check": ":", "output": "."},
        "run": {"port": 3000, "health": "/healthz"}, "frontend": {}, "worker": {},
        "resources": {"memory": "128mb", "cpu": "1", "idle_timeout_minutes": 15}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_client_deploys_a_plain_static_project() {
    let host = Operator::start(TOVUK).await;
    let alice = host.account("alice").await;
    let usage = host.ok_as(&alice, "GET", "/v1/usage", None).await;
    assert!(usage["usage"]["serviceCount"].as_u64().unwrap() < usage["limits"]["projects"].as_u64().unwrap());
    assert_eq!(host.ok_as(&alice, "GET", "/v1/services", None).await["services"], json!([]));
    let archive = tar_gz(&[("index.html", "<h1>hi</h1>"), ("css/site.css", "a{}"), ("tovuk.toml", "name = \"site\""), ("./notes.txt", "n")]);
    let body = json!({"config": published_static("site"), "commit_sha": null, "source_archive_base64": base64(&archive)});
    let accepted = host.ok_as(&alice, "POST", "/v1/deploy", Some(body)).await;
    assert_eq!(accepted["build_job"]["status"], "queued");
    assert_eq!(accepted["service"]["url"], format!("http://site.localhost:{}", host.host.public_address().port()));
    let id = accepted["build_job"]["id"].as_str().unwrap().to_owned();
    let ended = host.built(&alice, &id).await;
    assert_eq!((&ended["id"], &ended["status"], &ended["message"]), (&json!(id), &json!("succeeded"), &json!("")));
    assert_eq!(host.get("site", "/").await.text(), "<h1>hi</h1>");
    assert_eq!(host.get("site", "/css/site.css").await.text(), "a{}");
    assert_eq!(host.get("site", "/notes.txt").await.text(), "n");
    assert_ne!(host.get("site", "/tovuk.toml").await.text(), "name = \"site\"", "the project file is no page");
    let log = host.log(&alice, &format!("/v1/builds/{id}/logs")).await;
    assert!(log.iter().any(|line| line.starts_with("live at http://site.localhost")), "{log:?}");
    // The same twice is the same files, and one of another name is another service.
    let again = json!({"config": published_static("site"), "commit_sha": "abc", "source_archive_base64": base64(&archive)});
    let again = host.ok_as(&alice, "POST", "/v1/deploy", Some(again)).await;
    assert_eq!(again["service"]["id"], accepted["service"]["id"]);
    assert_eq!(host.built(&alice, again["build_job"]["id"].as_str().unwrap()).await["status"], "succeeded");
    let list = host.ok_as(&alice, "GET", "/v1/deploys?limit=1", None).await;
    assert_eq!((&list["deploys"][0]["commit_sha"], &list["has_more"]), (&json!("abc"), &json!(true)));
    let host = host.restart().await;
    assert_eq!(host.get("site", "/").await.text(), "<h1>hi</h1>");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stack_service_has_its_files_and_its_worker() {
    let host = Operator::start(TOVUK).await;
    let config = json!({"kind": "fullstack", "routes": ["/*"], "assets": "web/dist"});
    let body = json!({"service": "app", "config": config, "component_base64": base64(&component("echo")),
        "assets_archive_base64": base64(&tar_gz(&[("index.html", "<p>app</p>")]))});
    assert_eq!(build_of(&host, body).await["status"], "succeeded");
    assert_eq!(host.get("app", "/").await.text(), "<p>app</p>");
    assert_eq!(host.get("app", "/api/x?y=1").await.json()["uri"], "/api/x?y=1");
    assert_eq!(host.get("app", "/.tovuk/x").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_deployed_is_refused_with_the_reason() {
    let host = Operator::start(TOVUK).await;
    let wasm = base64(&component("hello"));
    let files = base64(&tar_gz(&[("index.html", "x")]));
    let worker = json!({"routes": ["/*"]});
    let frontend = json!({"kind": "static_frontend", "assets": "."});
    for (body, code, says) in [
        (json!({"config": worker, "component_base64": wasm}), "invalid_config", "`service` must name"),
        (json!({"service": "shop", "component_base64": wasm}), "invalid_request", "missing field `config`"),
        (json!({"service": "shop", "config": worker}), "invalid_request", "needs a component"),
        (
            json!({"service": "shop", "config": worker, "component_base64": wasm, "assets_archive_base64": files}),
            "invalid_request",
            "has no use for static files",
        ),
        (json!({"service": "shop", "config": frontend}), "invalid_request", "needs static files"),
        (
            json!({"service": "shop", "config": frontend, "component_base64": wasm, "assets_archive_base64": files}),
            "invalid_request",
            "no use for a component",
        ),
        (json!({"service": "shop", "config": worker, "source_archive_base64": files}), "remote_build_disabled", "compiles no source"),
        (
            json!({"service": "shop", "config": worker, "component_base64": wasm, "source_archive_base64": files}),
            "invalid_request",
            "both as source and built",
        ),
        (json!({"service": "shop", "config": worker, "component_base64": "not base64!"}), "invalid_request", "base64"),
        (json!({"service": "Shop", "config": worker, "component_base64": wasm}), "invalid_config", "name of a service"),
        (json!({"service": "shop", "config": [], "component_base64": wasm}), "invalid_config", ""),
        (json!({"service": "shop", "config": {"rutes": ["/*"]}, "component_base64": wasm}), "invalid_config", "unknown key `rutes`"),
        (json!({"service": "shop", "config": {"routes": ["nope"]}, "component_base64": wasm}), "invalid_config", "routes"),
        (json!({"service": "shop", "config": {"limits": {"cpu_ms": 999_999_999}}, "component_base64": wasm}), "invalid_config", "cpu_ms"),
        (json!({"service": "shop", "config": {"routes": ["x".repeat(2 << 20)]}, "component_base64": wasm}), "invalid_config", "bytes"),
        (json!({"service": "shop", "config": worker, "component_base64": wasm, "commit_sha": "c".repeat(200)}), "invalid_request", "commit_sha"),
        (
            json!({"service": "shop", "config": {"kind": "static_frontend", "assets": "a/../../x"}, "source_archive_base64": files}),
            "invalid_config",
            "leaves",
        ),
        (json!({"config": {"name": "shop", "capabilities": {}}, "source_archive_base64": files}), "invalid_config", "lacks"),
    ] {
        let reply = host.ask("POST", "/v1/deploy", Some(body)).await;
        let error = reply.json();
        let message = error["message"].as_str().unwrap_or_else(|| panic!("{error}"));
        assert!(reply.code() == code && message.contains(says), "wanted {code} {says}, got {error:.300}");
        assert!(!error["agent_instruction"].as_str().unwrap().is_empty());
    }
    assert_eq!(host.ok("GET", "/v1/services", None).await["services"], json!([]), "nothing is left of what was refused");
    assert_eq!(std::fs::read_dir(host.data.join("uploads")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_in_its_build_leaves_the_live_deploy_as_it_is() {
    let host = Operator::start(TOVUK).await;
    let token = host.token.clone();
    host.deploy(&token, "shop", "hello", json!({"routes": ["/*"]})).await;
    let worker = json!({"routes": ["/*"]});
    let of = |wasm: &[u8]| json!({"service": "shop", "config": worker, "component_base64": base64(wasm)});
    let checked = |guest: &str, health: &str| Operator::deploy_body("shop", guest, json!({"routes": ["/*"], "health": health}));
    let archive =
        |bytes: &[u8]| json!({"service": "shop", "config": {"kind": "static_frontend", "assets": "."}, "assets_archive_base64": base64(bytes)});
    let files = base64(&tar_gz(&[("index.html", "x")]));
    let source_of =
        |folder: &str| json!({"service": "shop", "config": {"kind": "static_frontend", "assets": folder}, "source_archive_base64": files});
    for (body, says) in [
        (of(b"no component"), "component_refused"),
        (of(b""), "component_refused"),
        (of(&[0x1f, 0x8b, 8, 0, 1, 2]), "no valid gzip"),
        (of(&component("unknown_import")), "acme:db/store"),
        (of(&component("neither")), "component_refused"),
        (checked("trap", "/"), "health_check_failed: GET /: worker_trapped"),
        (checked("own_api", "/nothing-here"), "health_check_failed: GET /nothing-here: answered 404"),
        (archive(b"no archive"), "archive_refused"),
        (source_of("dist"), "the archive has no folder `dist`"),
        (source_of("index.html"), "the archive has no folder `index.html`"),
        (archive(&tar_gz(&[("sub/.env", "SECRET=1")])), "archive_refused"),
    ] {
        let build = build_of(&host, body).await;
        assert!(build["status"] == "failed" && build["message"].as_str().unwrap().contains(says), "wanted {says}, got {build}");
        let log = host.log(&token, &format!("/v1/builds/{}/logs", build["id"].as_str().unwrap())).await;
        assert!(log.iter().any(|line| line.starts_with("failed: ")), "{log:?}");
        assert_eq!(host.get("shop", "/").await.text(), "hello");
    }
    let shown = host.ok("GET", "/v1/services/shop/overview", None).await;
    assert_eq!(shown["status"]["live_deploy"]["id"], "deploy_1");
    assert_eq!((&shown["status"]["latest_build_job"]["status"], &shown["status"]["service"]["kind"]), (&json!("failed"), &json!("rust_worker")));
    assert!(shown["next_actions"][0].as_str().unwrap().contains("tovuk logs --build"), "{}", shown["next_actions"]);
    assert_eq!(std::fs::read_dir(host.data.join("uploads")).unwrap().count(), 0);
    // Compressed, the same component is the same.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &component("hello")).unwrap();
    assert_eq!(build_of(&host, of(&gzip.finish().unwrap())).await["status"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_secret_has_to_be_set_first() {
    let host = Operator::start(TOVUK).await;
    let token = host.token.clone();
    let body = Operator::deploy_body("shop", "env", json!({"routes": ["/*"], "secrets": ["ONE", "TWO"]}));
    let refused = host.ask("POST", "/v1/deploy", Some(body.clone())).await;
    assert_eq!((refused.code(), &refused.json()["missing"]), ("secret_missing".to_owned(), &json!(["ONE", "TWO"])));
    let instruction = refused.json()["agent_instruction"].as_str().unwrap().to_owned();
    assert!(instruction.contains("tovuk env set ONE=<value> --service shop") && instruction.contains("TWO"), "{instruction}");
    // The service is there, so that the commands can be run.
    for name in ["ONE", "TWO"] {
        host.secret(&token, "shop", name, "a-value").await;
    }
    assert_eq!(build_of(&host, body).await["status"], "succeeded");
    assert_eq!(host.get("shop", "/").await.json()["TWO"], "a-value");
}

#[tokio::test(flavor = "multi_thread")]
async fn powers_that_are_new_are_named_and_a_rollback_takes_them_back() {
    let host = Operator::start(TOVUK).await;
    let token = host.token.clone();
    let deploy = async |id: &str| host.ok("GET", &format!("/v1/deploys/{id}"), None).await["deploy"].clone();
    host.deploy(&token, "shop", "hello", json!({"routes": ["/*"]})).await;
    host.deploy(&token, "shop", "own_api", json!({"routes": ["/*"], "outbound": ["https://api.stripe.com"]})).await;
    let second = deploy("deploy_2").await;
    let new: Vec<_> = second["new_powers"].as_array().unwrap().iter().map(|power| power.as_str().unwrap()).collect();
    assert!(new.contains(&"outgoing HTTP to https://api.stripe.com"), "{new:?}");
    let log = host.log(&token, "/v1/deploys/deploy_2/logs").await;
    assert!(log.iter().any(|line| line.starts_with("new powers: ") && line.contains("stripe")), "{log:?}");

    let back = host.ok("POST", "/v1/deploys/deploy_1/rollback", None).await;
    assert_eq!(
        (&back["deploy"]["id"], &back["deploy"]["source"], &back["build_job"]["status"]),
        (&json!("deploy_3"), &json!("rollback"), &json!("succeeded"))
    );
    assert_eq!((&back["service"]["runtimeStatus"], &back["deploy"]["new_powers"]), (&json!("running"), &json!([])));
    assert_eq!(host.get("shop", "/").await.text(), "hello");
    assert_eq!(deploy("deploy_2").await["status"], "superseded");
    let forth = host.ok("POST", "/v1/deploys/deploy_2/rollback", None).await;
    assert_eq!(forth["deploy"]["new_powers"], second["new_powers"], "compared with what is live now");
    assert_eq!(host.get("shop", "/healthz").await.text(), "ok");
    let host = host.restart().await;
    assert_eq!(host.get("shop", "/healthz").await.text(), "ok");
    assert_eq!(host.ok("GET", "/v1/services/shop/overview", None).await["status"]["live_deploy"]["id"], "deploy_4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_brings_settings_of_queues_and_expressions_back() {
    let host = Operator::start(TOVUK).await;
    let config = |retries: u32, hour: u32| {
        let queues = json!({"jobs": {"max_retries": retries}, "plain": {}});
        json!({"routes": ["/*"], "queues": queues, "crons": {"nightly": format!("0 {hour} * * *")}})
    };
    let has = async || {
        let resources = host.ok("GET", "/v1/services/shop/resources", None).await;
        let retries = |queue: usize| resources["queues"][queue]["maxRetries"].as_u64().unwrap();
        (retries(0), retries(1), resources["cronTriggers"][0]["cronExpression"].as_str().unwrap().to_owned())
    };
    host.deploy(&host.token, "shop", "hello", config(7, 1)).await;
    host.deploy(&host.token, "shop", "hello", config(8, 2)).await;
    host.ok("PUT", "/v1/services/shop/queues/plain", Some(json!({"maxRetries": 9}))).await;
    assert_eq!(has().await, (8, 9, "0 2 * * *".to_owned()));
    host.ok("POST", "/v1/deploys/deploy_1/rollback", None).await;
    assert_eq!(has().await, (7, 9, "0 1 * * *".to_owned()), "what no file names stays");
    // One that fails changes nothing.
    let mut failing = Operator::deploy_body("shop", "hello", config(10, 3));
    failing["component_base64"] = json!(base64(b"no component"));
    assert_eq!(build_of(&host, failing).await["status"], "failed");
    assert_eq!(has().await, (7, 9, "0 1 * * *".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_kept_in_pages_and_not_for_ever() {
    let host = Operator::start(TOVUK).await;
    let token = host.token.clone();
    host.deploy(&token, "shop", "hello", json!({"routes": ["/*"]})).await;
    // Deploys that always fail are history as well, and the live one outlives them all.
    let broken = json!({"service": "shop", "config": {"routes": ["/*"]}, "component_base64": base64(b"no component")});
    for _ in 0..60 {
        assert_eq!(build_of(&host, broken.clone()).await["status"], "failed");
    }
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = host.ok("GET", &format!("/v1/services/shop/deploys?limit=20{cursor}"), None).await;
        ids.extend(page["deploys"].as_array().unwrap().iter().map(|deploy| deploy["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert!((51..=52).contains(&ids.len()), "{}", ids.len());
    assert_eq!((ids[0].as_str(), ids[ids.len() - 1].as_str()), ("deploy_61", "deploy_1"));
    assert_eq!(host.get("shop", "/").await.text(), "hello");
    assert_eq!(host.refused(&token, "GET", "/v1/deploys/deploy_5", None).await, "deploy_not_found");
}
