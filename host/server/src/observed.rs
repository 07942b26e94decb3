//! Where what happens on a host is kept, and how the runtime tells it. Each keeper takes what it is told without waiting, or drops and counts it.

use std::sync::Arc;

use tovuk_runtime::failure::Failure;
use tovuk_runtime::record::{Identity, LogLine, Observer, Operation, Record};
use tovuk_runtime::trace::TraceId;

use crate::logs::{Line, LogSink, Logs};
use crate::metrics::Metrics;
use crate::traces::{TraceSink, Traces};

/// What a host keeps of what happens.
pub struct Observed {
    /// Lines and summaries.
    pub logs: Logs,
    /// Figures.
    pub metrics: Metrics,
    /// Which way requests went.
    pub traces: Traces,
    /// Somebody who watches.
    pub shown: Option<Arc<dyn Observer>>,
}

impl Observed {
    /// Tells all of them.
    pub(crate) fn observer(&self) -> Told {
        let traces = self.traces.sink().without_secrets(self.logs.sink());
        Told { logs: self.logs.sink(), metrics: self.metrics.clone(), traces, shown: self.shown.clone() }
    }

    /// Writes a line of the host itself into a service's log, and shows it where the service is on this host.
    pub(crate) fn say(&self, line: Line, service: Option<&Identity>) {
        if let (Some(shown), Some(service)) = (&self.shown, service) {
            shown.said(service, &line.message);
        }
        self.logs.sink().line(line);
    }
}

/// Whom the runtime tells.
pub(crate) struct Told {
    logs: LogSink,
    metrics: Metrics,
    traces: TraceSink,
    shown: Option<Arc<dyn Observer>>,
}

impl Observer for Told {
    fn invocation(&self, record: Record) {
        self.metrics.invocation(&record);
        self.traces.invocation(&record);
        if let Some(shown) = &self.shown {
            shown.invocation(record.clone());
        }
        self.logs.invocation(record);
    }

    fn log(&self, line: LogLine) {
        if let Some(shown) = &self.shown {
            shown.log(line.clone());
        }
        self.logs.log(line);
    }

    fn refused(&self, service: &Identity, trace: TraceId, failure: &Failure) {
        self.metrics.refused(service, failure);
        self.logs.refused(service, trace, failure);
        if let Some(shown) = &self.shown {
            shown.refused(service, trace, failure);
        }
    }

    fn keeps(&self, trace: TraceId) -> bool {
        self.traces.keeps(trace)
    }

    fn operation(&self, operation: Operation) {
        self.traces.operation(&operation);
    }
}
