//! Certificates by ACME, from a real server: Debian's `pebble`, with the name server of `pebble-challtestsrv`, on ports of their own.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use tovuk_kernel::clock::Clock;
use tovuk_server::boot::AcmeSettings;
use tovuk_server::domains::Nameservers;
use tovuk_server::edge::{ListenConfig, Redirect};
use tovuk_server::listen::Listening;
use tovuk_server::tls::acme::{Acme, AcmeConfig, HostState, HostStatus, Proof};
use tovuk_server::tls::{CertificateStore, Tls};
use tovuk_tests::{Authority, Host, Operator, Program, Protocol, TlsClient, Zone, ask};

use crate::{TOVUK, host};

const INSTALL: &str = "apt-get update && apt-get install --yes pebble";

/// Installs the ACME server where it is missing and this user may.
fn install_pebble() {
    let is_there = || Command::new("pebble").arg("-version-of-nothing").output().is_ok();
    if is_there() {
        return;
    }
    if rustix::process::geteuid().is_root() {
        let _ = Command::new("sh").args(["-c", INSTALL]).output();
    }
    assert!(is_there(), "this test needs the ACME server `pebble`; as root: {INSTALL}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An ACME server that validates against these ports.
struct Pebble {
    directory_url: String,
    management: u16,
    folder: tempfile::TempDir,
    _server: Program,
    _names: Program,
}

impl Pebble {
    async fn start(http_port: u16, tls_port: u16) -> Self {
        static INSTALLED: std::sync::Once = std::sync::Once::new();
        INSTALLED.call_once(install_pebble);
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let own = authority.issue(folder.path(), &["localhost"]);
        std::fs::write(folder.path().join("root.pem"), authority.root_pem()).unwrap();
        let (port, management, dns, names_management) = (free_port(), free_port(), free_port(), free_port());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"), "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": own.cert, "privateKey": own.key, "httpPort": http_port, "tlsPort": tls_port,
        }});
        let config_path = folder.path().join("pebble.json");
        std::fs::write(&config_path, config.to_string()).unwrap();
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-dns01", &format!("127.0.0.1:{dns}"), "-management", &format!("127.0.0.1:{names_management}")]);
        let names = Program::start(names);
        let mut server = Command::new("pebble");
        server.arg("-config").arg(&config_path).args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        server.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        let mut server = Program::start(server);
        server.line(&["ACME directory available"]).await;
        // It says so before it listens.
        for port in [port, management, names_management] {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::task::yield_now().await;
            }
        }
        Self { directory_url: format!("https://localhost:{port}/dir"), management, folder, _server: server, _names: names }
    }

    fn config(&self, folder: &Path, proof: Proof) -> AcmeConfig {
        AcmeConfig {
            directory_url: self.directory_url.clone(),
            contact: vec!["mailto:operator@example.org".to_owned()],
            folder: folder.to_owned(),
            root_certificates: Some(self.folder.path().join("root.pem")),
            proof,
        }
    }

    /// The root that it issues from, which is another each time it starts.
    async fn root(&self) -> TlsClient {
        let authority = std::fs::read_to_string(self.folder.path().join("root.pem")).unwrap();
        let client = TlsClient::trusting(&authority);
        let stream = client.connect(([127, 0, 0, 1], self.management).into(), "localhost", &["http/1.1"]).await.unwrap();
        let request = Request::builder().uri("/roots/0").header("host", "localhost").body(Full::<Bytes>::default()).unwrap();
        TlsClient::trusting(ask(stream, Protocol::Http1, request).await.unwrap().text())
    }
}

/// Waits until a host name stands so.
async fn until(acme: &Acme, hostname: &str, stands: impl Fn(&HostStatus) -> bool) -> HostStatus {
    let mut updates = acme.updates();
    let wait = async {
        loop {
            updates.borrow_and_update();
            if let Some(status) = acme.status(hostname).filter(|status| stands(status)) {
                return status;
            }
            updates.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(120), wait).await.unwrap_or_else(|_| panic!("{hostname} stands as {:?}", acme.status(hostname)))
}

fn is_issued(status: &HostStatus) -> bool {
    status.state == HostState::Issued
}

async fn tls_listener(host: &Host, store: &CertificateStore) -> Listening {
    host.also_listens(ListenConfig { tls: Some(Tls::new(store.clone()).unwrap()), ..ListenConfig::default() }).await
}

#[tokio::test]
async fn a_wanted_host_name_gets_a_certificate_which_is_kept_and_renewed() {
    let host = host().await;
    host.deploy("hello", "hello", |service| service.public()).await;
    host.also_at("shop.example.org", "hello");
    let (store, clock) = (CertificateStore::default(), Clock::advanceable());
    let listening = tls_listener(&host, &store).await;
    let pebble = Pebble::start(free_port(), listening.address().port()).await;
    let folder = tempfile::tempdir().unwrap();
    let acme = Acme::start(pebble.config(folder.path(), Proof::TlsAlpn), store.clone(), clock.clone()).unwrap();
    acme.want("Shop.example.org").unwrap();
    assert!(acme.want("*.example.org").is_err() && acme.want("../etc").is_err() && acme.want("127.0.0.1").is_err());
    let first = until(&acme, "shop.example.org", is_issued).await;
    let client = pebble.root().await;
    let shown = async || {
        let stream = client.connect(listening.address(), "shop.example.org", &["h2"]).await.unwrap();
        let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        let request = Request::builder().uri("https://shop.example.org/").body(Full::<Bytes>::default()).unwrap();
        assert_eq!(ask(stream, Protocol::Http2, request).await.unwrap().text(), "hello");
        certificate
    };
    let certificate = shown().await;
    assert!(client.connect(listening.address(), "other.example.org", &[]).await.is_err(), "nobody wants this name");

    // Another process finds it on disk, and orders nothing.
    drop(acme);
    store.set_host("shop.example.org", None);
    let acme = Acme::start(pebble.config(folder.path(), Proof::TlsAlpn), store.clone(), clock.clone()).unwrap();
    acme.want("shop.example.org").unwrap();
    assert_eq!(acme.status("shop.example.org").unwrap().expires_at, first.expires_at);
    assert_eq!(shown().await, certificate);

    // After two thirds of its time it is replaced, by the account that there is.
    let lifetime = first.expires_at.unwrap() - clock.now_unix_ms();
    clock.advance(Duration::from_millis(lifetime / 3 * 2 + 60_000));
    acme.updates().changed().await.unwrap();
    assert!(is_issued(&acme.status("shop.example.org").unwrap()), "{:?}", acme.status("shop.example.org"));
    assert_ne!(shown().await, certificate);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "one account and one certificate");

    let certificate = shown().await;
    acme.forget("shop.example.org");
    assert!(client.connect(listening.address(), "shop.example.org", &[]).await.is_err() && acme.status("shop.example.org").is_none());

    // Who takes a name back gets what there is, and uses up no order.
    acme.want("shop.example.org").unwrap();
    assert_eq!(shown().await, certificate);
}

#[tokio::test]
async fn a_host_name_is_proved_over_plain_http_and_a_refusal_is_not_asked_again_at_once() {
    let host = host().await;
    let (store, clock) = (CertificateStore::default(), Clock::advanceable());
    let port = free_port();
    let pebble = Pebble::start(port, free_port()).await;
    let folder = tempfile::tempdir().unwrap();
    let acme = Acme::start(pebble.config(folder.path(), Proof::Http), store.clone(), clock.clone()).unwrap();
    // Nothing listens there yet.
    acme.want("shop.example.org").unwrap();
    let failed = until(&acme, "shop.example.org", |status| status.failures == 1).await;
    let HostState::Failed(reason) = &failed.state else { panic!("{failed:?}") };
    assert!(reason.contains("refused") || reason.contains("connect"), "{reason}");
    assert!(failed.next_attempt_at > clock.now_unix_ms() + 50_000);

    // One that starts anew keeps to it.
    drop(acme);
    let acme = Acme::start(pebble.config(folder.path(), Proof::Http), store.clone(), clock.clone()).unwrap();
    acme.want("shop.example.org").unwrap();
    assert_eq!(acme.status("shop.example.org").unwrap(), failed);
    clock.advance(Duration::from_secs(61));
    let failed = until(&acme, "shop.example.org", |status| status.failures == 2).await;
    assert!(failed.next_attempt_at > clock.now_unix_ms() + 110_000);

    let listener = Listening::bind(([127, 0, 0, 1], port).into()).await.unwrap();
    let redirect = Redirect::new(host.clock.clone(), acme.http_challenges(), 443);
    let _plain = Listening::serve(listener, redirect, ListenConfig::default()).unwrap();
    clock.advance(Duration::from_secs(121));
    let status = until(&acme, "shop.example.org", is_issued).await;
    assert_eq!(status.failures, 0);
    let listening = tls_listener(&host, &store).await;
    assert!(pebble.root().await.connect(listening.address(), "shop.example.org", &[]).await.is_ok());
}

/// The certificate that a host shows for this name once it has one.
async fn certificate_of(client: &TlsClient, address: std::net::SocketAddr, hostname: &str) -> Vec<u8> {
    let shown = async {
        loop {
            if let Ok(stream) = client.connect(address, hostname, &["h2"]).await {
                return stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), shown).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_domain_has_a_certificate_until_its_service_gives_it_up() {
    const NAME: &str = "shop.example.com";
    let (zone, port) = (Zone::start().await, free_port());
    let pebble = Pebble::start(free_port(), port).await;
    let settings = pebble.config(Path::new(""), Proof::TlsAlpn);
    let host = Operator::with(TOVUK, |config| {
        config.listen = ([127, 0, 0, 1], port).into();
        config.nameservers = Nameservers::Addresses(vec![zone.address]);
        let (directory_url, root_certificates) = (settings.directory_url, settings.root_certificates);
        config.acme = Some(AcmeSettings { directory_url, contact: None, root_certificates, proof: Proof::TlsAlpn });
    });
    let host = host.await;
    let (alice, bob) = (host.account("alice").await, host.account("bob").await);
    let of = |service: &str| format!("/v1/services/{service}/domains");
    for (token, service) in [(&alice, "shop"), (&bob, "other")] {
        host.deploy(token, service, "hello", json!({"routes": ["/*"]})).await;
        let added = host.ok_as(token, "POST", &of(service), Some(json!({"domain": NAME}))).await;
        if service == "shop" {
            zone.set(NAME, added["dns_record_value"].as_str().unwrap()).await;
        }
    }
    host.ok_as(&alice, "POST", &format!("{}/{NAME}/verify", of("shop")), None).await;
    let (client, address) = (pebble.root().await, host.host.public_address());
    let certificate = certificate_of(&client, address, NAME).await;
    let request = Request::builder().uri(format!("https://{NAME}/")).body(Full::<Bytes>::default()).unwrap();
    let stream = client.connect(address, NAME, &["h2"]).await.unwrap();
    assert_eq!(ask(stream, Protocol::Http2, request).await.unwrap().text(), "hello");

    // Somebody else's claim of the same name, which never led anywhere, ends without a trace.
    host.ok_as(&bob, "DELETE", &format!("{}/{NAME}", of("other")), None).await;
    assert_eq!(certificate_of(&client, address, NAME).await, certificate);
    host.ok_as(&alice, "DELETE", &format!("{}/{NAME}", of("shop")), None).await;
    assert!(client.connect(address, NAME, &["h2"]).await.is_err());
}
