//! Listeners: sockets that accept connections, and what a connection may cost. Whatever gives a response to a request can be served, so that the public
//! edge and the control API have the same limits. Which certificate a TLS listener shows is `tls`'s; what is answered is the [`Answer`]'s.
//!
//! `accept` takes connections in, `connection` drives one, `progress` says which of them have stopped moving.

mod accept;
mod bodies;
mod connection;
mod peer;
mod progress;
mod socket;
mod timer;

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;

use tovuk_kernel::clock::Clock;
use tovuk_kernel::limits::{
    BODY_STALL_SECONDS_MAX, CONNECTION_IDLE_SECONDS_MAX, CONNECTIONS_CLIENT_MAX, CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_SECONDS_MAX, HTTP2_RESETS_MAX,
    HTTP2_STREAMS_MAX, TLS_HANDSHAKE_SECONDS_MAX,
};
use tovuk_runtime::body::Body;

pub(crate) use peer::client_of;
pub use peer::{Peer, Scheme};

use crate::tls::Tls;

/// What a listener serves: something with a response to every request. Clones are the same thing; there is one for each connection.
pub trait Answer: Clone + Send + Sync + 'static {
    /// Answers a request.
    fn answer(&self, request: Request<Body>, peer: &Peer) -> impl Future<Output = Response<Body>> + Send;

    /// The clock that the listener waits by.
    fn clock(&self) -> &Clock;
}

/// Limits of a listener, and whether it speaks TLS.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// Connections at a time. More wait unaccepted.
    pub connections_max: usize,
    /// Connections of one client at a time: of one IPv4 address, or of the 64 bits of an IPv6 address that a network gives to one customer. More are closed.
    pub connections_per_client_max: usize,
    /// How long a client may take to send a request's head, and how long an HTTP/1 connection may be without a request.
    pub head_timeout: Duration,
    /// Bytes of a request's head.
    pub head_bytes_max: usize,
    /// How long a connection may be without a request before it is asked to end, whatever else moves on it. This is what bounds HTTP/2.
    pub idle_timeout: Duration,
    /// How long a body may stand still because the client neither sends nor reads.
    pub stall_timeout: Duration,
    /// Requests of one HTTP/2 connection at a time.
    pub streams_max: u32,
    /// Requests that a client of HTTP/2 may take back before they are looked at. More end its connection.
    pub resets_max: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long running requests may take to end once the listener stops.
    pub drain_timeout: Duration,
    /// With this the listener speaks TLS, and only that.
    pub tls: Option<Tls>,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            connections_per_client_max: CONNECTIONS_CLIENT_MAX,
            head_timeout: Duration::from_secs(HEAD_SECONDS_MAX),
            head_bytes_max: HEAD_BYTES_MAX,
            idle_timeout: Duration::from_secs(CONNECTION_IDLE_SECONDS_MAX),
            stall_timeout: Duration::from_secs(BODY_STALL_SECONDS_MAX),
            streams_max: HTTP2_STREAMS_MAX,
            resets_max: HTTP2_RESETS_MAX,
            handshake_timeout: Duration::from_secs(TLS_HANDSHAKE_SECONDS_MAX),
            drain_timeout: Duration::from_secs(30),
            tls: None,
        }
    }
}

/// A listener that accepts connections until it is stopped.
pub struct Listening {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Listening {
    /// Listens at `address`; port 0 lets the system choose.
    pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    /// Serves this on the socket.
    pub fn serve<A: Answer>(listener: TcpListener, answer: A, config: ListenConfig) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept::run(listener, answer, config, stopped));
        Ok(Self { address, stop, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more connections, and waits until the requests that run have been answered, at most for the drain timeout.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // The task ends by itself; if it panicked there is nothing left to wait for.
        let _ = self.task.await;
    }
}
