//! What the host of objects answers: ranges, conditions, and headers under which nothing that a tenant has stored can do harm; and no way out of it.

use serde_json::json;
use tovuk_tests::{Operator, Reply, exchange, statuses};

use crate::api_storage::{shop, upload};

async fn public(host: &Operator, path: &str, bytes: &str, content_type: &str) -> String {
    let done = upload(host, path, bytes, json!({"publicRead": true, "contentType": content_type})).await;
    done["publicUrl"].as_str().unwrap().to_owned()
}

fn header<'a>(reply: &'a Reply, name: &str) -> &'a str {
    reply.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_conditions_are_those_of_http() {
    let host = shop(|_| {}).await;
    let url = public(&host, "letters.txt", "0123456789", "text/plain").await;
    assert!(url.starts_with("http://storage.localhost:") && url.ends_with("/service_1/letters.txt"), "{url}");
    let whole = host.at("GET", &url, &[], "").await;
    assert_eq!((whole.text(), header(&whole, "accept-ranges"), header(&whole, "content-length")), ("0123456789", "bytes", "10"));
    let (tag, modified) = (header(&whole, "etag").to_owned(), header(&whole, "last-modified").to_owned());
    for (range, status, text, content_range) in [
        ("bytes=0-3", 206, "0123", "bytes 0-3/10"),
        ("bytes=8-", 206, "89", "bytes 8-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=5-99", 206, "56789", "bytes 5-9/10"),
        ("bytes=0-1,3-4", 200, "0123456789", ""),
        ("lines=1-2", 200, "0123456789", ""),
    ] {
        let reply = host.at("GET", &url, &[("range", range)], "").await;
        assert_eq!((reply.status.as_u16(), reply.text(), header(&reply, "content-range")), (status, text, content_range), "{range}");
        let head = host.at("HEAD", &url, &[("range", range)], "").await;
        assert_eq!((head.status.as_u16(), header(&head, "content-length")), (200, "10"));
    }
    let outside = host.at("GET", &url, &[("range", "bytes=10-")], "").await;
    assert_eq!((outside.status.as_u16(), header(&outside, "content-range"), outside.code().as_str()), (416, "bytes */10", "object_range_invalid"));
    for (name, value, status) in [
        ("if-none-match", tag.as_str(), 304),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"other\"", 200),
        ("if-match", tag.as_str(), 200),
        ("if-match", "\"other\"", 412),
        ("if-modified-since", modified.as_str(), 304),
        ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT", 412),
    ] {
        let reply = host.at("GET", &url, &[(name, value)], "").await;
        assert_eq!(reply.status, status, "{name}: {value}");
        if status == 304 {
            assert_eq!((reply.body.len(), header(&reply, "etag")), (0, tag.as_str()));
        }
    }
    let stale = host.at("GET", &url, &[("range", "bytes=0-3"), ("if-range", "\"other\"")], "").await;
    assert_eq!(stale.status, 200);
    let empty = public(&host, "empty", "", "text/plain").await;
    let reply = host.at("GET", &empty, &[], "").await;
    assert_eq!((reply.status.as_u16(), header(&reply, "content-length")), (200, "0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_stored_runs_in_a_browser_or_meets_a_cookie() {
    let host = shop(|_| {}).await;
    for (content_type, attached) in [
        ("text/html", true),
        ("image/svg+xml", true),
        ("application/xml", true),
        ("text/javascript; charset=utf-8", true),
        ("application/xhtml+xml", true),
        ("image/png", false),
        ("text/plain", false),
        ("application/pdf", false),
    ] {
        let url = public(&host, "thing", "<svg xmlns=''/>", if content_type == "image/png" { "text/csv" } else { content_type }).await;
        let reply = host.at("GET", &url, &[], "").await;
        assert_eq!(header(&reply, "content-disposition") == "attachment", attached, "{content_type}");
        for (name, value) in [("x-content-type-options", "nosniff"), ("content-security-policy", "sandbox"), ("referrer-policy", "no-referrer")] {
            assert_eq!(header(&reply, name), value);
        }
        assert!(!reply.headers.contains_key("set-cookie"));
        assert_eq!((header(&reply, "access-control-allow-origin"), reply.headers.contains_key("access-control-allow-credentials")), ("*", false));
    }
    let missing = host.at("GET", &format!("http://storage.localhost:{}/service_1/none", host.host.public_address().port()), &[], "").await;
    assert_eq!((missing.status.as_u16(), header(&missing, "content-security-policy")), (404, "sandbox"));
    let asked = host.at("OPTIONS", &format!("http://storage.localhost:{}/service_1/none", host.host.public_address().port()), &[], "").await;
    assert_eq!((asked.status.as_u16(), header(&asked, "access-control-allow-methods")), (204, "GET, HEAD, PUT"));
    let posted = host.at("POST", &format!("http://storage.localhost:{}/service_1/none", host.host.public_address().port()), &[], "x").await;
    assert_eq!((posted.status.as_u16(), header(&posted, "allow")), (405, "GET, HEAD, PUT, OPTIONS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_at_their_own_host_alone_and_nobody_else_is_there() {
    let host = shop(|_| {}).await;
    let url = public(&host, "a.txt", "hello", "text/plain").await;
    let port = host.host.public_address().port();
    for name in ["storage.localhost", "STORAGE.localhost", "storage.localhost."] {
        let reply = host.at("GET", &url.replace("storage.localhost", name), &[], "").await;
        assert_eq!(reply.text(), "hello", "{name}");
    }
    for name in ["localhost", "shop.localhost", "x.storage.localhost", "storage.localhost.evil.example"] {
        let reply = host.at("GET", &url.replace("storage.localhost", name), &[], "").await;
        assert_eq!(reply.code(), "service_not_found", "{name}");
    }
    let api = host.api("GET", "/service_1/a.txt", None, None).await;
    assert_eq!(api.status, 404, "never from the origin of the API");
    for path in ["/", "/v1/services", "/.tovuk/queues/x", "/service_1", "/service_2/a.txt", "/shop/a.txt", "/service_01/a.txt"] {
        assert_eq!(host.at("GET", &format!("http://storage.localhost:{port}{path}"), &[], "").await.code(), "object_not_found", "{path}");
    }
    // No service and no domain takes the name.
    let made = host.ok("POST", "/v1/services", Some(json!({"name": "storage"}))).await;
    assert_ne!(made["service"]["slug"], "storage", "{made}");
    let token = host.token.clone();
    let taken = host.refused(&token, "POST", "/v1/services/shop/domains", Some(json!({"domain": "storage.localhost"}))).await;
    assert!(!taken.is_empty());
    assert_eq!(host.at("GET", &url, &[], "").await.text(), "hello");
}

/// Whatever a path is made to look like, it leads to no file of the host and to nobody else's object.
#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out() {
    let host = shop(|_| {}).await;
    public(&host, "a.txt", "hello", "text/plain").await;
    // A link in the folder of bytes, as whoever had another way in might leave it.
    std::os::unix::fs::symlink("/etc/passwd", host.data.join("objects/passwd")).unwrap();
    std::os::unix::fs::symlink("/etc", host.data.join("objects/etc")).unwrap();
    let long = "a".repeat(4_096);
    let targets = [
        "/service_1/../../../../etc/passwd",
        "/service_1/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/service_1/%252e%252e/%252e%252e/etc/passwd",
        "/service_1/..%2f..%2f..%2fetc%2fpasswd",
        "/service_1/..%5c..%5cetc%5cpasswd",
        "/service_1/%c0%ae%c0%ae/etc/passwd",
        "/service_1//etc/passwd",
        "/service_1/%2fetc/passwd",
        "/service_1/passwd",
        "/service_1/etc/passwd",
        "/service_1/objects/passwd",
        "/service_1/a.txt%00",
        "/service_1/a.txt%00.png",
        "/service_1/./a.txt",
        "/service_1/a.txt/",
        "/service_1/a.txt/..",
        "/service_1/..;/service_1/a.txt",
        "/../admin-token",
        "/service_1/../admin-token",
        "//service_1/a.txt",
        "http://storage.localhost/service_1/../../etc/passwd",
        &format!("/service_1/{long}"),
        &format!("/service_1/{}", "%2e%2e%2f".repeat(400)),
    ];
    let token = std::fs::read(host.data.join("admin-token")).unwrap();
    for target in targets {
        for method in ["GET", "HEAD", "PUT"] {
            let signed = "size=1&upload=upload_1&part=1&expires=99999999999999&signature=00";
            for query in ["", "?", &format!("?{signed}")] {
                let request =
                    format!("{method} {target}{query} HTTP/1.1\r\nhost: storage.localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                let answer = exchange(host.host.public_address(), request.as_bytes()).await;
                let text = String::from_utf8_lossy(&answer);
                assert!(!text.contains("root:") && !text.contains("hello"), "{method} {target}: {text}");
                assert!(!answer.windows(token.len()).any(|window| window == token));
                let status = if method == "HEAD" { text.split(' ').nth(1).unwrap().parse().unwrap() } else { statuses(&answer)[0] };
                assert!(matches!(status, 400 | 403 | 404 | 414), "{method} {target}{query}: {status}");
            }
        }
    }
}
