//! Outgoing HTTP of workers, in both worlds: nothing without the allowlist, nothing to addresses that are not public, connections kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tovuk_runtime::outbound::{AddressPolicy, OutboundConfig};
use tovuk_tests::{Host, HostConfig};

use crate::TOVUK;

/// A server that answers every request with `pong` and a redirect, and counts its connections.
async fn server() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, connections) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                    if head.windows(4).any(|end| end == b"\r\n\r\n") {
                        head.clear();
                        let reply = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 4\r\n\r\npong";
                        stream.write_all(reply).await.unwrap();
                    }
                }
            });
        }
    });
    (port, connections)
}

async fn host_that_allows_loopback() -> Host {
    let allow = |runtime: &mut tovuk_runtime::runtime::RuntimeConfig| {
        runtime.outbound = OutboundConfig { addresses: AddressPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()] }, ..OutboundConfig::default() };
    };
    Host::with(HostConfig { runtime: Box::new(allow), ..HostConfig::new(TOVUK) }).await
}

fn encoded(url: &str) -> String {
    url.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn only_what_the_list_names_is_reached_and_redirects_come_back() {
    let host = host_that_allows_loopback().await;
    let (port, connections) = server().await;
    let url = format!("http://127.0.0.1:{port}/x");
    for guest in ["outbound", "outbound_p2"] {
        let (open, closed) = (format!("open-{guest}"), format!("closed-{guest}"));
        host.deploy(&open, guest, |service| service.public().outbound(&format!("http://127.0.0.1:{port}"))).await;
        host.deploy(&closed, guest, |service| service.public().outbound(&format!("https://127.0.0.1:{port}")).outbound("http://example.com")).await;
        let before = connections.load(Ordering::SeqCst);
        let refused = host.get(&closed, &format!("/?url={}", encoded(&url))).await.json();
        assert!(refused["error"].as_str().unwrap().contains("denied"), "{refused}");
        assert_eq!(connections.load(Ordering::SeqCst), before);
        let reply = host.get(&open, &format!("/?url={}", encoded(&url))).await.json();
        assert_eq!((reply["status"].as_u64(), reply["body"].as_str()), (Some(302), Some("pong")), "{reply}");
    }
    // The lean world is told what to add, and where.
    let refused = host.get("closed-outbound", &format!("/?url={}", encoded(&url))).await.json();
    assert!(refused["message"].as_str().unwrap().contains(&format!("http://127.0.0.1:{port}")), "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("outbound"), "{refused}");
}

#[tokio::test]
async fn connections_are_kept() {
    let host = host_that_allows_loopback().await;
    let (port, connections) = server().await;
    host.deploy("calls", "outbound", |service| service.public().outbound(&format!("http://127.0.0.1:{port}"))).await;
    let tally = host.get("calls", &format!("/many/10?url={}", encoded(&format!("http://127.0.0.1:{port}/")))).await.json();
    assert_eq!(tally["302"], 10, "{tally}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn addresses_that_are_not_public_see_no_connection() {
    let host = Host::start(TOVUK).await;
    let (port, connections) = server().await;
    let names = ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254", "10.0.0.1"];
    host.deploy("calls", "outbound", |service| {
        names.iter().fold(service.public(), |service, name| service.outbound(&format!("http://{name}:{port}")))
    })
    .await;
    for name in names {
        let refused = host.get("calls", &format!("/?url={}", encoded(&format!("http://{name}:{port}/")))).await.json();
        assert_eq!(refused["error"], "denied", "{name}: {refused}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}
