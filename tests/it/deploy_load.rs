//! Clients at full speed while what they ask is deployed, rolled back, restarted, moved and surrounded by others that come and go: no request fails, and
//! whoever asks after a change was acknowledged meets the changed version.

use serde_json::{Value, json};
use tovuk_server::domains::Nameservers;
use tovuk_tests::{Connection, Load, Operator, Target, Versions, Zone, component_body, files_body, full_size, saying};

use crate::TOVUK;

/// Requests that are answered between two changes.
const REQUESTS_BETWEEN: u64 = 40;
/// Components that versions take turns with, so that most promotions have nothing to compile.
const COMPONENTS: usize = 5;
/// Clients of each target.
const CLIENTS: usize = 3;

fn changes() -> usize {
    if full_size() { 50 } else { 10 }
}

fn public() -> Value {
    json!({"routes": ["/*"], "health": "/"})
}

fn target(host: &Operator, slug: &str, path: &str, versions: &Versions) -> Target {
    Target { host: format!("{slug}.localhost:{}", host.host.public_address().port()), path: path.to_owned(), versions: versions.clone() }
}

/// Makes a domain of a service and proves it.
async fn add_domain(host: &Operator, zone: &Zone, service: &str, domain: &str) {
    let made = host.ok("POST", &format!("/v1/services/{service}/domains"), Some(json!({"domain": domain}))).await;
    zone.set(domain, made["dns_record_value"].as_str().unwrap_or_else(|| panic!("{made}"))).await;
    let verified = host.ok("POST", &format!("/v1/services/{service}/domains/{domain}/verify"), None).await;
    assert_eq!(verified["verified"], true, "{verified}");
}

async fn host_with_zone() -> (Operator, Zone) {
    let zone = Zone::start().await;
    let address = zone.address;
    let host = Operator::with(TOVUK, |config| config.nameservers = Nameservers::Addresses(vec![address])).await;
    (host, zone)
}

#[tokio::test(flavor = "multi_thread")]
async fn promotions_and_rollbacks_fail_no_request() {
    let (host, zone) = host_with_zone().await;
    let (name, versions) = ("shop", Versions::default());
    let text = |number: usize| format!("v{:04}", number % COMPONENTS);
    // Compiled for another service first: what is asked here is how versions change, not how fast they compile beside clients that take all cores.
    for number in 0..COMPONENTS {
        host.deployed(component_body("first", &saying(&text(number)), public(), "")).await;
    }
    versions.announce(&text(0));
    let mut live = host.deployed(component_body(name, &saying(&text(0)), public(), "")).await["deploy"]["id"].as_str().unwrap().to_owned();
    versions.settle();
    add_domain(&host, &zone, name, "shop.example.com").await;
    let by_domain = Target { host: "shop.example.com".to_owned(), path: "/".to_owned(), versions: versions.clone() };
    let mut load = Load::start(host.host.public_address(), &[target(&host, name, "/", &versions), by_domain], CLIENTS);

    for number in 1..=changes() {
        load.answered(REQUESTS_BETWEEN).await;
        versions.announce(&text(number));
        let deployed = host.deployed(component_body(name, &saying(&text(number)), public(), "")).await;
        versions.settle();
        let before = std::mem::replace(&mut live, deployed["deploy"]["id"].as_str().unwrap().to_owned());
        load.answered(REQUESTS_BETWEEN).await;
        if number % 2 == 0 {
            versions.announce(&text(number - 1));
            let back = host.ok("POST", &format!("/v1/deploys/{before}/rollback"), None).await;
            assert_eq!(back["deploy"]["status"], "live");
            versions.settle();
            load.answered(REQUESTS_BETWEEN).await;
            live = back["deploy"]["id"].as_str().unwrap().to_owned();
        }
    }
    println!("{} requests and none failed, {} promotions and {} rollbacks", load.stop().await, changes(), changes() / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_that_is_told_of_as_live_serves() {
    let host = Operator::start(TOVUK).await;
    for text in ["early", "later"] {
        host.deployed(component_body("other", &saying(text), public(), "")).await;
    }
    for number in 0..changes() {
        let text = if number % 2 == 0 { "early" } else { "later" };
        let accepted = host.ok("POST", "/v1/deploy", Some(component_body("shop", &saying(text), public(), ""))).await;
        let (deploy, build) = (accepted["deploy"]["id"].as_str().unwrap(), accepted["build_job"]["id"].as_str().unwrap());
        let look = [format!("/v1/builds/{build}"), format!("/v1/deploys/{deploy}"), "/v1/services/shop/overview".to_owned()];
        futures::future::join_all(look.iter().map(|path| first_moment(&host, path, deploy, text))).await;
    }
}

/// Asks again and again, as some clients do, until the deploy is told of as live, and then its service at once.
async fn first_moment(host: &Operator, path: &str, deploy: &str, text: &str) {
    let (mut api, mut public) = (Connection::open(host.host.api_address()).await, Connection::open(host.host.public_address()).await);
    loop {
        let request = http::Request::get(path).header("host", host.host.api_address().to_string());
        let (_, body) = api.send(request.header("authorization", format!("Bearer {}", host.token))).await.unwrap();
        let seen: Value = serde_json::from_slice(&body).unwrap();
        assert_ne!(seen["build"]["status"], "failed", "{seen}");
        if seen["build"]["status"] == "succeeded" || seen["deploy"]["status"] == "live" || seen["status"]["live_deploy"]["id"] == deploy {
            break;
        }
    }
    let (status, body) = public.get(&format!("shop.localhost:{}", host.host.public_address().port()), "/").await.unwrap();
    assert_eq!((status.as_u16(), &body[..]), (200, text.as_bytes()), "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_and_new_secrets_fail_no_request() {
    let host = Operator::start(TOVUK).await;
    let versions = Versions::default();
    // The worker answers all of its environment, so what it may say is made of what it said before.
    host.ok("POST", "/v1/services", Some(json!({"name": "config"}))).await;
    let set = async |number: usize| {
        host.ok("PUT", "/v1/services/config/env", Some(json!({"name": "VERSION", "value": format!("<{number}>")}))).await;
    };
    set(0).await;
    host.deploy(&host.token, "config", "env", public()).await;
    let first = host.get("config", "/").await.text().to_owned();
    let says = |number: usize| first.replace("<0>", &format!("<{number}>"));
    versions.announce(&first);
    versions.settle();
    let mut load = Load::start(host.host.public_address(), &[target(&host, "config", "/", &versions)], CLIENTS);
    for number in 1..=changes() {
        load.answered(REQUESTS_BETWEEN).await;
        set(number).await;
        load.answered(REQUESTS_BETWEEN).await;
        versions.announce(&says(number));
        host.ok("POST", "/v1/services/config/restart", None).await;
        versions.settle();
    }
    load.answered(REQUESTS_BETWEEN).await;
    println!("{} requests and none failed, {} restarts", load.stop().await, changes());
}

#[tokio::test(flavor = "multi_thread")]
async fn static_files_change_under_load() {
    let host = Operator::start(TOVUK).await;
    let (page, style) = (Versions::default(), Versions::default());
    let body = |number: usize| {
        let files = [("index.html", format!("page {number}")), ("style.css", format!("style {}", number / 2))];
        files_body("site", &files.each_ref().map(|(path, text)| (*path, text.as_str())), json!({"assets": "dist"}))
    };
    let announce = |number: usize| {
        page.announce(&format!("page {number}"));
        style.announce(&format!("style {}", number / 2));
    };
    announce(0);
    host.deployed(body(0)).await;
    let mut load =
        Load::start(host.host.public_address(), &[target(&host, "site", "/", &page), target(&host, "site", "/style.css", &style)], CLIENTS);
    for number in 1..=changes() {
        load.answered(REQUESTS_BETWEEN).await;
        announce(number);
        host.deployed(body(number)).await;
        page.settle();
        style.settle();
    }
    load.answered(REQUESTS_BETWEEN).await;
    println!("{} requests and none failed, {} deploys of static files", load.stop().await, changes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_fails_no_request() {
    let (host, zone) = host_with_zone().await;
    let (shop, files) = (Versions::default(), Versions::default());
    shop.announce("hello");
    files.announce("files");
    host.deployed(component_body("shop", &saying("hello"), public(), "")).await;
    host.deployed(files_body("site", &[("index.html", "files")], json!({"assets": "dist"}))).await;
    let targets = [target(&host, "shop", "/", &shop), target(&host, "site", "/", &files)];
    let mut load = Load::start(host.host.public_address(), &targets, CLIENTS);
    // Each round compiles, with what the clients leave of the cores.
    for number in 0..changes() / 2 {
        load.answered(REQUESTS_BETWEEN).await;
        // The same component and the same files as the neighbours, so that what is swept after a deletion lies beside what serves.
        let deployed = host.deployed(component_body("guest", &saying("hello"), public(), "")).await;
        let domain = format!("guest{number}.example.com");
        add_domain(&host, &zone, "guest", &domain).await;
        host.deployed(files_body("pages", &[("index.html", "files")], json!({"assets": "dist"}))).await;
        let (status, body) = Connection::open(host.host.public_address()).await.get(&domain, "/").await.unwrap();
        assert_eq!((status.as_u16(), &body[..]), (200, &b"hello"[..]));
        // One is deleted while another is deployed, which must not take from it what it has just uploaded.
        let deletions = async {
            host.ok("DELETE", "/v1/services/guest", None).await;
            host.ok("DELETE", "/v1/services/pages", None).await;
        };
        let late = saying(&format!("l{number:04}"));
        tokio::join!(deletions, host.deployed(component_body("late", &late, public(), "")));
        assert_eq!(host.get("late", "/").await.text(), format!("l{number:04}"));
        assert_eq!(host.get("guest", "/").await.status, 404);
        let gone = host.ask("GET", &format!("/v1/deploys/{}", deployed["deploy"]["id"].as_str().unwrap()), None).await;
        assert_eq!(gone.status, 404);
        host.ok("DELETE", "/v1/services/late", None).await;
    }
    let answered = load.stop().await;
    let host = host.restart().await;
    assert_eq!(host.get("shop", "/").await.text(), "hello");
    assert_eq!(host.get("site", "/").await.text(), "files");
    println!("{answered} requests and none failed");
}
