//! Objects over the API and at their URLs: what is uploaded is there, whole and as it was announced, for whom it is meant, until it is deleted.

use std::time::Duration;

use serde_json::{Value, json};
use tovuk_server::boot::HostConfig;
use tovuk_tests::{Operator, Reply, exchange, statuses};

use crate::TOVUK;

const STORAGE: &str = "/v1/services/shop/storage";

pub async fn shop(change: impl FnOnce(&mut HostConfig)) -> Operator {
    let host = Operator::with(TOVUK, change).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host
}

async fn begin(host: &Operator, path: &str, bytes: usize, more: Value) -> String {
    let mut body = json!({"path": path, "contentType": "text/plain", "sizeBytes": bytes, "publicRead": false});
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let begun = host.ok("POST", &format!("{STORAGE}/upload-url"), Some(body)).await;
    assert_eq!(begun["path"], path);
    begun["url"].as_str().unwrap().to_owned()
}

/// Uploads as the command line does.
pub async fn upload(host: &Operator, path: &str, bytes: &str, more: Value) -> Value {
    let url = begin(host, path, bytes.len(), more).await;
    let sent = host.at("PUT", &url, &[("content-type", "text/plain")], bytes.to_owned()).await;
    assert!(sent.status.is_success() && sent.headers.contains_key("etag"), "{} {}", sent.status, sent.text());
    host.ok("POST", &format!("{STORAGE}/complete"), Some(json!({"path": path}))).await
}

async fn download_url(host: &Operator, path: &str) -> String {
    let answer = host.ok("POST", &format!("{STORAGE}/download-url"), Some(json!({"path": path}))).await;
    answer["url"].as_str().unwrap().to_owned()
}

async fn read(host: &Operator, path: &str) -> Reply {
    host.at("GET", &download_url(host, path).await, &[], "").await
}

async fn refused(host: &Operator, method: &str, path: &str, body: Option<Value>) -> String {
    host.refused(&host.token, method, path, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_uploaded_is_listed_read_and_deleted_also_after_a_start() {
    let host = shop(|_| {}).await;
    let done = upload(&host, "uploads/logo é.txt", "hello", json!({})).await;
    assert_eq!((&done["sizeBytes"], &done["path"], &done["status"]), (&json!(5), &json!("uploads/logo é.txt"), &json!("ready")));
    assert!(done.get("publicUrl").is_none(), "{done}");
    begin(&host, "pending", 7, json!({})).await;
    let host = host.restart().await;
    let list = host.ok("GET", STORAGE, None).await;
    assert_eq!((&list["objects"][0]["status"], &list["objects"][0]["sizeBytes"], &list["has_more"]), (&json!("pending"), &json!(7), &json!(false)));
    assert_eq!(list["objects"][1]["path"], "uploads/logo é.txt");
    let first = host.ok("GET", &format!("{STORAGE}?limit=1"), None).await;
    assert_eq!(first["has_more"], true);
    let next = host.ok("GET", &format!("{STORAGE}?cursor={}", first["next_cursor"].as_str().unwrap()), None).await;
    assert_eq!((next["objects"].as_array().unwrap().len(), &next["objects"][0]["path"]), (1, &json!("uploads/logo é.txt")));
    assert_eq!(host.ok("GET", &format!("{STORAGE}?prefix=up"), None).await["objects"].as_array().unwrap().len(), 1);

    let answer = read(&host, "uploads/logo é.txt").await;
    assert_eq!((answer.status.as_u16(), answer.text(), &answer.headers["content-type"]), (200, "hello", &"text/plain".parse().unwrap()));
    let usage = host.ok("GET", "/v1/usage", None).await;
    assert_eq!((&usage["usage"]["storageObjectCount"], &usage["usage"]["objectStorageMib"]), (&json!(1), &json!(1)));
    assert_eq!(host.ok("GET", "/v1/services", None).await["services"][0]["resources"]["storageObjects"], 1);

    let deleted = host.ok("DELETE", &format!("{STORAGE}?path=uploads%2Flogo%20%C3%A9.txt"), None).await;
    assert_eq!((&deleted["deleted"], &deleted["deletedBytes"]), (&json!(true), &json!(5)));
    assert_eq!(host.ok("DELETE", &format!("{STORAGE}?path=uploads%2Flogo%20%C3%A9.txt"), None).await["deleted"], false);
    assert_eq!(host.ok("DELETE", &format!("{STORAGE}?path=pending"), None).await["abortedUploads"], 1);
    assert_eq!(refused(&host, "POST", &format!("{STORAGE}/download-url"), Some(json!({"path": "uploads/logo é.txt"}))).await, "object_not_found");
    assert_eq!(host.ok("GET", STORAGE, None).await["objects"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_which_upload_completes_that_one() {
    let host = shop(|_| {}).await;
    let mut ids = Vec::new();
    for bytes in ["first", "last"] {
        let new = json!({"path": "x", "contentType": "text/plain", "sizeBytes": bytes.len(), "publicRead": false});
        let begun = host.ok("POST", &format!("{STORAGE}/upload-url"), Some(new)).await;
        assert!(host.at("PUT", begun["url"].as_str().unwrap(), &[], bytes).await.status.is_success());
        ids.push(begun["uploadId"].clone());
    }
    let complete = format!("{STORAGE}/complete");
    for (id, bytes) in ids.iter().zip(["first", "last"]) {
        assert_eq!(host.ok("POST", &complete, Some(json!({"path": "x", "uploadId": id}))).await["sizeBytes"], bytes.len());
        assert_eq!(read(&host, "x").await.text(), bytes);
    }
    for id in ["upload_99", "x"] {
        assert_eq!(refused(&host, "POST", &complete, Some(json!({"path": "x", "uploadId": id}))).await, "upload_not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_parts_is_sent_in_any_order_and_as_often_as_need_be() {
    let host = shop(|_| {}).await;
    let size = (5 << 20) + 3;
    let body = json!({"path": "large.bin", "contentType": "", "sizeBytes": size, "partSizeBytes": 5 << 20, "publicRead": true});
    let begun = host.ok("POST", &format!("{STORAGE}/multipart/create"), Some(body.clone())).await;
    let parts = begun["parts"].as_array().unwrap();
    assert_eq!((parts.len(), &parts[1]["partNumber"], &parts[1]["offsetBytes"], &parts[1]["sizeBytes"]), (2, &json!(2), &json!(5 << 20), &json!(3)));
    let put = async |part: usize, bytes: &str| host.at("PUT", parts[part]["url"].as_str().unwrap(), &[], bytes.to_owned()).await;
    let whole = "x".repeat(5 << 20);
    put(1, "old").await;
    let second = put(1, "end").await;
    let complete = |tags: [&Reply; 2]| {
        let etag = |reply: &Reply| reply.headers["etag"].to_str().unwrap().to_owned();
        let parts = json!([{"partNumber": 1, "etag": etag(tags[0])}, {"partNumber": 2, "etag": etag(tags[1])}]);
        json!({"path": "large.bin", "uploadId": begun["uploadId"], "parts": parts})
    };
    let finish = format!("{STORAGE}/multipart/complete");
    assert_eq!(refused(&host, "POST", &finish, Some(complete([&second, &second]))).await, "upload_incomplete");
    let first = put(0, &whole).await;
    assert_eq!(refused(&host, "POST", &finish, Some(complete([&second, &first]))).await, "upload_mismatch");
    assert_eq!(put(0, "short").await.code(), "upload_mismatch");
    let done = host.ok("POST", &finish, Some(complete([&first, &second]))).await;
    assert_eq!(done, host.ok("POST", &finish, Some(complete([&first, &second]))).await, "asked again, it answers the same");
    let public = host.at("GET", done["publicUrl"].as_str().unwrap(), &[("range", "bytes=5242878-")], "").await;
    assert_eq!((public.status.as_u16(), public.text()), (206, "xxend"));

    let begun = host.ok("POST", &format!("{STORAGE}/multipart/create"), Some(body)).await;
    let abort = json!({"path": "large.bin", "uploadId": begun["uploadId"]});
    assert_eq!(host.ok("POST", &format!("{STORAGE}/multipart/abort"), Some(abort.clone())).await["aborted"], true);
    assert_eq!(host.ok("POST", &format!("{STORAGE}/multipart/abort"), Some(abort)).await["aborted"], false);
    assert_eq!(host.at("PUT", begun["parts"][1]["url"].as_str().unwrap(), &[], "end").await.code(), "upload_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_is_good_for_one_thing_and_for_a_time() {
    let host = shop(|_| {}).await;
    let url = begin(&host, "a.txt", 5, json!({})).await;
    for (method, url, body, code) in [
        ("PUT", url.replace("signature=", "signature=0"), "hello", "signed_url_invalid"),
        ("PUT", url.replace("size=5", "size=6"), "hello!", "signed_url_invalid"),
        ("PUT", url.replace("/a.txt", "/b.txt"), "hello", "signed_url_invalid"),
        ("PUT", url.replace("service_1", "service_2"), "hello", "signed_url_invalid"),
        ("PUT", url.split('?').next().unwrap().to_owned(), "hello", "signed_url_invalid"),
        ("GET", url.clone(), "", "signed_url_invalid"),
        ("DELETE", url.clone(), "", "method_not_allowed"),
        ("PUT", url.clone(), "hell", "upload_mismatch"),
        ("PUT", url.clone(), "hello!", "upload_mismatch"),
    ] {
        let reply = host.at(method, &url, &[], body).await;
        assert_eq!(reply.code(), code, "{method} {url}");
        assert!(reply.json()["message"].is_string() && reply.json()["request_id"].is_string());
        assert_eq!(reply.status == 403, code == "signed_url_invalid");
    }
    let chunked = |body: &str| {
        let target = url.split_once("localhost").unwrap().1.split_once('/').unwrap().1.to_owned();
        format!(
            "PUT /{target} HTTP/1.1\r\nhost: storage.localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    for (body, status) in [("hell", 400), ("hello!", 400)] {
        let answer = exchange(host.host.public_address(), chunked(body).as_bytes()).await;
        assert_eq!(statuses(&answer), [status], "{body}");
    }
    assert_eq!(
        refused(&host, "POST", &format!("{STORAGE}/complete"), Some(json!({"path": "a.txt"}))).await,
        "upload_incomplete",
        "nothing was stored"
    );
    assert_eq!(statuses(&exchange(host.host.public_address(), chunked("hello").as_bytes()).await), [200]);
    host.ok("POST", &format!("{STORAGE}/complete"), Some(json!({"path": "a.txt"}))).await;
    assert_eq!(host.at("PUT", &url, &[], "other").await.code(), "upload_not_found", "a URL uploads once");

    let url = download_url(&host, "a.txt").await;
    assert_eq!(host.at("GET", &url, &[], "").await.text(), "hello");
    assert_eq!(host.at("HEAD", &url, &[], "").await.headers["content-length"], "5");
    assert_eq!(host.at("PUT", &url, &[], "other").await.code(), "signed_url_invalid");
    assert_eq!(host.at("GET", url.split('?').next().unwrap(), &[], "").await.code(), "object_not_found", "it is not public");
    host.clock.advance(Duration::from_secs(901));
    let late = host.at("GET", &url, &[], "").await;
    assert_eq!((late.status.as_u16(), late.code()), (403, "signed_url_expired".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told_before_anything_is_sent() {
    let host = shop(|_| {}).await;
    let at = |path: &str, size: u64| json!({"path": path, "contentType": "text/plain", "sizeBytes": size});
    let long = "a".repeat(1_025);
    for path in
        ["", "/etc/passwd", "../a", "a/../b", "a/%2e%2e/b", "%2E%2E/a", "a//b", "a/", "a\u{0}b", "a%00b", "a\\..\\b", "..;/a", "a/./b", long.as_str()]
    {
        for route in ["upload-url", "multipart/create"] {
            assert_eq!(refused(&host, "POST", &format!("{STORAGE}/{route}"), Some(at(path, 1))).await, "object_path_invalid", "{path}");
        }
    }
    for (route, size, code) in
        [("upload-url", (5_115 << 20) + 1, "object_too_large"), ("multipart/create", (5_237_760 << 20) + 1, "object_too_large")]
    {
        assert_eq!(refused(&host, "POST", &format!("{STORAGE}/{route}"), Some(at("a", size))).await, code);
    }
    // What is announced counts until it is aborted.
    let reserved = host.ok("POST", &format!("{STORAGE}/multipart/create"), Some(at("a", 5_237_760 << 20))).await;
    assert_eq!(refused(&host, "POST", &format!("{STORAGE}/multipart/create"), Some(at("b", 5_237_760 << 20))).await, "object_storage_limit");
    host.ok("POST", &format!("{STORAGE}/multipart/abort"), Some(json!({"path": "a", "uploadId": reserved["uploadId"]}))).await;
    for body in [json!({"path": "a"}), json!({"path": "a", "sizeBytes": 1, "contentType": "a\nb: c"}), json!({"path": "a", "sizeBytes": -1})] {
        assert_eq!(refused(&host, "POST", &format!("{STORAGE}/upload-url"), Some(body)).await, "invalid_request");
    }
    for query in ["limit=0", "limit=1001", "limit=x"] {
        assert_eq!(refused(&host, "GET", &format!("{STORAGE}?{query}"), None).await, "invalid_request", "{query}");
    }
    assert_eq!(refused(&host, "GET", &format!("{STORAGE}?cursor=zz"), None).await, "invalid_cursor");
    let url = begin(&host, "a.png", 4, json!({"publicRead": true, "contentType": "image/png"})).await;
    assert_eq!(host.at("PUT", &url, &[], "\u{7f}ELF").await.code(), "object_media_refused");
    let free = host.account("free").await;
    host.ok("PUT", "/v1/operator/accounts/free/plan", Some(json!({"plan": "free"}))).await;
    host.ok_as(&free, "POST", "/v1/services", Some(json!({"name": "small"}))).await;
    let body = at("a", 10_000_000_001);
    assert_eq!(host.refused(&free, "POST", "/v1/services/small/storage/multipart/create", Some(body)).await, "object_storage_limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_go_with_what_they_belong_to() {
    let host = shop(|_| {}).await;
    let done = upload(&host, "a.txt", "a secret of the shop", json!({"publicRead": true})).await;
    let (public, signed) = (done["publicUrl"].as_str().unwrap(), download_url(&host, "a.txt").await);
    assert_eq!(host.at("GET", public, &[], "").await.text(), "a secret of the shop");
    assert!(!host.files_with(b"a secret of the shop").is_empty());
    let unsent = begin(&host, "b.txt", 1, json!({})).await;
    host.ok("DELETE", "/v1/services/shop", None).await;
    for url in [public, signed.as_str()] {
        assert_eq!(host.at("GET", url, &[], "").await.code(), "object_not_found");
    }
    assert_eq!(host.at("PUT", &unsent, &[], "x").await.code(), "object_not_found");
    gone(&host, b"a secret of the shop").await;

    let bob = host.account("bob").await;
    let made = host.ok_as(&bob, "POST", "/v1/services", Some(json!({"name": "bobs"}))).await;
    let service = made["service"]["serviceId"].as_str().or(made["service"]["id"].as_str()).unwrap_or("bobs").to_owned();
    let begun =
        host.ok_as(&bob, "POST", "/v1/services/bobs/storage/upload-url", Some(json!({"path": "b.txt", "sizeBytes": 12, "publicRead": true}))).await;
    host.at("PUT", begun["url"].as_str().unwrap(), &[], "bobs secrets").await;
    let done = host.ok_as(&bob, "POST", "/v1/services/bobs/storage/complete", Some(json!({"path": "b.txt"}))).await;
    let public = done["publicUrl"].as_str().unwrap();
    // Another account learns nothing of it.
    for route in ["", "?path=b.txt"] {
        let method = if route.is_empty() { "GET" } else { "DELETE" };
        assert_eq!(refused(&host, method, &format!("/v1/services/{service}/storage{route}"), None).await, "service_not_found");
    }
    host.ok("PUT", "/v1/operator/accounts/bob/suspended", None).await;
    assert_eq!(host.at("GET", public, &[], "").await.code(), "object_not_found", "an account that is suspended serves nothing");
    host.ok("DELETE", "/v1/operator/accounts/bob?confirm=bob", None).await;
    gone(&host, b"bobs secrets").await;
}

/// Waits until no file has these bytes: they go soon after the answer.
async fn gone(host: &Operator, bytes: &[u8]) {
    while !host.files_with(bytes).is_empty() {
        tokio::task::yield_now().await;
    }
}
