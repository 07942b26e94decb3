//! What asks a server, in a process of its own: the quiet neighbour, whose waiting is measured, and those that make noise.
//!
//! Each has a number of connections, which are kept. An *open* load has a rate: request n is due n intervals after the beginning, whether those before it are
//! answered or not, and its time counts from then. So a server that stalls shows in all that it has held up. A *closed* load sends the next request over a
//! connection when the one before was answered. What was answered is counted by its code, and printed at the end as JSON.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tovuk_kernel::clock::Clock;

use super::pace;
use crate::control::client::Connection;

/// How long the last requests of an open load are waited for. One that takes longer has failed, and counts as having taken so long.
const GRACE: Duration = Duration::from_secs(10);
/// What a closed load asks again at the soonest after it was not answered with 200: refusals come at once, and asking without a pause would measure who asks.
const PAUSE: Duration = Duration::from_millis(100);
/// Requests over each connection of the quiet neighbour that are not counted.
const WARM_UP: usize = 3;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// A few requests to hello at a fixed rate.
    Quiet,
    /// 500 requests at a time that compute until their CPU time is used up.
    Loop,
    /// 10,000 requests a second to hello.
    Flood,
    /// One chain of 31 calls after another.
    Deep,
}

impl Load {
    /// Those that are not quiet.
    pub const NOISES: [Self; 3] = [Self::Loop, Self::Flood, Self::Deep];

    /// The name in the command line, and of the service.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Loop => "loop",
            Self::Flood => "flood",
            Self::Deep => "deep",
        }
    }

    /// The name in tables.
    pub fn text(self) -> String {
        match (self, self.per_s()) {
            (Self::Loop, _) => format!("{} loops", self.connections()),
            (Self::Deep, _) => "deep chains".to_owned(),
            (_, per_s) => format!("{} of {} a second", self.name(), per_s.unwrap_or_default()),
        }
    }

    fn path(self) -> &'static str {
        if self == Self::Deep { "/31" } else { "/" }
    }

    fn connections(self) -> usize {
        match self {
            Self::Quiet => 16,
            Self::Loop => 500,
            // Below what one service may have running, so that it is served and not refused.
            Self::Flood => 200,
            Self::Deep => 1,
        }
    }

    /// The rate of an open load.
    fn per_s(self) -> Option<u64> {
        match self {
            Self::Quiet => Some(200),
            Self::Flood => Some(10_000),
            Self::Loop | Self::Deep => None,
        }
    }

    fn interval(self) -> Option<Duration> {
        self.per_s().map(|per_s| Duration::from_nanos(1_000_000_000 / per_s))
    }
}

/// What is asked, and for how long.
#[derive(Args)]
pub struct LoadArguments {
    /// Who asks.
    #[arg(value_enum)]
    load: Load,
    /// Whom.
    address: SocketAddr,
    /// For how long. All but the quiet one also end when standard input does.
    #[arg(long)]
    seconds: u64,
}

/// What a load has done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// From the first request, in s.
    pub seconds: f64,
    /// Answers by status 200 or by the code of the error; `none` where there was no answer.
    pub answers: BTreeMap<String, u64>,
    /// Of each request of the quiet one, from when it was due until it was answered, in µs.
    pub us: Vec<f64>,
    /// How late each of them was sent, in µs.
    pub late_us: Vec<f64>,
}

impl Done {
    /// Answers other than 200, and requests without one.
    pub fn failed(&self) -> u64 {
        self.answers.iter().filter(|(code, _)| *code != "200").map(|(_, count)| count).sum()
    }
}

/// Asks, and prints what was done.
pub fn run(arguments: &LoadArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(load(arguments))?;
    serde_json::to_writer(std::io::stdout().lock(), &done)?;
    Ok(())
}

async fn load(arguments: &LoadArguments) -> anyhow::Result<Done> {
    let LoadArguments { load, address, seconds } = *arguments;
    let mut connections = Vec::new();
    for _ in 0..load.connections() {
        let mut connection = open(load, address).await?;
        for _ in 0..if load == Load::Quiet { WARM_UP } else { 0 } {
            connection.ask(Method::GET, load.path(), Bytes::new()).await?;
        }
        connections.push(connection);
    }
    let asking = Arc::new(Asking::new(load, address));
    let mut askers = JoinSet::new();
    for connection in connections {
        askers.spawn(ask(asking.clone(), connection));
    }
    let limit = Duration::from_secs(seconds);
    let stopped = input_ended();
    tokio::select! {
        result = asking.last(limit) => result?,
        Ok(()) = stopped, if load != Load::Quiet => {}
    }
    Ok(asking.done())
}

/// Tells when standard input ends, which is when whoever started this process wants no more.
fn input_ended() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = sender.send(());
    });
    receiver
}

async fn open(load: Load, address: SocketAddr) -> anyhow::Result<Connection> {
    Connection::open(address, format!("{}.localhost", load.name()), None).await
}

/// What the connections of one load share.
struct Asking {
    load: Load,
    address: SocketAddr,
    clock: Clock,
    began: Instant,
    /// Requests of an open load that are due and not sent.
    due: Semaphore,
    sent: AtomicU64,
    answered: Semaphore,
    done: Mutex<Done>,
}

impl Asking {
    fn new(load: Load, address: SocketAddr) -> Self {
        Self {
            load,
            address,
            clock: Clock::system(),
            began: Instant::now(),
            due: Semaphore::new(0),
            sent: AtomicU64::new(0),
            answered: Semaphore::new(0),
            done: Mutex::default(),
        }
    }

    /// Has each request of an open load become due in its time, and waits until all are answered; a closed load goes on for so long.
    async fn last(self: &Arc<Self>, limit: Duration) -> anyhow::Result<()> {
        let (Some(interval), Some(per_s)) = (self.load.interval(), self.load.per_s()) else {
            self.clock.sleep(limit).await;
            return Ok(());
        };
        let total = per_s * limit.as_secs();
        let asking = self.clone();
        pace::start(self.began, interval, total, move || asking.due.add_permits(1))?;
        if self.clock.timeout(limit + GRACE, self.answered.acquire_many(u32::try_from(total)?)).await.is_none() {
            let mut done = self.lock();
            let missing = total - done.answers.values().sum::<u64>();
            *done.answers.entry("none".to_owned()).or_default() += missing;
            done.us.extend((0..missing).map(|_| GRACE.as_secs_f64() * 1e6));
        }
        Ok(())
    }

    /// Waits until the next request is due, and since when it is.
    async fn next(&self) -> anyhow::Result<Instant> {
        let Some(interval) = self.load.interval() else { return Ok(Instant::now()) };
        self.due.acquire().await?.forget();
        let before = self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(self.began + interval + Duration::from_nanos(interval.as_nanos() as u64 * before))
    }

    fn answered(&self, code: &str, us: f64, late_us: f64) {
        let mut done = self.lock();
        match done.answers.get_mut(code) {
            Some(count) => *count += 1,
            None => drop(done.answers.insert(code.to_owned(), 1)),
        }
        if self.load == Load::Quiet {
            done.us.push(us);
            done.late_us.push(late_us);
        }
        self.answered.add_permits(1);
    }

    fn done(&self) -> Done {
        Done { seconds: self.began.elapsed().as_secs_f64(), ..std::mem::take(&mut *self.lock()) }
    }

    fn lock(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks over one connection, and over another one where it has broken, for as long as it is polled.
async fn ask(asking: Arc<Asking>, connection: Connection) -> anyhow::Result<()> {
    let mut connection = Some(connection);
    loop {
        let due = asking.next().await?;
        let sent = Instant::now();
        let code = match answer(&asking, &mut connection).await {
            Ok(code) => code,
            Err(_) => {
                connection = None;
                "none".to_owned()
            }
        };
        let us = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1e6;
        asking.answered(&code, us(due, Instant::now()), us(due, sent));
        if asking.load.per_s().is_none() && code != "200" {
            asking.clock.sleep(PAUSE.saturating_sub(sent.elapsed())).await;
        }
    }
}

/// Asks once: 200, or the code of the error.
async fn answer(asking: &Asking, connection: &mut Option<Connection>) -> anyhow::Result<String> {
    let connection = match connection {
        Some(connection) if !connection.is_closed() => connection,
        closed => closed.insert(open(asking.load, asking.address).await?),
    };
    let (status, body) = connection.ask(Method::GET, asking.load.path(), Bytes::new()).await?;
    Ok(code_of(status, &body))
}

fn code_of(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Coded {
        code: String,
    }
    if status == StatusCode::OK {
        return "200".to_owned();
    }
    serde_json::from_slice::<Coded>(body).map_or_else(|_| status.as_u16().to_string(), |coded| coded.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_their_codes() {
        let code = |status, body: &str| code_of(status, body.as_bytes());
        assert_eq!(code(StatusCode::OK, "hello"), "200");
        assert_eq!(code(StatusCode::SERVICE_UNAVAILABLE, r#"{"code":"worker_cpu_exceeded","message":"."}"#), "worker_cpu_exceeded");
        assert_eq!(code(StatusCode::BAD_GATEWAY, "no"), "502");
        let answers = BTreeMap::from([("200".to_owned(), 5), ("none".to_owned(), 2), ("host_busy".to_owned(), 1)]);
        assert_eq!(Done { answers, ..Done::default() }.failed(), 3);
    }
}
