//! What happens to a service while it is being built, and what is finished whoever goes away. Builds are held at a gate: a health request that waits for
//! the test.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tovuk_runtime::outbound::{AddressPolicy, OutboundConfig};
use tovuk_server::boot::HostConfig;
use tovuk_server::domains::Nameservers;
use tovuk_tests::{Gate, Operator, Zone};

use crate::TOVUK;

fn loopback(config: &mut HostConfig) {
    config.outbound = OutboundConfig { addresses: AddressPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()] }, ..OutboundConfig::default() };
}

async fn start() -> (Operator, Gate) {
    (Operator::with(TOVUK, loopback).await, Gate::start().await)
}

/// The table of a service whose health request waits at the gate.
fn gated(gate: &Gate) -> Value {
    json!({"routes": ["/*"], "health": format!("/?url=http://127.0.0.1:{}/", gate.port), "outbound": [format!("http://127.0.0.1:{}", gate.port)],
        "limits": {"wall_ms": 900_000}})
}

/// Asks for a deploy that waits at the gate: its id and its build's.
async fn at_the_gate(host: &Operator, token: &str, gate: &Gate) -> (String, String) {
    let asked = ask(host, token, gated(gate)).await;
    gate.arrived().await;
    asked
}

async fn ask(host: &Operator, token: &str, config: Value) -> (String, String) {
    let guest = if config["health"].is_string() { "outbound" } else { "own_api" };
    let accepted = host.ok_as(token, "POST", "/v1/deploy", Some(Operator::deploy_body("shop", guest, config))).await;
    let id = |kind: &str| accepted[kind]["id"].as_str().unwrap().to_owned();
    (id("deploy"), id("build_job"))
}

async fn status_of(host: &Operator, token: &str, build: &str) -> (String, String) {
    let build = host.built(token, build).await;
    (build["status"].as_str().unwrap().to_owned(), build["message"].as_str().unwrap().to_owned())
}

fn succeeded() -> (String, String) {
    ("succeeded".to_owned(), String::new())
}

async fn is_up(host: &Operator) -> bool {
    host.get("shop", "/").await.code() != "service_not_found"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_does_not_bring_back_what_was_suspended_or_deleted_meanwhile() {
    let (host, gate) = start().await;
    let alice = host.account("alice").await;
    let (_, build) = at_the_gate(&host, &alice, &gate).await;
    host.ok("PUT", "/v1/operator/accounts/alice/suspended", None).await;
    gate.pass();
    // It is promoted all the same, and serves nobody.
    let open = || async { host.ok("GET", "/v1/operator/nodes", None).await["nodes"][0]["builds"].as_u64().unwrap() };
    while open().await > 0 {}
    assert!(!is_up(&host).await);
    host.ok("PUT", "/v1/operator/accounts/alice/suspended", Some(json!({"suspended": false}))).await;
    assert_eq!(status_of(&host, &alice, &build).await, succeeded());
    assert!(is_up(&host).await);

    at_the_gate(&host, &alice, &gate).await;
    host.ok_as(&alice, "DELETE", "/v1/services/shop", None).await;
    assert!(!is_up(&host).await);
    while open().await > 0 {}
    gate.pass();
    assert!(!is_up(&host).await);

    at_the_gate(&host, &alice, &gate).await;
    host.ok("DELETE", "/v1/operator/accounts/alice?confirm=alice", None).await;
    while open().await > 0 {}
    assert!(!is_up(&host).await);
    assert_eq!(host.ok("GET", "/v1/operator/nodes", None).await["nodes"][0]["services"], 0);
    let host = host.restart().await;
    assert!(!is_up(&host).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_promoted_has_the_secrets_plan_and_domains_of_that_moment() {
    let (zone, gate) = (Zone::start().await, Gate::start().await);
    let nameservers = Nameservers::Addresses(vec![zone.address]);
    let host = Operator::with(TOVUK, |config| {
        loopback(config);
        config.nameservers = nameservers;
    })
    .await;
    let made = host.ok("POST", "/v1/operator/accounts", Some(json!({"handle": "alice"}))).await;
    let alice = made["token"].as_str().unwrap();
    host.deploy(alice, "shop", "env", json!({"routes": ["/*"]})).await;
    host.secret(alice, "shop", "KEY", "early").await;
    // The outbound worker cannot show its environment, so the one that is held is a service beside it that shares the account's turn.
    let mut config = gated(&gate);
    config["health"] = json!(format!("/gate?url=http://127.0.0.1:{}/", gate.port));
    let accepted = host.ok_as(alice, "POST", "/v1/deploy", Some(Operator::deploy_body("shop", "own_api", config))).await;
    let build = accepted["build_job"]["id"].as_str().unwrap();
    gate.arrived().await;
    host.secret(alice, "shop", "KEY", "late").await;
    host.ok("PUT", "/v1/operator/accounts/alice/plan", Some(json!({"plan": "pro"}))).await;
    let added = host.ok_as(alice, "POST", "/v1/services/shop/domains", Some(json!({"domain": "shop.example.com"}))).await;
    zone.set("shop.example.com", added["dns_record_value"].as_str().unwrap()).await;
    // None of this waits for the build.
    host.ok_as(alice, "POST", "/v1/services/shop/domains/shop.example.com/verify", None).await;
    host.ok_as(alice, "POST", "/v1/services/shop/restart", None).await;
    assert_eq!(host.get("shop", "/").await.json()["KEY"], "late");
    gate.pass();
    assert_eq!(status_of(&host, alice, build).await, succeeded());
    assert_eq!(host.get("shop", "/env/KEY").await.text(), "late");
    assert_eq!(host.get("shop", "/env/TOVUK_SERVICE_PLAN").await.text(), "pro");
    let address = host.host.public_address();
    let request = http::Request::get("/env/KEY").header("host", format!("shop.example.com:{}", address.port()));
    let by_domain = tovuk_tests::Client::new(address).whole(request.body(http_body_util::Full::default()).unwrap()).await;
    assert_eq!(by_domain.text(), "late");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deploy_that_was_asked_for_last_is_live_in_the_end() {
    let (host, gate) = start().await;
    let token = host.token.clone();
    let plain = json!({"routes": ["/*"]});
    let (first, build) = ask(&host, &token, plain.clone()).await;
    assert_eq!(status_of(&host, &token, &build).await, succeeded());
    // A rollback does not wait for a build, and is not undone by it.
    let (held, held_build) = at_the_gate(&host, &token, &gate).await;
    let back = host.ok("POST", &format!("/v1/deploys/{first}/rollback"), None).await;
    assert_eq!((&back["deploy"]["status"], &back["deploy"]["rollback_of"]), (&json!("live"), &json!(first)));
    gate.pass();
    let (status, message) = status_of(&host, &token, &held_build).await;
    assert_eq!(status, "canceled");
    assert!(message.contains(back["deploy"]["id"].as_str().unwrap()), "{message}");
    assert_eq!(host.ok("GET", &format!("/v1/deploys/{held}"), None).await["deploy"]["status"], "canceled");
    assert_eq!(host.get("shop", "/healthz").await.text(), "ok");
    // Two that wait for one another are built in their order.
    let (_, one) = at_the_gate(&host, &token, &gate).await;
    let (two_deploy, two) = ask(&host, &token, plain).await;
    assert_eq!(host.ok("GET", &format!("/v1/builds/{two}"), None).await["build"]["status"], "queued");
    gate.pass();
    assert_eq!(status_of(&host, &token, &one).await, succeeded());
    assert_eq!(status_of(&host, &token, &two).await, succeeded());
    assert_eq!(host.ok("GET", "/v1/services/shop/overview", None).await["status"]["live_deploy"]["id"], two_deploy);
    assert_eq!(host.get("shop", "/healthz").await.text(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_cancelled_while_it_waits_and_while_it_runs() {
    let (host, gate) = start().await;
    let token = host.token.clone();
    let (running, running_build) = at_the_gate(&host, &token, &gate).await;
    let (queued, queued_build) = ask(&host, &token, gated(&gate)).await;
    for (deploy, build) in [(&queued, &queued_build), (&running, &running_build)] {
        let canceled = host.ok("POST", &format!("/v1/deploys/{deploy}/cancel"), None).await;
        assert_eq!((&canceled["deploy"]["status"], &canceled["build_job"]["status"]), (&json!("canceled"), &json!("canceled")));
        assert_eq!(status_of(&host, &token, build).await.0, "canceled");
        assert_eq!(host.refused(&token, "POST", &format!("/v1/deploys/{deploy}/cancel"), None).await, "deploy_not_cancelable");
        assert_eq!(host.refused(&token, "POST", &format!("/v1/deploys/{deploy}/rollback"), None).await, "rollback_refused");
    }
    let (live, build) = ask(&host, &token, json!({"routes": ["/*"]})).await;
    assert_eq!(status_of(&host, &token, &build).await, succeeded());
    assert_eq!(host.refused(&token, "POST", &format!("/v1/deploys/{live}/cancel"), None).await, "deploy_not_cancelable");
    assert_eq!(std::fs::read_dir(host.data.join("uploads")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_goes_on_after_every_start_anew() {
    let (mut host, gate) = start().await;
    let token = host.token.clone();
    let (_, build) = at_the_gate(&host, &token, &gate).await;
    let (_, waiting) = ask(&host, &token, json!({"routes": ["/*"]})).await;
    // More often than a build that ends the host is tried.
    for _ in 0..4 {
        host = host.restart_with(loopback).await;
        gate.arrived().await;
    }
    gate.pass();
    // Those that were cut off are still at the gate and take the first passes.
    for _ in 0..4 {
        gate.pass();
    }
    assert_eq!(status_of(&host, &token, &build).await, succeeded());
    assert_eq!(status_of(&host, &token, &waiting).await, succeeded());
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_service_leaves_alone_what_another_is_being_built_from() {
    let (host, gate) = start().await;
    let token = host.token.clone();
    host.deploy(&token, "other", "hello", json!({"routes": ["/*"]})).await;
    let (_, held) = at_the_gate(&host, &token, &gate).await;
    let (_, waiting) = ask(&host, &token, json!({"routes": ["/*"]})).await;
    host.ok("DELETE", "/v1/services/other", None).await;
    gate.pass();
    assert_eq!(status_of(&host, &token, &held).await, succeeded());
    assert_eq!(status_of(&host, &token, &waiting).await, succeeded());
    let host = host.restart().await;
    assert_eq!(host.get("shop", "/healthz").await.text(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_is_done_although_the_client_has_gone() {
    let host = Operator::start(TOVUK).await;
    let alice = host.account("alice").await;
    let send = async |method: &str, path: &str, token: &str, body: String| {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = tokio::net::TcpStream::connect(host.host.api_address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    for number in 0..5 {
        let body = Operator::deploy_body(&format!("s{number}"), "hello", json!({"routes": ["/*"]})).to_string();
        let client = send("POST", "/v1/deploy", &alice, body).await;
        // The client goes as soon as the deploy is stored, which is before it is answered.
        let deploys = async || host.ok_as(&alice, "GET", "/v1/deploys", None).await["deploys"].as_array().unwrap().clone();
        let deploy = loop {
            if let Some(deploy) = deploys().await.into_iter().next().filter(|deploy| deploy["service_id"] == format!("service_{}", number + 1)) {
                break deploy;
            }
        };
        drop(client);
        let build = host.built(&alice, deploy["build_job_id"].as_str().unwrap()).await;
        assert_eq!(build["status"], "succeeded", "{build}");
    }
    for number in 0..20 {
        let made = host.ok_as(&alice, "POST", "/v1/tokens", Some(json!({"name": format!("t{number}")}))).await;
        let (text, id) = (made["token"].as_str().unwrap(), made["details"]["id"].as_str().unwrap());
        drop(send("DELETE", &format!("/v1/tokens/{id}"), &alice, String::new()).await);
        // If the host had begun, the row goes; and where the row is gone, the token ends.
        let listed = async || host.ok_as(&alice, "GET", "/v1/tokens", None).await.to_string().contains(&format!("\"{id}\""));
        let works = async || host.api("GET", "/v1/account", Some(text), None).await.status == 200;
        let mut asked = 0;
        while asked < 50 && listed().await {
            asked += 1;
        }
        while asked < 50 && works().await {
            asked += 1;
            assert_ne!(asked, 50, "{id} is revoked and works");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serves_is_what_the_database_says_after_everything_at_once() {
    let host = Operator::start(TOVUK).await;
    let token = host.token.clone();
    host.deploy(&token, "shop", "hello", json!({"routes": ["/*"]})).await;
    host.deploy(&token, "shop", "echo", json!({"routes": ["/*"]})).await;
    let post = async |path: &str| drop(host.ok("POST", path, None).await);
    let back = async |path: &str| {
        for _ in 0..10 {
            post(path).await;
        }
    };
    let others = async {
        for number in 0..10 {
            host.secret(&token, "shop", "KEY", &format!("value {number}")).await;
            post("/v1/services/shop/restart").await;
            host.ok("PUT", "/v1/operator/accounts/operator/plan", Some(json!({"plan": "pro"}))).await;
            host.ok("POST", "/v1/deploy", Some(Operator::deploy_body("shop", "hello", json!({"routes": ["/*"]})))).await;
        }
    };
    let asking = async {
        for _ in 0..200 {
            let reply = host.get("shop", "/").await;
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
    };
    tokio::join!(back("/v1/deploys/deploy_1/rollback"), back("/v1/deploys/deploy_2/rollback"), others, asking);
    // What was asked for last, which waits its turn behind the rest.
    let newest = &host.ok("GET", "/v1/deploys", None).await["deploys"][0].clone();
    host.built(&token, newest["build_job_id"].as_str().unwrap()).await;
    let live = host.ok("GET", "/v1/services/shop/overview", None).await["status"]["live_deploy"].clone();
    assert_eq!(live["id"], newest["id"]);
    let deploys = host.ok("GET", "/v1/deploys?limit=1000", None).await;
    let statuses: Vec<_> = deploys["deploys"].as_array().unwrap().iter().map(|deploy| deploy["status"].as_str().unwrap()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == "live").count(), 1, "{statuses:?}");
    assert!(!statuses.contains(&"failed") && !statuses.contains(&"building"), "{statuses:?}");
    let is_echo = live["rollback_of"] == "deploy_2";
    let text = host.get("shop", "/").await.text().to_owned();
    assert_eq!(text != "hello", is_echo, "{live}: {text}");
    let host = host.restart().await;
    assert_eq!(host.get("shop", "/").await.text() != "hello", is_echo);
}
