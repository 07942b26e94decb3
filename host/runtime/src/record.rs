//! What is said about an invocation when it has ended, and who is told.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tovuk_kernel::ids::{AccountId, ServiceId};

use crate::failure::Failure;
use crate::trace::TraceId;

/// The names of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its id, host-wide.
    pub id: ServiceId,
    /// Its name, unique in its account.
    pub name: Arc<str>,
    /// The first label of its public host name.
    pub slug: Arc<str>,
    /// Its owner.
    pub account: AccountId,
}

/// What started an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A request from outside.
    Http,
    /// A call by another worker.
    Binding,
    /// A batch of a queue.
    Queue,
    /// A tick of a cron trigger.
    Cron,
    /// The alarm of a State object.
    Alarm,
    /// A call of a State object's handler.
    State,
}

impl EventKind {
    /// The name in logs, and in the header that tells a worker of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Binding => "binding",
            Self::Queue => "queue",
            Self::Cron => "cron",
            Self::Alarm => "alarm",
            Self::State => "state",
        }
    }

    /// Whether the host delivers it by itself, so that nobody waits for the answer.
    pub fn is_delivery(self) -> bool {
        matches!(self, Self::Queue | Self::Cron | Self::Alarm)
    }
}

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, and the answer has gone out.
    Response,
    /// It trapped.
    Trap,
    /// It used up its CPU time.
    Cpu,
    /// It was refused memory and trapped.
    Memory,
    /// It did not answer in time, or no byte moved for too long.
    Wall,
    /// A limit of the host or of the service stopped it or its bodies.
    Refused,
    /// Whoever asked went away.
    Cancelled,
    /// It returned an error, exited, or ended without an answer.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] = [Self::Response, Self::Trap, Self::Cpu, Self::Memory, Self::Wall, Self::Refused, Self::Cancelled, Self::Failed];

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Response => "ok",
            Self::Trap => "trap",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Wall => "wall",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// One invocation, after its last byte.
#[derive(Clone, Debug)]
pub struct Record {
    /// Shared by every invocation that one request from outside caused.
    pub trace: TraceId,
    /// Names this invocation in its trace.
    pub span: u64,
    /// The span that caused it, of a caller or of whoever sent the request; 0 when there is none.
    pub parent_span: u64,
    /// 1 is the request from outside.
    pub number: u32,
    /// What started it.
    pub event: EventKind,
    /// Who called, for a binding call.
    pub caller: Option<Arc<Identity>>,
    /// Who was invoked.
    pub target: Arc<Identity>,
    /// The method.
    pub method: http::Method,
    /// The path without its query.
    pub path: String,
    /// The status of the response; `None` when none went out.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where there is more to say; a trap has its backtrace here.
    pub detail: Option<String>,
    /// When it got its number.
    pub started: Instant,
    /// From its number to its last byte.
    pub duration: Duration,
    /// How many invocations its chain had when it ended, itself included.
    pub hops: u32,
    /// CPU time in ns, of making, running and dropping the instance; calls to other workers excluded.
    pub cpu_ns: u64,
    /// Fuel: what it executed, in units of the engine. Not time.
    pub fuel: u64,
    /// The most memory it had.
    pub memory_peak_bytes: u64,
    /// Body bytes that it received from whoever invoked it.
    pub bytes_in: u64,
    /// Body bytes that it answered with.
    pub bytes_out: u64,
}

/// What a worker has done besides being called: an operation on data, or a request to a host outside.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The trace.
    pub trace: TraceId,
    /// Names it in its trace.
    pub span: u64,
    /// The invocation that did it.
    pub parent_span: u64,
    /// Whose invocation that was.
    pub service: Arc<Identity>,
    /// What it was, for example `kv.get`.
    pub kind: &'static str,
    /// What it was about: a namespace, a queue, a host.
    pub subject: String,
    /// When it began.
    pub started: Instant,
    /// How long it took.
    pub duration: Duration,
    /// How it ended: [`OPERATION_OK`], [`OPERATION_CANCELLED`], or the code of its error.
    pub outcome: Cow<'static, str>,
    /// What it did, where that is known: how many rows it has read, for example.
    pub did: Option<String>,
    /// The status of the response, for a request.
    pub status: Option<u16>,
}

/// How an operation ended that did what it was asked for.
pub const OPERATION_OK: &str = "ok";
/// How one ended whose worker was stopped meanwhile.
pub const OPERATION_CANCELLED: &str = "cancelled";

/// The stream a log line came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A line that a worker wrote.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// Who wrote it.
    pub service: Arc<Identity>,
    /// The trace of the invocation that wrote it.
    pub trace: TraceId,
    /// The invocation's number.
    pub number: u32,
    /// Where it was written to.
    pub stream: LogStream,
    /// The line without its end. What is not UTF-8 is replaced.
    pub message: String,
}

/// Who is told. Called on the path of requests, so it must return at once: an observer that cannot keep up drops and counts.
pub trait Observer: Send + Sync + 'static {
    /// An invocation has ended.
    fn invocation(&self, record: Record);
    /// A worker has written a line.
    fn log(&self, line: LogLine);
    /// A service was asked for something, and turned it away before an invocation had begun. The client is told the trace as `request_id`.
    fn refused(&self, service: &Identity, trace: TraceId, failure: &Failure);

    /// The host has something to say about a service besides: a delivery that has failed, a queue that does not move, a cap that fills up.
    fn said(&self, _service: &Identity, _text: &str) {}

    /// Whether operations of this trace are to be told of. The same operation is not asked about twice.
    fn keeps(&self, _trace: TraceId) -> bool {
        false
    }

    /// A worker's operation has ended.
    fn operation(&self, _operation: Operation) {}
}
