//! What a host said: records, log lines and refusals, kept for tests to wait for.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tovuk_runtime::failure::Failure;
use tovuk_runtime::record::{Identity, LogLine, Observer, Record};
use tovuk_runtime::trace::TraceId;

/// An observer that keeps everything. Clones share it.
#[derive(Clone, Default)]
pub struct Observed(Arc<Shared>);

#[derive(Default)]
struct Shared {
    records: Mutex<Vec<Record>>,
    lines: Mutex<Vec<LogLine>>,
    refusals: Mutex<Vec<(String, Failure)>>,
    changed: Notify,
}

impl Observed {
    /// Every record so far.
    pub fn records(&self) -> Vec<Record> {
        self.0.records.lock().unwrap().clone()
    }

    /// Every log line so far, as `stream: message`.
    pub fn lines(&self) -> Vec<String> {
        self.0.lines.lock().unwrap().iter().map(|line| format!("{}: {}", line.stream.as_str(), line.message)).collect()
    }

    /// Every refusal so far, by service name.
    pub fn refusals(&self) -> Vec<(String, Failure)> {
        self.0.refusals.lock().unwrap().clone()
    }

    /// Waits until `count` invocations of this service have ended, and returns their records.
    pub async fn ended(&self, service: &str, count: usize) -> Vec<Record> {
        self.until(|| {
            let records: Vec<_> = self.records().into_iter().filter(|record| &*record.target.name == service).collect();
            (records.len() >= count).then_some(records)
        })
        .await
    }

    /// Waits for a log line that contains `text`.
    pub async fn line(&self, text: &str) -> String {
        self.until(|| self.lines().into_iter().find(|line| line.contains(text))).await
    }

    /// Waits until `find` finds something in what the host has said. A test that waits in vain fails after a minute.
    pub async fn until<T>(&self, find: impl Fn() -> Option<T>) -> T {
        let wait = async {
            loop {
                let changed = self.0.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = find() {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.unwrap_or_else(|_| {
            let records: Vec<_> =
                self.records().iter().map(|r| format!("{} {} {:?} {}", r.target.name, r.path, r.status, r.outcome.as_str())).collect();
            panic!("the host never said it; it said {records:?} {:?}", self.lines())
        })
    }
}

impl Observer for Observed {
    fn invocation(&self, record: Record) {
        self.0.records.lock().unwrap().push(record);
        self.0.changed.notify_waiters();
    }

    fn log(&self, line: LogLine) {
        self.0.lines.lock().unwrap().push(line);
        self.0.changed.notify_waiters();
    }

    fn refused(&self, service: &Identity, _trace: TraceId, failure: &Failure) {
        self.0.refusals.lock().unwrap().push((service.name.to_string(), failure.clone()));
        self.0.changed.notify_waiters();
    }
}
