//! A request that brought no response of a worker: which code, what to say to whom, and how it ended.

use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::error::HopBody;
use tovuk_resources::meters::{self, Exceeded};

use crate::record::Outcome;

/// What a message may have of a worker's own words, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// What the log may have of them.
const DETAIL_BYTES_MAX: usize = 64 << 10;

/// Why there is no response.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The row of the code table.
    pub code: &'static Code,
    /// What happened, with figures and names: for the calling worker and the author, never for anonymous clients.
    pub message: String,
    /// What only the service's own log may have: backtraces, paths of the host. The message, when there is no more to say.
    pub detail: Option<String>,
    /// The invocations of the chain, where it grew too long.
    pub hops: Vec<HopBody>,
    /// How the invocation ended.
    pub outcome: Outcome,
    /// In how many seconds the same request can succeed, where that is known.
    pub retry_after_seconds: Option<u64>,
    /// The record of an invocation says it too.
    pub(crate) recorded: bool,
}

impl Failure {
    /// A failure without hops.
    pub fn new(code: &'static Code, outcome: Outcome, message: impl Into<String>) -> Self {
        let message = cut(message.into(), MESSAGE_BYTES_MAX);
        Self { code, message, detail: None, hops: Vec::new(), outcome, retry_after_seconds: None, recorded: false }
    }

    /// The work was not begun.
    pub fn refused(code: &'static Code, message: impl Into<String>) -> Self {
        Self::new(code, Outcome::Refused, message)
    }

    /// A usage cap has no room.
    pub fn over_cap(exceeded: &Exceeded) -> Self {
        let refused = Self::refused(&codes::USAGE_CAP_EXCEEDED, exceeded.to_string());
        Self { retry_after_seconds: Some(exceeded.retry_after_seconds), ..refused }
    }

    /// The host is at fault. What went wrong is for its log.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(&codes::INTERNAL_ERROR, Outcome::Failed, codes::INTERNAL_ERROR.message).with_detail(detail)
    }

    /// The same, with more for the log.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(cut(detail.into(), DETAIL_BYTES_MAX));
        self
    }

    /// Whether the worker was called: there is a record of the invocation.
    pub fn has_begun(&self) -> bool {
        self.recorded
    }

    /// What the log is to have.
    pub fn for_log(&self) -> &str {
        self.detail.as_deref().unwrap_or(&self.message)
    }
}

impl From<meters::Error> for Failure {
    fn from(error: meters::Error) -> Self {
        match error {
            meters::Error::Exceeded(exceeded) => Self::over_cap(&exceeded),
            meters::Error::Database(error) => Self::internal(format!("usage could not be counted: {error}")),
        }
    }
}

/// The text, or its beginning with a mark.
fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push_str(" … (cut)");
    }
    text
}
