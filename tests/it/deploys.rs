//! Deploys through the control API: accepted, built, promoted, brought back; and what of them stays on disk. Builds are held at a gate: a health request that
//! waits for the test.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tovuk_runtime::outbound::{AddressPolicy, OutboundConfig};
use tovuk_server::domains::Nameservers;
use tovuk_tests::{Gate, Operator, Zone, component, tar_gz};

use crate::TOVUK;

async fn with_gate() -> (Operator, Gate) {
    let addresses = AddressPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()] };
    let outbound = OutboundConfig { addresses, ..OutboundConfig::default() };
    (Operator::with(TOVUK, |config| config.outbound = outbound).await, Gate::start().await)
}

/// Begins a deploy that waits at the gate; its build.
async fn at_the_gate(host: &Operator, gate: &Gate, service: &str) -> String {
    let config = json!({"routes": ["/*"], "health": format!("/?url=http://127.0.0.1:{}/", gate.port),
        "outbound": [format!("http://127.0.0.1:{}", gate.port)], "limits": {"wall_ms": 900_000}});
    let build = begin(host, Operator::deploy_body(service, "outbound", config)).await;
    gate.arrived().await;
    build
}

/// Begins a deploy; its build.
async fn begin(host: &Operator, body: Value) -> String {
    host.ok("POST", "/v1/deploy", Some(body)).await["build_job"]["id"].as_str().unwrap().to_owned()
}

/// A site of one page.
fn site(service: &str, page: &str) -> Value {
    let config = json!({"kind": "static_frontend", "assets": "."});
    json!({"service": service, "config": config, "assets_archive_base64": STANDARD.encode(tar_gz(&[("index.html", page)]))})
}

/// What lies in a folder of the data folder.
fn names(host: &Operator, folder: &str) -> Vec<String> {
    let names = fs::read_dir(host.data.join(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Waits until no build is open and nothing of one is left to do.
async fn until_done(host: &Operator) {
    while host.ok("GET", "/v1/operator/nodes", None).await["nodes"][0]["builds"] != 0 {}
}

async fn artifact_of(host: &Operator, deploy: &str) -> String {
    host.ok("GET", &format!("/v1/deploys/{deploy}"), None).await["deploy"]["artifact"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_answers_and_survives_a_start_anew() {
    let host = Operator::start(TOVUK).await;
    let token = host.token.clone();
    let accepted = host.deploy(&token, "shop", "hello", json!({"routes": ["/*"]})).await;
    assert_eq!(accepted["service"]["name"], "shop");
    assert_eq!(host.get("shop", "/").await.text(), "hello");
    let shown = host.ok("GET", "/v1/services/shop/overview", None).await;
    assert_eq!(shown["status"]["service"]["runtime_status"], "running");
    let host = host.restart().await;
    assert_eq!(host.get("shop", "/").await.text(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_used_is_removed_while_builds_run() {
    let (host, gate) = with_gate().await;
    let token = host.token.clone();
    host.deploy(&token, "other", "hello", json!({"routes": ["/*"]})).await;
    let other = artifact_of(&host, "deploy_1").await;
    let page = begin(&host, site("page", "<p>page")).await;
    assert_eq!(host.built(&token, &page).await["status"], "succeeded");
    host.deploy(&token, "kept", "echo", json!({"routes": ["/*"]})).await;
    let kept = artifact_of(&host, "deploy_3").await;
    let held = at_the_gate(&host, &gate, "shop").await;
    let queued = begin(&host, Operator::deploy_body("shop", "hello", json!({"routes": ["/*"]}))).await;
    // What a host leaves that is killed while it writes, and what one of an older version has left.
    let code_of_old_engine = format!("{kept}-0123456789abcdef.cwasm");
    for path in ["artifacts/.tmpAbCdEf", &format!("artifacts/{code_of_old_engine}"), "assets/.tmpAbCdEf", "uploads/upload-nobodys"] {
        fs::write(host.data.join(path), "x").unwrap();
    }
    fs::create_dir_all(host.data.join("assets/new-AbCdEf/files")).unwrap();
    assert!(names(&host, "artifacts").contains(&format!("{other}.wasm")) && names(&host, "assets").len() == 4);
    for service in ["other", "page"] {
        host.ok("DELETE", &format!("/v1/services/{service}"), None).await;
    }
    let artifacts = names(&host, "artifacts");
    // Three files of one that is live, and three of the one whose build is held.
    assert_eq!((artifacts.len(), artifacts.iter().filter(|name| name.starts_with(&kept)).count()), (6, 3), "{artifacts:?}");
    assert!(!artifacts.contains(&code_of_old_engine) && !artifacts.iter().any(|name| name.starts_with(&other)), "{artifacts:?}");
    assert_eq!((names(&host, "assets"), names(&host, "uploads").len()), (Vec::new(), 2));
    gate.pass();
    for build in [held, queued] {
        assert_eq!(host.built(&token, &build).await["status"], "succeeded");
    }
    assert_eq!(host.get("shop", "/").await.text(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_or_is_cancelled_leaves_nothing_and_takes_nothing_from_others() {
    let (host, gate) = with_gate().await;
    let token = host.token.clone();
    let failing = |service: &str| {
        let mut body = site(service, "<p>app");
        body["config"] = json!({"kind": "fullstack", "routes": ["/*"], "assets": "web", "health": "/api/nothing-here"});
        body["component_base64"] = json!(STANDARD.encode(component("own_api")));
        body
    };
    assert_eq!(host.built(&token, &begin(&host, failing("shop")).await).await["status"], "failed");
    until_done(&host).await;
    for folder in ["artifacts", "assets", "uploads"] {
        assert_eq!(names(&host, folder), Vec::<String>::new(), "{folder}");
    }
    let held = at_the_gate(&host, &gate, "shop").await;
    let deploy = host.ok("GET", "/v1/deploys?limit=1", None).await["deploys"][0]["id"].as_str().unwrap().to_owned();
    host.ok("POST", &format!("/v1/deploys/{deploy}/cancel"), None).await;
    assert_eq!(host.built(&token, &held).await["status"], "canceled");
    until_done(&host).await;
    assert_eq!(names(&host, "artifacts"), Vec::<String>::new());
    // One that is live has the same files and the same component.
    let mut working = failing("working");
    working["config"]["health"] = json!("/healthz");
    assert_eq!(host.built(&token, &begin(&host, working).await).await["status"], "succeeded");
    assert_eq!(host.built(&token, &begin(&host, failing("shop")).await).await["status"], "failed");
    until_done(&host).await;
    assert_eq!((names(&host, "artifacts").len(), names(&host, "assets").len()), (3, 2));
    let host = host.restart().await;
    assert_eq!(host.get("working", "/").await.text(), "<p>app");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_wait_take_only_so_much_of_the_disk() {
    let (host, gate) = with_gate().await;
    let token = host.token.clone();
    let held = at_the_gate(&host, &gate, "shop").await;
    let uploads = || -> Vec<PathBuf> { fs::read_dir(host.data.join("uploads")).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let before = uploads();
    let waiting = begin(&host, Operator::deploy_body("shop", "hello", json!({"routes": ["/*"]}))).await;
    let upload = uploads().into_iter().find(|path| !before.contains(path)).unwrap();
    let file = File::options().write(true).open(upload.join("component.wasm")).unwrap();
    let bytes = file.metadata().unwrap().len();
    file.set_len(2 << 30).unwrap();
    let more = || Operator::deploy_body("more", "hello", json!({"routes": ["/*"]}));
    let refused = host.ask("POST", "/v1/deploy", Some(more())).await;
    assert_eq!(refused.code(), "too_many_requests");
    assert!(refused.text().contains("2147483648 are allowed"), "{}", refused.text());
    assert_eq!(uploads().len(), 2, "it is refused before it is written");
    // Another account has its own room.
    let alice = host.account("alice").await;
    host.deploy(&alice, "more", "hello", json!({"routes": ["/*"]})).await;
    file.set_len(bytes).unwrap();
    begin(&host, more()).await;
    gate.pass();
    assert_eq!(host.built(&token, &held).await["status"], "succeeded");
    host.built(&token, &waiting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_leads_to_a_static_frontend_with_bindings() {
    let (host, gate) = with_gate().await;
    let token = host.token.clone();
    host.deploy(&token, "auth", "hello", json!({})).await;
    assert_eq!(host.built(&token, &begin(&host, site("shop", "<p>shop")).await).await["status"], "succeeded");
    let held = at_the_gate(&host, &gate, "shop").await;
    gate.pass();
    assert_eq!(host.built(&token, &held).await["status"], "succeeded");
    // The build of a frontend waits for its turn while the service, which has a worker, is bound.
    let held = at_the_gate(&host, &gate, "shop").await;
    let frontend = begin(&host, site("shop", "<p>new")).await;
    host.ok("POST", "/v1/services/shop/service-bindings", Some(json!({"bindingName": "AUTH", "targetService": "auth"}))).await;
    gate.pass();
    assert_eq!(host.built(&token, &held).await["status"], "succeeded");
    let build = host.built(&token, &frontend).await;
    assert!(build["status"] == "failed" && build["message"].as_str().unwrap().starts_with("binding_refused"), "{build}");
    let log = host.log(&token, &format!("/v1/builds/{frontend}/logs")).await;
    assert!(log.iter().any(|line| line.contains("tovuk binding delete --service shop AUTH")), "{log:?}");
    // Nor does a rollback to what was one before.
    let refused = host.ask("POST", "/v1/deploys/deploy_2/rollback", None).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "binding_refused".to_owned()));
    let shown = host.ok("GET", "/v1/services/shop/overview", None).await;
    assert_eq!((&shown["status"]["live_deploy"]["id"], &shown["status"]["service"]["kind"]), (&json!("deploy_4"), &json!("rust_worker")));
    host.ok("DELETE", "/v1/services/shop/service-bindings/AUTH", None).await;
    host.ok("POST", "/v1/deploys/deploy_2/rollback", None).await;
    assert_eq!(host.get("shop", "/").await.text(), "<p>shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_engine_has_compiled_can_be_brought_back() {
    let host = Operator::start(TOVUK).await;
    let token = host.token.clone();
    host.deploy(&token, "shop", "hello", json!({"routes": ["/*"]})).await;
    host.deploy(&token, "shop", "echo", json!({"routes": ["/*"]})).await;
    let first = artifact_of(&host, "deploy_1").await;
    for name in names(&host, "artifacts").iter().filter(|name| name.starts_with(&format!("{first}-"))) {
        let path = host.data.join("artifacts").join(name);
        fs::rename(&path, host.data.join("artifacts").join(format!("{first}-0123456789abcdef.{}", path.extension().unwrap().to_str().unwrap())))
            .unwrap();
    }
    let host = host.restart().await;
    assert_eq!(names(&host, "artifacts").iter().filter(|name| name.starts_with(&first)).count(), 1);
    host.ok("POST", "/v1/deploys/deploy_1/rollback", None).await;
    assert_eq!(host.get("shop", "/").await.text(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn name_servers_that_are_silent_hold_up_neither_the_sweep_nor_each_other() {
    let zone = Zone::start().await;
    let nameservers = Nameservers::Addresses(vec![zone.address]);
    let host = Operator::with(TOVUK, |config| config.nameservers = nameservers).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    for domain in ["one.example.com", "two.example.com"] {
        let added = host.ok("POST", "/v1/services/shop/domains", Some(json!({"domain": domain}))).await;
        zone.set(domain, added["dns_record_value"].as_str().unwrap()).await;
        host.ok("POST", &format!("/v1/services/shop/domains/{domain}/verify"), None).await;
    }
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let nameservers = Nameservers::Addresses(vec![silent.local_addr().unwrap()]);
    let host = host.restart_with(|config| config.nameservers = nameservers).await;
    let unused = host.data.join("assets/unused");
    fs::create_dir(&unused).unwrap();
    let mut asked = Vec::new();
    while asked.len() < 2 {
        // Again if the janitor had not begun to wait.
        host.clock.advance(Duration::from_hours(25));
        let mut question = [0; 512];
        if let Ok(received) = tokio::time::timeout(Duration::from_millis(500), silent.recv(&mut question)).await {
            assert!(!unused.exists(), "the sweep comes first");
            asked.push(String::from_utf8_lossy(&question[..received.unwrap()]).to_ascii_lowercase());
        }
    }
    // Before the first is asked again.
    assert!(["one", "two"].iter().all(|name| asked.iter().any(|question| question.contains(name))), "{asked:?}");
}
