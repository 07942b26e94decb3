//! Outgoing requests over real sockets: servers on port 0 that count the connections they accept and answer with the request they saw.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tovuk_kernel::outbound::Pattern;

use super::*;

/// A server that answers `method path`, then the request's header fields, one in a line; `/moved` is a redirect.
struct Server {
    address: SocketAddr,
    accepts: Arc<AtomicUsize>,
}

impl Server {
    async fn http() -> Self {
        Self::start(|stream| async move { serve(stream, false).await }).await
    }

    async fn https(tls: TlsAcceptor) -> Self {
        Self::start(move |stream| {
            let tls = tls.clone();
            async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                serve(stream, is_http2).await;
            }
        })
        .await
    }

    /// Hands each connection to `handle`.
    async fn start<F: Future<Output = ()> + Send + 'static>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), accepts: Arc::default() };
        let accepts = server.accepts.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepts.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(handle(stream));
            }
        });
        server
    }

    fn accepts(&self) -> usize {
        self.accepts.load(Ordering::SeqCst)
    }

    fn url(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}", self.address.port())
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, is_http2: bool) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let mut seen = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
        for (name, value) in request.headers() {
            seen.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
        }
        let mut response = Response::builder();
        if request.uri().path() == "/moved" {
            response = response.status(302).header("location", "/elsewhere");
        }
        seen.push_str(&format!("{} bytes\n", request.into_body().collect().await.unwrap().to_bytes().len()));
        Ok::<_, Infallible>(response.body(Full::new(Bytes::from(seen))).unwrap())
    });
    let stream = TokioIo::new(stream);
    let _ended = if is_http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
    };
}

fn loopback_allowed() -> OutboundConfig {
    OutboundConfig { addresses: AddressPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()] }, ..OutboundConfig::default() }
}

fn outbound(config: OutboundConfig) -> Outbound {
    Outbound::new(config).unwrap()
}

fn allow(patterns: &[&str]) -> Allowlist {
    patterns.iter().map(|text| text.parse::<Pattern>().unwrap()).collect()
}

fn body(bytes: &'static [u8]) -> RequestBody {
    Full::new(Bytes::from_static(bytes)).map_err(|never| match never {}).boxed_unsync()
}

fn get(url: &str) -> Request<RequestBody> {
    Request::get(url).body(body(b"")).unwrap()
}

async fn send_as(outbound: &Outbound, account: &str, allow: &Allowlist, request: Request<RequestBody>) -> Result<Response<Incoming>, OutboundError> {
    let account = account.into();
    let sending = outbound.send(Caller { account: &account, service: "gateway", allow }, request);
    // Where a defect would make the server wait for more, the test is to fail and not to hang.
    tokio::time::timeout(Duration::from_secs(30), sending).await.expect("no response in 30 s")
}

async fn send(outbound: &Outbound, allow: &Allowlist, request: Request<RequestBody>) -> Result<Response<Incoming>, OutboundError> {
    send_as(outbound, "account_1", allow, request).await
}

async fn text(response: Response<Incoming>) -> String {
    let text = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    // On the one thread of a test, the connection's tasks run in here and put the connection back before the next request.
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
    text
}

#[tokio::test]
async fn nothing_leaves_by_default_and_the_error_is_the_line_to_write() {
    let server = Server::http().await;
    let outbound = outbound(loopback_allowed());
    let url = server.url("http", "127.0.0.1");
    let error = send(&outbound, &Allowlist::default(), get(&format!("{url}/x"))).await.unwrap_err();
    assert!(matches!(error, OutboundError::Denied { .. }));
    assert!(error.to_string().ends_with(&format!("In tovuk.toml, under [services.gateway], write: outbound = [\"{url}\"]")), "{error}");

    let error = send(&outbound, &allow(&["https://api.example.com"]), get(&url)).await.unwrap_err().to_string();
    assert!(error.ends_with(&format!("outbound = [\"https://api.example.com\", \"{url}\"]")), "{error}");

    let many: Vec<String> = (0..20).map(|n| format!("https://h{n}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = send(&outbound, &allow(&many), get(&url)).await.unwrap_err().to_string();
    assert!(error.ends_with(&format!("add \"{url}\" to `outbound`")), "{error}");

    let error = send(&outbound, &allow(&many), get("https://h1.example./")).await.unwrap_err().to_string();
    assert!(error.contains("without a trailing dot"), "{error}");
    assert_eq!(server.accepts(), 0);
}

#[tokio::test]
async fn an_allowed_request_arrives_and_its_connection_is_used_again() {
    let server = Server::http().await;
    let outbound = outbound(loopback_allowed());
    let url = server.url("http", "127.0.0.1");
    let list = allow(&[&url]);
    for _ in 0..3 {
        let request = Request::post(format!("{url}/path?q=1")).header("x-own", "1").body(body(b"hello")).unwrap();
        let seen = text(send(&outbound, &list, request).await.unwrap()).await;
        assert!(seen.starts_with("POST /path?q=1 HTTP/1.1\n"), "{seen}");
        assert!(seen.contains(&format!("host: {}\n", server.address)) && seen.contains("x-own: 1\n") && seen.ends_with("5 bytes\n"), "{seen}");
    }
    assert_eq!(server.accepts(), 1);
    text(send_as(&outbound, "account_2", &list, get(&url)).await.unwrap()).await;
    assert_eq!(server.accepts(), 2, "another account has connections of its own");
}

#[tokio::test]
async fn refused_addresses_never_see_a_connection() {
    let server = Server::http().await;
    let outbound = outbound(OutboundConfig::default());
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let url = server.url("http", host);
        let error = send(&outbound, &allow(&[&url]), get(&url)).await.unwrap_err();
        assert!(matches!(error, OutboundError::AddressRefused { .. }), "{host}: {error}");
        assert!(error.to_string().contains(ALLOW_ADDRESSES_SETTING), "{error}");
    }
    // Spellings that resolvers take for 127.0.0.1: no entry can name them, and none for the address itself covers them.
    for host in ["127.1", "2130706433", "0x7f000001", "0177.0.0.1"] {
        let url = server.url("http", host);
        let error = send(&outbound, &allow(&[&server.url("http", "127.0.0.1")]), get(&url)).await.unwrap_err();
        assert!(matches!(error, OutboundError::Denied { .. }), "{host}: {error}");
    }
    assert_eq!(server.accepts(), 0);
}

#[tokio::test]
async fn a_name_is_dialled_at_the_addresses_that_are_allowed() {
    let server = Server::http().await;
    let outbound = outbound(loopback_allowed());
    let url = server.url("http", "localhost");
    let seen = text(send(&outbound, &allow(&[&url]), get(&url.to_uppercase().replace("HTTP", "http"))).await.unwrap()).await;
    assert!(seen.contains(&format!("host: localhost:{}\n", server.address.port())), "{seen}");
    assert_eq!(server.accepts(), 1);
}

#[tokio::test]
async fn redirects_are_returned() {
    let server = Server::http().await;
    let url = server.url("http", "127.0.0.1");
    let response = send(&outbound(loopback_allowed()), &allow(&[&url]), get(&format!("{url}/moved"))).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["location"]), (302, &"/elsewhere".parse().unwrap()));
}

#[tokio::test]
async fn header_fields_of_the_connection_and_the_host_stay_here() {
    let server = Server::http().await;
    let url = server.url("http", "127.0.0.1");
    let request = Request::post(&url)
        .header("connection", "close, X-Nominated")
        .header("connection", "keep-alive")
        .header("x-nominated", "1")
        .header("keep-alive", "timeout=5")
        .header("transfer-encoding", "gzip")
        .header("upgrade", "websocket")
        .header("proxy-authorization", "x")
        .header("proxy-connection", "x")
        .header("te", "gzip")
        .header("http2-settings", "x")
        .header("host", "other.example")
        .header("x-tovuk-caller", "service_1")
        .header("authorization", "kept")
        .header("content-length", "2")
        .body(body(b"hi"))
        .unwrap();
    let seen = text(send(&outbound(loopback_allowed()), &allow(&[&url]), request).await.unwrap()).await;
    let mut lines: Vec<&str> = seen.lines().collect();
    lines.sort_unstable();
    let host = format!("host: {}", server.address);
    assert_eq!(lines, ["2 bytes", "POST / HTTP/1.1", "authorization: kept", "content-length: 2", &host]);

    let request = Request::get(&url).header("te", "trailers").body(body(b"")).unwrap();
    assert!(text(send(&outbound(loopback_allowed()), &allow(&[&url]), request).await.unwrap()).await.contains("te: trailers\n"));
}

#[tokio::test]
async fn what_is_not_valid_is_refused_before_anything_is_sent() {
    let server = Server::http().await;
    let outbound = outbound(loopback_allowed());
    let url = server.url("http", "127.0.0.1");
    let list = allow(&[&url]);
    let with_length = |length: &str| Request::post(&url).header("content-length", length).body(body(b"hello")).unwrap();
    let two_lengths = Request::post(&url).header("content-length", "5").header("content-length", "6").body(body(b"hello")).unwrap();
    for (request, problem) in [
        (get("/path"), "no scheme"),
        (get("ftp://127.0.0.1/"), "neither"),
        (get(&format!("http://me@{}/", server.address)), "user name"),
        (get("http://127.0.0.1:0/"), "port"),
        (get("http://127.0.0.1:70000/"), "port"),
        (Request::connect(&url).body(body(b"")).unwrap(), "CONNECT"),
        (with_length("50"), "its body has 5 bytes"),
        (with_length("+5"), "not a number"),
        (two_lengths, "two `content-length`"),
    ] {
        let error = send(&outbound, &list, request).await.unwrap_err();
        assert!(matches!(&error, OutboundError::InvalidRequest(text) if text.contains(problem)), "{problem}: {error}");
    }
    assert_eq!(server.accepts(), 0);
}

/// A certificate for `localhost`, an acceptor that presents it, and the certificate in PEM.
fn tls_for_localhost(alpn: &[&[u8]]) -> (TlsAcceptor, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem().into_bytes())
}

#[tokio::test]
async fn https_speaks_what_the_server_offers_and_shares_a_connection_of_http2() {
    for (alpn, version) in [(&[b"h2".as_slice(), b"http/1.1"][..], "HTTP/2.0"), (&[b"http/1.1"], "HTTP/1.1"), (&[], "HTTP/1.1")] {
        let (tls, root) = tls_for_localhost(alpn);
        let server = Server::https(tls).await;
        let outbound = outbound(OutboundConfig { extra_roots_pem: root, ..loopback_allowed() });
        let url = server.url("https", "localhost");
        let list = allow(&[&url]);
        for _ in 0..3 {
            let request = Request::get(&url).header("host", "other.example").header("connection", "close").body(body(b"")).unwrap();
            let seen = text(send(&outbound, &list, request).await.unwrap()).await;
            assert!(seen.lines().next().unwrap().ends_with(version) && !seen.contains("other.example"), "{seen}");
        }
        assert_eq!(server.accepts(), 1, "{version}");
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_is_an_error_of_its_own() {
    let (tls, root) = tls_for_localhost(&[]);
    let server = Server::https(tls).await;
    let trusted = OutboundConfig { extra_roots_pem: root, ..loopback_allowed() };
    for (config, host) in [(loopback_allowed(), "localhost"), (trusted, "127.0.0.1")] {
        let url = server.url("https", host);
        let error = send(&outbound(config), &allow(&[&url]), get(&url)).await.unwrap_err();
        assert!(matches!(error, OutboundError::Tls { certificate: true, .. }), "{error:?}");
    }
    let plain = Server::http().await;
    let url = plain.url("https", "127.0.0.1");
    let error = send(&outbound(loopback_allowed()), &allow(&[&url]), get(&url)).await.unwrap_err();
    assert!(matches!(error, OutboundError::Tls { certificate: false, .. }), "{error:?}");
}

#[tokio::test]
async fn extra_roots_that_are_none_are_refused() {
    for pem in [&b"nothing"[..], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let config = OutboundConfig { extra_roots_pem: pem.to_vec(), ..OutboundConfig::default() };
        assert!(matches!(Outbound::new(config), Err(ConfigError::ExtraRoots(_))));
    }
}

#[tokio::test]
async fn each_failure_has_its_own_error() {
    let hasty = outbound(OutboundConfig { connect_timeout: Duration::from_millis(200), ..loopback_allowed() });
    let outbound = outbound(loopback_allowed());

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{closed}");
    let error = send(&outbound, &allow(&[&url]), get(&url)).await.unwrap_err();
    assert!(matches!(error, OutboundError::Connect { refused: true, .. }), "{error:?}");

    let mute = Server::start(|mut stream| async move {
        let _until_closed = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let url = mute.url("https", "127.0.0.1");
    let error = send(&hasty, &allow(&[&url]), get(&url)).await.unwrap_err();
    assert!(matches!(error, OutboundError::ConnectTimeout { timeout_ms: 200, .. }), "{error:?}");

    let babbling = Server::start(|mut stream| async move {
        let _request = stream.read(&mut [0; 1024]).await;
        let _sent = stream.write_all(b"220 mail.example ESMTP\r\n").await;
    })
    .await;
    let url = babbling.url("http", "127.0.0.1");
    let error = send(&outbound, &allow(&[&url]), get(&url)).await.unwrap_err();
    assert!(matches!(error, OutboundError::Protocol { .. }), "{error:?}");

    let list = allow(&["http://does-not-exist.invalid"]);
    let error = send(&outbound, &list, get("http://does-not-exist.invalid/")).await.unwrap_err();
    assert!(matches!(error, OutboundError::Dns { .. }), "{error:?}");
}

#[tokio::test]
async fn an_account_waits_for_a_free_connection_and_then_hears_of_the_limit() {
    let server = Server::http().await;
    let url = server.url("http", "127.0.0.1");
    let list = allow(&[&url]);
    let outbound =
        outbound(OutboundConfig { connections_max: 1, idle_connections_max: 0, connect_timeout: Duration::from_millis(500), ..loopback_allowed() });
    // A response whose server has not sent it whole holds its connection.
    let endless = Server::start(|mut stream| async move {
        let _request = stream.read(&mut [0; 1024]).await;
        let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe").await;
        let _until_closed = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let endless_url = endless.url("http", "127.0.0.1");
    let held = send(&outbound, &allow(&[&endless_url]), get(&endless_url)).await.unwrap();
    let error = send(&outbound, &list, get(&url)).await.unwrap_err();
    assert!(matches!(error, OutboundError::ConnectionLimit { connections_max: 1, .. }), "{error:?}");
    assert!(send_as(&outbound, "account_2", &list, get(&url)).await.is_ok(), "another account has a limit of its own");
    drop(held);
    assert!(send(&outbound, &list, get(&url)).await.is_ok());
    assert_eq!(server.accepts(), 2);
}
