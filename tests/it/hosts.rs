//! Where host names lead: slugs and custom domains, while services change.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::project::Kind;
use tovuk_server::edge::routes::Site;
use tovuk_tests::{Host, Reply};

use crate::host;

async fn get(host: &Host, name: &str) -> Reply {
    let request = Request::builder().uri("/x").header("host", name).body(Full::<Bytes>::default()).unwrap();
    host.client().whole(request).await
}

fn worker(service: &ServiceId) -> Option<Site> {
    Some(Site::new(service.clone(), Kind::RustWorker, &["/*".to_owned()], None))
}

#[tokio::test]
async fn a_service_answers_at_its_custom_domain_for_as_long_as_it_has_it() {
    let host = host().await;
    host.deploy("shop", "echo", |service| service.public()).await;
    let shop = ServiceId::from("service_shop");
    let slug = "shop.localhost".to_owned();
    assert_eq!(get(&host, "shop.example.com").await.code(), "service_not_found");
    host.routes.set(&shop, vec![slug.clone(), "shop.example.com".to_owned()], worker(&shop)).unwrap();
    for name in ["shop.example.com", "SHOP.example.com:443", "shop.example.com.", "shop.localhost"] {
        let reply = get(&host, name).await;
        assert_eq!(reply.status, 200, "{name}");
        assert!(reply.text().contains(name), "the worker sees the name that was asked for: {}", reply.text());
    }
    for name in ["x.shop.example.com", "example.com", "shop.example.com.x"] {
        assert_eq!(get(&host, name).await.code(), "service_not_found", "{name}");
    }
    host.routes.set(&shop, vec![slug], worker(&shop)).unwrap();
    assert_eq!(get(&host, "shop.example.com").await.code(), "service_not_found");
    assert_eq!(get(&host, "shop.localhost").await.status, 200);
    host.routes.remove(&shop);
    assert_eq!(get(&host, "shop.localhost").await.code(), "service_not_found");
}

#[tokio::test]
async fn a_call_to_a_custom_domain_of_this_host_keeps_the_chain() {
    let host = host().await;
    host.deploy("shop", "echo", |service| service.public()).await.deploy("calls", "outbound", |service| service.public()).await;
    let shop = ServiceId::from("service_shop");
    host.routes.set(&shop, vec!["shop.example.com".to_owned()], worker(&shop)).unwrap();
    let at = |port: u16| format!("/?url=http%3A%2F%2Fshop.example.com%3A{port}%2Fx");
    let reply = host.get("calls", &at(host.address.port())).await.json();
    assert_eq!(reply["status"], 200, "{reply}");
    assert_eq!(host.observed.ended("shop", 1).await[0].number, 2);
    // Another port may be anybody's.
    assert_eq!(host.get("calls", &at(1)).await.json()["error"], "denied");
}
