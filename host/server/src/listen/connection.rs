//! One connection: the handshake, then HTTP/1 or HTTP/2, until it ends by itself or is told to.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;

use super::bodies::{Leaving, arriving};
use super::peer::{Peer, Scheme};
use super::progress::{Active, Phase, Progress};
use super::socket::{Socket, Watched};
use super::timer::ConnectionTimer;
use super::{Answer, ListenConfig};

/// What all connections of a listener share.
pub(super) struct Shared<A> {
    pub answer: A,
    pub config: ListenConfig,
    pub builder: auto::Builder<TokioExecutor>,
}

/// What the requests of one connection share.
struct Asked<A> {
    shared: Arc<Shared<A>>,
    progress: Arc<Progress>,
    peer: Peer,
}

/// Serves a connection that was accepted, to its end.
pub(super) async fn serve<A: Answer>(stream: TcpStream, address: IpAddr, shared: Arc<Shared<A>>, progress: Arc<Progress>) {
    // Small answers leave at once. A socket that is gone already says so at its first read.
    let _ = stream.set_nodelay(true);
    // The server's own timer begins with the first byte, and a client that sends none would keep its place for ever.
    let mut first_byte = [0];
    let bytes = tokio::select! {
        biased;
        bytes = shared.answer.clock().timeout(shared.config.head_timeout, stream.peek(&mut first_byte)) => bytes,
        () = progress.ending() => return,
    };
    if !matches!(bytes, Some(Ok(1))) {
        return;
    }
    let Some((socket, peer)) = secured(Watched::new(stream, progress.clone()), address, &shared).await else { return };
    let asked = Arc::new(Asked { shared, progress, peer });
    // Clients that go away, or that speak no HTTP, end their own connection and nothing else.
    if let Err(error) = speak(socket, asked).await {
        tracing::debug!("a connection ended early: {error}");
    }
}

/// The connection behind its handshake, if there is one; nothing when there is nobody to talk to.
async fn secured<A: Answer>(stream: Watched, address: IpAddr, shared: &Shared<A>) -> Option<(Socket, Peer)> {
    let Some(tls) = &shared.config.tls else { return Some((Socket::Plain(stream), Peer::new(address, Scheme::Http, None))) };
    let handshake = Box::pin(shared.answer.clock().timeout(shared.config.handshake_timeout, tls.accept(stream)));
    match handshake.await? {
        Ok(Some(stream)) => {
            let peer = Peer::new(address, Scheme::Https, stream.get_ref().1.server_name());
            Some((Socket::Tls(Box::new(stream)), peer))
        }
        // An ACME server that has seen what it came for.
        Ok(None) => None,
        Err(error) => {
            tracing::debug!("a TLS handshake failed: {error}");
            None
        }
    }
}

async fn speak<A: Answer>(socket: Socket, asked: Arc<Asked<A>>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut builder = asked.shared.builder.clone();
    builder.http1().timer(ConnectionTimer::default());
    let progress = asked.progress.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let asked = asked.clone();
        let active = Active::new(&asked.progress);
        async move {
            let slices = request.version() == Version::HTTP_2;
            let request = request.map(|body| arriving(body, asked.shared.config.stall_timeout));
            let response = asked.shared.answer.answer(request, &asked.peer).await;
            Ok::<_, Infallible>(response.map(|body| Leaving::new(body, active, slices)))
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut draining = false;
    std::future::poll_fn(|cx| {
        let phase = progress.phase(cx);
        if phase == Phase::Cut {
            return Poll::Ready(Ok(()));
        }
        let polled = connection.as_mut().poll(cx);
        // After it was polled, so that a request that has already come is answered.
        if phase == Phase::Drain && !draining && polled.is_pending() {
            draining = true;
            connection.as_mut().graceful_shutdown();
            return connection.as_mut().poll(cx);
        }
        polled
    })
    .await
}
