//! An operator's host as its clients meet it: reads and commits of the control API under load, deploys, rollbacks, and the first request after a start.
//! Host and clients share the machine's cores.

pub(crate) mod client;
mod component;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_runtime::compile::Compiler;
use tovuk_server::boot::{Host, HostConfig};

use crate::command::ControlArguments;
use crate::output::{self, Raw, Report, number};
use crate::{guests, machine, stats};
use client::{Connection, Served};

/// What is asked of the workers that are deployed here.
const HEALTH: Option<&str> = Some("/");

/// The size of the components that deploys are measured with.
const COMPONENT_BYTES: usize = 2 << 20;
/// Connections that read at a time.
const READERS: [usize; 3] = [1, 16, 64];
/// Callers that write at a time.
const WRITERS: [usize; 2] = [1, 64];

/// One row of the report.
#[derive(Serialize)]
struct Row {
    what: String,
    /// Each one's time, in ms.
    ms: Vec<f64>,
    /// All of them together, in a second, where they were asked for without pause.
    per_s: Option<f64>,
}

/// Where rows are kept while they are made.
pub(crate) struct Rows {
    rows: Vec<Row>,
    raw: Raw,
}

impl Rows {
    /// None yet; each is also kept raw.
    pub(crate) fn new(raw: Raw) -> Self {
        Self { rows: Vec::new(), raw }
    }

    pub(crate) fn add(&mut self, what: impl Into<String>, ms: Vec<f64>, per_s: Option<f64>) -> anyhow::Result<()> {
        let row = Row { what: what.into(), ms, per_s };
        eprintln!("{:60} p50 {:>8} ms  p99 {:>8} ms", row.what, number(stats::percentile(&row.ms, 50.0)), number(stats::percentile(&row.ms, 99.0)));
        self.raw.add(&row)?;
        self.rows.push(row);
        Ok(())
    }
}

/// Serves an operator's host until the process is ended; for the use of `bench control`.
pub fn serve(data: &Path) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).context("cannot be tied to the parent")?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    machine::multi_thread(threads)?.block_on(async {
        let clock = Clock::system();
        let mut config = HostConfig::new(data.to_owned());
        config.listen = ([127, 0, 0, 1], 0).into();
        config.api_listen = ([127, 0, 0, 1], 0).into();
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let host = Host::start(config, Compiler::this_program(clock.clone())?, clock).await?;
        println!("{}\n{}", host.public_address(), host.api_address());
        terminate.recv().await;
        host.stop().await;
        Ok(())
    })
}

/// Measures, and adds the table to the report.
pub fn run(arguments: &ControlArguments, report: &mut Report) -> anyhow::Result<()> {
    let mut rows = Rows::new(report.raw(arguments.json.as_deref(), "control")?);
    let data = output::folder().join(format!("control-data-{}", std::process::id()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let measured = machine::multi_thread(threads)?.block_on(measure(arguments, &data, &mut rows));
    // What was deployed is of no use to anybody, also after a failure.
    let _ = std::fs::remove_dir_all(&data);
    let facts = measured?;
    report.add("## Control");
    report.add(&table(&rows));
    report.add(&facts);
    report.add(&format!("Raw results: {}", rows.raw.path().display()));
    Ok(())
}

/// The rows as they are printed.
pub(crate) fn table(rows: &Rows) -> String {
    let cells = |row: &Row| {
        let at = |percent| number(stats::percentile(&row.ms, percent));
        vec![
            row.what.clone(),
            row.ms.len().to_string(),
            at(50.0),
            at(99.0),
            number(stats::max(row.ms.iter().copied())),
            number(row.per_s.unwrap_or(f64::NAN)),
        ]
    };
    let rows_of_table: Vec<_> = rows.rows.iter().map(cells).collect();
    output::table(&["what", "times", "p50 ms", "p99 ms", "max ms", "a second"], &rows_of_table)
}

async fn measure(arguments: &ControlArguments, data: &Path, rows: &mut Rows) -> anyhow::Result<String> {
    let host = Served::start(data)?;
    let empty_kib = machine::process_rss_kib(host.pid()).unwrap_or_default();
    deploys(arguments, &host, rows).await?;
    let duration = Duration::from_secs(arguments.seconds);
    for path in ["/v1/account", "/v1/services/large-0/overview"] {
        for readers in READERS {
            let (ms, per_s) = together(
                async || host.api().await,
                readers,
                duration,
                async |connection, _, _| connection.send(Method::GET, path, Bytes::new()).await,
            )
            .await?;
            rows.add(format!("GET {path}, {readers} connections"), ms, Some(per_s))?;
        }
    }
    for writers in WRITERS {
        let (ms, per_s) = together(
            async || host.api().await,
            writers,
            duration,
            async |connection, writer, number| {
                let body = json!({"name": format!("NAME_{}", writer % 32), "value": format!("value {number}")});
                connection.send(Method::PUT, "/v1/services/large-0/env", Bytes::from(body.to_string())).await
            },
        )
        .await?;
        rows.add(format!("PUT /v1/services/{{service}}/env, {writers} callers"), ms, Some(per_s))?;
    }
    let full_kib = machine::process_rss_kib(host.pid()).unwrap_or_default();
    host.stop()?;
    let (ready_ms, restarted_kib) = first_requests(arguments, data, rows).await?;
    Ok(format!(
        "Ready {} ms after the start of the process with {} services. VmRSS: {empty_kib} KiB empty, {full_kib} KiB after all of this, {restarted_kib} KiB after a \
         start anew and a request to each service. Components have {COMPONENT_BYTES} bytes.",
        number(ready_ms),
        arguments.services,
    ))
}

/// Deploys each service's component, the same once more to another service, and rolls back.
async fn deploys(arguments: &ControlArguments, host: &Served, rows: &mut Rows) -> anyhow::Result<()> {
    let mut api = host.api().await?;
    let (mut whole, mut without, mut again, mut back) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for service in 0..arguments.services {
        let component = component::of_bytes(COMPONENT_BYTES, service)?;
        let (ms, build) = deploy(&mut api, &format!("large-{service}"), &component, HEALTH).await?;
        let compile_ms = compile_ms(&mut api, &build).await?;
        whole.push(ms);
        without.push(ms - compile_ms);
        // Its code is there.
        again.push(deploy(&mut api, "again", &component, HEALTH).await?.0);
        if service > 0 {
            let (_, listed) = api.json(Method::GET, "/v1/services/again/deploys?limit=2", None).await?;
            let earlier = listed.pointer("/deploys/1/id").and_then(Value::as_str).context("no earlier deploy")?;
            back.push(api.json(Method::POST, &format!("/v1/deploys/{earlier}/rollback"), None).await?.0);
        }
    }
    rows.add("deploy of 2 MB, compiled", whole, None)?;
    rows.add("deploy of 2 MB, less what its log says of compiling", without, None)?;
    rows.add("deploy of 2 MB whose code is there", again, None)?;
    rows.add("rollback", back, None)
}

/// Deploys and waits until it is live; how long that took, and the build.
/// `health` is asked before, where the worker answers to a path without a body.
pub(crate) async fn deploy(api: &mut Connection, name: &str, component: &[u8], health: Option<&str>) -> anyhow::Result<(f64, String)> {
    let config = match health {
        Some(health) => json!({"routes": ["/*"], "health": health}),
        None => json!({"routes": ["/*"]}),
    };
    deploy_as(api, name, component, config).await
}

/// The same with this table of the project file.
pub(crate) async fn deploy_as(api: &mut Connection, name: &str, component: &[u8], config: Value) -> anyhow::Result<(f64, String)> {
    let body = json!({"service": name, "config": config, "component_base64": STANDARD.encode(component)});
    let body = Bytes::from(body.to_string());
    let started = Instant::now();
    let (_, accepted) = api.send(Method::POST, "/v1/deploy", body).await?;
    let accepted: Value = serde_json::from_slice(&accepted)?;
    let build = accepted.pointer("/build_job/id").and_then(Value::as_str).context("no build")?.to_owned();
    loop {
        let (_, shown) = api.json(Method::GET, &format!("/v1/builds/{build}?waitSeconds=20"), None).await?;
        match shown.pointer("/build/status").and_then(Value::as_str) {
            Some("queued" | "running") => {}
            status => {
                ensure!(status == Some("succeeded"), "{shown}");
                return Ok((started.elapsed().as_secs_f64() * 1e3, build));
            }
        }
    }
}

/// What the log of a build says of compiling.
async fn compile_ms(api: &mut Connection, build: &str) -> anyhow::Result<f64> {
    let (_, log) = api.json(Method::GET, &format!("/v1/builds/{build}/logs"), None).await?;
    let text = log.to_string();
    let ms = text.split("compiled in ").nth(1).and_then(|rest| rest.split(' ').next()).context("the log of the build says nothing of compiling")?;
    Ok(ms.parse()?)
}

/// So many callers, each on a connection of its own and without pause: the times of all of them, and how many there were in a second.
pub(crate) async fn together<F>(
    connect: impl AsyncFn() -> anyhow::Result<Connection>,
    callers: usize,
    duration: Duration,
    act: F,
) -> anyhow::Result<(Vec<f64>, f64)>
where
    F: AsyncFn(&mut Connection, usize, usize) -> anyhow::Result<(f64, Bytes)>,
{
    let mut connections = Vec::new();
    for _ in 0..callers {
        connections.push(connect().await?);
    }
    let started = Instant::now();
    let act = &act;
    let each = connections.into_iter().enumerate().map(|(caller, mut connection)| async move {
        let mut times = Vec::new();
        while started.elapsed() < duration {
            times.push(act(&mut connection, caller, times.len()).await?.0);
        }
        anyhow::Ok(times)
    });
    let times: Vec<f64> = futures::future::try_join_all(each).await?.into_iter().flatten().collect();
    let per_s = times.len() as f64 / started.elapsed().as_secs_f64();
    Ok((times, per_s))
}

/// Starts the host anew and asks each service once, over a connection that is there. How long the start took, and the memory afterwards.
async fn first_requests(arguments: &ControlArguments, data: &Path, rows: &mut Rows) -> anyhow::Result<(f64, u64)> {
    let host = Served::start(data)?;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for service in 0..arguments.services {
        let mut connection = host.service(&format!("large-{service}")).await?;
        first.push(connection.send(Method::GET, "/", Bytes::new()).await?.0);
        second.push(connection.send(Method::GET, "/", Bytes::new()).await?.0);
    }
    rows.add("first request of a service of 2 MB after a start", first, None)?;
    rows.add("its second request", second, None)?;
    let kib = machine::process_rss_kib(host.pid()).unwrap_or_default();
    let ready_ms = host.ready_ms;
    host.stop()?;
    Ok((ready_ms, kib))
}

/// Makes sure that the guest which components are made of is built.
pub fn check() -> anyhow::Result<()> {
    guests::path("hello").map(drop)
}
