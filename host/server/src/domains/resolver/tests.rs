//! Verification against a DNS server in this process, and against servers that misbehave.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use hickory_server::Server;
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_server::proto::rr::{LowerName, RecordSet, RrKey};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

const EXPECTED: &str = "0123abcd.cname.tovuk.example";
const TTL: u32 = 3600;

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).unwrap()
}

fn cname(of: &str, target: &str) -> Record {
    Record::from_rdata(name(of), TTL, RData::CNAME(CNAME(name(target))))
}

/// The zone `example.com` on both transports of one port.
struct Zone {
    address: SocketAddr,
    handler: Arc<InMemoryZoneHandler<TokioRuntimeProvider>>,
    _server: Server<Catalog>,
}

/// One port for both transports.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

impl Zone {
    async fn start(records: Vec<Record>) -> Self {
        let origin = name("example.com");
        let soa = SOA::new(name("ns.example.com"), name("root.example.com"), 1, 60, 60, 60, 60);
        let mut soa_set = RecordSet::new(origin.clone(), RecordType::SOA, 1);
        soa_set.insert(Record::from_rdata(origin.clone(), TTL, RData::SOA(soa)), 1);
        let zone = BTreeMap::from([(RrKey::new(origin.clone().into(), RecordType::SOA), soa_set)]);
        let handler = Arc::new(InMemoryZoneHandler::new(origin.clone(), zone, ZoneType::Primary, AxfrPolicy::Deny).unwrap());
        for record in records {
            handler.upsert(record, 1).await;
        }
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::from(origin), vec![handler.clone()]);
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().unwrap();
        let mut server = Server::new(catalog);
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 16);
        Self { address, handler, _server: server }
    }

    async fn verify(&self, hostname: &str) -> Result<(), VerifyError> {
        Resolver::new(&Nameservers::Addresses(vec![self.address])).unwrap().verify(hostname, EXPECTED).await
    }
}

#[tokio::test]
async fn a_record_that_says_what_it_should_verifies_its_name() {
    let zone = Zone::start(vec![cname("api.example.com", &EXPECTED.to_uppercase())]).await;
    assert_eq!(zone.verify("api.example.com").await, Ok(()));
    assert_eq!(zone.verify("www.example.com").await.unwrap_err().code().code, "domain_not_verified");
}

#[tokio::test]
async fn what_stands_there_instead_is_named() {
    let zone = Zone::start(vec![
        cname("other.example.com", "elsewhere.example.net"),
        cname("chain.example.com", "api.example.com"),
        cname("api.example.com", EXPECTED),
        cname("under.example.com", &format!("x.{EXPECTED}")),
        Record::from_rdata(name("address.example.com"), TTL, RData::A(A(Ipv4Addr::new(192, 0, 2, 1)))),
        Record::from_rdata(name("address.example.com"), TTL, RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))),
        Record::from_rdata(name("example.com"), TTL, RData::A(A(Ipv4Addr::new(192, 0, 2, 2)))),
    ])
    .await;
    for (hostname, says) in [
        ("other.example.com", "has a CNAME record with the value elsewhere.example.net; change it to 0123abcd.cname.tovuk.example"),
        ("chain.example.com", "has a CNAME record with the value api.example.com; change it to"),
        ("under.example.com", "has a CNAME record with the value x.0123abcd.cname.tovuk.example; change it to"),
        ("address.example.com", "has address records (192.0.2.1, 2001:db8::1) and no CNAME record"),
        ("example.com", "is the apex of its zone"),
        ("missing.example.com", "has no CNAME record yet; create one with the value 0123abcd.cname.tovuk.example"),
    ] {
        let error = zone.verify(hostname).await.unwrap_err();
        assert!(error.is_definite(), "{error}");
        assert!(error.to_string().starts_with(&format!("{hostname} {says}")), "{error}");
    }
    let refused = zone.verify("api.example.net").await.unwrap_err();
    assert!(matches!(&refused, VerifyError::ServerFailure { response, .. } if response.contains("Refused")), "{refused:?}");
    assert!(!refused.is_definite());
}

#[tokio::test]
async fn a_change_is_seen_at_once_whatever_its_time_to_live() {
    let zone = Zone::start(vec![]).await;
    let resolver = Resolver::new(&Nameservers::Addresses(vec![zone.address])).unwrap();
    let verify = || resolver.verify("api.example.com", EXPECTED);
    assert!(matches!(verify().await, Err(VerifyError::NoRecord { .. })));
    zone.handler.upsert(cname("api.example.com", "elsewhere.example.net"), 2).await;
    assert!(matches!(verify().await, Err(VerifyError::OtherTarget { .. })));
    zone.handler.upsert(cname("api.example.com", EXPECTED), 3).await;
    assert_eq!(verify().await, Ok(()));
    zone.handler.upsert(cname("api.example.com", "elsewhere.example.net"), 4).await;
    assert!(matches!(verify().await, Err(VerifyError::OtherTarget { .. })));
}

/// A server that answers each question with the bytes that `answer` makes of it, over both transports; with nothing, it stays silent.
async fn server(answer: impl Fn(&[u8], bool) -> Option<Vec<u8>> + Clone + Send + Sync + 'static) -> SocketAddr {
    let (udp, tcp) = sockets().await;
    let address = udp.local_addr().unwrap();
    let by_tcp = answer.clone();
    tokio::spawn(async move {
        let mut question = vec![0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut question).await {
            if let Some(answer) = answer(&question[..length], true) {
                let _ = udp.send_to(&answer, from).await;
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let answer = by_tcp.clone();
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut question = vec![0; length.into()];
                    stream.read_exact(&mut question).await?;
                    let Some(answer) = answer(&question, false) else { continue };
                    stream.write_u16(answer.len() as u16).await?;
                    stream.write_all(&answer).await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    address
}

/// The head of an answer to this question, and the question.
fn answer_to(question: &[u8], flags: [u8; 2], answers: u16) -> Vec<u8> {
    let end = question[12..].iter().position(|byte| *byte == 0).unwrap() + 17;
    [&question[..2], &flags, &[0, 1], &answers.to_be_bytes(), &[0, 0, 0, 0], &question[12..end]].concat()
}

/// A CNAME record of the name that was asked for.
fn cname_answer(target: &str) -> Vec<u8> {
    let labels: Vec<u8> = target.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).chain([0]).collect();
    [&[0xc0, 12, 0, 5, 0, 1, 0, 0, 14, 16][..], &(labels.len() as u16).to_be_bytes(), &labels].concat()
}

async fn ask(address: SocketAddr) -> Result<(), VerifyError> {
    let servers = Nameservers::Addresses(vec![address]);
    let resolver = Resolver::with_timeouts(&servers, Duration::from_millis(200), Duration::from_secs(5)).unwrap();
    resolver.verify("api.example.com", EXPECTED).await
}

#[tokio::test]
async fn failures_of_servers_say_nothing_about_the_record() {
    let failing = server(|question, _| Some(answer_to(question, [0x81, 0x82], 0))).await;
    let error = ask(failing).await.unwrap_err();
    assert!(matches!(&error, VerifyError::ServerFailure { .. }), "{error:?}");
    let silent = server(|_, _| None).await;
    let error = ask(silent).await.unwrap_err();
    assert!(matches!(&error, VerifyError::Timeout { .. }), "{error:?}");
    assert!(!error.is_definite());
    let unreachable = sockets().await.0.local_addr().unwrap();
    let error = ask(unreachable).await.unwrap_err();
    assert!(!error.is_definite(), "{error:?}");
}

#[tokio::test]
async fn a_verification_ends_in_time_however_slow_the_servers_are() {
    let silent = server(|_, _| None).await;
    let servers = Nameservers::Addresses(vec![silent]);
    let resolver = Resolver::with_timeouts(&servers, Duration::from_secs(3600), Duration::from_millis(100)).unwrap();
    assert!(matches!(resolver.verify("api.example.com", EXPECTED).await, Err(VerifyError::Timeout { .. })));
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_asked_for_over_tcp() {
    let truncating = server(|question, is_udp| {
        let flags = if is_udp { [0x83, 0x80] } else { [0x81, 0x80] };
        Some(if is_udp { answer_to(question, flags, 0) } else { [answer_to(question, flags, 1), cname_answer(EXPECTED)].concat() })
    })
    .await;
    assert_eq!(ask(truncating).await, Ok(()));
}

#[tokio::test]
async fn hostile_answers_verify_nothing() {
    // Several records, of which one is right.
    let several =
        server(|question, _| Some([answer_to(question, [0x81, 0x80], 2), cname_answer(EXPECTED), cname_answer("b.example")].concat())).await;
    assert!(matches!(ask(several).await, Err(VerifyError::Several { found, .. }) if found == [EXPECTED, "b.example"]));
    // The right record of another name.
    let other_name = server(|question, _| {
        let mut record = cname_answer(EXPECTED);
        record.splice(..2, *b"\x01x\x00");
        Some([answer_to(question, [0x81, 0x80], 1), record].concat())
    })
    .await;
    assert!(ask(other_name).await.is_err());
    // A value with bytes that no terminal should get.
    let escapes = server(|question, _| Some([answer_to(question, [0x81, 0x80], 1), cname_answer("\u{1b}[31m\n.example")].concat())).await;
    let error = ask(escapes).await.unwrap_err().to_string();
    assert!(!error.chars().any(char::is_control), "{error:?}");
    // Names that point at themselves, answers that are cut, another question's answer, and noise.
    type Noise = fn(&[u8]) -> Vec<u8>;
    let noise: [Noise; 4] = [
        |question| [answer_to(question, [0x81, 0x80], 1), vec![0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 45]].concat(),
        |question| answer_to(question, [0x81, 0x80], 65_535),
        |question| [answer_to(&[&[question[0] ^ 1], &question[1..]].concat(), [0x81, 0x80], 1), cname_answer(EXPECTED)].concat(),
        |_| vec![0xff; 600],
    ];
    for make in noise {
        let address = server(move |question, _| Some(make(question))).await;
        assert!(ask(address).await.is_err());
    }
}
