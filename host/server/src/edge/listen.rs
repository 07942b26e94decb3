//! Connections: how many, how slow, how large their heads may be.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use tovuk_runtime::body::Body;

use super::request::{Edge, Peer};
use super::timer::ConnectionTimer;

/// Limits of a listener.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// Connections at a time. More wait unaccepted.
    pub connections_max: usize,
    /// How long a client may take to send a request's head.
    pub head_timeout: Duration,
    /// Bytes of a request's head.
    pub head_bytes_max: usize,
    /// How long running requests may take to end once the listener stops.
    pub drain_timeout: Duration,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { connections_max: 16_384, head_timeout: Duration::from_secs(30), head_bytes_max: 64 << 10, drain_timeout: Duration::from_secs(30) }
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

    /// Serves the edge on this socket.
    pub fn serve(listener: TcpListener, edge: Edge, config: ListenConfig) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(listener, edge, config, stopped));
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

async fn accept(listener: TcpListener, edge: Edge, config: ListenConfig, mut stopped: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(config.connections_max));
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout)
        .max_buf_size(config.head_bytes_max.max(8 << 10))
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(config.head_bytes_max).unwrap_or(u32::MAX))
        .keep_alive_interval(config.head_timeout);
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            _ = stopped.changed() => break,
        };
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: they come back as connections end.
                    tracing::warn!("a connection could not be accepted: {error}");
                    edge.runtime().clock().sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            _ = stopped.changed() => break,
        };
        prepare(&stream);
        let peer = Peer::new(peer.ip());
        let (edge, clock, mut builder, watcher) = (edge.clone(), edge.runtime().clock().clone(), builder.clone(), graceful.watcher());
        builder.http1().timer(ConnectionTimer::default());
        let service = service_fn(move |request: Request<Incoming>| {
            let (edge, peer) = (edge.clone(), peer.clone());
            async move { Ok::<_, Infallible>(edge.answer(request.map(incoming), &peer).await) }
        });
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let _place = place;
            // The server's own timer begins with the first byte, and a client that sends none would keep its place for ever.
            if !matches!(clock.timeout(config.head_timeout, stream.peek(&mut [0])).await, Some(Ok(1))) {
                return;
            }
            // Clients that go away, or that speak no HTTP, end their own connection and nothing else.
            if let Err(error) = watcher.watch(builder.serve_connection(TokioIo::new(stream), service)).await {
                tracing::debug!("a connection ended early: {error}");
            }
        });
    }
    drop(listener);
    let clock = edge.runtime().clock().clone();
    if clock.timeout(config.drain_timeout, graceful.shutdown()).await.is_none() {
        tracing::warn!("requests were still running when the drain timeout was over; their connections are cut");
    }
    connections.shutdown().await;
}

fn prepare(stream: &TcpStream) {
    // Small answers leave at once. A socket that is gone already says so at its first read.
    let _ = stream.set_nodelay(true);
}

fn incoming(body: Incoming) -> Body {
    if body.is_end_stream() { Body::Empty } else { Body::stream(body) }
}
