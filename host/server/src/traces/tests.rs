//! Spans as they are kept: whole traces, bounded in time, in size and in what waits.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tovuk_runtime::record::{EventKind, Identity, Operation, Outcome, Record};

use super::*;

fn identity(number: u32) -> Arc<Identity> {
    let name: Arc<str> = format!("s{number}").into();
    Arc::new(Identity { id: format!("service_{number}").into(), name: name.clone(), slug: name, account: format!("account_{number}").into() })
}

fn record(trace: TraceId, span: u64, parent_span: u64, number: u32) -> Record {
    Record {
        trace,
        span,
        parent_span,
        number,
        event: if number == 1 { EventKind::Http } else { EventKind::Binding },
        caller: None,
        target: identity(1),
        method: http::Method::GET,
        path: "/a".to_owned(),
        status: Some(200),
        outcome: Outcome::Response,
        detail: None,
        started: Instant::now(),
        duration: Duration::from_micros(1_500),
        hops: 1,
        cpu_ns: 500_000,
        fuel: 1,
        memory_peak_bytes: 1,
        bytes_in: 1,
        bytes_out: 2,
    }
}

fn open(folder: &TempDir, clock: &Clock, change: impl FnOnce(&mut Config)) -> Traces {
    let mut config = Config::default();
    change(&mut config);
    Traces::open_with(folder.path(), clock.clone(), config).unwrap()
}

#[tokio::test]
async fn a_trace_is_read_in_order_and_each_account_sees_its_own_spans() {
    let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable());
    let traces = open(&folder, &clock, |_| {});
    let (sink, trace) = (traces.sink(), TraceId::random());
    let first = record(trace, 1, 99, 1);
    std::hint::black_box((0..100_000).sum::<u64>());
    let second = record(trace, 2, 1, 2);
    let get = Operation {
        trace,
        span: 3,
        parent_span: 2,
        service: identity(1),
        kind: "kv.get",
        subject: "CACHE".to_owned(),
        started: second.started + Duration::from_micros(1),
        duration: Duration::from_micros(10),
        outcome: "kv_storage_full".into(),
        did: Some("1 byte".to_owned()),
        status: None,
    };
    let foreign = Record { target: identity(2), ..record(trace, 4, 2, 3) };
    sink.operation(&get);
    for record in [second, first, foreign] {
        sink.invocation(&record);
    }
    traces.flush().await;
    let read = traces.trace("account_1", trace).await.unwrap().unwrap();
    let shown: Vec<_> = read.spans.iter().map(|span| (span.kind.as_str(), span.name.as_str(), span.parent_span_id.as_deref())).collect();
    let (one, two, outside) = (format!("{:016x}", 1), format!("{:016x}", 2), format!("{:016x}", 99));
    assert_eq!(
        shown,
        [("http", "GET /a", Some(outside.as_str())), ("binding", "GET /a", Some(one.as_str())), ("kv.get", "CACHE", Some(two.as_str()))]
    );
    let last = &read.spans[2];
    assert_eq!((last.outcome.as_deref(), last.did.as_deref(), last.status, last.invocation), (Some("kv_storage_full"), Some("1 byte"), None, None));
    assert_eq!((read.cpu_ms, read.spans[0].duration_ms, read.spans[0].offset_ms), (1.0, 1.5, 0.0));
    assert_eq!(traces.trace("account_2", trace).await.unwrap().unwrap().spans.len(), 1);
    assert!(traces.trace("account_3", trace).await.unwrap().is_none());
    let roots = traces.of_service(&"service_1".into(), &Query::default()).await.unwrap();
    assert_eq!((roots.traces.len(), roots.traces[0].trace_id.clone()), (1, trace.to_string()));
    let failed = Query { failed: true, ..Query::default() };
    assert!(traces.of_service(&"service_1".into(), &failed).await.unwrap().traces.is_empty());
    traces.delete_service(&"service_1".into()).await.unwrap();
    assert!(traces.trace("account_1", trace).await.unwrap().is_none());
    traces.close().await;
}

/// Waits until a trace has been removed. It is looked for now and then, by the clock.
async fn gone(traces: &Traces, clock: &Clock, trace: TraceId) {
    let removed = async {
        let mut looks = 0;
        while traces.trace("account_1", trace).await.unwrap().is_some() {
            if looks % 100 == 0 {
                clock.advance(Duration::from_secs(30));
            }
            looks += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), removed).await.unwrap();
}

#[tokio::test]
async fn spans_go_after_a_day_and_when_they_are_too_many() {
    let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable());
    let traces = open(&folder, &clock, |config| (config.bytes_max, config.spans_per_second) = (4 << 20, u64::MAX));
    let (sink, old) = (traces.sink(), TraceId::random());
    sink.invocation(&record(old, 1, 0, 1));
    traces.flush().await;
    clock.advance(Duration::from_secs(TRACE_HOURS * 3_600 + 60));
    gone(&traces, &clock, old).await;
    // Times follow a clock that was set.
    let now = TraceId::random();
    for _ in 0..2 {
        sink.invocation(&record(now, 1, 0, 1));
        traces.flush().await;
    }
    let began = traces.trace("account_1", now).await.unwrap().unwrap().spans[1].started_at.parse::<jiff::Timestamp>().unwrap();
    assert!(began.as_millisecond().abs_diff(i64::try_from(clock.now_unix_ms()).unwrap()) < 5_000);
    for _ in 0..10 {
        for number in 0..4_000 {
            sink.invocation(&record(TraceId::random(), number, 0, 1));
        }
        traces.flush().await;
    }
    let last = TraceId::random();
    sink.invocation(&record(last, 1, 0, 1));
    traces.flush().await;
    gone(&traces, &clock, now).await;
    assert!(traces.trace("account_1", last).await.unwrap().is_some(), "the oldest went");
    traces.close().await;
}

#[tokio::test]
async fn under_load_a_part_of_all_traces_is_kept_whole_and_what_fails_besides() {
    let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable());
    let traces = open(&folder, &clock, |config| config.spans_per_second = 100);
    let sink = traces.sink();
    // Whoever writes has begun to count.
    traces.flush().await;
    for _ in 0..2_000 {
        sink.invocation(&record(TraceId::random(), 1, 0, 1));
    }
    clock.advance(Duration::from_secs(1));
    traces.flush().await;
    let level = traces.counts().level;
    assert!((3..=6).contains(&level), "{:?}", traces.counts());
    let before = traces.counts();
    let many: Vec<_> = (0..1_000).map(|_| TraceId::random()).collect();
    for trace in &many {
        for number in 1..=3 {
            sink.invocation(&record(*trace, number.into(), 0, number));
        }
    }
    let failed = many.iter().find(|trace| !sink.keeps(**trace)).copied().unwrap();
    sink.invocation(&Record { outcome: Outcome::Trap, ..record(failed, 9, 1, 4) });
    traces.flush().await;
    let mut kept = 0;
    for trace in &many {
        let spans = traces.trace("account_1", *trace).await.unwrap().map_or(0, |trace| trace.spans.len());
        assert!(matches!(spans, 0 | 3) || (*trace == failed && spans == 1), "{spans}");
        kept += u64::from(spans == 3);
    }
    assert!((1..=250).contains(&kept), "{kept} at {level}");
    let after = traces.counts();
    assert_eq!((after.written - before.written, after.left_out - before.left_out, after.dropped), (kept * 3 + 1, 3_000 - kept * 3, 0));
    // It comes back step by step. What was kept of the last second may have been more than it is on average, and then it went up first.
    for _ in 0..=level + 2 {
        clock.advance(Duration::from_secs(1));
        sink.invocation(&record(failed, 1, 0, 1));
        traces.flush().await;
    }
    assert_eq!(traces.counts().level, 0);
    traces.close().await;
}

#[tokio::test]
async fn what_does_not_fit_is_dropped_and_counted_and_nobody_waits() {
    let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable());
    let traces = open(&folder, &clock, |config| (config.queue_max, config.spans_per_second) = (100, u64::MAX));
    // Nothing is written until this thread gives way.
    for _ in 0..1_000 {
        traces.sink().invocation(&record(TraceId::random(), 1, 0, 1));
    }
    traces.flush().await;
    let counts = traces.counts();
    assert_eq!((counts.written, counts.dropped), (100, 900));
    traces.close().await;
}
