//! Where what happens on a host is kept, and how the runtime tells it. Each keeper takes what it is told without waiting, or drops and counts it.

use std::sync::Arc;

use tovuk_runtime::failure::Failure;
use tovuk_runtime::record::{Identity, LogLine, Observer, Record};

use crate::logs::{LogSink, Logs};
use crate::metrics::Metrics;

/// What a host keeps of what happens.
pub struct Observed {
    /// Lines and summaries.
    pub logs: Logs,
    /// Figures.
    pub metrics: Metrics,
}

impl Observed {
    /// Tells all of them, and somebody who watches.
    pub(crate) fn observer(&self, shown: Option<Arc<dyn Observer>>) -> Told {
        Told { logs: self.logs.sink(), metrics: self.metrics.clone(), shown }
    }
}

/// Whom the runtime tells.
pub(crate) struct Told {
    logs: LogSink,
    metrics: Metrics,
    shown: Option<Arc<dyn Observer>>,
}

impl Observer for Told {
    fn invocation(&self, record: Record) {
        self.metrics.invocation(&record);
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

    fn refused(&self, service: &Identity, failure: &Failure) {
        self.metrics.refused(service, failure);
        self.logs.refused(service, failure);
        if let Some(shown) = &self.shown {
            shown.refused(service, failure);
        }
    }
}
