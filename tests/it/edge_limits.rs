//! What a client may cost the front door: how many connections, how slow, how large, how often.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tovuk_server::edge::ListenConfig;
use tovuk_tests::{Host, HostConfig, PREFACE, Protocol, ask, exchange, fields, frame, frames, statuses};

use crate::TOVUK;

const SOON: Duration = Duration::from_millis(500);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: close\r\n\r\n";

async fn host(listen: ListenConfig) -> Host {
    let host = Host::with(HostConfig { listen, ..HostConfig::new(TOVUK) }).await;
    host.deploy("hello", "hello", |service| service.public()).await;
    host
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::builder().uri(format!("http://hello.localhost{path}")).header("host", "hello.localhost").body(Full::default()).unwrap()
}

#[tokio::test]
async fn heads_have_a_size() {
    let host = host(ListenConfig { head_timeout: Duration::from_secs(5), ..ListenConfig::default() }).await;
    let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: close\r\n{fields}\r\n");
    let fits = head(&format!("X: {}\r\n", "x".repeat(32 << 10)));
    assert_eq!(statuses(&exchange(host.address, fits.as_bytes()).await), [200]);
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: hello.localhost\r\n\r\n", "x".repeat(70_000));
    for refused in [
        head(&format!("X: {}\r\n", "x".repeat(128 << 10))),
        head(&"X: x\r\n".repeat(101)),
        head(&"X: x\r\n".repeat(100_000)),
        format!("GET / HTTP/1.1\r\nHost: hello.localhost\r\n{}: x\r\n\r\n", "x".repeat(70_000)),
        long_path,
    ] {
        let answer = exchange(host.address, refused.as_bytes()).await;
        // A host that closes while the client still writes may be seen as a reset.
        assert!(matches!(statuses(&answer).as_slice(), [] | [400 | 414 | 431]), "{}", String::from_utf8_lossy(&answer));
    }
    let large = Request::builder().uri("http://hello.localhost/").header("x", "x".repeat(128 << 10)).body(Full::<Bytes>::default()).unwrap();
    let answer = ask(TcpStream::connect(host.address).await.unwrap(), Protocol::Http2, large).await;
    assert!(answer.is_err() || answer.is_ok_and(|reply| reply.status == 431));
    assert!(host.observed.records().len() == 1);
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_left() {
    let host = host(ListenConfig { head_timeout: SOON, idle_timeout: SOON, stall_timeout: SOON, ..ListenConfig::default() }).await;
    let cases: [&[u8]; 6] = [b"", b"G", b"GET / HTTP/1.1\r\nHost: hello.localhost\r\nX: ", b"PRI * HTTP/2.0\r\n", PREFACE, &PREFACE[..3]];
    let answers = join_all(cases.into_iter().map(|bytes| exchange(host.address, bytes))).await;
    for (case, answer) in cases.iter().zip(answers) {
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{case:?}");
    }
    // A connection that has answered is not kept for ever either.
    let kept = b"GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
    assert_eq!(statuses(&exchange(host.address, kept).await), [200]);
}

#[tokio::test]
async fn http2_without_requests_is_asked_to_end() {
    let host = host(ListenConfig { idle_timeout: SOON, stall_timeout: SOON, ..ListenConfig::default() }).await;
    // Pings keep the connection moving, and keep it from nothing.
    let pings = frame(6, 0, 0, &[0; 8]).repeat(20);
    let answer = exchange(host.address, &[PREFACE, &frame(4, 0, 0, &[]), &pings].concat()).await;
    assert!(frames(&answer).iter().any(|frame| frame.kind == 7), "no GOAWAY");
    // While a request runs it is not without one.
    host.deploy("hello", "sleep", |service| service.public()).await;
    let slow = ask(TcpStream::connect(host.address).await.unwrap(), Protocol::Http2, get("/2000")).await.unwrap();
    assert_eq!(slow.text(), "slept 2000");
}

#[tokio::test]
async fn a_body_that_stops_coming_ends_its_request() {
    let host = host(ListenConfig { stall_timeout: SOON, ..ListenConfig::default() }).await;
    host.deploy("sink", "sink", |service| service.public()).await;
    for (service, framing) in [
        ("hello", "Content-Length: 10\r\n\r\nabc"),
        ("hello", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        ("sink", "Content-Length: 10\r\n\r\nabc"),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: {service}.localhost\r\n{framing}");
        let answer = exchange(host.address, request.as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{service} {framing:?}: {}", String::from_utf8_lossy(&answer));
    }
    // One that goes on coming, however slowly, is read.
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: close\r\nContent-Length: 6\r\n\r\n").await.unwrap();
    let mut ticks = tokio::time::interval(SOON / 3);
    for _ in 0..6 {
        ticks.tick().await;
        stream.write_all(b"x").await.unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(statuses(&answer), [200]);
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_connection() {
    // There is one place, so that the next connection is served only once the one before has lost it.
    let host = host(ListenConfig { connections_max: 1, stall_timeout: SOON, ..ListenConfig::default() }).await;
    host.deploy("big", "big_lean", |service| service.public().limit("body_mb", 32)).await;
    let mut unread = TcpStream::connect(host.address).await.unwrap();
    unread.write_all(b"GET /30 HTTP/1.1\r\nHost: big.localhost\r\n\r\n").await.unwrap();
    assert_eq!(statuses(&exchange(host.address, GET).await), [200]);

    // HTTP/2 with no window: the socket is free, the stream is not, and pings do not help.
    let mut unread = TcpStream::connect(host.address).await.unwrap();
    let no_window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let request = fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "big.localhost"), (":path", "/30")]);
    unread.write_all(&[PREFACE, &no_window, &frame(1, 5, 1, &request)].concat()).await.unwrap();
    let (mut read, mut write) = unread.into_split();
    let pings = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(SOON / 5);
        while write.write_all(&frame(6, 0, 0, &[0; 8])).await.is_ok() {
            ticks.tick().await;
        }
    });
    let pongs = tokio::spawn(async move { while matches!(read.read(&mut [0; 1024]).await, Ok(1..)) {} });
    assert_eq!(statuses(&exchange(host.address, GET).await), [200]);
    pings.await.unwrap();
    pongs.await.unwrap();
}

#[tokio::test]
async fn one_client_has_so_many_connections() {
    let host = host(ListenConfig { connections_per_client_max: 2, ..ListenConfig::default() }).await;
    let mut first = TcpStream::connect(host.address).await.unwrap();
    let _second = TcpStream::connect(host.address).await.unwrap();
    let mut third = TcpStream::connect(host.address).await.unwrap();
    assert!(!matches!(third.read(&mut [0]).await, Ok(1..)));
    // One that ends makes room for another.
    first.write_all(GET).await.unwrap();
    first.read_to_end(&mut Vec::new()).await.unwrap();
    drop(first);
    while statuses(&exchange(host.address, GET).await) != [200] {}
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_the_connection() {
    let host = host(ListenConfig::default()).await;
    let request = fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "hello.localhost"), (":path", "/")]);
    let mut attack = [PREFACE, &frame(4, 0, 0, &[])].concat();
    for stream in (1..4_001).step_by(2) {
        attack.extend(frame(1, 5, stream, &request));
        attack.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    let answer = exchange(host.address, &attack).await;
    assert!(frames(&answer).iter().any(|frame| frame.kind == 7 && frame.payload[4..8] == 11_u32.to_be_bytes()), "no GOAWAY with ENHANCE_YOUR_CALM");
    assert!(host.observed.records().len() < 1_000);

    // A head that never ends.
    let mut endless = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 1, 1, &request)].concat();
    let more = fields(&[("x", &"x".repeat(100))]).repeat(100);
    for _ in 0..100 {
        endless.extend(frame(9, 0, 1, &more));
    }
    let answer = exchange(host.address, &endless).await;
    assert!(frames(&answer).iter().any(|frame| frame.kind == 7), "no GOAWAY");
    assert_eq!(statuses(&exchange(host.address, GET).await), [200]);
}

#[tokio::test]
async fn more_streams_than_may_run_at_a_time_wait_for_each_other() {
    let host = host(ListenConfig { streams_max: 4, ..ListenConfig::default() }).await;
    let io = TokioIo::new(TcpStream::connect(host.address).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    // A client that has not been told how many it may open has some refused, which it may send again. This one is told with its first answer.
    assert_eq!(sender.clone().send_request(get("/")).await.unwrap().status(), 200);
    let replies = join_all((0..50).map(|_| {
        let mut sender = sender.clone();
        async move { sender.send_request(get("/")).await.unwrap().status().as_u16() }
    }))
    .await;
    assert_eq!(replies, [200; 50]);
}

#[tokio::test]
async fn stopping_loses_no_request_that_runs() {
    let host = host(ListenConfig::default()).await;
    host.deploy("hello", "sleep", |service| service.public()).await;
    let address = host.address;
    let requests: Vec<_> = (0..20)
        .map(|number| {
            let protocol = if number % 2 == 0 { Protocol::Http1 } else { Protocol::Http2 };
            tokio::spawn(async move { ask(TcpStream::connect(address).await.unwrap(), protocol, get("/1500")).await.unwrap().text().to_owned() })
        })
        .collect();
    let silent = TcpStream::connect(address).await.unwrap();
    let slots = host.runtime.slots().clone();
    while slots.total() - slots.free() < 20 {
        tokio::task::yield_now().await;
    }
    host.stop().await;
    for request in requests {
        assert_eq!(request.await.unwrap(), "slept 1500");
    }
    assert!(TcpStream::connect(address).await.is_err());
    drop(silent);
}
