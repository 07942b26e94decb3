//! Cron: a host with many triggers, some of which are due in the same minute. How late each tick has ended is what users see: it was taken, its worker has
//! answered, and that is on disk. Host and client are one process, whose clock is moved to the second before the ticks are due.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use http::Method;
use rustix::process::getpid;
use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::limits::CRON_TRIGGERS_MAX;
use tovuk_runtime::compile::Compiler;
use tovuk_server::boot::{Host, HostConfig};

use crate::command::CronArguments;
use crate::control::client::Connection;
use crate::control::{Rows, deploy_as, table};
use crate::output::{self, Report, number};
use crate::{guests, machine};

/// 31 May 2026, 12:30 UTC.
const START_UNIX_MS: u64 = 1_780_230_600_000;
const HOUR_MS: u64 = 3_600_000;
/// How long the host does nothing while its CPU time is read.
const IDLE: Duration = Duration::from_secs(5);

/// Measures, and adds the table to the report.
pub fn run(arguments: &CronArguments, report: &mut Report) -> anyhow::Result<()> {
    let mut rows = Rows::new(report.raw(arguments.json.as_deref(), "cron")?);
    let data = output::folder().join(format!("cron-data-{}", std::process::id()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let measured = machine::multi_thread(threads)?.block_on(measure(arguments, &data, &mut rows));
    // What was written is of no use to anybody, also after a failure.
    let _ = std::fs::remove_dir_all(&data);
    let facts = measured?;
    report.add("## Cron\n\nHow late ticks have ended that were due at the same second.\n");
    report.add(&table(&rows));
    report.add(&facts);
    Ok(())
}

async fn measure(arguments: &CronArguments, data: &Path, rows: &mut Rows) -> anyhow::Result<String> {
    let clock = Clock::advanceable_at(START_UNIX_MS);
    let mut config = HostConfig::new(data.to_owned());
    config.listen = ([127, 0, 0, 1], 0).into();
    config.api_listen = ([127, 0, 0, 1], 0).into();
    let host = Host::start(config, Compiler::this_program(clock.clone())?, clock.clone()).await?;
    let token = std::fs::read_to_string(host.admin_token())?.trim().to_owned();
    let mut api = Connection::open(host.api_address(), host.api_address().to_string(), Some(&token)).await?;
    deploy(&mut api, 0, Vec::new()).await?;
    let empty_kib = machine::process_rss_kib(getpid()).unwrap_or_default();
    let services = services(arguments);
    for (at, crons) in services.iter().enumerate() {
        deploy(&mut api, at, crons.clone()).await?;
    }
    let full_kib = machine::process_rss_kib(getpid()).unwrap_or_default();
    let before = machine::process_cpu_s(getpid())?;
    Clock::system().sleep(IDLE).await;
    let idle = (machine::process_cpu_s(getpid())? - before) / IDLE.as_secs_f64();
    for round in 1..=u64::from(arguments.rounds) {
        // Every trigger of the service, and of the others those that are due.
        let due = START_UNIX_MS - START_UNIX_MS % HOUR_MS + round * HOUR_MS;
        clock.advance(Duration::from_millis(due.saturating_sub(1_000).saturating_sub(clock.now_unix_ms())));
        let mut late = Vec::new();
        for name in services.iter().flatten().filter(|(_, expression)| expression.starts_with("0 * ")).map(|(name, _)| name) {
            late.push(lateness(&mut api, name, round).await?);
        }
        rows.add(format!("{} triggers of {}, round {round}", late.len(), arguments.triggers), late, None)?;
    }
    host.stop().await;
    Ok(format!(
        "Resident memory: {} MiB with one service and no trigger, {} MiB with {} triggers. CPU while nothing is due: {} of a core.",
        number(empty_kib as f64 / 1024.0),
        number(full_kib as f64 / 1024.0),
        arguments.triggers,
        number(idle),
    ))
}

/// The triggers of each service, by name: the first ones tick every hour, all others in January.
fn services(arguments: &CronArguments) -> Vec<Vec<(String, String)>> {
    let all: Vec<_> = (0..arguments.triggers)
        .map(|trigger| {
            let expression = if trigger < arguments.together {
                "0 * * * *".to_owned()
            } else {
                format!("{} {} {} 1 *", trigger % 60, trigger / 60 % 24, trigger / 1_440 % 28 + 1)
            };
            (format!("t{trigger}"), expression)
        })
        .collect();
    all.chunks(CRON_TRIGGERS_MAX).map(<[_]>::to_vec).collect()
}

async fn deploy(api: &mut Connection, at: usize, crons: Vec<(String, String)>) -> anyhow::Result<()> {
    let crons: serde_json::Map<_, _> = crons.into_iter().map(|(name, expression)| (name, Value::from(expression))).collect();
    let component = std::fs::read(guests::path("hello")?)?;
    deploy_as(api, &format!("bench{at}"), &component, json!({"routes": ["/*"], "crons": crons})).await.map(drop)
}

/// How long after it was due the tick of that round has ended, in ms. Waits until it has.
async fn lateness(api: &mut Connection, name: &str, round: u64) -> anyhow::Result<f64> {
    let at = name.trim_start_matches('t').parse::<usize>()? / CRON_TRIGGERS_MAX;
    loop {
        let (_, answer) = api.json(Method::GET, &format!("/v1/services/bench{at}/cron/{name}/history"), None).await?;
        let runs = answer.get("runs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        ensure!(runs.len() as u64 <= round, "{name} has ticked too often: {answer}");
        if let Some(run) = runs.first().filter(|_| runs.len() as u64 == round) {
            let text = |field: &str| run.get(field).and_then(Value::as_str);
            let time = |field: &str| text(field).and_then(|text| text.parse::<jiff::Timestamp>().ok()).map(jiff::Timestamp::as_millisecond);
            if let Some((scheduled, ended)) = time("scheduledTime").zip(time("endedAt")) {
                ensure!(text("outcome") == Some("ok"), "{name}: {run}");
                return Ok((ended - scheduled) as f64);
            }
        }
        Clock::system().sleep(Duration::from_millis(20)).await;
    }
}
