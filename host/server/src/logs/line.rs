//! One line of a log, as it comes in.

use tovuk_kernel::ids::{AccountId, BuildId, DeployId, ServiceId};
use tovuk_kernel::limits::LOG_EVENT_BYTES;
use tovuk_runtime::record::Outcome;
use tovuk_runtime::trace::TraceId;

/// Ends a message that was longer than a line may be.
const CUT_MARK: &str = " … (cut)";

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output of a worker.
    Stdout,
    /// Standard error of a worker.
    Stderr,
    /// A build: checks, output of tools, compilation.
    Build,
    /// A deploy: what was promoted, or why not.
    Deploy,
    /// The host itself: refused requests, dropped lines.
    System,
    /// The summary of an invocation.
    Invocation,
}

impl Stream {
    /// All, each at the place that is its number in the store: append only.
    pub(super) const ALL: [Self; 6] = [Self::Stdout, Self::Stderr, Self::Build, Self::Deploy, Self::System, Self::Invocation];

    /// The name in pages of lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Build => "build",
            Self::Deploy => "deploy",
            Self::System => "system",
            Self::Invocation => "invocation",
        }
    }
}

/// A line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Whose it is.
    pub service: ServiceId,
    /// The owner of the service.
    pub account: AccountId,
    /// Where it comes from.
    pub stream: Stream,
    /// The line without its end. More than `LOG_EVENT_BYTES` is cut, with a mark.
    pub message: String,
    /// The deploy that it is about.
    pub deploy: Option<DeployId>,
    /// The build that it is about.
    pub build: Option<BuildId>,
    /// The trace of the invocation that wrote it.
    pub trace: Option<TraceId>,
    /// The number of that invocation in its chain.
    pub number: Option<u32>,
    /// For the one line that says how an invocation ended.
    pub ended: Option<Box<Ended>>,
}

/// How an invocation ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// In a word.
    pub outcome: Outcome,
    /// The status of its response.
    pub status: Option<u16>,
    /// From its number to its last byte, in µs.
    pub duration_us: u64,
    /// CPU time, in µs.
    pub cpu_us: u64,
    /// Fuel, in units of the engine.
    pub fuel: u64,
    /// The most memory it had.
    pub memory_peak_bytes: u64,
    /// Body bytes that it received.
    pub bytes_in: u64,
    /// Body bytes that it answered with.
    pub bytes_out: u64,
    /// How many invocations its chain had when it ended, itself included.
    pub hops: u32,
    /// Names it in its trace.
    pub span: u64,
    /// The span that caused it; 0 when there is none.
    pub parent_span: u64,
    /// Who called, for a binding call within the account.
    pub caller: Option<ServiceId>,
}

impl Line {
    /// A line of a service that is about nothing else.
    pub fn new(service: ServiceId, account: AccountId, stream: Stream, message: impl Into<String>) -> Self {
        Self { service, account, stream, message: message.into(), deploy: None, build: None, trace: None, number: None, ended: None }
    }

    /// About this deploy.
    #[must_use]
    pub fn deploy(mut self, deploy: DeployId) -> Self {
        self.deploy = Some(deploy);
        self
    }

    /// About this build.
    #[must_use]
    pub fn build(mut self, build: BuildId) -> Self {
        self.build = Some(build);
        self
    }
}

/// The message, or its beginning with a mark.
pub(super) fn cut(message: &mut String) {
    if message.len() > LOG_EVENT_BYTES {
        message.truncate(message.floor_char_boundary(LOG_EVENT_BYTES - CUT_MARK.len()));
        message.push_str(CUT_MARK);
        message.shrink_to_fit();
    }
}
