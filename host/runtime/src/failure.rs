//! A request that brought no response of a worker: which code, what to say to whom, and how it ended.

use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::error::HopBody;

use crate::record::Outcome;

/// Why there is no response.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The row of the code table.
    pub code: &'static Code,
    /// What happened, with figures and names: for the log, the calling worker and the author, never for anonymous clients.
    pub message: String,
    /// The invocations of the chain, where it grew too long.
    pub hops: Vec<HopBody>,
    /// How the invocation ended.
    pub outcome: Outcome,
    /// The record of an invocation says it too.
    pub(crate) recorded: bool,
}

impl Failure {
    /// A failure without hops.
    pub fn new(code: &'static Code, outcome: Outcome, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hops: Vec::new(), outcome, recorded: false }
    }

    /// The work was not begun.
    pub fn refused(code: &'static Code, message: impl Into<String>) -> Self {
        Self::new(code, Outcome::Refused, message)
    }

    /// The host is at fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(&codes::INTERNAL_ERROR, Outcome::Failed, message)
    }
}
