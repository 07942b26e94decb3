//! Objects in workers: through the SDK in a lean worker, and streamed by one that streams; under the same limits as at the other doors, and without a trace of
//! what was not finished.

use bytes::Bytes;
use futures::stream;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_resources::objects::Place;
use tovuk_resources::stores::Stores;
use tovuk_tests::{Client, Host, HostConfig, Operator, Reply, full_size};

use crate::TOVUK;
use crate::api_storage::shop;

const STORAGE: &str = "/v1/services/shop/storage";

async fn worker(guest: &str, config: Value) -> Operator {
    let host = shop(|_| {}).await;
    let token = host.token.clone();
    host.deploy(&token, "shop", guest, config).await;
    host
}

async fn ask(host: &Operator, method: &str, path: &str, body: &str) -> Reply {
    let url = format!("http://shop.localhost:{}{path}", host.host.public_address().port());
    host.at(method, &url, &[], body.to_owned()).await
}

async fn ok(host: &Operator, path: &str) -> Value {
    let reply = ask(host, "POST", path, "").await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

async fn code(host: &Operator, path: &str, body: &str) -> String {
    let reply = ask(host, "POST", path, body).await;
    assert_eq!(reply.status, 422, "{path}: {}", reply.text());
    reply.code()
}

fn routes() -> Value {
    json!({"routes": ["/*"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stores_reads_and_deletes_as_the_api_does() {
    let host = worker("objects", routes()).await;
    let stored = ask(&host, "POST", "/put?path=a/b.txt&type=text/plain&public", "0123456789").await.json();
    assert_eq!((&stored["size"], &stored["type"]), (&json!(10), &json!("text/plain")));
    let public = host.at("GET", stored["public_url"].as_str().unwrap(), &[], "").await;
    assert_eq!((public.text(), &public.headers["etag"]), ("0123456789", &stored["etag"].as_str().unwrap().parse().unwrap()));
    assert_eq!(ok(&host, "/head?path=a/b.txt").await, stored);
    assert_eq!(ok(&host, "/head?path=none").await, Value::Null);
    let etag = form_encoded(stored["etag"].as_str().unwrap());
    for (query, expected) in [
        ("", json!({"text": "0123456789", "start": 0, "length": 10})),
        ("&from=2&to=4", json!({"text": "234", "start": 2, "length": 3})),
        ("&from=8", json!({"text": "89", "start": 8, "length": 2})),
        ("&last=4", json!({"text": "6789", "start": 6, "length": 4})),
        (&format!("&if_none_match={etag}"), json!({"not_modified": stored["etag"]})),
        (&format!("&if_match={etag}&last=1"), json!({"text": "9", "start": 9, "length": 1})),
    ] {
        assert_eq!(ok(&host, &format!("/get?path=a/b.txt{query}")).await, expected, "{query}");
    }
    assert_eq!(ok(&host, "/get?path=none").await, "missing");
    assert_eq!(code(&host, "/get?path=a/b.txt&from=10", "").await, "object_range_invalid");
    assert_eq!(code(&host, "/get?path=a/b.txt&if_match=x", "").await, "object_precondition_failed");

    let listed = host.ok("GET", STORAGE, None).await;
    assert_eq!(listed["objects"][0]["path"], "a/b.txt", "the API sees what the worker has stored");
    crate::api_storage::upload(&host, "from-the-api", "hello", json!({})).await;
    assert_eq!(ok(&host, "/get?path=from-the-api").await["text"], "hello");
    assert_eq!(ok(&host, "/list").await, json!(["a/b.txt", "from-the-api"]));
    assert_eq!(ok(&host, "/list?path=a/").await, json!(["a/b.txt"]));
    assert_eq!((ok(&host, "/delete?path=a/b.txt").await, ok(&host, "/delete?path=a/b.txt").await), (json!(true), json!(false)));

    let url = ok(&host, "/upload-url?path=sent&bytes=5").await;
    assert_eq!(code(&host, "/complete?path=sent", "").await, "upload_incomplete");
    assert!(host.at("PUT", url.as_str().unwrap(), &[], "hello").await.status.is_success());
    assert_eq!(ok(&host, "/complete?path=sent").await["size"], 5);
    let url = ok(&host, "/download-url?path=sent").await;
    assert_eq!(host.at("GET", url.as_str().unwrap(), &[], "").await.text(), "hello");
}

fn form_encoded(text: &str) -> String {
    text.replace('"', "%22")
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_those_of_the_other_doors() {
    let host = worker("objects", routes()).await;
    for path in ["", "..", "a/../b", "/a", "a%2500", "a%00b", "%252e%252e/a", &"a".repeat(1_025)] {
        for operation in ["put", "write", "upload-url", "delete"] {
            assert_eq!(code(&host, &format!("/{operation}?path={path}"), "x").await, "object_path_invalid", "{operation} {path}");
        }
    }
    assert_eq!(code(&host, "/write?path=a&mib=1&size=5", "").await, "upload_mismatch");
    assert_eq!(code(&host, "/write?path=a&mib=1&size=2000000", "").await, "upload_mismatch");
    assert_eq!(code(&host, "/write?path=a&size=5363466241", "").await, "object_too_large");
    assert_eq!(code(&host, "/upload-url?path=a&bytes=5363466241", "").await, "object_too_large");
    assert_eq!(code(&host, "/put?path=a&type=image/png&public", "<html>").await, "object_media_refused");
    assert_eq!(code(&host, "/download-url?path=none", "").await, "object_not_found");
    ask(&host, "POST", "/put?path=a", "x").await;
    assert_eq!(ok(&host, "/readers?path=a").await, json!({"open": 16, "again": true}));
    assert_eq!(ok(&host, "/writers").await, json!({"open": 4, "again": true}));
    assert_eq!(ok(&host, "/list").await, json!(["a"]));
}

/// Waits until nothing is left of uploads that were not finished.
async fn nothing_is_open(host: &Operator) {
    while host.ok("GET", STORAGE, None).await["objects"].as_array().unwrap().iter().any(|object| object["status"] == "pending") {
        tokio::task::yield_now().await;
    }
    let blobs = || walk(&host.data.join("objects"));
    while blobs() > 1 {
        tokio::task::yield_now().await;
    }
}

fn walk(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { 1 }).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_finished_leaves_nothing() {
    let host = worker("objects", routes()).await;
    assert_eq!(ok(&host, "/write?path=kept&mib=3").await["size"], 3 << 20);
    assert_eq!(ok(&host, "/abandon?path=left&mib=3").await, "abandoned");
    assert_eq!(ask(&host, "POST", "/trap?path=left&mib=3", "").await.code(), "worker_trapped");
    nothing_is_open(&host).await;
    // The client goes away while the worker waits.
    let client = Client::new(host.host.public_address());
    let request = Request::post("/hang?path=left&mib=3").header("host", "shop.localhost").body(Full::<Bytes>::default()).unwrap();
    let hanging = tokio::spawn(async move { client.send(request).await });
    while ok(&host, "/head?path=hanging").await.is_null() {
        tokio::task::yield_now().await;
    }
    hanging.abort();
    ok(&host, "/delete?path=hanging").await;
    nothing_is_open(&host).await;
    assert_eq!(ok(&host, "/list").await, json!(["kept"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_still_runs_stores_nothing_once_its_service_is_deleted() {
    let host = worker("objects", routes()).await;
    ask(&host, "POST", "/put?path=a", "the bytes of a").await;
    let client = Client::new(host.host.public_address());
    let request = Request::post("/hang?path=left&mib=3").header("host", "shop.localhost").body(Full::<Bytes>::default()).unwrap();
    let hanging = tokio::spawn(async move { client.send(request).await });
    while ok(&host, "/head?path=hanging").await.is_null() {
        tokio::task::yield_now().await;
    }
    host.ok("DELETE", "/v1/services/shop", None).await;
    let blobs = || walk(&host.data.join("objects"));
    while blobs() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(!hanging.is_finished(), "it runs on");
    hanging.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_service_has_objects_of_its_own() {
    let host = worker("objects", routes()).await;
    ask(&host, "POST", "/put?path=a", "of the shop").await;
    host.ok("POST", "/v1/services", Some(json!({"name": "other"}))).await;
    let token = host.token.clone();
    host.deploy(&token, "other", "objects", routes()).await;
    let url = format!("http://other.localhost:{}", host.host.public_address().port());
    assert_eq!(host.at("POST", &format!("{url}/get?path=a"), &[], "").await.json(), "missing");
    assert_eq!(host.at("POST", &format!("{url}/list"), &[], "").await.json(), json!([]));
    assert_eq!(host.at("POST", &format!("{url}/delete?path=a"), &[], "").await.json(), false);
    assert_eq!(ok(&host, "/get?path=a").await["text"], "of the shop");
}

/// With `TOVUK_SOAK` 1 GiB, else 96 MiB, through a worker whose memory is 16 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_streams_an_object_that_is_larger_than_its_memory() {
    let mib: u64 = if full_size() { 1 << 10 } else { 96 };
    let limits = json!({"memory_mb": 16, "stream_body_mb": 2_048, "cpu_ms": 300_000});
    let host = worker("objects_p2", json!({"routes": ["/*"], "limits": limits})).await;
    let client = Client::new(host.host.public_address());
    let piece = |number: u64| Bytes::from(vec![u8::try_from(number % 251).unwrap(); 1 << 20]);
    let body = StreamBody::new(stream::iter((0..mib).map(move |number| Ok::<_, std::convert::Infallible>(Frame::data(piece(number))))));
    let request = Request::put("/large.bin").header("host", "shop.localhost").body(body).unwrap();
    let answer = client.send(request).await.unwrap();
    let answered = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(String::from_utf8_lossy(&answered), format!("{{\"bytes\":{}}}", mib << 20));

    let request = Request::get("/large.bin").header("host", "shop.localhost").body(Full::<Bytes>::default()).unwrap();
    let mut answer = client.send(request).await.unwrap().into_body();
    let mut at = 0_u64;
    while let Some(frame) = answer.frame().await {
        let frame = frame.unwrap();
        let bytes = frame.data_ref().unwrap();
        assert!(bytes.iter().zip(at..).all(|(byte, at)| u64::from(*byte) == (at >> 20) % 251));
        at += bytes.len() as u64;
    }
    assert_eq!(at, mib << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_stores_counts_as_memory_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let stores = Stores::open(folder.path(), &Place::Folder(folder.path().join("objects")), &Clock::system()).await.unwrap();
    // A guest starts where there is little, and has all of it then.
    let runtime = Box::new(|config: &mut tovuk_runtime::runtime::RuntimeConfig| config.guest_memory_bytes = Some(1 << 20));
    let host = Host::with(HostConfig { stores: Some(stores.clone()), runtime, ..HostConfig::new(TOVUK) }).await;
    host.deploy("shop", "objects", |service| service.public()).await;
    for path in ["/put?path=a", "/write?path=a&mib=1"] {
        let refused = host.post("shop", path, "x").await;
        assert_eq!((refused.json()["code"].as_str(), &refused.json()["retryable"]), (Some("host_busy"), &json!(true)), "{path}");
    }
    assert_eq!(host.post("shop", "/head?path=a", "").await.json(), Value::Null);
    host.memory_is_free().await;
    stores.close().await;
}
