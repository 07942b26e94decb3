//! The loop that takes connections in, looks after them, and lets them go.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::connection::{self, Shared};
use super::peer::client_of;
use super::progress::{Judged, Patience, Progress};
use super::{Answer, ListenConfig};

/// How long to wait after a connection could not be accepted.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Connections that have ended and are remembered without harm.
const JUDGED_MIN: usize = 64;
/// The smallest buffer for heads that the HTTP/1 server takes.
const HEAD_BYTES_MIN: usize = 8 << 10;

/// Serves until `stopped` changes, and then until what runs has ended.
pub(super) async fn run<A: Answer>(listener: TcpListener, answer: A, config: ListenConfig, mut stopped: watch::Receiver<bool>) {
    let patience = Patience { idle: config.idle_timeout, stall: config.stall_timeout };
    let mut ticks = tokio::time::interval(patience.interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connections = Connections::new(answer, config);
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            _ = ticks.tick() => connections.judge(patience),
            accepted = accept(&listener, &connections.places) => match accepted {
                Ok((place, stream, address)) => connections.take(place, stream, address),
                Err(error) => {
                    // Out of descriptors, most likely: they come back as connections end.
                    tracing::warn!("a connection could not be accepted: {error}");
                    connections.shared.answer.clock().sleep(RETRY_AFTER).await;
                }
            },
        }
    }
    // What has connected before the end may have asked already.
    while let Some(Ok((place, stream, address))) = accept(&listener, &connections.places).now_or_never() {
        connections.take(place, stream, address);
    }
    drop(listener);
    connections.drain().await;
}

/// Waits for a place, then for a connection that takes it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> std::io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((place, stream, address))
}

/// The connections of one listener.
struct Connections<A> {
    shared: Arc<Shared<A>>,
    places: Arc<Semaphore>,
    clients: Clients,
    tasks: JoinSet<()>,
    judged: Vec<Judged>,
}

impl<A: Answer> Connections<A> {
    fn new(answer: A, config: ListenConfig) -> Self {
        let places = Arc::new(Semaphore::new(config.connections_max));
        let clients = Clients { connections: Arc::default(), max: config.connections_per_client_max };
        let builder = builder(&config);
        Self { shared: Arc::new(Shared { answer, config, builder }), places, clients, tasks: JoinSet::new(), judged: Vec::new() }
    }

    fn take(&mut self, place: OwnedSemaphorePermit, stream: TcpStream, address: SocketAddr) {
        while self.tasks.try_join_next().is_some() {}
        let Some(counted) = self.clients.count(address.ip()) else {
            tracing::debug!("a connection from {} was closed: it has {} already", address.ip(), self.clients.max);
            return;
        };
        // Those that have ended go when they are more than those that live, so that short connections do not pile up between two looks.
        if self.judged.len() > 2 * self.tasks.len() + JUDGED_MIN {
            self.judged.retain(Judged::lives);
        }
        let progress = Arc::<Progress>::default();
        self.judged.push(Judged::new(progress.clone(), Instant::now()));
        let serve = connection::serve(stream, address.ip(), self.shared.clone(), progress);
        self.tasks.spawn(async move {
            let _place = (place, counted);
            serve.await;
        });
    }

    fn judge(&mut self, patience: Patience) {
        let now = Instant::now();
        self.judged.retain(Judged::lives);
        for judged in &mut self.judged {
            judged.judge(now, patience);
        }
    }

    /// Lets running requests end, and cuts those that do not in time.
    async fn drain(mut self) {
        for judged in &self.judged {
            judged.drain();
        }
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        if self.shared.answer.clock().timeout(self.shared.config.drain_timeout, all_ended).await.is_none() {
            tracing::warn!("requests were still running when the drain timeout was over; their connections are cut");
        }
        self.tasks.shutdown().await;
    }
}

fn builder(config: &ListenConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout)
        // No `pipeline_flush`: while bytes are left to read it holds answers back, and what follows a request may be garbage that ends the connection.
        .max_buf_size(config.head_bytes_max.max(HEAD_BYTES_MIN));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(config.head_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(config.streams_max)
        .max_pending_accept_reset_streams(config.resets_max)
        .keep_alive_interval(config.head_timeout);
    builder
}

/// How many connections each client has.
struct Clients {
    connections: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max: usize,
}

impl Clients {
    /// Counts one more, unless it is one too many.
    fn count(&self, address: IpAddr) -> Option<Counted> {
        let client = client_of(address);
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.entry(client).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Counted { connections: self.connections.clone(), client })
    }
}

/// One connection of a client, until it is dropped.
struct Counted {
    connections: Arc<Mutex<HashMap<IpAddr, usize>>>,
    client: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connections.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.client);
            }
        }
    }
}
