//! Clients at full speed over connections that are kept, each of whose requests has to be answered, and answered by a version that may be live.
//! What is deployed meanwhile is the test's business.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A connection that is kept.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// A GET, whole: status and body.
    pub async fn get(&mut self, host: &str, path: &str) -> Result<(StatusCode, Bytes), hyper::Error> {
        self.send(Request::get(path).header("host", host)).await
    }

    /// A request without a body, whole.
    pub async fn send(&mut self, request: http::request::Builder) -> Result<(StatusCode, Bytes), hyper::Error> {
        self.0.ready().await?;
        let request = request.body(Full::default()).unwrap();
        let (parts, body) = self.0.send_request(request).await?.into_parts();
        Ok((parts.status, body.collect().await?.to_bytes()))
    }
}

/// What a service answers, version after version. An answer is right when its version may have been live at some moment of the request.
#[derive(Clone, Default)]
pub struct Versions(Arc<Inner>);

#[derive(Default)]
struct Inner {
    answers: Mutex<Vec<String>>,
    /// The oldest version that a request which begins now may meet.
    settled: AtomicUsize,
}

impl Versions {
    /// From now on this version may answer.
    pub fn announce(&self, answer: &str) {
        self.0.answers.lock().unwrap().push(answer.to_owned());
    }

    /// From now on the version that was announced last answers all requests.
    pub fn settle(&self) {
        let last = self.0.answers.lock().unwrap().len().saturating_sub(1);
        self.0.settled.store(last, Ordering::Release);
    }

    fn oldest(&self) -> usize {
        self.0.settled.load(Ordering::Acquire)
    }

    fn check(&self, oldest: usize, answer: &str) -> Result<(), String> {
        let answers = self.0.answers.lock().unwrap();
        let right = &answers[oldest.min(answers.len())..];
        if right.iter().any(|right| right == answer) { Ok(()) } else { Err(format!("`{answer}` where {right:?} may be")) }
    }
}

/// One address that is asked.
#[derive(Clone)]
pub struct Target {
    /// The `Host` of its requests.
    pub host: String,
    /// Their path.
    pub path: String,
    /// What may be answered.
    pub versions: Versions,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// Clients that run until they are stopped.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
    progress: watch::Receiver<u64>,
}

/// After so many requests a client closes its connection and opens another, so that new connections are part of the load.
const REQUESTS_OF_A_CONNECTION: usize = 200;

impl Load {
    /// Starts so many clients of each target.
    pub fn start(address: SocketAddr, targets: &[Target], clients: usize) -> Self {
        let (shared, mut tasks) = (Arc::<Shared>::default(), JoinSet::new());
        let (sender, progress) = watch::channel(0);
        for target in targets.iter().flat_map(|target| std::iter::repeat_n(target, clients)) {
            tasks.spawn(client(address, target.clone(), shared.clone(), sender.clone()));
        }
        Self { shared, clients: tasks, progress }
    }

    /// Waits until so many more requests were answered.
    pub async fn answered(&mut self, more: u64) {
        let goal = self.shared.answered.load(Ordering::Relaxed) + more;
        let _ = self.progress.wait_for(|answered| *answered >= goal).await.expect("clients that run");
    }

    /// Ends the clients. How many requests were answered; fails with what was wrong with any.
    pub async fn stop(mut self) -> u64 {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        let failures = self.shared.failures.lock().unwrap();
        assert!(failures.is_empty(), "{} failed requests, the first of them:\n  {}", failures.len(), failures[..failures.len().min(10)].join("\n  "));
        self.shared.answered.load(Ordering::Relaxed)
    }
}

async fn client(address: SocketAddr, target: Target, shared: Arc<Shared>, progress: watch::Sender<u64>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut connection = Connection::open(address).await;
        for _ in 0..REQUESTS_OF_A_CONNECTION {
            let oldest = target.versions.oldest();
            let result = match connection.get(&target.host, &target.path).await {
                Ok((StatusCode::OK, body)) => target.versions.check(oldest, &String::from_utf8_lossy(&body)),
                Ok((status, body)) => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
                Err(error) => Err(format!("{error:?}")),
            };
            let answered = shared.answered.fetch_add(1, Ordering::Relaxed) + 1;
            progress.send_replace(answered);
            if let Err(failure) = result {
                shared.failures.lock().unwrap().push(format!("{}{}: {failure}", target.host, target.path));
                break;
            }
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}
