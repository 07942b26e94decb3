//! The way in for spans, and the task that writes them. It decides which traces are kept; what a span is made of is the runtime's to tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::ids::ServiceId;
use tovuk_resources::database::Database;
use tovuk_runtime::record::{Operation, Outcome, Record};
use tovuk_runtime::trace::TraceId;

use super::otlp::{Exporter, Sent};
use super::store::{self, short};
use super::{Config, Row};
use crate::logs::LogSink;
use crate::stamped::Ids;

/// Spans of one transaction.
const BATCH_MAX: usize = 4_096;
/// The smallest part of all traces that is kept is one in two to the power of this.
const LEVEL_MAX: u32 = 20;
/// How far the time of spans may be from the clock, in µs. The clock tells milliseconds.
const DRIFT_US_MAX: i64 = 2_000;

/// What is sent to the task that writes.
pub(super) enum Message {
    Span(Box<Row>),
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// What has become of spans since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// On disk.
    pub written: u64,
    /// Of traces that were not kept because more came than is written.
    pub left_out: u64,
    /// Did not fit into the queue, or could not be written.
    pub dropped: u64,
    /// One trace in two to the power of this is kept now.
    pub level: u32,
    /// Taken by a collector.
    pub exported: u64,
    /// Not taken by a collector to which they were sent.
    pub export_lost: u64,
}

/// Takes spans. Clones share the queue.
#[derive(Clone)]
pub struct TraceSink {
    queue: mpsc::UnboundedSender<Message>,
    state: Arc<State>,
    /// Knows the secrets that are to be in no span.
    secrets: Option<LogSink>,
}

/// What the sink and the task that writes share.
pub(super) struct State {
    queue_max: usize,
    waiting: AtomicUsize,
    /// Mixed into ids before they decide, so that nobody can choose an id that is always kept.
    key: u128,
    level: AtomicU32,
    /// Spans that came of traces that are kept.
    sampled: AtomicU64,
    written: AtomicU64,
    left_out: AtomicU64,
    dropped: AtomicU64,
    /// What has become of them at a collector, if they are sent to one.
    exported: Option<Arc<Sent>>,
    /// Times of spans are told by a clock that does not jump, from here.
    origin: Instant,
    /// When that was, in µs since the UNIX epoch.
    origin_us: AtomicI64,
}

impl TraceSink {
    pub(super) fn new(clock: Clock, config: &Config, exported: Option<Arc<Sent>>) -> (Self, mpsc::UnboundedReceiver<Message>) {
        // What waits is bounded by `waiting`; other messages are one for each that waits for an answer.
        let (queue, receiver) = mpsc::unbounded_channel();
        let state = State {
            queue_max: config.queue_max,
            waiting: AtomicUsize::new(0),
            key: u128::from_be_bytes(TraceId::random().to_bytes()),
            level: AtomicU32::new(0),
            sampled: AtomicU64::new(0),
            written: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            exported,
            origin: Instant::now(),
            origin_us: AtomicI64::new(unix_us(&clock)),
        };
        (Self { queue, state: Arc::new(state), secrets: None }, receiver)
    }

    /// The same, which keeps secrets out as the log does.
    #[must_use]
    pub fn without_secrets(mut self, logs: LogSink) -> Self {
        self.secrets = Some(logs);
        self
    }

    /// Whether spans of this trace are kept now.
    pub fn keeps(&self, trace: TraceId) -> bool {
        let level = self.state.level.load(Ordering::Relaxed);
        if level == 0 {
            return true;
        }
        let mixed = (u128::from_be_bytes(trace.to_bytes()) ^ self.state.key).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        (mixed >> 64) as u64 & ((1 << level) - 1) == 0
    }

    /// An invocation has ended.
    pub fn invocation(&self, record: &Record) {
        let is_failure = !matches!(record.outcome, Outcome::Response | Outcome::Cancelled);
        let has_room = self.state.waiting.load(Ordering::Relaxed) < self.state.queue_max / 2;
        if self.samples(record.trace) || (is_failure && has_room) {
            let start_us = self.state.start_us(record.started);
            self.put(&record.target.id, Row::of_invocation(record, start_us));
        } else {
            self.state.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A worker's operation has ended.
    pub fn operation(&self, operation: &Operation) {
        if self.samples(operation.trace) {
            let start_us = self.state.start_us(operation.started);
            self.put(&operation.service.id, Row::of_operation(operation, start_us));
        }
    }

    /// The same, for a span that counts among those that come.
    fn samples(&self, trace: TraceId) -> bool {
        let keeps = self.keeps(trace);
        if keeps {
            self.state.sampled.fetch_add(1, Ordering::Relaxed);
        }
        keeps
    }

    fn put(&self, service: &ServiceId, mut row: Row) {
        row.what = short(match &self.secrets {
            Some(secrets) => secrets.cleared(service, row.what),
            None => row.what,
        });
        let shared = &self.state;
        let room = shared.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| (waiting < shared.queue_max).then_some(waiting + 1));
        if room.is_err() || !self.send(Message::Span(Box::new(row))) {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn state(&self) -> Arc<State> {
        self.state.clone()
    }

    /// False when nobody writes any more.
    pub(super) fn send(&self, message: Message) -> bool {
        self.queue.send(message).is_ok()
    }
}

impl State {
    fn start_us(&self, started: Instant) -> i64 {
        let since = started.saturating_duration_since(self.origin).as_micros();
        self.origin_us.load(Ordering::Relaxed).saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }

    pub(super) fn counts(&self) -> Counts {
        let shared = self;
        Counts {
            written: shared.written.load(Ordering::Relaxed),
            left_out: shared.left_out.load(Ordering::Relaxed),
            dropped: shared.dropped.load(Ordering::Relaxed),
            level: shared.level.load(Ordering::Relaxed),
            exported: shared.exported.as_ref().map_or(0, |sent| sent.taken.load(Ordering::Relaxed)),
            export_lost: shared.exported.as_ref().map_or(0, |sent| sent.lost.load(Ordering::Relaxed)),
        }
    }

    /// Follows the clock when it has been set.
    fn follow(&self, clock: &Clock) {
        let now_us = unix_us(clock);
        let told_us = self.start_us(Instant::now());
        if now_us.abs_diff(told_us) > DRIFT_US_MAX.unsigned_abs() {
            self.origin_us.fetch_add(now_us - told_us, Ordering::Relaxed);
        }
    }
}

fn unix_us(clock: &Clock) -> i64 {
    i64::try_from(clock.now_unix_ms()).unwrap_or(i64::MAX).saturating_mul(1_000)
}

/// How many spans come, and what part of them is kept. Operations of traces that are not kept are not even told of, so what comes is reckoned from what is
/// kept.
struct Rate {
    since_ms: u64,
    sampled: u64,
}

impl Rate {
    /// Sets the part that is kept by what came within the last second: at once to less, step by step to more.
    fn adjust(&mut self, state: &State, now_ms: u64, per_second: u64) {
        let passed_ms = now_ms.saturating_sub(self.since_ms);
        if passed_ms < 1_000 {
            return;
        }
        let sampled = state.sampled.load(Ordering::Relaxed);
        let level = state.level.load(Ordering::Relaxed);
        let rate = ((sampled - self.sampled).saturating_mul(1_000) / passed_ms).saturating_mul(1 << level);
        let mut needed = 0;
        while needed < LEVEL_MAX && rate >> needed > per_second {
            needed += 1;
        }
        state.level.store(needed.max(level.saturating_sub(1)), Ordering::Relaxed);
        (self.since_ms, self.sampled) = (now_ms, sampled);
    }
}

/// Writes until it is told to close or the last sink is gone.
pub(super) async fn write(
    database: Database,
    clock: Clock,
    config: Config,
    state: Arc<State>,
    mut exporter: Option<Exporter>,
    mut queue: mpsc::UnboundedReceiver<Message>,
    last: i64,
) {
    let ids = Arc::new(Ids::after(last));
    let mut rate = Rate { since_ms: clock.monotonic_ms(), sampled: 0 };
    while let Some(first) = queue.recv().await {
        let (mut rows, mut waiters, mut close) = (Vec::new(), Vec::new(), false);
        let moment = clock.sleep(config.batch_wait);
        tokio::pin!(moment);
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                Message::Span(row) => rows.push(*row),
                Message::Flush(waiter) => waiters.push(waiter),
                Message::Close(waiter) => {
                    waiters.push(waiter);
                    close = true;
                }
            }
            if rows.len() >= BATCH_MAX || !waiters.is_empty() {
                break;
            }
            next = tokio::select! {
                biased;
                message = queue.recv() => message,
                () = &mut moment => None,
            };
        }
        rate.adjust(&state, clock.monotonic_ms(), config.spans_per_second);
        state.follow(&clock);
        let rows = Arc::new(rows);
        insert(&database, &clock, &state, &ids, rows.clone()).await;
        if let Some(exporter) = exporter.as_ref().filter(|_| !rows.is_empty()) {
            exporter.send(&rows);
        }
        if close && let Some(exporter) = exporter.take() {
            exporter.close().await;
        }
        for waiter in waiters {
            let _ = waiter.send(());
        }
        if close {
            return;
        }
    }
}

async fn insert(database: &Database, clock: &Clock, state: &State, ids: &Arc<Ids>, rows: Arc<Vec<Row>>) {
    let count = rows.len();
    if count == 0 {
        return;
    }
    let (ids, now_ms) = (ids.clone(), clock.now_unix_ms());
    let written = database.write(move |tx| store::insert(tx, &ids, now_ms, &rows)).await;
    state.waiting.fetch_sub(count, Ordering::Relaxed);
    let counter = match &written {
        Ok(()) => &state.written,
        Err(_) => &state.dropped,
    };
    let before = counter.fetch_add(count as u64, Ordering::Relaxed);
    if let Err(error) = written
        && before == 0
    {
        tracing::error!(%error, "spans could not be written and are dropped");
    }
}
