//! Spans of what a worker does besides being called: operations on data, and requests to hosts outside. Whoever observes is asked first whether it keeps the
//! trace, so that nothing is measured for nobody.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tovuk_kernel::limits::TRACE_OPERATIONS_MAX;

use crate::instance::Data;
use crate::invocation::Invocation;
use crate::record::Operation;
use crate::trace;

/// An operation that has begun. It is told of when this is dropped, however it ended.
pub(crate) struct Running {
    invocation: Arc<Invocation>,
    kind: &'static str,
    subject: String,
    started: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.invocation.runtime.observer().operation(Operation {
            trace: self.invocation.chain.trace,
            span: trace::random_span(),
            parent_span: self.invocation.span,
            service: self.invocation.target.clone(),
            kind: self.kind,
            subject: std::mem::take(&mut self.subject),
            started: self.started,
            duration: self.started.elapsed(),
        });
    }
}

/// An operation of this invocation begins. It is about a subject.
pub(crate) fn begin(invocation: &Arc<Invocation>, kind: &'static str, subject: &str) -> Option<Running> {
    if !invocation.runtime.observer().keeps(invocation.chain.trace) {
        return None;
    }
    let is_kept = invocation.operations.fetch_add(1, Ordering::Relaxed) < TRACE_OPERATIONS_MAX;
    is_kept.then(|| Running { invocation: invocation.clone(), kind, subject: subject.to_owned(), started: Instant::now() })
}

impl Data {
    /// An operation of the guest begins.
    pub(crate) fn span(&self, kind: &'static str, subject: &str) -> Option<Running> {
        begin(&self.invocation, kind, subject)
    }
}
