//! Custom domains over the API, with a DNS server in the test.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tovuk_server::domains::Nameservers;
use tovuk_tests::{Client, Operator, Zone};

use crate::TOVUK;

const NAME: &str = "api.example.com";

async fn start(zone: &Zone) -> Operator {
    let nameservers = Nameservers::Addresses(vec![zone.address]);
    Operator::with(TOVUK, |config| config.nameservers = nameservers).await
}

async fn get(host: &Operator, name: &str) -> String {
    let address = host.host.public_address();
    let request = Request::get("/").header("host", format!("{name}:{}", address.port())).body(Full::<Bytes>::default()).unwrap();
    let reply = Client::new(address).whole(request).await;
    if reply.status == 200 { reply.text().to_owned() } else { reply.code() }
}

async fn add(host: &Operator, token: &str, service: &str) -> Value {
    host.ok_as(token, "POST", &format!("/v1/services/{service}/domains"), Some(json!({"domain": NAME}))).await
}

fn verify(service: &str) -> String {
    format!("/v1/services/{service}/domains/{NAME}/verify")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_serves_once_its_record_is_there() {
    let zone = Zone::start().await;
    let host = start(&zone).await;
    let token = host.token.clone();
    host.deploy(&token, "shop", "hello", json!({"routes": ["/*"]})).await;
    let added = add(&host, &token, "shop").await;
    for (field, value) in [("domain", NAME), ("status", "pending"), ("dns_record_type", "CNAME"), ("dns_record_name", NAME)] {
        assert_eq!(added[field], value);
    }
    assert_eq!(added["verified"], false);
    assert!(added["dns_setup_url"].is_string() && added["agent_instruction"].as_str().unwrap().contains("tovuk domains verify"), "{added}");
    assert_eq!(add(&host, &token, "shop").await, added, "asking twice changes nothing");
    let refused = host.ask("POST", &verify("shop"), None).await;
    assert_eq!(refused.code(), "domain_not_verified");
    for field in ["domain", "status", "verified", "dns_record_type", "dns_record_name", "dns_record_value", "dns_setup_url", "agent_instruction"] {
        assert_eq!(refused.json()[field], added[field], "{field}");
    }
    assert_eq!(get(&host, NAME).await, "service_not_found");

    zone.set(NAME, added["dns_record_value"].as_str().unwrap()).await;
    let verified = host.ok("POST", &verify("shop"), None).await;
    assert_eq!((&verified["status"], &verified["verified"]), (&json!("verified"), &json!(true)));
    assert_eq!(get(&host, NAME).await, "hello");
    assert_eq!(get(&host, "API.example.com.").await, "hello");
    assert_eq!(host.get("shop", "/").await.text(), "hello", "its own name stays");
    // A deploy keeps it, and so does a start anew.
    host.deploy(&token, "shop", "hello", json!({"routes": ["/*"], "limits": {"cpu_ms": 100}})).await;
    assert_eq!(get(&host, NAME).await, "hello");
    let host = host.restart().await;
    assert_eq!(get(&host, NAME).await, "hello");
    let deleted = host.ok("DELETE", &format!("/v1/services/shop/domains/{NAME}"), None).await;
    assert_eq!((&deleted["domains"], &deleted["serviceBindings"]), (&json!([]), &json!([])));
    assert_eq!(get(&host, NAME).await, "service_not_found");
    assert_eq!(host.refused(&token, "DELETE", &format!("/v1/services/shop/domains/{NAME}"), None).await, "domain_not_found");
    assert_eq!(host.refused(&token, "POST", &verify("shop"), None).await, "domain_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_belongs_to_one_service_and_a_claim_reserves_nothing() {
    let zone = Zone::start().await;
    let host = start(&zone).await;
    let (alice, bob) = (host.account("alice").await, host.account("bob").await);
    host.deploy(&alice, "one", "hello", json!({"routes": ["/*"]})).await;
    host.deploy(&bob, "two", "echo", json!({"routes": ["/*"]})).await;
    let first = add(&host, &alice, "one").await;
    let second = add(&host, &bob, "two").await;
    assert_ne!(first["dns_record_value"], second["dns_record_value"], "a record proves one service's claim");
    zone.set(NAME, second["dns_record_value"].as_str().unwrap()).await;
    assert_eq!(host.refused(&alice, "POST", &verify("one"), None).await, "domain_not_verified");
    host.ok_as(&bob, "POST", &verify("two"), None).await;
    zone.set(NAME, first["dns_record_value"].as_str().unwrap()).await;
    assert_eq!(host.refused(&alice, "POST", &verify("one"), None).await, "domain_taken");
    host.ok_as(&alice, "POST", "/v1/services", Some(json!({"name": "three"}))).await;
    let taken = host.refused(&alice, "POST", "/v1/services/three/domains", Some(json!({"domain": NAME}))).await;
    assert_eq!(taken, "domain_taken");
    // Deleting the service that has it frees it at once.
    host.ok_as(&bob, "DELETE", "/v1/services/two", None).await;
    host.ok_as(&alice, "POST", &verify("one"), None).await;
    assert_eq!(get(&host, NAME).await, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_custom_domains_are_refused() {
    let zone = Zone::start().await;
    let host = start(&zone).await;
    let token = host.token.clone();
    let made = host.ok("POST", "/v1/operator/accounts", Some(json!({"handle": "free"}))).await;
    let free = made["token"].as_str().unwrap();
    host.ok_as(free, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    for (domain, code) in [
        ("", "domain_invalid"),
        ("example", "domain_invalid"),
        ("*.example.com", "domain_invalid"),
        ("https://a.example.com", "domain_invalid"),
        ("a.example.com:443", "domain_invalid"),
        ("127.0.0.1", "domain_invalid"),
        ("a b.example.com", "domain_invalid"),
        ("localhost", "domain_invalid"),
        ("shop.localhost", "domain_reserved"),
        ("a.b.localhost", "domain_reserved"),
        ("x.tovuk.internal", "domain_reserved"),
    ] {
        let code_of = host.refused(&token, "POST", "/v1/services/shop/domains", Some(json!({"domain": domain}))).await;
        assert!(code_of == code || (code_of.starts_with("domain_") && domain == "localhost"), "{domain}: {code_of}");
    }
    for number in 0..5 {
        host.ok_as(free, "POST", "/v1/services/shop/domains", Some(json!({"domain": format!("d{number}.example.com")}))).await;
    }
    let more = json!({"domain": "d5.example.com"});
    assert_eq!(host.refused(free, "POST", "/v1/services/shop/domains", Some(more)).await, "domain_limit");
    host.ok_as(free, "POST", "/v1/services/shop/domains", Some(json!({"domain": "D0.Example.com."}))).await;
    assert_eq!(host.ok_as(free, "GET", "/v1/services/shop/domains", None).await["domains"].as_array().unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_gone_for_two_daily_looks_loses_the_domain() {
    let zone = Zone::start().await;
    let host = start(&zone).await;
    let token = host.token.clone();
    host.deploy(&token, "shop", "hello", json!({"routes": ["/*"]})).await;
    let added = add(&host, &token, "shop").await;
    let record = added["dns_record_value"].as_str().unwrap();
    zone.set(NAME, record).await;
    host.ok("POST", &verify("shop"), None).await;
    let status = async || host.ok("GET", "/v1/services/shop/domains", None).await["domains"][0]["status"].as_str().unwrap().to_owned();
    // The janitor's rounds are hourly; after each the test asks until the look that it waits for was made.
    let until = async |wanted: &str| {
        for _ in 0..60 {
            host.clock.advance(Duration::from_secs(3_600));
            for _ in 0..20 {
                if status().await == wanted {
                    return;
                }
            }
        }
        panic!("it never was {wanted}; it is {}", status().await);
    };
    zone.set(NAME, "elsewhere.example.net").await;
    until("failing").await;
    assert_eq!(get(&host, NAME).await, "hello", "one look is not enough");
    zone.set(NAME, record).await;
    until("verified").await;
    zone.set(NAME, "elsewhere.example.net").await;
    // Asking changes nothing: it neither loses the domain nor puts off the look that does.
    assert_eq!(host.refused(&token, "POST", &verify("shop"), None).await, "domain_not_verified");
    assert_eq!(status().await, "verified");
    until("failing").await;
    assert_eq!(host.refused(&token, "POST", &verify("shop"), None).await, "domain_not_verified");
    until("pending").await;
    // The front door follows right after the commit that the status tells of.
    let mut answer = get(&host, NAME).await;
    for _ in 0..200 {
        if answer == "service_not_found" {
            break;
        }
        answer = get(&host, NAME).await;
    }
    assert_eq!(answer, "service_not_found");
    zone.set(NAME, record).await;
    host.ok("POST", &verify("shop"), None).await;
    assert_eq!(get(&host, NAME).await, "hello", "the claim was kept");
}
