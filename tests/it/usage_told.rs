//! Accounts are told that a cap fills up, once in a period: in the log, in their activity, and by a webhook that is signed and called until it answers. And logs
//! keep to their cap.

use std::time::Duration;

use http::HeaderMap;
use ring::hmac;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tovuk_kernel::meters::Meter;
use tovuk_runtime::outbound::{AddressPolicy, OutboundConfig};
use tovuk_tests::Operator;

use crate::TOVUK;
use crate::usage::{cap_more, used, with_shop};

/// A server that answers its first request with 500 and all others with 200, and what it was sent: the signature and the body.
async fn receiver() -> (u16, mpsc::UnboundedReceiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut count = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            let (head, body) = loop {
                if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    break Default::default();
                }
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let headers: HeaderMap = head
                    .lines()
                    .skip(1)
                    .filter_map(|line| line.split_once(": "))
                    .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                    .collect();
                let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
                if body.len() >= length {
                    break (headers["tovuk-signature"].to_str().unwrap().to_owned(), body.to_owned());
                }
            };
            let status = if count == 0 { "500 Internal Server Error" } else { "200 OK" };
            count += 1;
            sender.send((head, body)).unwrap();
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes()).await;
        }
    });
    (port, received)
}

/// Lets time pass until it has come.
async fn next<T>(host: &Operator, received: &mut mpsc::UnboundedReceiver<T>) -> T {
    for _ in 0..600 {
        if let Ok(next) = tokio::time::timeout(Duration::from_millis(50), received.recv()).await {
            return next.expect("the receiver has failed");
        }
        host.clock.advance(Duration::from_secs(1));
    }
    panic!("nothing has come in ten minutes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_told_once_that_a_cap_fills_up() {
    let host = Operator::with(TOVUK, |config| {
        config.outbound = OutboundConfig { addresses: AddressPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()] }, ..OutboundConfig::default() };
    })
    .await;
    let (port, mut received) = receiver().await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.ok("POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": "CACHE"}))).await;
    let url = format!("http://127.0.0.1:{port}/hook");
    let secret = host.ok("PUT", "/v1/usage/webhook", Some(json!({"url": url}))).await["secret"].as_str().unwrap().to_owned();
    assert_eq!(host.ok("GET", "/v1/usage/webhook", None).await["url"], url);
    host.ok("PUT", "/v1/usage/caps/kv_lists", Some(json!({"period": "month", "capValue": 5, "notifyAtPercent": 60}))).await;
    let list = async || host.ok("GET", "/v1/services/shop/kv/CACHE/keys", None).await;
    for _ in 0..3 {
        list().await;
    }
    // The first call fails, and is made again.
    for _ in 0..2 {
        let (signature, body) = next(&host, &mut received).await;
        let (time, mac) = signature.split_once(",v1=").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signed = format!("{}.{body}", time.strip_prefix("t=").unwrap());
        hmac::verify(&key, signed.as_bytes(), &hex::decode(mac).unwrap()).unwrap();
        let told: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&told["event"], &told["metric"], &told["used"], &told["capValue"]),
            (&json!("usage.cap.reached"), &json!("kv_lists"), &json!(3), &json!(5))
        );
    }
    list().await;
    for _ in 0..10 {
        host.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    let log = host.log(&host.token, "/v1/services/shop/logs").await;
    assert_eq!(log.iter().filter(|line| line.contains("usage cap for kv_lists")).count(), 1, "{log:?}");
    let host = host.restart().await;
    list_again(&host).await;
    let activity = host.ok("GET", "/v1/account/activity", None).await;
    assert_eq!(activity.to_string().matches("usage.cap.reached").count(), 1, "{activity}");
    assert!(received.try_recv().is_err(), "once");
    assert_eq!(host.ok("DELETE", "/v1/usage/webhook", None).await["deleted"], true);
    assert_eq!(host.ask("PUT", "/v1/usage/webhook", Some(json!({"url": "ftp://x"}))).await.code(), "invalid_request");
}

async fn list_again(host: &Operator) {
    host.ok("GET", "/v1/services/shop/kv/CACHE/keys", None).await;
    host.clock.advance(Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_over_the_cap_are_dropped_and_counted() {
    let host = with_shop("log").await;
    assert_eq!(host.get("shop", "/many/3").await.status, 200);
    host.host.control().flush_logs().await;
    assert!(used(&host, Some("shop"), Meter::LogEvents).await >= 3);
    cap_more(&host, Meter::LogEvents, 10).await;
    assert_eq!(host.get("shop", "/many/100").await.status, 200, "nobody waits for the log");
    let log = host.log(&host.token, "/v1/services/shop/logs").await;
    assert!(log.iter().any(|line| line.contains("a usage cap for log_events has no room")), "{log:?}");
    let caps = host.ok("GET", "/v1/usage/caps", None).await;
    assert_eq!(caps["caps"][0]["remaining"], 0, "{caps}");
}
