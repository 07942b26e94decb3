//! KV as workers and clients meet it: what a call of it adds to a request in a worker, and requests to the API. The store on its own is in `kv_store.rs`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::json;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::limits::{Plan, WorkerLimits};
use tovuk_kernel::outbound::Allowlist;
use tovuk_kernel::resource::{Grants, Kind, Owner};
use tovuk_resources::bindings::Bindings;
use tovuk_resources::kv::{Namespace, Put};
use tovuk_resources::objects::Place;
use tovuk_resources::stores::Stores;
use tovuk_runtime::body::Body;
use tovuk_runtime::compile::Compiler;
use tovuk_runtime::invoke::{Budget, Event};
use tovuk_runtime::record::Identity;
use tovuk_runtime::runtime::{Runtime, RuntimeConfig};
use tovuk_runtime::service::{Deployment, Service};
use tovuk_runtime::trace::TraceContext;

use super::kv_store;
use crate::command::KvArguments;
use crate::control::client::Served;
use crate::control::together;
use crate::host::Tally;
use crate::output::{self, Raw, Report, number, table};
use crate::{guests, machine, stats};

/// The namespace that the measured worker has.
const NAMESPACE: Namespace = Namespace(1);
const VALUE_BYTES: usize = 256;
/// Rounds that fill caches and pools, and are not counted.
const WARM_UP_ROUNDS: usize = 2;
const ROUNDS: usize = 15;

/// One row of the report.
#[derive(Serialize)]
pub(super) struct Row {
    what: String,
    /// Each one's time, in µs.
    us: Vec<f64>,
    /// All of them together, in a second.
    per_s: f64,
}

/// Where rows are kept while they are made.
pub(super) struct Rows {
    rows: Vec<Row>,
    raw: Raw,
}

impl Rows {
    pub fn new(raw: Raw) -> Self {
        Self { rows: Vec::new(), raw }
    }

    /// Where the raw results are.
    pub fn path(&self) -> &Path {
        self.raw.path()
    }

    pub fn add(&mut self, what: impl Into<String>, us: Vec<f64>, per_s: f64) -> anyhow::Result<()> {
        let row = Row { what: what.into(), us, per_s };
        let at = |percent| number(stats::percentile(&row.us, percent));
        eprintln!("{:50} p50 {:>8} µs  p99 {:>8} µs  {:>9} a second", row.what, at(50.0), at(99.0), number(row.per_s));
        self.raw.add(&row)?;
        self.rows.push(row);
        Ok(())
    }

    /// The rows until now as a table; they are forgotten.
    pub fn table(&mut self) -> String {
        let cells = |row: Row| {
            let at = |percent| number(stats::percentile(&row.us, percent));
            vec![row.what.clone(), row.us.len().to_string(), at(50.0), at(99.0), number(row.per_s)]
        };
        let rows: Vec<_> = self.rows.drain(..).map(cells).collect();
        table(&["what", "times", "p50 µs", "p99 µs", "a second"], &rows)
    }
}

/// Measures, and adds the tables to the report.
pub fn run(arguments: &KvArguments, report: &mut Report) -> anyhow::Result<()> {
    let folder = arguments.folder.clone().unwrap_or_else(|| output::folder().join(format!("kv-data-{}", std::process::id())));
    let mut rows = Rows::new(report.raw(arguments.json.as_deref(), "kv")?);
    let measured = measure(arguments, &folder, &mut rows, report);
    // What was written is of no use to anybody, also after a failure.
    let _ = std::fs::remove_dir_all(&folder);
    measured?;
    report.add(&format!("Raw results: {}", rows.path().display()));
    Ok(())
}

fn measure(arguments: &KvArguments, folder: &Path, rows: &mut Rows, report: &mut Report) -> anyhow::Result<()> {
    let wants = |part: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == part);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if wants("worker") {
        let one_thread = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let added = one_thread.block_on(in_worker(&folder.join("worker"), rows))?;
        report.add("## KV in a worker\n\nOne thread, a fresh instance for each request; what is measured is the whole request.\n");
        report.add(&rows.table());
        report.add(&added);
    }
    if wants("api") {
        machine::multi_thread(threads)?.block_on(over_api(&folder.join("api"), Duration::from_secs(arguments.seconds), rows))?;
        report.add("## KV over the API\n\nThe host is a process of its own on the same cores.\n");
        report.add(&rows.table());
    }
    if wants("store") {
        report.add("## The store of KV\n\n64 callers, each with one put of 256 bytes at a time; the same commits on a plain ordered table.\n");
        for keys in &arguments.keys {
            let facts = machine::multi_thread(threads)?.block_on(kv_store::writers(&folder.join("store"), *keys, arguments.seconds, rows))?;
            report.add(&rows.table());
            report.add(&facts);
        }
    }
    if wants("churn") {
        report.add("## Space that comes back\n");
        report.add(&machine::multi_thread(threads)?.block_on(kv_store::churn(&folder.join("churn"), arguments.rounds))?);
    }
    Ok(())
}

/// A runtime with a worker that has a namespace of some kind, with the number 1.
pub(super) struct Worker {
    runtime: Runtime,
    service: Arc<Service>,
    pub stores: Stores,
}

impl Worker {
    /// Starts one with a guest.
    pub async fn start(folder: &Path, guest: &str, (kind, name): (Kind, &str)) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let clock = Clock::system();
        let stores = Stores::open(folder, &Place::Folder(folder.join("objects")), &clock).await?;
        let compiler = Compiler::this_program(clock.clone()).context("this program's own path is unknown")?;
        let config = RuntimeConfig::new(guests::repository().join("target/bench/artifacts"));
        let runtime = Runtime::new(config, compiler, clock, Arc::new(Tally::default()), Some(stores.clone()))?;
        let artifact = runtime.artifacts().prepare(&std::fs::read(guests::path(guest)?)?).await?;
        let limits = WorkerLimits::for_plan(Plan::Pro);
        let id = ServiceId::from("service_1".to_owned());
        let identity = Identity { id, name: guest.into(), slug: guest.into(), account: "account_bench".into() };
        let service = runtime.services().add(identity, &limits);
        let grants = Grants::new(Owner { account: 1, service: 1, plan: Plan::Pro }).with(kind, name, NAMESPACE.0);
        let (env, bindings, outbound) = (Vec::new(), Bindings::new(&[]), Allowlist::default());
        service.promote(Arc::new(Deployment {
            id: "deploy_bench".into(),
            artifact,
            limits,
            env,
            bindings,
            outbound,
            grants,
            bill: stores.meters.bill(1, 1),
        }));
        Ok(Self { runtime, service, stores })
    }

    /// One request in the form in which the edge hands it on; how long it took, in µs.
    pub async fn request(&self, path: &str) -> anyhow::Result<f64> {
        let mut request = Request::new(Body::Empty);
        *request.uri_mut() = path.parse()?;
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("bench.localhost"));
        let budget = Budget::top_level(TraceContext::of(request.headers()));
        let began = Instant::now();
        let started =
            self.runtime.invoke(&self.service, Event::Http(request), budget).await.map_err(|failure| anyhow::anyhow!("{}", failure.message))?;
        let status = started.response.status();
        let body = started.response.into_body().collect().await?.to_bytes();
        started.outcome.settled().await;
        ensure!(status == 200 && *body == *b"hello", "{path}: {status}, {}", String::from_utf8_lossy(&body));
        Ok(began.elapsed().as_secs_f64() * 1e6)
    }
}

/// Cases take turns in every round, so that what changes on the machine changes for all of them.
async fn in_worker(folder: &Path, rows: &mut Rows) -> anyhow::Result<String> {
    let worker = Worker::start(folder, "kv", (Kind::Kv, "CACHE")).await?;
    let keys = (0..1_000).map(|number| format!("k{number:04}")).chain((0..10).map(|number| format!("hot-{number}"))).chain(["hot".to_owned()]);
    let puts = keys.map(|key| Put { key, value: vec![7; VALUE_BYTES].into(), ..Put::default() }).collect();
    worker.stores.kv.bulk_put(NAMESPACE, puts).await?;
    // Name, path with the number of the request to come, requests of one round.
    let cases = [
        ("hello", "/hello", 1_000),
        ("hello and a hot get", "/get/hot", 1_000),
        ("hello and a get of ten hot keys", "/many/hot", 1_000),
        ("hello and a list of 100 keys", "/list", 200),
        ("hello and a put", "/put/k?n=", 50),
    ];
    let mut times = cases.map(|_| Vec::new());
    let mut medians = cases.map(|_| Vec::new());
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        for (((_, path, requests), times), medians) in cases.iter().zip(&mut times).zip(&mut medians) {
            let mut us = Vec::with_capacity(*requests);
            for request in 0..*requests {
                // Writing what is there already would cost no disk.
                let path = if path.ends_with('=') { format!("{path}{round}-{request}") } else { (*path).to_owned() };
                us.push(worker.request(&path).await?);
            }
            if round >= WARM_UP_ROUNDS {
                medians.push(stats::median(us.iter().copied()));
                times.append(&mut us);
            }
        }
    }
    for ((name, ..), us) in cases.iter().zip(times) {
        let per_s = 1e6 * us.len() as f64 / us.iter().sum::<f64>();
        rows.add(*name, us, per_s)?;
    }
    let many = futures::future::try_join_all((0..64).map(|writer| {
        let worker = &worker;
        async move {
            let mut us = Vec::new();
            for request in 0..100 {
                us.push(worker.request(&format!("/put/w{writer}?n={request}")).await?);
            }
            anyhow::Ok(us)
        }
    }));
    let began = Instant::now();
    let us = many.await?.concat();
    let per_s = us.len() as f64 / began.elapsed().as_secs_f64();
    rows.add("hello and a put, 64 at a time", us, per_s)?;
    worker.stores.close().await;
    let [hello, hot, ..] = medians;
    let added = stats::median(hot.iter().zip(&hello).map(|(hot, hello)| hot - hello));
    Ok(format!("A hot get adds {} µs to a request (the median over {ROUNDS} rounds of the difference of their medians).", number(added)))
}

async fn over_api(folder: &Path, duration: Duration, rows: &mut Rows) -> anyhow::Result<()> {
    let host = Served::start(folder)?;
    let mut api = host.api().await?;
    api.json(Method::POST, "/v1/services", Some(json!({"name": "shop"}))).await?;
    api.json(Method::POST, "/v1/services/shop/kv/namespaces", Some(json!({"name": "CACHE"}))).await?;
    const CACHE: &str = "/v1/services/shop/kv/CACHE";
    let body = |value: serde_json::Value| Bytes::from(value.to_string());
    // Another value each time: writing what is there already would cost no disk.
    let value = |caller: usize, number: usize| format!("{:1$}", format!("{caller}-{number}"), VALUE_BYTES);
    let put = |caller, number| body(json!({"value": value(caller, number)}));
    let bulk = |caller, number| {
        let entry = |key: usize| json!({"key": format!("k{key:04}"), "value": value(caller, number)});
        body(json!({"entries": (0..1_000).map(entry).collect::<Vec<_>>()}))
    };
    api.send(Method::PUT, &format!("{CACHE}/bulk"), bulk(0, 0)).await?;
    let get_many = body(json!({"keys": (0..100).map(|number| format!("k{number:04}")).collect::<Vec<_>>()}));
    let connect = async || host.api().await;
    let mut add = |what: String, measured: (Vec<f64>, f64)| rows.add(what, measured.0.iter().map(|ms| ms * 1e3).collect(), measured.1);
    for callers in [1, 64] {
        let measured = together(connect, callers, duration, async |api, caller, number| {
            api.send(Method::PUT, &format!("{CACHE}/values/k{:04}", (caller * 31 + number) % 1_000), put(caller, number + 1)).await
        });
        add(format!("put of 256 bytes, {callers} callers"), measured.await?)?;
        let measured =
            together(connect, callers, duration, async |api, _, _| api.send(Method::GET, &format!("{CACHE}/values/k0001"), Bytes::new()).await);
        add(format!("hot get, {callers} callers"), measured.await?)?;
        let measured =
            together(connect, callers, duration, async |api, _, _| api.send(Method::GET, &format!("{CACHE}/keys?limit=100"), Bytes::new()).await);
        add(format!("list of 100 keys, {callers} callers"), measured.await?)?;
        let measured =
            together(connect, callers, duration, async |api, _, _| api.send(Method::POST, &format!("{CACHE}/bulk"), get_many.clone()).await);
        add(format!("bulk get of 100 keys, {callers} callers"), measured.await?)?;
        let measured = together(connect, callers, duration, async |api, caller, number| {
            api.send(Method::PUT, &format!("{CACHE}/bulk"), bulk(caller, number + 1)).await
        });
        add(format!("bulk put of 1,000 keys, {callers} callers"), measured.await?)?;
        let measured = together(connect, callers, duration, async |api, caller, number| {
            api.send(Method::DELETE, &format!("{CACHE}/values/k{:04}", (caller * 31 + number) % 1_000), Bytes::new()).await
        });
        add(format!("delete, {callers} callers"), measured.await?)?;
        // What was deleted is there again for the next. A connection on which nothing is asked for long is closed, so it is another one.
        host.api().await?.send(Method::PUT, &format!("{CACHE}/bulk"), bulk(0, 0)).await?;
    }
    host.stop()
}
