//! Which way requests went, and what services do right now.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::ids::AccountId;
use tovuk_kernel::limits::TOP_SERVICES_MAX;
use tovuk_kernel::operation::{Access, Argument, Command, Form, Method, Operation, PAGE_ARGUMENTS, Request};
use tovuk_runtime::record::Outcome;
use tovuk_runtime::trace::TraceId;

use crate::control::handler::Handler;
use crate::control::{Caller, Control, Refusal};
use crate::metrics::Lately;
use crate::traces::{Query, Roots, Trace};

/// Shows a trace.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Show {
    /// Its id, 32 hexadecimal digits: `request_id` of an answer, `trace_id` of a line of a log.
    pub trace: String,
}

impl Request for Show {
    const OPERATION: Operation = Operation::new("trace.show", Method::Get, "/v1/traces/{trace}", "Show which way a request went, and what took its time")
        .described(
            "Each invocation is a span, and so is each operation on data, each request to a host outside and each event that the host delivers. What services of other \
             accounts have done is not shown. Traces are kept for a day; under load a part of them, chosen by trace, and invocations that failed.",
        )
        .errors(&[&codes::TRACE_NOT_FOUND])
        .commands(&[Command::new("trace")
            .arguments(&[Argument::positional("trace", "The trace: `request_id` of an answer, or `trace_id` of a line of a log")])
            .examples(&["tovuk trace 4bf92f3577b34da6a3ce929d0e0e4736"])]);
    type Response = Trace;
}

impl Handler for Show {
    async fn run(self, control: Control, caller: Caller) -> Result<Trace, Refusal> {
        let unknown = || Refusal::new(&codes::TRACE_NOT_FOUND, format!("no span of a trace `{}` is kept of this account", self.trace.escape_debug()));
        let id = TraceId::parse(&self.trace).ok_or_else(unknown)?;
        // Whoever asks for what has just happened is not to be told that it has not.
        control.traces().flush().await;
        control.traces().trace(caller.account.as_str(), id).await?.ok_or_else(unknown)
    }
}

/// Lists traces.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// The service at which they began.
    pub service: String,
    /// Those alone that did not end well.
    pub failed: Option<bool>,
    /// Most traces to return, 1 to 1,000.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
}

impl Request for List {
    const OPERATION: Operation =
        Operation::new("trace.list", Method::Get, "/v1/services/{service}/traces", "List traces that began at a service, the latest first")
            .errors(&[&codes::INVALID_CURSOR])
            .commands(&[Command::new("traces")
                .arguments(&[
                    Argument::flag("failed", "failed", "Those alone that did not end well").form(Form::True),
                    PAGE_ARGUMENTS[0],
                    PAGE_ARGUMENTS[1],
                ])
                .examples(&["tovuk traces --service shop", "tovuk traces --service shop --failed --limit 20"])]);
    type Response = Roots;
}

impl Handler for List {
    async fn run(self, control: Control, caller: Caller) -> Result<Roots, Refusal> {
        let service = control.service(&caller, &self.service).await?;
        control.traces().flush().await;
        let query = Query { limit: self.limit, cursor: self.cursor, failed: self.failed.unwrap_or_default() };
        Ok(control.traces().of_service(&service.service_id(), &query).await?)
    }
}

/// Shows what the account's services do.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Top {
    /// What comes first: `rate` (when absent), `cpu`, `errors` or `p99`.
    pub sort: Option<Sort>,
}

/// Shows what all services of the host do.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct TopOfHost {
    /// What comes first: `rate` (when absent), `cpu`, `errors` or `p99`.
    pub sort: Option<Sort>,
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "TopSort")]
pub enum Sort {
    /// Invocations.
    #[default]
    Rate,
    /// CPU time.
    Cpu,
    /// Errors.
    Errors,
    /// Slowness.
    P99,
}

/// What services do.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopResponse {
    /// The services, those first that were asked for first; 100 at most. Those that did nothing lately are left out.
    pub services: Vec<Busy>,
    /// How many services did something.
    pub active: u64,
    /// What all of them did together.
    pub total: Rates,
}

/// What a service does.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "BusyService")]
pub struct Busy {
    /// Its id.
    pub service_id: String,
    /// Its name.
    pub name: String,
    /// Its account.
    pub account_id: String,
    /// What it did.
    #[serde(flatten)]
    pub rates: Rates,
}

/// What was done in each second of the last five to ten.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rates {
    /// Invocations, and what was turned away.
    pub per_second: f64,
    /// Invocations that ended badly or with a status of 500 or above, and what was turned away.
    pub errors_per_second: f64,
    /// CPU time in percent of one core.
    pub cpu_percent: f64,
    /// How long half of the invocations took at most, about, in ms.
    pub p50_ms: f64,
    /// How long 99 of 100 invocations took at most, about, in ms.
    pub p99_ms: f64,
    /// Invocations that used up their CPU time or memory, took too long, or trapped.
    pub limited_per_second: f64,
}

impl Rates {
    fn of(lately: &Lately) -> Self {
        let (totals, seconds) = (&lately.totals, lately.seconds);
        let per_second = |count: u64| rounded(count as f64 / seconds);
        let stopped = [Outcome::Trap, Outcome::Cpu, Outcome::Memory, Outcome::Wall];
        let limited = Outcome::ALL.iter().zip(totals.outcomes).filter(|(outcome, _)| stopped.contains(outcome)).map(|(_, count)| count).sum();
        let ms = |per_mille| totals.durations.quantile_us(per_mille).unwrap_or_default() as f64 / 1e3;
        Self {
            per_second: per_second(totals.calls()),
            errors_per_second: per_second(totals.errors + totals.refused),
            cpu_percent: rounded(totals.cpu_ns as f64 / seconds / 1e7),
            p50_ms: ms(500),
            p99_ms: ms(990),
            limited_per_second: per_second(limited),
        }
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

const ABOUT_TOP: &str = "Figures of the last five to ten seconds. `tovuk top` shows them as they change.";

impl Request for Top {
    const OPERATION: Operation =
        Operation::new("service.top", Method::Get, "/v1/top", "Show what the account's services do right now").described(ABOUT_TOP);
    type Response = TopResponse;
}

impl Request for TopOfHost {
    const OPERATION: Operation = Operation::new("operator.top", Method::Get, "/v1/operator/top", "Show what all services of the host do right now")
        .described(ABOUT_TOP)
        .access(Access::Operator);
    type Response = TopResponse;
}

fn top(control: &Control, account: Option<&AccountId>, sort: Sort) -> TopResponse {
    let lately = control.metrics().top(account);
    let total = lately.iter().fold(Lately::nothing(), |sum, one| sum.and(one));
    let mut services: Vec<_> = lately
        .iter()
        .map(|one| Busy {
            service_id: one.identity.id.as_str().to_owned(),
            name: one.identity.name.to_string(),
            account_id: one.identity.account.as_str().to_owned(),
            rates: Rates::of(one),
        })
        .collect();
    let key = |busy: &Busy| match sort {
        Sort::Rate => busy.rates.per_second,
        Sort::Cpu => busy.rates.cpu_percent,
        Sort::Errors => busy.rates.errors_per_second,
        Sort::P99 => busy.rates.p99_ms,
    };
    services.sort_by(|one, other| key(other).total_cmp(&key(one)).then_with(|| one.name.cmp(&other.name)));
    services.truncate(TOP_SERVICES_MAX);
    TopResponse { services, active: lately.len() as u64, total: Rates::of(&total) }
}

impl Handler for Top {
    async fn run(self, control: Control, caller: Caller) -> Result<TopResponse, Refusal> {
        Ok(top(&control, Some(&caller.account), self.sort.unwrap_or_default()))
    }
}

impl Handler for TopOfHost {
    async fn run(self, control: Control, _caller: Caller) -> Result<TopResponse, Refusal> {
        Ok(top(&control, None, self.sort.unwrap_or_default()))
    }
}
