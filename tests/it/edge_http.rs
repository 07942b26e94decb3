//! What the front door makes of requests that two readers could read differently, and of paths and hosts that are not to be reached.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http_body_util::Full;
use tovuk_server::edge::ListenConfig;
use tovuk_tests::{Host, HostConfig, PREFACE, Protocol, ask, exchange, fields, frame, frames, statuses};

use crate::TOVUK;

/// A host that closes connections on which nothing more is asked, so that a test can read to the end.
async fn host() -> Host {
    let listen = ListenConfig { head_timeout: Duration::from_secs(2), ..ListenConfig::default() };
    let host = Host::with(HostConfig { listen, ..HostConfig::new(TOVUK) }).await;
    host.deploy("echo", "echo", |service| service.public()).await;
    host
}

/// The paths that workers were asked for.
fn asked(host: &Host) -> Vec<String> {
    host.observed.records().iter().map(|record| record.path.to_string()).collect()
}

#[tokio::test]
async fn framing_that_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read() {
    let host = host().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: echo.localhost\r\n\r\n";
    let cases = [
        "Content-Length: 4\r\nContent-Length: 7",
        "Content-Length: 4, 7",
        "Content-Length: 4, 4",
        "Content-Length: +4",
        "Content-Length: 0x4",
        "Content-Length: -1",
        "Content-Length: 4 4",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
        "Content-Length : 4",
        "Content-Length\t: 4",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\r\n chunked",
        "X-Folded: a\r\n b",
        " Transfer-Encoding: chunked",
        "X: a\rTransfer-Encoding: chunked",
        "X: \0",
        "Bad Name: a",
        "no colon",
        ": no name",
    ];
    let answers = join_all(cases.iter().map(async |case| {
        let request = format!("POST /first HTTP/1.1\r\nHost: echo.localhost\r\n{case}\r\n\r\nabcd{smuggled}");
        (case, exchange(host.address, request.as_bytes()).await)
    }))
    .await;
    for (case, answer) in answers {
        assert_eq!(statuses(&answer), [400], "{case}: {}", String::from_utf8_lossy(&answer));
    }
    assert!(asked(&host).is_empty(), "{:?}", asked(&host));
}

#[tokio::test]
async fn a_length_beside_chunked_is_read_as_chunked_and_the_worker_sees_one_framing() {
    let host = host().await;
    let hidden = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\nabcd";
    let chunked = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for (path, headers) in [
        ("/1", "Content-Length: 4\r\nTransfer-Encoding: chunked"),
        ("/2", "Transfer-Encoding: chunked\r\nContent-Length: 4"),
        ("/3", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nContent-Length: 9"),
        ("/4", "transfer-encoding: CHUNKED"),
    ] {
        let request = format!("POST {path} HTTP/1.1\r\nHost: echo.localhost\r\nConnection: close\r\n{headers}\r\n\r\n{chunked}");
        let answer = exchange(host.address, request.as_bytes()).await;
        assert_eq!(statuses(&answer), [200], "{headers}");
        let answer = String::from_utf8(answer).unwrap();
        let seen: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").last().unwrap()).unwrap();
        assert_eq!(seen["body"], hidden, "{headers}");
        let names: Vec<_> = seen["headers"].as_array().unwrap().iter().map(|field| field[0].as_str().unwrap().to_owned()).collect();
        assert!(!names.iter().any(|name| name == "transfer-encoding" || name == "content-length"), "{headers}: {names:?}");
    }
    assert_eq!(asked(&host).len(), 4);
}

#[tokio::test]
async fn chunks_are_read_by_the_standard_or_not_at_all() {
    let host = host().await;
    let post = |chunks: &str| format!("POST / HTTP/1.1\r\nHost: echo.localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    for chunks in ["4\r\nabcd\r\n0\r\n\r\n", "04;name=value\r\nabcd\r\n0\r\n\r\n", "4;a=\"b\"\r\nabcd\r\n0;x\r\nTrailer: yes\r\n\r\n"] {
        let answer = exchange(host.address, post(chunks).as_bytes()).await;
        assert_eq!(statuses(&answer), [200], "{chunks}");
        assert!(String::from_utf8_lossy(&answer).contains(r#""body":"abcd""#), "{chunks}");
    }
    let extension = format!("4;{}\r\nabcd\r\n0\r\n\r\n", "x".repeat(64 << 10));
    let trailers = format!("4\r\nabcd\r\n0\r\nX: {}\r\n\r\n", "x".repeat(128 << 10));
    let cases = [
        "FFFFFFFFFFFFFFFFF\r\nabcd\r\n0\r\n\r\n",
        "0x4\r\nabcd\r\n0\r\n\r\n",
        "-4\r\nabcd\r\n0\r\n\r\n",
        "+4\r\nabcd\r\n0\r\n\r\n",
        "g\r\nabcd\r\n0\r\n\r\n",
        "\r\nabcd\r\n0\r\n\r\n",
        "4\nabcd\r\n0\r\n\r\n",
        "4\r\nabcdXX0\r\n\r\n",
        "4\r\nabcdefg\r\n0\r\n\r\n",
        "4;\nabcd\r\n0\r\n\r\n",
        &extension,
        &trailers,
    ];
    let before = asked(&host).len();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: echo.localhost\r\n\r\n";
    let answers = join_all(cases.iter().map(async |chunks| (chunks, exchange(host.address, (post(chunks) + smuggled).as_bytes()).await))).await;
    for (chunks, answer) in answers {
        // Closed without an answer is as good: what matters is that nothing was taken for a body, or for a second request.
        assert!(matches!(statuses(&answer).as_slice(), [] | [400]), "{:.40}: {}", chunks, String::from_utf8_lossy(&answer));
    }
    let later = asked(&host).split_off(before);
    assert!(!later.iter().any(|path| path == "/smuggled"), "{later:?}");
}

#[tokio::test]
async fn what_follows_a_request_is_the_next_one_or_garbage() {
    let host = host().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: echo.localhost\r\n\r\n");
    let both = exchange(host.address, (get("/1") + &get("/2")).as_bytes()).await;
    assert_eq!(statuses(&both), [200, 200]);
    for garbage in ["garbage\r\n\r\n", "\0\0\0\0\r\n\r\n", "GET /3 HTTP/9.9\r\n\r\n", "GET /3\r\n\r\n", "GET  /3 HTTP/1.1\r\n\r\n"] {
        let answer = exchange(host.address, (get("/1") + garbage).as_bytes()).await;
        assert_eq!(statuses(&answer), [200, 400], "{garbage:?}");
    }
    // A line that ends in a bare LF may be read as a line; it is one for every field of the head or for none.
    let answer = exchange(host.address, b"GET /lf HTTP/1.1\nHost: echo.localhost\nConnection: close\n\n").await;
    assert_eq!(statuses(&answer), [200]);
    let answer = exchange(host.address, b"POST / HTTP/1.0\r\nHost: echo.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    assert_eq!(statuses(&answer), [400]);
}

#[tokio::test]
async fn a_request_names_one_host() {
    let host = host().await;
    host.deploy("other", "hello", |service| service.public()).await;
    for (head, status) in [
        ("GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n", 404),
        ("GET / HTTP/1.1\r\nHost: echo.localhost\r\nHost: echo.localhost\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: echo.localhost\r\nHost: other.localhost\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: echo.localhost, other.localhost\r\n", 404),
        ("GET / HTTP/1.1\r\nHost: x@echo.localhost\r\n", 404),
        ("GET / HTTP/1.1\r\nHost: echo.localhost/x\r\n", 404),
        ("GET / HTTP/1.1\r\nHost: nobody.localhost\r\n", 404),
        ("GET http://other.localhost/ HTTP/1.1\r\nHost: echo.localhost\r\n", 400),
        ("GET http://echo.localhost/ HTTP/1.1\r\n", 200),
        ("GET http://echo.localhost/ HTTP/1.1\r\nHost: ECHO.localhost\r\n", 200),
        ("CONNECT echo.localhost:80 HTTP/1.1\r\nHost: echo.localhost:80\r\n", 400),
    ] {
        let answer = exchange(host.address, format!("{head}Connection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(statuses(&answer), [status], "{head}");
    }
    // The worker sees path and host, whatever the form of the request was.
    let answer = exchange(host.address, b"GET http://echo.localhost/a?b HTTP/1.1\r\nHost: echo.localhost\r\nConnection: close\r\n\r\n").await;
    assert!(String::from_utf8_lossy(&answer).contains(r#""uri":"/a?b""#));
}

#[tokio::test]
async fn http2_names_one_host_and_carries_no_second_framing() {
    let host = host().await;
    let connect = async || tokio::net::TcpStream::connect(host.address).await.unwrap();
    let get = |uri: &str| Request::builder().uri(uri.to_owned());
    let empty = Full::<Bytes>::default;
    let reply = ask(connect().await, Protocol::Http2, get("http://echo.localhost/a").body(empty()).unwrap()).await.unwrap();
    assert_eq!((reply.status.as_u16(), &reply.json()["uri"]), (200, &"/a".into()));
    let two = get("http://echo.localhost/").header("host", "other.localhost").body(empty()).unwrap();
    assert_eq!(ask(connect().await, Protocol::Http2, two).await.unwrap().code(), "bad_request");

    let pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "echo.localhost"), (":path", "/forbidden")];
    for field in
        [("transfer-encoding", "chunked"), ("connection", "close"), ("content-length", "3"), ("X-Upper", "1"), ("bad name", "1"), ("x", "a\r\nb: c")]
    {
        let request = fields(&[pseudo.as_slice(), &[field]].concat());
        let end = [frame(1, 4, 1, &request), frame(0, 1, 1, b"abcd"), frame(7, 0, 0, &[0; 8])].concat();
        let answer = exchange(host.address, &[PREFACE, &frame(4, 0, 0, &[]), &end].concat()).await;
        let answered =
            frames(&answer).into_iter().any(|frame| frame.kind == 0 && !frame.payload.is_empty() && frame.payload.starts_with(b"{\"method\""));
        assert!(!answered, "{field:?}");
    }
}

#[tokio::test]
async fn the_hosts_own_paths_are_reached_in_no_spelling() {
    let host = host().await;
    let spellings = [
        "/.tovuk/queue",
        "/.tovuk",
        "/.TOVUK/queue",
        "//.tovuk/queue",
        "/./.tovuk/queue",
        "/a/../.tovuk/queue",
        "/%2etovuk/queue",
        "/%2Etovuk/queue",
        "/.t%6fvuk/queue",
        "/%252etovuk/queue",
        "/%25252etovuk/queue",
        "/.tovuk;a=b/queue",
        "/.tovuk%2fqueue",
        "/.tovuk%5cqueue",
        "/a%2f..%2f.tovuk/queue",
        "/.tovuk%00/queue",
        "/.tovuk%20/queue",
        "/.tovuk?x",
        "/%2e/.tovuk/queue",
        "/.tovuk/../hello",
    ];
    for path in spellings {
        for target in [path.to_owned(), format!("http://echo.localhost{path}")] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: echo.localhost\r\nConnection: close\r\n\r\n");
            let answer = exchange(host.address, request.as_bytes()).await;
            assert_eq!(statuses(&answer), [404], "{target}");
            assert!(String::from_utf8_lossy(&answer).contains("reserved_path"), "{target}");
        }
        let stream = tokio::net::TcpStream::connect(host.address).await.unwrap();
        let request = Request::builder().uri(format!("http://echo.localhost{path}")).body(Full::<Bytes>::default()).unwrap();
        assert_eq!(ask(stream, Protocol::Http2, request).await.unwrap().code(), "reserved_path", "HTTP/2 {path}");
    }
    // A backslash is no character of a URL; the server that reads it as one must not let it through.
    let answer = exchange(host.address, b"GET /\\.tovuk\\queue HTTP/1.1\r\nHost: echo.localhost\r\nConnection: close\r\n\r\n").await;
    assert!(matches!(statuses(&answer).as_slice(), [400 | 404]));
    assert!(asked(&host).is_empty(), "{:?}", asked(&host));
}
