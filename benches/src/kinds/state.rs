//! State as workers and clients meet it: what it adds to a request in a worker, requests to the API, and how late alarms ring. The store on its own is in
//! `state_store.rs`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use http::Method;
use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::resource::Kind;

use super::kv::{Rows, Worker};
use super::state_store;
use crate::command::StateArguments;
use crate::control::client::Served;
use crate::control::{deploy, together};
use crate::output::{self, Report, number};
use crate::{guests, machine, stats};

/// Rounds that fill caches and pools, and are not counted.
const WARM_UP_ROUNDS: usize = 2;
const ROUNDS: usize = 15;
/// How long setting the alarms may take, and in what time they ring afterwards.
const ALARMS_LEAD: Duration = Duration::from_secs(90);
const ALARMS_SPAN: Duration = Duration::from_secs(60);
/// Width of the steps in which the guest counts lateness, in ms.
const STEP_MS: u64 = 50;

/// Measures, and adds the tables to the report.
pub fn run(arguments: &StateArguments, report: &mut Report) -> anyhow::Result<()> {
    let folder = arguments.folder.clone().unwrap_or_else(|| output::folder().join(format!("state-data-{}", std::process::id())));
    let mut rows = Rows::new(report.raw(arguments.json.as_deref(), "state")?);
    let measured = measure(arguments, &folder, &mut rows, report);
    // What was written is of no use to anybody, also after a failure.
    let _ = std::fs::remove_dir_all(&folder);
    measured?;
    report.add(&format!("Raw results: {}", rows.path().display()));
    Ok(())
}

fn measure(arguments: &StateArguments, folder: &Path, rows: &mut Rows, report: &mut Report) -> anyhow::Result<()> {
    let wants = |part: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == part);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let seconds = Duration::from_secs(arguments.seconds);
    if wants("store") {
        report.add("## The store of State\n\nIncrements beside commits of one row on one plain file by one thread, in the same run.\n");
        let facts = machine::multi_thread(threads)?.block_on(state_store::increments(&folder.join("store"), seconds, rows))?;
        report.add(&rows.table());
        report.add(&facts);
    }
    if wants("many") {
        report.add("## Many objects\n");
        report.add(&machine::multi_thread(threads)?.block_on(state_store::many(&folder.join("many"), arguments.objects))?);
    }
    if wants("worker") {
        let one_thread = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let added = one_thread.block_on(in_worker(&folder.join("worker"), rows))?;
        report.add("## State in a worker\n\nOne thread, a fresh instance for each request; what is measured is the whole request.\n");
        report.add(&rows.table());
        report.add(&added);
    }
    if wants("api") {
        machine::multi_thread(threads)?.block_on(over_api(&folder.join("api"), seconds, rows))?;
        report.add("## State over the API\n\nThe host is a process of its own on the same cores.\n");
        report.add(&rows.table());
    }
    if wants("alarms") {
        let facts = machine::multi_thread(threads)?.block_on(alarms(&folder.join("alarms"), arguments.alarms))?;
        report.add(
            "## Alarms\n\nA handler counts each in KV, so every alarm is also a commit there. The host is a process of its own on the same cores.\n",
        );
        report.add(&facts);
    }
    Ok(())
}

/// Cases take turns in every round, so that what changes on the machine changes for all of them.
async fn in_worker(folder: &Path, rows: &mut Rows) -> anyhow::Result<String> {
    let worker = Worker::start(folder, "state", (Kind::State, "Room")).await?;
    // Name, path, requests of one round.
    let cases = [
        ("a get of what is not there", "/get/none", 500),
        ("a get", "/get/read", 500),
        ("an increment", "/increment/one", 50),
        ("a put of 256 bytes", "/put/two?n=", 50),
        ("a call of a handler that increments", "/call/three", 50),
    ];
    worker.request("/increment/read").await?;
    let mut times = cases.map(|_| Vec::new());
    let mut medians = cases.map(|_| Vec::new());
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        for (((_, path, requests), times), medians) in cases.iter().zip(&mut times).zip(&mut medians) {
            let mut us = Vec::with_capacity(*requests);
            for request in 0..*requests {
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
    for (what, path, objects) in [
        ("increments of one object, 64 at a time", "/increment/hot", 1),
        ("increments of 64 objects, 64 at a time", "/increment/o", 64),
        ("calls of one object's handler, 64 at a time", "/call/hot", 1),
        ("calls of 64 objects' handlers, 64 at a time", "/call/o", 64),
    ] {
        let callers = (0..64).map(|caller| {
            let (worker, path) = (&worker, format!("{path}{}", caller % objects));
            async move {
                let mut us = Vec::new();
                for _ in 0..100 {
                    us.push(worker.request(&path).await?);
                }
                anyhow::Ok(us)
            }
        });
        let began = Instant::now();
        let us = futures::future::try_join_all(callers).await?.concat();
        let per_s = us.len() as f64 / began.elapsed().as_secs_f64();
        rows.add(what, us, per_s)?;
    }
    worker.stores.close().await;
    let [_, _, increment, _, call] = medians;
    let added = stats::median(call.iter().zip(&increment).map(|(call, increment)| call - increment));
    Ok(format!("A call of a handler adds {} µs to an increment (the median over {ROUNDS} rounds of the difference of their medians).", number(added)))
}

const ROOM: &str = "/v1/services/shop/state/namespaces/Room/objects";

async fn over_api(folder: &Path, duration: Duration, rows: &mut Rows) -> anyhow::Result<()> {
    let host = Served::start(folder)?;
    let mut api = host.api().await?;
    api.json(Method::POST, "/v1/services", Some(json!({"name": "shop"}))).await?;
    api.json(Method::POST, "/v1/services/shop/state/namespaces", Some(json!({"className": "Room"}))).await?;
    let put = |number: usize| Bytes::from(json!({"value": format!("{number:256}")}).to_string());
    api.send(Method::PUT, &format!("{ROOM}/read/values/k"), put(0)).await?;
    let connect = async || host.api().await;
    let mut add = |what: String, measured: (Vec<f64>, f64)| rows.add(what, measured.0.iter().map(|ms| ms * 1e3).collect(), measured.1);
    for callers in [1, 64] {
        for objects in [1, 64] {
            let path = |caller: usize| format!("{ROOM}/o{}/values/k", caller % objects);
            let puts = together(connect, callers, duration, async |api, caller, number| api.send(Method::PUT, &path(caller), put(number)).await);
            add(format!("put of 256 bytes, {callers} callers, {objects} objects"), puts.await?)?;
        }
        let read = format!("{ROOM}/read/values/k");
        let gets = together(connect, callers, duration, async |api, _, _| api.send(Method::GET, &read, Bytes::new()).await);
        add(format!("get, {callers} callers"), gets.await?)?;
        let alarm = Bytes::from(json!({"delaySeconds": 36_000}).to_string());
        let alarms = together(connect, callers, duration, async |api, caller, number| {
            api.send(Method::PUT, &format!("{ROOM}/a{caller}-{number}/alarm"), alarm.clone()).await
        });
        add(format!("alarm set, {callers} callers"), alarms.await?)?;
    }
    host.stop()
}

/// Sets alarms that ring within a minute, and asks how late they rang.
async fn alarms(folder: &Path, alarms: u64) -> anyhow::Result<String> {
    let host = Served::start(folder)?;
    let mut api = host.api().await?;
    api.json(Method::POST, "/v1/services", Some(json!({"name": "late"}))).await?;
    api.json(Method::POST, "/v1/services/late/state/namespaces", Some(json!({"className": "Late"}))).await?;
    api.json(Method::POST, "/v1/services/late/kv/namespaces", Some(json!({"name": "LATE"}))).await?;
    deploy(&mut api, "late", &std::fs::read(guests::path("state_alarm")?)?, None).await?;
    let lead_ms = u64::try_from(ALARMS_LEAD.as_millis())?;
    let first_ms = Clock::system().now_unix_ms() + lead_ms;
    let span_ms = u64::try_from(ALARMS_SPAN.as_millis())?;
    let began = Instant::now();
    let callers = futures::stream::iter(0..64_u64).map(async |caller| {
        let mut api = host.api().await?;
        for alarm in (caller..alarms).step_by(64) {
            let body = json!({"scheduledAtUnixMs": first_ms + alarm * span_ms / alarms});
            let path = format!("/v1/services/late/state/namespaces/Late/objects/{alarm}/alarm");
            api.send(Method::PUT, &path, Bytes::from(body.to_string())).await?;
        }
        anyhow::Ok(())
    });
    callers.buffer_unordered(64).try_collect::<()>().await?;
    let set_s = began.elapsed().as_secs_f64();
    ensure!(began.elapsed() < ALARMS_LEAD, "setting the alarms took {set_s:.0} s, longer than until the first rings: ask for fewer");
    let deadline = Instant::now() + ALARMS_LEAD + 4 * ALARMS_SPAN;
    let counts = loop {
        let counts = counts(&host).await?;
        if counts.iter().map(|(_, count)| count).sum::<u64>() >= alarms {
            break counts;
        }
        ensure!(Instant::now() < deadline, "only {} alarms have rung", counts.iter().map(|(_, count)| count).sum::<u64>());
        Clock::system().sleep(Duration::from_secs(1)).await;
    };
    let rung: u64 = counts.iter().map(|(_, count)| count).sum();
    let late = |percent: f64| {
        let wanted = (rung as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        let step = counts.iter().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        step.map_or(0, |(step, _)| (step + 1) * STEP_MS)
    };
    let kib = machine::process_rss_kib(host.pid()).unwrap_or_default();
    let facts = format!(
        "{alarms} alarms were set at {} a second by 64 callers, to ring within {} s. {rung} deliveries: half of them less than {} ms late, 99% less than {} ms, all less than {} ms. \
         The host had {} MiB then.",
        number(alarms as f64 / set_s),
        ALARMS_SPAN.as_secs(),
        late(50.0),
        late(99.0),
        late(100.0),
        kib >> 10,
    );
    host.stop()?;
    Ok(facts)
}

/// How many alarms there were of each step of lateness, in order.
async fn counts(host: &Served) -> anyhow::Result<Vec<(u64, u64)>> {
    let mut api = host.api().await?;
    let keys = api.json(Method::GET, "/v1/services/late/kv/LATE/keys", None).await?.1;
    let mut counts = Vec::new();
    for key in keys.get("keys").and_then(Value::as_array).context("no keys")? {
        let name = key.get("name").and_then(Value::as_str).context("no name")?;
        let entry = api.json(Method::GET, &format!("/v1/services/late/kv/LATE/values/{name}"), None).await?.1;
        let count = entry.get("value").and_then(Value::as_str).context("no value")?;
        counts.push((name.parse()?, count.parse()?));
    }
    Ok(counts)
}
