//! What the runtime tells becomes lines: what workers write, one summary for each invocation, and what was refused.

use tovuk_runtime::failure::Failure;
use tovuk_runtime::record::{Identity, LogLine, LogStream, Observer, Record};
use tovuk_runtime::trace::TraceId;

use super::line::{Ended, Line, Stream};
use super::sink::LogSink;

impl Observer for LogSink {
    fn invocation(&self, record: Record) {
        // Why it failed follows the first line, which the page completes with figures.
        let message = match &record.detail {
            Some(detail) => format!("{} {}\n{detail}", record.method, record.path),
            None => format!("{} {}", record.method, record.path),
        };
        let mut line = Line::new(record.target.id.clone(), record.target.account.clone(), Stream::Invocation, message);
        line.trace = Some(record.trace);
        line.number = Some(record.number);
        line.ended = Some(Box::new(Ended {
            outcome: record.outcome,
            status: record.status,
            duration_us: u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX),
            cpu_us: record.cpu_ns / 1_000,
            fuel: record.fuel,
            memory_peak_bytes: record.memory_peak_bytes,
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            hops: record.hops,
            span: record.span,
            parent_span: record.parent_span,
            // Chains pass from account to account through public addresses; who called is for its own account to know.
            caller: record.caller.filter(|caller| caller.account == record.target.account).map(|caller| caller.id.clone()),
        }));
        self.line(line);
    }

    fn log(&self, line: LogLine) {
        let stream = match line.stream {
            LogStream::Stdout => Stream::Stdout,
            LogStream::Stderr => Stream::Stderr,
        };
        let mut kept = Line::new(line.service.id.clone(), line.service.account.clone(), stream, line.message);
        kept.trace = Some(line.trace);
        kept.number = Some(line.number);
        self.line(kept);
    }

    fn refused(&self, service: &Identity, trace: TraceId, failure: &Failure) {
        let message = format!("a request was refused, {}: {}", failure.code.code, failure.for_log());
        let mut line = Line::new(service.id.clone(), service.account.clone(), Stream::System, message);
        line.trace = Some(trace);
        self.line(line);
    }
}
