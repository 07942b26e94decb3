//! A DNS server in the test: one zone, on both transports of one port.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_server::Server;
use hickory_server::proto::rr::rdata::{CNAME, SOA};
use hickory_server::proto::rr::{LowerName, Name, RData, Record, RecordSet, RecordType, RrKey};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

/// The zone `example.com`. It answers until it is dropped.
pub struct Zone {
    /// Where it answers.
    pub address: SocketAddr,
    handler: Arc<InMemoryZoneHandler<TokioRuntimeProvider>>,
    serial: AtomicU32,
    _server: Server<Catalog>,
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).unwrap()
}

async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

impl Zone {
    /// An empty zone.
    pub async fn start() -> Self {
        let origin = name("example.com");
        let soa = SOA::new(name("ns.example.com"), name("root.example.com"), 1, 60, 60, 60, 60);
        let mut records = RecordSet::new(origin.clone(), RecordType::SOA, 1);
        records.insert(Record::from_rdata(origin.clone(), 60, RData::SOA(soa)), 1);
        let records = BTreeMap::from([(RrKey::new(origin.clone().into(), RecordType::SOA), records)]);
        let handler = Arc::new(InMemoryZoneHandler::new(origin.clone(), records, ZoneType::Primary, AxfrPolicy::Deny).unwrap());
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::from(origin), vec![handler.clone()]);
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().unwrap();
        let mut server = Server::new(catalog);
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 16);
        Self { address, handler, serial: AtomicU32::new(2), _server: server }
    }

    /// Makes `of` lead to `target`, and nowhere else.
    pub async fn set(&self, of: &str, target: &str) {
        let record = Record::from_rdata(name(of), 60, RData::CNAME(CNAME(name(target))));
        assert!(self.handler.upsert(record, self.serial.fetch_add(1, Ordering::Relaxed)).await, "{of} was so already");
    }
}
