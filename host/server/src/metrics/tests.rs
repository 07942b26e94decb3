//! Figures as they are told: bounded, never going down, and none lost on the way.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tovuk_kernel::codes;
use tovuk_kernel::limits::{METRICS_CHOICE_SECONDS, METRICS_SERVICES_MAX};
use tovuk_runtime::record::{EventKind, Outcome};
use tovuk_runtime::trace::TraceId;

use super::*;

fn identity(number: usize) -> Identity {
    let name: Arc<str> = format!("s{number}").into();
    Identity { id: format!("service_{number}").into(), name: name.clone(), slug: name, account: format!("account_{}", number % 7).into() }
}

fn record(number: usize, outcome: Outcome, status: Option<u16>) -> Record {
    Record {
        trace: TraceId::random(),
        span: 1,
        parent_span: 0,
        number: 1,
        event: EventKind::Http,
        caller: None,
        target: Arc::new(identity(number)),
        method: http::Method::GET,
        path: "/".to_owned(),
        status,
        outcome,
        detail: None,
        started: Instant::now(),
        duration: Duration::from_millis(3),
        hops: 1,
        cpu_ns: 1_000_000,
        fuel: 1,
        memory_peak_bytes: 1,
        bytes_in: 1,
        bytes_out: 2,
    }
}

fn calls(metrics: &Metrics, number: usize, count: usize) {
    for _ in 0..count {
        metrics.invocation(&record(number, Outcome::Response, Some(200)));
    }
}

/// What is told of a service, and of the others together.
fn told(metrics: &Metrics) -> (HashMap<String, u64>, u64) {
    let (named, other) = metrics.export();
    (named.into_iter().map(|(slug, totals)| (slug.to_string(), totals.calls())).collect(), other.calls())
}

#[tokio::test]
async fn the_busiest_of_ten_thousand_services_have_their_own_figures_and_all_others_are_one() {
    let clock = Clock::advanceable();
    let metrics = Metrics::new(clock.clone());
    for number in 0..10_000 {
        calls(&metrics, number, 1);
    }
    let (named, other) = told(&metrics);
    assert_eq!((named.len(), named.values().sum::<u64>() + other), (METRICS_SERVICES_MAX, 10_000));
    // Those that become busy get theirs with the next choice, and the sum is what it was.
    for number in 9_000..9_050 {
        calls(&metrics, number, 20);
    }
    clock.advance(Duration::from_secs(METRICS_CHOICE_SECONDS));
    let (now_named, now_other) = told(&metrics);
    assert_eq!((now_named.len(), now_named.values().sum::<u64>() + now_other), (METRICS_SERVICES_MAX, 11_000 - lost(&named, &now_named)));
    assert!((9_000..9_050).all(|number| now_named.contains_key(&format!("s{number}"))));
    assert!(now_other >= other);
}

/// What those told that have no series any more; they keep it for when they come back.
fn lost(before: &HashMap<String, u64>, after: &HashMap<String, u64>) -> u64 {
    before.iter().filter(|(slug, _)| !after.contains_key(*slug)).map(|(_, calls)| calls).sum()
}

#[tokio::test]
async fn what_services_did_lately_is_known_by_account() {
    let clock = Clock::advanceable();
    let metrics = Metrics::new(clock.clone());
    calls(&metrics, 1, 3);
    metrics.invocation(&record(1, Outcome::Trap, Some(500)));
    metrics.invocation(&record(1, Outcome::Cancelled, None));
    metrics.refused(&identity(2), &Failure::refused(&codes::SERVICE_BUSY, "x"));
    let all = metrics.top(None);
    assert_eq!(all.len(), 2);
    let own = metrics.top(Some(&"account_1".into()));
    assert_eq!((own.len(), own[0].totals.calls(), own[0].totals.errors, own[0].totals.cpu_ns), (1, 5, 1, 5_000_000));
    assert!(own[0].totals.durations.quantile_us(990).unwrap() <= 5_000);
    // After two samples it is no longer lately.
    for _ in 0..SAMPLES {
        metrics.sample();
    }
    assert!(metrics.top(None).is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Calls(usize, usize),
    Forget(usize),
    Advance,
    Read,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let service = 0..METRICS_SERVICES_MAX * 2;
    let step = prop_oneof![
        8 => (service.clone(), 1..5usize).prop_map(|(service, count)| Step::Calls(service, count)),
        1 => service.prop_map(Step::Forget),
        1 => Just(Step::Advance),
        2 => Just(Step::Read),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_counter_ever_goes_down_and_the_series_are_bounded(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let clock = Clock::advanceable();
        let metrics = Metrics::new(clock.clone());
        // All places are taken from the beginning, so that services come and go.
        for number in 0..METRICS_SERVICES_MAX * 2 {
            calls(&metrics, number, 1);
        }
        let (mut before, mut other, mut counted) = (HashMap::<String, u64>::new(), 0, METRICS_SERVICES_MAX as u64 * 2);
        let mut deleted = std::collections::HashSet::new();
        for step in steps.into_iter().chain([Step::Read]) {
            match step {
                Step::Calls(number, count) if !deleted.contains(&number) => {
                    calls(&metrics, number, count);
                    counted += count as u64;
                }
                Step::Calls(..) => {}
                Step::Forget(number) => {
                    deleted.insert(number);
                    metrics.forget(&identity(number).id);
                    before.remove(&format!("s{number}"));
                }
                Step::Advance => drop(clock.advance(Duration::from_secs(METRICS_CHOICE_SECONDS))),
                Step::Read => {
                    let (named, now_other) = told(&metrics);
                    prop_assert!(named.len() <= METRICS_SERVICES_MAX);
                    prop_assert!(now_other >= other, "{now_other} after {other}");
                    for (slug, calls) in &named {
                        prop_assert!(calls >= before.get(slug).unwrap_or(&0), "{slug}");
                    }
                    prop_assert!(named.values().sum::<u64>() + now_other <= counted);
                    before.extend(named);
                    other = now_other;
                }
            }
        }
    }
}
