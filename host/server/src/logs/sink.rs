//! The way in for lines that nobody waits for: a bounded queue. It writes nothing itself.
//!
//! The bounds are two, on lines and on bytes, and each holds for all services together and, smaller, for each: whoever floods the log loses its own
//! lines, and the others have room.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::ids::{AccountId, ServiceId};

use super::Config;
use super::line::{self, Line};
use super::redact::Redactor;
use super::store::Row;

/// What a queued line takes besides its message, about.
const QUEUED_BYTES: usize = 256;

/// What is sent to the task that writes.
pub(super) enum Message {
    Line(Row),
    /// A service has lost lines since it was last told how many.
    Dropped(Arc<ServiceState>, AccountId),
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// What is known of a service while the host runs.
pub(super) struct ServiceState {
    pub service: ServiceId,
    pub waiting: Waiting,
    /// Lines that were lost and not yet told.
    pub dropped: AtomicU64,
    /// Lines for which a usage cap had no room.
    pub over_cap: AtomicU64,
    deleted: AtomicBool,
    redactor: ArcSwapOption<Redactor>,
}

impl ServiceState {
    fn cleared(&self, text: String) -> String {
        let redactor = self.redactor.load();
        let redacted = redactor.as_ref().and_then(|redactor| match redactor.redact(&text) {
            Cow::Owned(redacted) => Some(redacted),
            Cow::Borrowed(_) => None,
        });
        redacted.unwrap_or(text)
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }
}

/// What waits to be written.
#[derive(Default)]
pub(super) struct Waiting {
    lines: AtomicUsize,
    bytes: AtomicUsize,
}

impl Waiting {
    /// Takes room for a line, unless that is more than there is.
    fn take(&self, bytes: usize, lines_max: usize, bytes_max: usize) -> bool {
        let add = |counter: &AtomicUsize, more: usize, max: usize| {
            counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| taken.checked_add(more).filter(|taken| *taken <= max)).is_ok()
        };
        if !add(&self.lines, 1, lines_max) {
            return false;
        }
        let fits = add(&self.bytes, bytes, bytes_max);
        if !fits {
            self.lines.fetch_sub(1, Ordering::Relaxed);
        }
        fits
    }

    /// Gives the room of a line back.
    pub fn give_back(&self, bytes: usize) {
        self.lines.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The room that a row takes in the queue.
pub(super) fn queued_bytes(row: &Row) -> usize {
    row.line.message.len() + QUEUED_BYTES
}

/// Takes lines. Clones share the queue.
#[derive(Clone)]
pub struct LogSink(Arc<Shared>);

struct Shared {
    clock: Clock,
    config: Arc<Config>,
    services: DashMap<ServiceId, Arc<ServiceState>>,
    waiting: Arc<Waiting>,
    /// Lines that were lost since the start.
    dropped: AtomicU64,
    queue: mpsc::UnboundedSender<Message>,
}

impl LogSink {
    /// The sink, its other end, and what waits between them.
    pub(super) fn new(clock: Clock, config: Arc<Config>) -> (Self, mpsc::UnboundedReceiver<Message>, Arc<Waiting>) {
        // The bounds are counted in `Waiting`; other messages are few, at most one for each service and one for each that waits for an answer.
        let (queue, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::<Waiting>::default();
        (
            Self(Arc::new(Shared { clock, config, services: DashMap::new(), waiting: waiting.clone(), dropped: AtomicU64::new(0), queue })),
            receiver,
            waiting,
        )
    }

    /// Queues a line to be written, or drops and counts it. Returns at once.
    pub fn line(&self, line: Line) {
        let state = self.state(&line.service);
        let account = line.account.clone();
        // Looked at before the line is redacted: a flood should cost its sender's neighbours no more than it must.
        let [_, lines_max] = self.0.config.queue_lines_max;
        if state.waiting.lines.load(Ordering::Relaxed) >= lines_max {
            return self.dropped(state, account);
        }
        let Some(row) = self.row_of(line, state.clone()) else { return };
        if !self.take(&row) {
            return self.dropped(state, account);
        }
        self.send(Message::Line(row));
    }

    /// The values to keep out of the service's lines from now on, with their names; see the module `redact` for what is recognised. They
    /// replace those from before, so an old deploy that still runs needs its own among them.
    ///
    /// Fails when there are too many to look for; those from before stay.
    pub fn set_secrets<'a>(&self, service: &ServiceId, secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), TooManySecrets> {
        let redactor = Redactor::new(secrets).map_err(|error| TooManySecrets(error.to_string()))?;
        self.state(service).redactor.store(redactor.map(Arc::new));
        Ok(())
    }

    /// The text without secrets of the service.
    pub(crate) fn cleared(&self, service: &ServiceId, text: String) -> String {
        match self.0.services.get(service) {
            Some(state) => state.cleared(text),
            None => text,
        }
    }

    /// The line as it is to be written; `None` when its service has been deleted.
    pub(super) fn row(&self, line: Line) -> Option<Row> {
        let state = self.state(&line.service);
        self.row_of(line, state)
    }

    fn row_of(&self, mut line: Line, state: Arc<ServiceState>) -> Option<Row> {
        if state.is_deleted() {
            return None;
        }
        line.message = state.cleared(line.message);
        // Not before, or half a secret could be left at the end.
        line::cut(&mut line.message);
        Some(Row { line, at_ms: self.0.clock.now_unix_ms(), state })
    }

    /// Takes no more lines of a service, which is being deleted.
    pub(super) fn forget(&self, service: &ServiceId) {
        let state = self.state(service);
        state.deleted.store(true, Ordering::Release);
        state.redactor.store(None);
    }

    /// Whether a service has been deleted.
    pub(super) fn is_deleted(&self, service: &ServiceId) -> bool {
        self.0.services.get(service).is_some_and(|state| state.is_deleted())
    }

    /// False when nobody writes any more.
    pub(super) fn send(&self, message: Message) -> bool {
        self.0.queue.send(message).is_ok()
    }

    fn take(&self, row: &Row) -> bool {
        let bytes = queued_bytes(row);
        let ([all_lines, own_lines], [all_bytes, own_bytes]) = (self.0.config.queue_lines_max, self.0.config.queue_bytes_max);
        if !row.state.waiting.take(bytes, own_lines, own_bytes) {
            return false;
        }
        let fits = self.0.waiting.take(bytes, all_lines, all_bytes);
        if !fits {
            row.state.waiting.give_back(bytes);
        }
        fits
    }

    fn dropped(&self, state: Arc<ServiceState>, account: AccountId) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
        // Whoever drops the first sees to it that the count is written, by which time it may be larger.
        if state.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            self.send(Message::Dropped(state, account));
        }
    }

    fn state(&self, service: &ServiceId) -> Arc<ServiceState> {
        if let Some(state) = self.0.services.get(service) {
            return state.clone();
        }
        let state = || {
            Arc::new(ServiceState {
                service: service.clone(),
                waiting: Waiting::default(),
                dropped: AtomicU64::new(0),
                over_cap: AtomicU64::new(0),
                deleted: AtomicBool::new(false),
                redactor: ArcSwapOption::empty(),
            })
        };
        self.0.services.entry(service.clone()).or_insert_with(state).clone()
    }

    /// Lines that came faster than they could be written, since the start.
    pub fn dropped_lines(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// The lines and bytes that wait to be written.
    pub fn waiting(&self) -> (usize, usize) {
        (self.0.waiting.lines.load(Ordering::Relaxed), self.0.waiting.bytes.load(Ordering::Relaxed))
    }
}

/// The secrets of a service are more than can be looked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the secrets of the service are too many to keep out of its log: {0}; delete some with `tovuk env delete`")]
pub struct TooManySecrets(String);
