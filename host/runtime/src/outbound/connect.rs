//! Opens connections: resolve, check, dial, shake hands. The address that was checked is the one that is dialled, because the check stands
//! between resolver and dialler; nothing resolves a second time. Proxies named in the environment are not consulted.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_service::Service;

use super::AddressPolicy;

/// Name lookups of one account at a time. Each holds a thread of the blocking pool until the system's resolver gives up, so an account whose
/// names do not answer must not take them all.
const LOOKUPS_MAX: usize = 16;

/// Why there is no connection. It is cloned out of the HTTP client's error, hence text instead of sources.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the name does not resolve: {0}")]
    Dns(String),
    #[error("the address is refused")]
    AddressRefused,
    #[error("the connection failed: {reason}")]
    Connect { reason: String, refused: bool },
    #[error("too many connections")]
    ConnectionLimit,
    #[error("the TLS handshake failed: {reason}")]
    Tls { reason: String, certificate: bool },
    #[error("it took too long")]
    Timeout,
}

/// The connector of one account.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<Dialler>,
    slots: Arc<Semaphore>,
    timeout: Duration,
}

impl Connector {
    pub fn new(policy: Arc<AddressPolicy>, tls: rustls::ClientConfig, timeout: Duration, connections_max: usize) -> Self {
        let resolver = Resolver { policy: policy.clone(), lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) };
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Divided among the addresses of a name, so that one that swallows packets leaves time for the next.
        tcp.set_connect_timeout(Some(timeout));
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(Dialler { tcp, policy });
        Self { https, slots: Arc::new(Semaphore::new(connections_max)), timeout }
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Stream, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        // Neither layer below holds anything back: what is limited waits in the future, where it can time out.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { mut https, slots, timeout } = self.clone();
        Box::pin(async move {
            // These limits are on the network, not on the time of day: a development host that skips a week must not end connections.
            let slot = tokio::time::timeout(timeout, slots.acquire_owned()).await;
            let Ok(Ok(slot)) = slot else { return Err(Failure::ConnectionLimit) };
            match tokio::time::timeout(timeout, https.call(uri)).await {
                Ok(Ok(inner)) => Ok(Stream { inner, _slot: slot }),
                Ok(Err(error)) => Err(error.downcast::<Failure>().map_or_else(|error| tls_failure(&*error), |failure| *failure)),
                Err(_) => Err(Failure::Timeout),
            }
        })
    }
}

/// What is not from the dialler is from the handshake.
fn tls_failure(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Failure {
    // The handshake's error lies in an `io::Error`, often in two.
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        cause = inner;
    }
    let certificate = matches!(cause.downcast_ref::<rustls::Error>(), Some(rustls::Error::InvalidCertificate(_)));
    Failure::Tls { reason: cause.to_string(), certificate }
}

/// Dials hosts that are addresses after a check of its own, because the inner connector does not ask the resolver for them.
#[derive(Clone)]
struct Dialler {
    tcp: HttpConnector<Resolver>,
    policy: Arc<AddressPolicy>,
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<TcpStream>;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<TokioIo<TcpStream>, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if literal(uri.host().unwrap_or_default()).is_some_and(|ip| !self.policy.allows(ip)) {
            tracing::warn!(%uri, "refused an outgoing connection to an address that workers may not reach");
            return Box::pin(std::future::ready(Err(Failure::AddressRefused)));
        }
        let connecting = self.tcp.call(uri);
        Box::pin(async move { connecting.await.map_err(|error| tcp_failure(&error)) })
    }
}

/// The address that the inner connector would take the host for.
fn literal(host: &str) -> Option<IpAddr> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.parse::<Ipv4Addr>().map(IpAddr::V4).or_else(|_| host.parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

fn tcp_failure(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return failure.clone();
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            if error.kind() == io::ErrorKind::TimedOut {
                return Failure::Timeout;
            }
            return Failure::Connect { reason: error.to_string(), refused: error.kind() == io::ErrorKind::ConnectionRefused };
        }
        reason = error.to_string();
        cause = error.source();
    }
    Failure::Connect { reason, refused: false }
}

/// The system's resolver, less the addresses that the policy refuses. A name whose addresses are all refused is an error of its own.
#[derive(Clone)]
struct Resolver {
    policy: Arc<AddressPolicy>,
    lookups: Arc<Semaphore>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Self::Response, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { policy, lookups } = self.clone();
        Box::pin(async move {
            let permit = lookups.acquire_owned().await.map_err(|error| Failure::Dns(error.to_string()))?;
            let host = name.as_str().to_owned();
            // The permit goes with the lookup, not with this future: the system's resolver cannot be interrupted.
            let lookup = tovuk_kernel::threads::spawn_blocking(move || {
                let _permit = permit;
                (host.as_str(), 0).to_socket_addrs()
            });
            let found = lookup.await.map_err(|error| Failure::Dns(error.to_string()))?;
            let mut addresses: Vec<SocketAddr> = found.map_err(|error| Failure::Dns(error.to_string()))?.collect();
            if addresses.is_empty() {
                return Err(Failure::Dns("it has no address".into()));
            }
            let refused: Vec<SocketAddr> = addresses.extract_if(.., |address| !policy.allows(address.ip())).collect();
            if addresses.is_empty() {
                tracing::warn!(%name, addresses = ?refused, "refused an outgoing connection: every address of the name is one that workers may not reach");
                return Err(Failure::AddressRefused);
            }
            Ok(addresses.into_iter())
        })
    }
}

/// An open connection, which gives its place back when it closes, not when a request is done: an idle one takes a file descriptor too.
pub(super) struct Stream {
    inner: MaybeHttpsStream<TokioIo<TcpStream>>,
    _slot: OwnedSemaphorePermit,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}
