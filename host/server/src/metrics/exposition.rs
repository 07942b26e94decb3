//! The text that Prometheus reads: every figure by its name, and where it is kept. `docs/metrics.md` explains the names; a test compares the two.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tovuk_kernel::histogram::{BOUNDS_US, Durations};
use tovuk_resources::{database, sqlite};
use tovuk_runtime::record::Outcome;

use super::{Metrics, Totals, locked};
use crate::control::Control;

/// The type of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The series of all services that have none of their own.
const OTHER: &str = "other";

type Labels = Vec<(&'static str, String)>;
type Series = Vec<(Labels, Figure)>;

/// One name with all its series.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    series: Series,
}

#[derive(Clone, Copy, Debug)]
enum Figure {
    Counter(u64),
    Seconds(f64),
    Gauge(u64),
    Level(f64),
    Durations(Durations),
}

impl Figure {
    fn kind(self) -> MetricType {
        match self {
            Self::Counter(_) | Self::Seconds(_) => MetricType::Counter,
            Self::Gauge(_) | Self::Level(_) => MetricType::Gauge,
            Self::Durations(_) => MetricType::Histogram,
        }
    }

    fn encode(self, series: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Self::Counter(count) => series.encode_counter::<NoLabelSet, _, f64>(&count, None),
            Self::Seconds(seconds) => series.encode_counter::<NoLabelSet, _, f64>(&seconds, None),
            Self::Gauge(value) => series.encode_gauge(&value),
            Self::Level(value) => series.encode_gauge(&value),
            Self::Durations(durations) => {
                let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
                let buckets: Vec<_> = bounds.zip(durations.buckets).collect();
                series.encode_histogram::<NoLabelSet>(durations.sum_us as f64 / 1e6, durations.count(), &buckets, None)
            }
        }
    }
}

/// All figures of a host, as Prometheus reads them.
pub(super) async fn text(control: &Control) -> Result<String, fmt::Error> {
    let mut families = of_services(control.metrics());
    of_host(control, &mut families);
    of_queues(control, &mut families).await;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures(Mutex::new(families))));
    let mut written = String::new();
    text::encode(&mut written, &registry)?;
    Ok(written)
}

fn labels(of: &[(&'static str, &str)]) -> Labels {
    of.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

fn of_services(metrics: &Metrics) -> Vec<Family> {
    let (named, other) = metrics.export();
    let services: Vec<(String, Totals)> =
        named.into_iter().map(|(slug, totals)| (slug.to_string(), totals)).chain([(OTHER.to_owned(), other)]).collect();
    let family = |name, help, of: &dyn Fn(&str, &Totals) -> Series| Family {
        name,
        help,
        series: services.iter().flat_map(|(service, totals)| of(service, totals)).collect(),
    };
    let one = |service: &str, figure| vec![(labels(&[("service", service)]), figure)];
    vec![
        family("tovuk_invocations", "Invocations that have ended, by outcome", &|service, totals| {
            let counted = Outcome::ALL.iter().zip(totals.outcomes).filter(|(_, count)| *count > 0);
            counted.map(|(outcome, count)| (labels(&[("service", service), ("outcome", outcome.as_str())]), Figure::Counter(count))).collect()
        }),
        family("tovuk_invocation_errors", "Invocations that ended badly, or with a status of 500 or above", &|service, totals| {
            one(service, Figure::Counter(totals.errors))
        }),
        family("tovuk_requests_refused", "What was turned away before an invocation had begun", &|service, totals| {
            one(service, Figure::Counter(totals.refused))
        }),
        family("tovuk_invocation_duration_seconds", "How long invocations took, to their last byte", &|service, totals| {
            one(service, Figure::Durations(totals.durations))
        }),
        family("tovuk_invocation_cpu_seconds", "CPU time of invocations", &|service, totals| {
            one(service, Figure::Seconds(totals.cpu_ns as f64 / 1e9))
        }),
        family("tovuk_body_bytes", "Bytes of bodies, received and answered with", &|service, totals| {
            let of = |direction, bytes| (labels(&[("service", service), ("direction", direction)]), Figure::Counter(bytes));
            vec![of("in", totals.bytes_in), of("out", totals.bytes_out)]
        }),
    ]
}

fn of_host(control: &Control, families: &mut Vec<Family>) {
    let runtime = control.runtime();
    let mut add = |name, help, series: Series| families.push(Family { name, help, series });
    let alone = |figure| vec![(Labels::new(), figure)];
    let kinds = |label, of: &[(&str, Figure)]| of.iter().map(|(kind, figure)| (labels(&[(label, *kind)]), *figure)).collect::<Vec<_>>();
    let gauge = |count: usize| Figure::Gauge(count as u64);

    let slots = runtime.slots();
    let (total, free) = (u64::from(slots.total()), u64::from(slots.free()));
    add("tovuk_slots", "Instance slots", kinds("state", &[("used", Figure::Gauge(total.saturating_sub(free))), ("free", Figure::Gauge(free))]));
    let (requests, hops) = slots.waiting();
    add("tovuk_slots_waiting", "What waits for an instance slot", kinds("kind", &[("request", gauge(requests)), ("hop", gauge(hops))]));
    add(
        "tovuk_places_waiting",
        "Requests that wait because as many of their service or account run as may",
        alone(gauge(runtime.services().waiting())),
    );
    let turns = runtime.turns();
    let figures = [("waiting", gauge(turns.waiting())), ("begun", gauge(turns.guests().saturating_sub(turns.waiting())))];
    add("tovuk_long_computations", "Guests that compute for long and take turns", kinds("state", &figures));
    let had = Figure::Seconds(Duration::from_nanos(turns.had_ns()).as_secs_f64());
    add("tovuk_long_computations_cpu_seconds", "CPU time that guests have had in turns", alone(had));
    let memory = runtime.memory();
    let figures = [("used", Figure::Gauge(memory.used_bytes())), ("budget", Figure::Gauge(memory.budget_bytes()))];
    add("tovuk_memory_bytes", "Memory of guests and of what is held for them", kinds("kind", &figures));
    add("tovuk_components_loaded", "Components that are loaded", alone(Figure::Gauge(runtime.artifacts().loaded_count())));
    let loads = Figure::Durations(runtime.artifacts().cold_loads());
    add("tovuk_cold_load_duration_seconds", "Components that had to be loaded from disk for a request", alone(loads));

    let commits = Figure::Durations(database::commit_durations());
    add("tovuk_database_commit_duration_seconds", "Commits of the host's own stores, to the disk", alone(commits));
    let statements = Figure::Durations(sqlite::run_durations());
    add("tovuk_sqlite_query_duration_seconds", "Queries and batches of tenants' databases", alone(statements));

    let usage = control.meters().counts();
    let commits = [("write", Figure::Durations(usage.writes)), ("lease", Figure::Durations(usage.leases))];
    add("tovuk_usage_commit_duration_seconds", "Writing what was used, and waiting for more of a cap", kinds("kind", &commits));
    add("tovuk_usage_commit_failures", "Of these, those that failed", alone(Figure::Counter(usage.failures)));

    let logs = control.logs().counts();
    add("tovuk_log_lines_waiting", "Log lines that wait to be written", alone(gauge(logs.waiting_lines)));
    add("tovuk_log_bytes_waiting", "What they take, in bytes", alone(gauge(logs.waiting_bytes)));
    add("tovuk_log_bytes_kept", "What logs take on disk, about, in bytes", alone(Figure::Gauge(logs.kept_bytes)));
    add("tovuk_log_lines_dropped", "Log lines that came faster than they could be written", alone(Figure::Counter(logs.dropped)));
    add("tovuk_log_write_failures", "Batches of log lines that could not be written", alone(Figure::Counter(logs.failures)));
    add("tovuk_log_followers", "Clients that follow a log", alone(gauge(logs.followers)));

    let traces = control.traces().counts();
    let spans = [
        ("written", traces.written),
        ("left_out", traces.left_out),
        ("dropped", traces.dropped),
        ("exported", traces.exported),
        ("export_lost", traces.export_lost),
    ];
    let spans = spans.map(|(result, count)| (result, Figure::Counter(count)));
    add("tovuk_trace_spans", "Spans that came, and what has become of them", kinds("result", &spans));
    add("tovuk_trace_level", "One trace in two to the power of this is kept", alone(Figure::Gauge(traces.level.into())));

    add("tovuk_draining", "1 while the node takes nothing new", alone(Figure::Gauge(control.is_draining().into())));
    add("tovuk_build_info", "The version of the host", vec![(labels(&[("version", env!("CARGO_PKG_VERSION"))]), Figure::Gauge(1))]);
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9;
    add("process_cpu_seconds", "CPU time of the host's process", alone(Figure::Seconds(seconds)));
}

async fn of_queues(control: &Control, families: &mut Vec<Family>) {
    // A store that cannot be read is told of elsewhere, and must not hide the other figures.
    let Ok(total) = control.queues().total_backlog().await else { return };
    let mut add = |name, help, figure| families.push(Family { name, help, series: vec![(Labels::new(), figure)] });
    add("tovuk_queues", "Queues", Figure::Gauge(total.queues));
    add("tovuk_queue_messages", "Messages in all queues, those included that are being delivered", Figure::Gauge(total.backlog.messages));
    add("tovuk_queue_bytes", "What their bodies take, in bytes", Figure::Gauge(total.backlog.bytes));
    let oldest = Figure::Level(total.oldest_age_ms as f64 / 1e3);
    add("tovuk_queue_oldest_message_age_seconds", "How long the oldest of these messages has been there; 0 when there is none", oldest);
}

/// What was read, on its way into the text.
#[derive(Debug)]
struct Figures(Mutex<Vec<Family>>);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in locked(&self.0).iter() {
            let Some((_, first)) = family.series.first() else { continue };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, first.kind())?;
            for (labels, figure) in &family.series {
                match labels.is_empty() {
                    true => figure.encode(&mut metric)?,
                    false => figure.encode(&mut metric.encode_family(labels)?)?,
                }
            }
        }
        Ok(())
    }
}
