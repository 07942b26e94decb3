//! What the runtime tells, as lines; and secrets on every way in.

use std::sync::Arc;
use std::time::Duration;

use tovuk_kernel::codes;
use tovuk_runtime::failure::Failure;
use tovuk_runtime::record::{EventKind, Identity, LogLine, LogStream, Observer, Outcome, Record};
use tovuk_runtime::trace::TraceId;

use super::*;

fn identity() -> Arc<Identity> {
    Arc::new(Identity { id: service("service_1"), name: "api".into(), slug: "api".into(), account: AccountId::from("account_1") })
}

fn record(trace: TraceId, outcome: Outcome, detail: Option<&str>) -> Record {
    Record {
        trace,
        span: u64::MAX,
        parent_span: 0,
        number: 1,
        event: EventKind::Http,
        caller: None,
        target: identity(),
        method: http::Method::GET,
        path: "/orders".to_owned(),
        status: Some(if detail.is_some() { 500 } else { 200 }),
        outcome,
        detail: detail.map(str::to_owned),
        started: std::time::Instant::now(),
        duration: Duration::from_micros(12_345),
        hops: 3,
        cpu_ns: 2_345_678,
        fuel: 1_000,
        memory_peak_bytes: 1 << 20,
        bytes_in: 1,
        bytes_out: 2,
    }
}

#[tokio::test]
async fn invocations_lines_of_workers_and_refusals_are_in_the_log_of_their_service() {
    let folder = TempDir::new().unwrap();
    let logs = open(folder.path());
    let (sink, trace) = (logs.sink(), TraceId::random());
    sink.log(LogLine { service: identity(), trace, number: 1, stream: LogStream::Stderr, message: "warning: low".to_owned() });
    sink.invocation(record(trace, Outcome::Response, None));
    sink.invocation(record(trace, Outcome::Trap, Some("unreachable\n  at handler")));
    sink.refused(&identity(), trace, &Failure::refused(&codes::SERVICE_BUSY, "256 requests run"));
    logs.flush().await;
    let page = read(&logs, "service_1", 10, None).await;
    let shown: Vec<_> = page.lines.iter().map(|line| (line.stream, line.message.as_str())).collect();
    assert_eq!(
        shown,
        [
            ("stderr", "warning: low"),
            ("invocation", "GET /orders 200 ok in 12.3 ms, cpu 2.3 ms"),
            ("invocation", "GET /orders 500 trap in 12.3 ms, cpu 2.3 ms\nunreachable\n  at handler"),
            ("system", "a request was refused, service_busy: 256 requests run"),
        ]
    );
    assert_eq!(page.lines[0].trace_id, Some(trace.to_string()));
    assert_eq!(page.lines[0].invocation, Some(1));
    // What a client is told as `request_id` finds it.
    assert_eq!(page.lines[3].trace_id, Some(trace.to_string()));
    let summary = serde_json::to_value(&page.lines[2]).unwrap();
    assert_eq!((&summary["outcome"], &summary["status"], &summary["cpu_ms"]), (&"trap".into(), &500.into(), &2.345.into()));
}

#[tokio::test]
async fn secrets_are_in_no_line_whichever_way_it_came() {
    let folder = TempDir::new().unwrap();
    let logs = open(folder.path());
    let sink = logs.sink();
    sink.set_secrets(&service("service_1"), [("API_KEY", "k-123456"), ("EMPTY", "")]).unwrap();
    let trace = TraceId::random();
    sink.log(LogLine { service: identity(), trace, number: 1, stream: LogStream::Stdout, message: "key k-123456".to_owned() });
    let mut failed = record(trace, Outcome::Failed, Some("could not use k-123456"));
    failed.path = "/with/k-123456".to_owned();
    sink.invocation(failed);
    sink.refused(&identity(), trace, &Failure::refused(&codes::SERVICE_BUSY, "k-123456"));
    logs.flush().await;
    // The part of a secret at which a line would be cut must not be left at its end.
    let long = format!("{}k-123456", "x".repeat(tovuk_kernel::limits::LOG_EVENT_BYTES - 15));
    logs.append(vec![line("service_1", "appended k-123456"), line("service_1", long)]).await.unwrap();
    let page = read(&logs, "service_1", 10, None).await;
    assert_eq!(page.lines.len(), 5);
    assert!(page.lines.iter().all(|line| !line.message.contains("k-12")));
    assert_eq!(page.lines[3].message, "appended [secret API_KEY]");
    logs.append(vec![line("service_2", "k-123456 is nobody's secret here")]).await.unwrap();
    assert_eq!(messages(&logs, "service_2").await, ["k-123456 is nobody's secret here"]);
    sink.set_secrets(&service("service_1"), [("API_KEY", "k-654321")]).unwrap();
    logs.append(vec![line("service_1", "k-123456 k-654321")]).await.unwrap();
    assert_eq!(messages(&logs, "service_1").await.last().unwrap(), "k-123456 [secret API_KEY]");
}
