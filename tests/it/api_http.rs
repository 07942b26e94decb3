//! What the API makes of requests that are odd, broken or hostile as HTTP.

use serde_json::json;
use tovuk_server::control::api::operations;
use tovuk_tests::{Operator, exchange, statuses};

use crate::TOVUK;

/// A request head of the operator, without a body's framing.
fn head(host: &Operator, line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: api\r\nConnection: close\r\nAuthorization: Bearer {}\r\n{more}\r\n", host.token)
}

async fn raw(host: &Operator, bytes: &[u8]) -> (u16, String) {
    let answer = exchange(host.host.api_address(), bytes).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {text}")).parse().unwrap();
    (status, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_taken_apart_before_they_are_decoded() {
    let host = Operator::start(TOVUK).await;
    let token = host.token.clone();
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    for path in ["/v1/services/shop/resources/", "/v1/services/%73hop/resources", "/v1/services/"] {
        assert_eq!(host.ask("GET", path, None).await.status, 200, "{path}");
    }
    for (path, code) in [
        ("/v1/services/shop%2Fresources", "method_not_allowed"),
        ("/v1/services/a%2Fb/resources", "service_not_found"),
        ("/v1/services/%ff/resources", "api_route_not_found"),
        ("/v1/services//resources", "api_route_not_found"),
        ("//v1/services", "api_route_not_found"),
        ("/v1/./services", "api_route_not_found"),
        ("/v1/services/shop/resources//", "api_route_not_found"),
        ("/V1/services", "api_route_not_found"),
        ("/v1/builds/", "api_route_not_found"),
        ("/v1/services/service_01/resources", "service_not_found"),
        ("/v1/services/'%20or%201=1--/resources", "service_not_found"),
        ("/v1/services/%00/resources", "service_not_found"),
    ] {
        let reply = host.ask("GET", path, None).await;
        assert_eq!(reply.code(), code, "{path}: {}", reply.text());
    }
    let home = host.ask("GET", "/", None).await;
    assert_eq!((home.status.as_u16(), home.headers["location"].to_str().unwrap()), (303, "/docs"), "{}", home.text());
    // Names that the hosted service has retired must not come back by accident.
    for path in [
        "/v1/me",
        "/v1/activity",
        "/v1/account/dashboard",
        "/v1/apps",
        "/v1/services/shop/kv/namespaces/NS/values",
        "/v1/services/shop/kv/namespaces/NS/keys",
        "/v1/services/shop/cron/triggers",
        "/v1/services/shop/database",
    ] {
        assert_eq!(host.ask("GET", path, None).await.status, 404, "{path}");
    }
    assert_eq!(host.refused(&token, "PUT", "/v1/services/shop/env/NAME", Some(json!({"value": "x"}))).await, "method_not_allowed");
    for path in ["/health", "/healthz", "/readyz", "/v1/status"] {
        assert_eq!(host.api("GET", path, None, None).await.status, 200, "{path}");
    }
    // The client that deletes a service by `--service` sends this.
    assert_eq!(host.ask("DELETE", "/v1/services/shop/", None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_are_those_of_the_route() {
    let host = Operator::start(TOVUK).await;
    for path in ["/v1/services", "/v1/usage", "/v1/status"] {
        let reply = host.ask("HEAD", path, None).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0), "{path}");
    }
    for registered in operations() {
        let operation = registered.operation;
        let path = operation.path.replace(['{', '}'], "");
        let reply = host.ask("PATCH", &path, None).await;
        assert_eq!(reply.code(), "method_not_allowed", "{path}");
        let allowed = reply.headers["allow"].to_str().unwrap();
        assert!(allowed.split(", ").any(|method| method == operation.method.as_str()), "{path}: {allowed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_does_not_have_says_so() {
    let host = Operator::start(TOVUK).await;
    for (method, path) in [
        ("POST", "/v1/billing/checkout"),
        ("POST", "/v1/billing/portal"),
        ("GET", "/v1/support/tickets?limit=5"),
        ("POST", "/v1/support/tickets"),
        ("POST", "/v1/support/tickets/ticket_1/resolve"),
        ("GET", "/v1/abuse/reports"),
        ("POST", "/v1/abuse/reports"),
        ("POST", "/v1/abuse/reports/abuse_1/appeal"),
        ("GET", "/v1/operator/abuse/reports"),
        ("POST", "/v1/operator/abuse/reports/abuse_1/notify-owner"),
    ] {
        let reply = host.ask(method, path, (method == "POST").then(|| json!({"target_plan": "pro", "reason": "x"}))).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (501, "not_on_this_host"), "{method} {path}");
    }
    assert_eq!(host.api("POST", "/v1/abuse/reports", None, None).await.status, 501, "this one needs no token");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_read_as_what_they_are() {
    let host = Operator::start(TOVUK).await;
    let name = |text: &str| format!("{{\"name\":{text}}}");
    let deep = format!("{{\"name\":\"deep\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for (body, wants) in [
        (name("\"first\""), 201),
        (format!("  {}\r\n", name("\"spaces\"")), 201),
        ("{\"name\":\"unknown-key\",\"nonsense\":[1,{}]}".to_owned(), 201),
        (String::new(), 400),
        ("{".to_owned(), 400),
        ("[]".to_owned(), 400),
        ("null".to_owned(), 400),
        ("{\"name\":\"a\"} {}".to_owned(), 400),
        ("{\"name\":\"a\",\"name\":\"b\"}".to_owned(), 400),
        (name("7"), 400),
        (name("null"), 400),
        (name("\"\\ud800\""), 400),
        // What is not known is passed over without being kept, however deep.
        (deep, 201),
    ] {
        let head = head(&host, "POST /v1/services", &format!("Content-Length: {}\r\n", body.len()));
        let (status, text) = raw(&host, format!("{head}{body}").as_bytes()).await;
        assert_eq!(status, wants, "{body:.80}: {text}");
    }
    let config = format!("{{\"service\":\"x\",\"config\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deploy = head(&host, "POST /v1/deploy", &format!("Content-Length: {}\r\n", config.len()));
    let (status, text) = raw(&host, format!("{deploy}{config}").as_bytes()).await;
    assert!(status == 400 && text.contains("invalid_config"), "{text}");
    let latin = [head(&host, "POST /v1/services", "Content-Length: 13\r\n").as_bytes(), b"{\"name\":\"\xe9\"}".as_slice(), b" "].concat();
    assert_eq!(raw(&host, &latin).await.0, 400);
    let chunked =
        format!("{}8\r\n{{\"name\":\r\n9\r\n\"chunked\"\r\n1\r\n}}\r\n0\r\n\r\n", head(&host, "POST /v1/services", "Transfer-Encoding: chunked\r\n"));
    assert_eq!(raw(&host, chunked.as_bytes()).await.0, 201);
    // The published client sends neither a length nor a coding where it has no body.
    for line in ["POST /v1/login/device", "DELETE /v1/services/first", "DELETE /v1/services/chunked?force=true"] {
        let (status, text) = raw(&host, head(&host, line, "").as_bytes()).await;
        assert_eq!(status, 200, "{line}: {text}");
    }
    // A field of the path cannot be overruled by the query or the body.
    assert_eq!(host.ask("GET", "/v1/services/spaces/resources?service=first", None).await.code(), "invalid_request");
    assert_eq!(host.ask("PUT", "/v1/services/spaces/env", Some(json!({"service": "x", "name": "A", "value": "b"}))).await.code(), "invalid_request");
    for query in ["limit=0", "limit=-1", "limit=1001", "limit=x", "limit=5&limit=6", "limit=99999999999999999999"] {
        assert_eq!(host.ask("GET", &format!("/v1/deploys?{query}"), None).await.code(), "invalid_request", "{query}");
    }
    for cursor in ["x", "before_", "before_x", "5", "before_99999999999999999999"] {
        assert_eq!(host.ask("GET", &format!("/v1/deploys?cursor={cursor}"), None).await.code(), "invalid_cursor", "{cursor}");
    }
    assert_eq!(host.ask("GET", "/v1/deploys?limit=&cursor=", None).await.status, 200, "an empty value is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_or_nobodys_are_not_read() {
    let host = Operator::start(TOVUK).await;
    let anonymous = "POST /v1/deploy HTTP/1.1\r\nHost: api\r\nContent-Length: 100000000\r\n\r\n{\"config\":";
    let (status, text) = raw(&host, anonymous.as_bytes()).await;
    assert_eq!(status, 401, "{text}");
    let declared = head(&host, "POST /v1/services", "Content-Length: 100000000\r\n");
    let (status, text) = raw(&host, declared.as_bytes()).await;
    assert_eq!(status, 413, "{text}");
    // Of unknown length, it ends where the limit is.
    let mut endless = head(&host, "POST /v1/services", "Transfer-Encoding: chunked\r\n").into_bytes();
    for _ in 0..20 {
        endless.extend_from_slice(b"20000\r\n");
        endless.extend_from_slice(&[b' '; 0x20000]);
        endless.extend_from_slice(b"\r\n");
    }
    let answer = exchange(host.host.api_address(), &endless).await;
    assert_eq!(statuses(&answer).first(), Some(&413));
    let public = format!("POST /v1/login/device HTTP/1.1\r\nHost: api\r\nContent-Length: {}\r\n\r\n", 1 << 20);
    assert_eq!(raw(&host, public.as_bytes()).await.0, 413);
    // One account that sends slowly cannot keep all others from deploying.
    let alice = host.account("alice").await;
    let slow = format!("POST /v1/deploy HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {alice}\r\nContent-Length: {}\r\n\r\n{{", 150 << 20);
    let mut held = Vec::new();
    for _ in 0..4 {
        use tokio::io::AsyncWriteExt;
        let mut stream = tokio::net::TcpStream::connect(host.host.api_address()).await.unwrap();
        stream.write_all(slow.as_bytes()).await.unwrap();
        held.push(stream);
    }
    host.deploy(&host.token, "mine", "hello", json!({"routes": ["/*"]})).await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_read_as_http_writes_them() {
    let host = Operator::start(TOVUK).await;
    let with = |value: &str| format!("GET /v1/account HTTP/1.1\r\nHost: api\r\nConnection: close\r\n{value}\r\n\r\n");
    let token = host.token.clone();
    for (value, wants) in [
        (format!("Authorization: Bearer {token}"), 200),
        (format!("authorization: bearer  {token} "), 200),
        (format!("Authorization: BEARER {token}"), 200),
        (format!("Authorization: {token}"), 401),
        (format!("Authorization: Basic {token}"), 401),
        (format!("Authorization: Bearer {token}x"), 401),
        (format!("Authorization: Bearer {}", token.to_uppercase()), 401),
        ("Authorization: Bearer".to_owned(), 401),
        ("Authorization: \u{e9}".to_owned(), 401),
        (format!("Cookie: token={token}"), 401),
    ] {
        let (status, text) = raw(&host, with(&value).as_bytes()).await;
        assert_eq!(status, wants, "{value}: {text}");
        assert!(!text.contains(&token), "a token is never shown again");
    }
    assert_eq!(host.api("GET", &format!("/v1/account?token={token}"), None, None).await.status, 401);
}
