//! Invocations in this process, on one thread, from the call of `Runtime::invoke` to the last byte and the record. No sockets and no routing: what
//! those add shows in `bench http`.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use http::{HeaderValue, Request, header};
use http_body_util::BodyExt;
use serde::Serialize;
use tovuk_runtime::body::Body;
use tovuk_runtime::invoke::{Budget, Event};
use tovuk_runtime::service::Service;
use tovuk_runtime::trace::TraceContext;

use crate::command::InprocArguments;
use crate::host::Host;
use crate::output::{Report, number, table};
use crate::{machine, stats};

/// The product, and the same component under caps that are not reached and without any metering, as names of cases.
const UNCAPPED: &str = "hello lean";
const CAPPED: &str = "hello lean, capped";
const UNMETERED: &str = "hello lean, unmetered";
/// What fuel, clock, meters and caps may cost together, in percent.
const METERING_MOST_PERCENT: f64 = 8.0;
/// Name, service, calls after the first invocation.
const CASES: [(&str, &str, usize); 16] = [
    (UNCAPPED, "hello", 0),
    (CAPPED, "hello-capped", 0),
    (UNMETERED, "hello", 0),
    ("hello p2", "hello-p2", 0),
    ("chain lean, 0 hops", "chain", 0),
    ("chain lean, 1 hop", "chain", 1),
    ("chain lean, 8 hops", "chain", 8),
    ("chain lean, 31 hops", "chain", 31),
    ("chain lean without the SDK, 0 hops", "chain-raw", 0),
    ("chain lean without the SDK, 1 hop", "chain-raw", 1),
    ("chain lean without the SDK, 8 hops", "chain-raw", 8),
    ("chain lean without the SDK, 31 hops", "chain-raw", 31),
    ("chain p2, 0 hops", "chain-p2", 0),
    ("chain p2, 1 hop", "chain-p2", 1),
    ("chain p2, 8 hops", "chain-p2", 8),
    ("chain p2, 31 hops", "chain-p2", 31),
];
/// Rounds that fill caches and pools, and are not counted.
const WARM_UP_ROUNDS: usize = 2;

struct Case {
    name: &'static str,
    host: Arc<Host>,
    service: Arc<Service>,
    host_header: HeaderValue,
    hops: usize,
    requests: usize,
    samples: Vec<Sample>,
}

/// One round of one case.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    case: &'static str,
    hops: usize,
    round: usize,
    requests: usize,
    /// Time on the wall per request.
    us: f64,
    /// CPU time of all records of a request together.
    cpu_us: f64,
    /// Fuel of all records of a request together.
    fuel: f64,
}

/// Measures every case, adds the table to the report, and keeps the samples.
pub fn run(arguments: &InprocArguments, report: &mut Report) -> anyhow::Result<()> {
    if let Some(core) = arguments.core {
        machine::pin(core)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cases = runtime.block_on(measure(arguments))?;
    ensure!(
        !cases.is_empty(),
        "no case has `{}` in its name; there are: {}",
        arguments.case.as_deref().unwrap_or_default(),
        CASES.map(|case| case.0).join("; ")
    );
    let mut raw = report.raw(arguments.json.as_deref(), "inproc")?;
    for sample in cases.iter().flat_map(|case| &case.samples) {
        raw.add(sample)?;
    }
    report.add(&render(&cases, arguments));
    eprintln!("raw results in {}", raw.path().display());
    Ok(())
}

async fn measure(arguments: &InprocArguments) -> anyhow::Result<Vec<Case>> {
    let is_wanted = |name: &str| arguments.case.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let metered = Arc::new(Host::start(arguments.slots).await?);
    let unmetered = if is_wanted(UNMETERED) { Arc::new(Host::unmetered(arguments.slots).await?) } else { metered.clone() };
    let mut cases = Vec::new();
    for (name, service, hops) in CASES.into_iter().filter(|case| is_wanted(case.0)) {
        let host = if name == UNMETERED { &unmetered } else { &metered };
        let requests = (arguments.invocations / (hops + 1)).max(1);
        let host_header = HeaderValue::from_str(&format!("{service}.localhost"))?;
        cases.push(Case { name, service: host.service(service)?, host: host.clone(), host_header, hops, requests, samples: Vec::new() });
    }
    for round in 0..WARM_UP_ROUNDS + arguments.rounds {
        // Whatever runs after something else is not always the same.
        cases.reverse();
        for case in &mut cases {
            let sample = sample(case, round).await.with_context(|| format!("{} failed", case.name))?;
            if round >= WARM_UP_ROUNDS {
                case.samples.push(sample);
            }
        }
    }
    cases.sort_by_key(|case| CASES.iter().position(|other| other.0 == case.name));
    Ok(cases)
}

async fn sample(case: &Case, round: usize) -> anyhow::Result<Sample> {
    let uri: http::Uri = format!("/{}", case.hops).parse()?;
    let before = case.host.tally.counts();
    let started = Instant::now();
    for _ in 0..case.requests {
        request(case, &uri).await?;
    }
    let elapsed = started.elapsed();
    let counts = case.host.tally.counts().since(before);
    let expected = (case.requests * (case.hops + 1)) as u64;
    ensure!(
        counts.records == expected && counts.refused == 0,
        "{} records and {} refusals instead of {expected} records",
        counts.records,
        counts.refused
    );
    let per_request = |total: f64| total / case.requests as f64;
    Ok(Sample {
        case: case.name,
        hops: case.hops,
        round,
        requests: case.requests,
        us: per_request(elapsed.as_secs_f64() * 1e6),
        cpu_us: per_request(counts.cpu_ns as f64 / 1e3),
        fuel: per_request(counts.fuel as f64),
    })
}

/// One request in the form in which the edge hands it on.
async fn request(case: &Case, uri: &http::Uri) -> anyhow::Result<()> {
    let mut request = Request::new(Body::Empty);
    *request.uri_mut() = uri.clone();
    request.headers_mut().insert(header::HOST, case.host_header.clone());
    let budget = Budget::top_level(TraceContext::of(request.headers()));
    let started =
        case.host.runtime.invoke(&case.service, Event::Http(request), budget).await.map_err(|failure| anyhow::anyhow!("{}", failure.message))?;
    let status = started.response.status();
    let body = started.response.into_body().collect().await?.to_bytes();
    started.outcome.settled().await;
    ensure!(status == 200 && *body == *b"hello", "it answered {status} with {} bytes instead of 200 with `hello`", body.len());
    Ok(())
}

fn render(cases: &[Case], arguments: &InprocArguments) -> String {
    let us = |case: &Case| stats::median(case.samples.iter().map(|sample| sample.us));
    let cpu_us = |case: &Case| stats::median(case.samples.iter().map(|sample| sample.cpu_us));
    let rows: Vec<_> = cases
        .iter()
        .map(|case| {
            // What a hop adds, against the same service without one.
            let base = cases.iter().find(|other| other.hops == 0 && Arc::ptr_eq(&other.service, &case.service)).filter(|_| case.hops > 0);
            let per_hop = |of: &dyn Fn(&Case) -> f64| base.map_or(f64::NAN, |base| (of(case) - of(base)) / case.hops as f64);
            vec![
                case.name.to_owned(),
                number(us(case)),
                number(stats::min(case.samples.iter().map(|sample| sample.us))),
                number(cpu_us(case)),
                number(stats::median(case.samples.iter().map(|sample| sample.fuel))),
                number(per_hop(&us)),
                number(per_hop(&cpu_us)),
            ]
        })
        .collect();
    let head = ["case", "µs, median", "µs, min", "µs CPU in records", "fuel", "µs a hop", "µs CPU a hop"];
    let metering = metering(cases);
    format!(
        "## In process\n\nOne thread, a fresh instance per invocation; {} alternating rounds.\n\n{}{metering}",
        arguments.rounds,
        table(&head, &rows)
    )
}

/// What metering costs on hello, where its three cases were measured. Both figures are medians over the rounds of what the cases of one round are to each other,
/// so that a slow spell of the machine meets both.
fn metering(cases: &[Case]) -> String {
    let samples = |name: &str| cases.iter().find(|case| case.name == name).map(|case| case.samples.as_slice()).unwrap_or_default();
    let more = |name: &str| {
        let rounds = samples(name).iter().zip(samples(UNMETERED));
        stats::median(rounds.map(|(with, without)| (with.us / without.us - 1.0) * 100.0))
    };
    let (uncapped, capped) = (more(UNCAPPED), more(CAPPED));
    if capped.is_nan() {
        return String::new();
    }
    let verdict = if capped <= METERING_MOST_PERCENT { "within" } else { "NOT within" };
    format!(
        "\nFuel, clock and meters cost {} % on hello, with caps {} %: {verdict} {METERING_MOST_PERCENT} %. Records are in all three cases.\n",
        number(uncapped),
        number(capped)
    )
}
