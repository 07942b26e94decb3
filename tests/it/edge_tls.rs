//! TLS at the front door: which certificate, which protocol, and what may be asked over a connection that was made for one host.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::net::TcpStream;
use tovuk_server::edge::{ListenConfig, Redirect};
use tovuk_server::listen::Listening;
use tovuk_server::tls::{CertificateFiles, CertificateStore, Tls};
use tovuk_tests::{Authority, Host, HostConfig, Protocol, TlsClient, ask, ask_raw, exchange, statuses};

use crate::TOVUK;

struct Secured {
    host: Host,
    client: TlsClient,
    authority: Authority,
    store: CertificateStore,
    _folder: tempfile::TempDir,
    _files: CertificateFiles,
}

/// A host with a certificate in files. It names each service: a wildcard needs two labels after it.
async fn secured() -> Secured {
    let (authority, folder, store) = (Authority::new(), tempfile::tempdir().unwrap(), CertificateStore::default());
    let config = authority.issue(folder.path(), &["echo.localhost", "other.localhost"]);
    let files = CertificateFiles::start(config, store.clone(), tovuk_kernel::clock::Clock::system()).unwrap();
    let tls = Some(Tls::new(store.clone()).unwrap());
    let listen = ListenConfig { tls, handshake_timeout: Duration::from_millis(500), ..ListenConfig::default() };
    let host = Host::with(HostConfig { listen, ..HostConfig::new(TOVUK) }).await;
    host.deploy("echo", "echo", |service| service.public()).await.deploy("other", "hello", |service| service.public()).await;
    let client = TlsClient::trusting(authority.root_pem());
    Secured { host, client, authority, store, _folder: folder, _files: files }
}

fn get(authority: &str) -> Request<Full<Bytes>> {
    Request::builder().uri(format!("https://{authority}/")).body(Full::default()).unwrap()
}

fn get_http1(host: &str) -> Request<Full<Bytes>> {
    Request::builder().uri("/").header("host", host).body(Full::default()).unwrap()
}

#[tokio::test]
async fn both_protocols_are_spoken_and_the_worker_learns_the_scheme() {
    let Secured { host, client, .. } = &secured().await;
    for (offered, protocol) in [(["h2", "http/1.1"], Protocol::Http2), (["http/1.1", "x"], Protocol::Http1)] {
        let stream = client.connect(host.address, "echo.localhost", &offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(offered[0].as_bytes()));
        let request = if protocol == Protocol::Http2 { get("echo.localhost") } else { get_http1("echo.localhost") };
        let seen = ask(stream, protocol, request).await.unwrap().json();
        let schemes: Vec<_> =
            seen["headers"].as_array().unwrap().iter().filter(|field| field[0] == "x-forwarded-proto").map(|field| &field[1]).collect();
        assert_eq!(schemes, ["https"], "{protocol:?}");
    }
    // Who offers no protocol gets HTTP/1.1, and who says no name gets the certificate of the files.
    let stream = client.connect_silently(host.address, "echo.localhost").await.unwrap();
    assert_eq!(ask(stream, Protocol::Http1, get_http1("echo.localhost")).await.unwrap().status, 200);
    assert!(client.connect(host.address, "echo.localhost", &["spdy/1"]).await.is_err());
}

#[tokio::test]
async fn a_connection_for_one_host_carries_no_request_for_another() {
    let Secured { host, client, .. } = &secured().await;
    let connect = async || client.connect(host.address, "echo.localhost", &["h2", "http/1.1"]).await.unwrap();
    let connect_http1 = async || client.connect(host.address, "echo.localhost", &["http/1.1"]).await.unwrap();
    for reply in [
        ask(connect().await, Protocol::Http2, get("other.localhost")).await.unwrap(),
        ask(connect_http1().await, Protocol::Http1, get_http1("other.localhost")).await.unwrap(),
        ask(connect_http1().await, Protocol::Http1, get_http1("nobody.localhost")).await.unwrap(),
    ] {
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (421, "misdirected_request"));
    }
    let mut two = get("echo.localhost");
    two.headers_mut().insert("host", "other.localhost".parse().unwrap());
    assert_eq!(ask(connect().await, Protocol::Http2, two).await.unwrap().code(), "bad_request");
    assert_eq!(ask(connect().await, Protocol::Http2, get("ECHO.localhost:8443")).await.unwrap().status, 200);
    let smuggling = b"POST / HTTP/1.1\r\nHost: echo.localhost\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd";
    assert_eq!(statuses(&ask_raw(connect_http1().await, smuggling).await), [400]);
}

#[tokio::test]
async fn a_host_name_with_a_certificate_of_its_own_is_shown_that() {
    let Secured { host, client, authority, store, .. } = &secured().await;
    host.also_at("shop.example.org", "echo");
    assert!(client.connect(host.address, "shop.example.org", &[]).await.is_err(), "the certificate of the files is not for this name");
    let folder = tempfile::tempdir().unwrap();
    let own = tovuk_server::tls::load(&authority.issue(folder.path(), &["shop.example.org"])).unwrap();
    store.set_host("shop.example.org", Some(own));
    let stream = client.connect(host.address, "shop.example.org", &[]).await.unwrap();
    assert_eq!(ask(stream, Protocol::Http1, get_http1("shop.example.org")).await.unwrap().status, 200);
    assert!(client.connect(host.address, "echo.localhost", &[]).await.is_ok());
    store.set_host("shop.example.org", None);
    assert!(client.connect(host.address, "shop.example.org", &[]).await.is_err());
}

#[tokio::test]
async fn what_is_no_handshake_ends_soon() {
    let Secured { host, client, .. } = &secured().await;
    for bytes in [b"GET / HTTP/1.1\r\nHost: echo.localhost\r\n\r\n".as_slice(), b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"] {
        assert!(!exchange(host.address, bytes).await.starts_with(b"HTTP/"));
    }
    // A handshake for a challenge that nobody has set is no way in.
    assert!(client.connect(host.address, "echo.localhost", &["acme-tls/1"]).await.is_err());
    let stream = client.connect(host.address, "echo.localhost", &[]).await.unwrap();
    assert_eq!(ask(stream, Protocol::Http1, get_http1("echo.localhost")).await.unwrap().status, 200);
}

#[tokio::test]
async fn the_plain_listener_sends_to_https() {
    let Secured { host, .. } = &secured().await;
    let listener = Listening::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let redirect = Redirect::new(host.clock.clone(), tovuk_server::tls::acme::HttpChallenges::default(), 443);
    let plain = Listening::serve(listener, redirect, ListenConfig::default()).unwrap();
    let ask = async |uri: &str, name: &str| {
        let stream = TcpStream::connect(plain.address()).await.unwrap();
        let request = Request::builder().uri(uri.to_owned()).header("host", name).body(Full::<Bytes>::default()).unwrap();
        tovuk_tests::ask(stream, Protocol::Http1, request).await.unwrap()
    };
    for (uri, name, location) in [
        ("/a?b=c", "shop.example.org", "https://shop.example.org/a?b=c"),
        ("/", "shop.example.org:8080", "https://shop.example.org/"),
        ("//evil.example/", "shop.example.org", "https://shop.example.org//evil.example/"),
        ("/.well-known/acme-challenge/unknown", "[::1]:80", "https://[::1]/.well-known/acme-challenge/unknown"),
    ] {
        let reply = ask(uri, name).await;
        assert_eq!((reply.status.as_u16(), reply.headers["location"].to_str().unwrap()), (308, location), "{uri}");
    }
    assert_eq!(ask("/", "shop.example.org/evil").await.code(), "bad_request");
    plain.stop().await;
}
