//! What is billed beside what the process has used: a mixed load in this process for some time, the CPU time that the meters have added up for it, and the CPU
//! time of the process. The same load on a handler that does nothing, measured first, says what whoever asks costs by itself; it is nobody's bill.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use rustix::process::getpid;
use tovuk_runtime::body::Body;
use tovuk_runtime::invoke::{Budget, Event};
use tovuk_runtime::service::Service;
use tovuk_runtime::trace::TraceContext;

use crate::command::BillArguments;
use crate::host::Host;
use crate::machine;
use crate::output::{Report, number, table};

/// What is asked for, in turn: the service, and the calls after its first invocation.
const MIX: [(&str, usize); 4] = [("hello", 0), ("hello-p2", 0), ("chain", 8), ("chain-p2", 1)];
/// Requests to the handler that does nothing.
const BASELINE_REQUESTS: u64 = 200_000;
/// Load that fills caches and pools, and is not counted.
const WARM_UP: Duration = Duration::from_secs(1);
/// How far the bill may be from what was used, in percent.
const MOST_PERCENT: f64 = 5.0;

/// Measures, and adds the table to the report.
pub fn run(arguments: &BillArguments, report: &mut Report) -> anyhow::Result<()> {
    let text = machine::multi_thread(arguments.threads)?.block_on(measure(arguments))?;
    report.add(&text);
    Ok(())
}

fn used_s() -> anyhow::Result<f64> {
    machine::process_cpu_s(getpid())
}

async fn measure(arguments: &BillArguments) -> anyhow::Result<String> {
    let host = Arc::new(Host::start(None).await?);
    let before = used_s()?;
    for _ in 0..BASELINE_REQUESTS {
        ensure!(body_of(nothing(request("hello", 0)?).await).await? == 5, "the handler that does nothing answers `hello`");
    }
    let baseline_s = (used_s()? - before) / BASELINE_REQUESTS as f64;
    load(&host, arguments.clients, WARM_UP).await?;
    let (before, billed) = (used_s()?, host.billed_cpu_ms());
    let requests = load(&host, arguments.clients, Duration::from_secs(arguments.seconds)).await?;
    let (process_s, billed_s) = (used_s()? - before, (host.billed_cpu_ms() - billed) as f64 / 1e3);
    let asking_s = baseline_s * requests as f64;
    let off = (billed_s + asking_s - process_s) / process_s * 100.0;
    let row = [requests as f64, process_s, billed_s, asking_s, off].map(number).to_vec();
    let head = ["requests", "process, s", "billed, s", "whoever asks, s", "off, %"];
    let verdict = if off.abs() <= MOST_PERCENT { "within" } else { "NOT within" };
    Ok(format!("## The bill\n\n{}\nThe bill is {verdict} {MOST_PERCENT} % of what the process has used.\n", table(&head, &[row])))
}

/// Asks for so long, with so many at a time. How many requests that were.
async fn load(host: &Arc<Host>, clients: usize, time: Duration) -> anyhow::Result<u64> {
    let services = MIX.into_iter().map(|(name, hops)| Ok((host.service(name)?, name, hops))).collect::<anyhow::Result<Vec<_>>>()?;
    let until = Instant::now() + time;
    let clients = (0..clients.max(1)).map(|client| {
        let (host, services) = (host.clone(), services.clone());
        tokio::spawn(async move {
            let mut requests = 0_u64;
            for (service, name, hops) in services.iter().cycle().skip(client) {
                if Instant::now() >= until {
                    break;
                }
                ask(&host, service, request(name, *hops)?).await.with_context(|| format!("{name} failed"))?;
                requests += 1;
            }
            anyhow::Ok(requests)
        })
    });
    try_join_all(clients).await?.into_iter().sum()
}

fn request(service: &str, hops: usize) -> anyhow::Result<Request<Body>> {
    let mut request = Request::new(Body::Empty);
    *request.uri_mut() = format!("/{hops}").parse()?;
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(&format!("{service}.localhost"))?);
    Ok(request)
}

/// The handler that does nothing.
async fn nothing(request: Request<Body>) -> Response<Body> {
    std::hint::black_box(TraceContext::of(request.headers()));
    Response::new(Body::from(bytes::Bytes::from_static(b"hello")))
}

async fn ask(host: &Host, service: &Arc<Service>, request: Request<Body>) -> anyhow::Result<()> {
    let budget = Budget::top_level(TraceContext::of(request.headers()));
    let started = host.runtime.invoke(service, Event::Http(request), budget).await.map_err(|failure| anyhow::anyhow!("{}", failure.message))?;
    let bytes = body_of(started.response).await?;
    started.outcome.settled().await;
    ensure!(bytes == 5, "it answered with {bytes} bytes instead of `hello`");
    Ok(())
}

async fn body_of(response: Response<Body>) -> anyhow::Result<usize> {
    Ok(response.into_body().collect().await?.to_bytes().len())
}
