//! Queues: the store with 256 callers over 64 queues, without and with a backlog; the limit of one queue; and deliveries to a worker that does nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_resources::queue::{Error, PolicyChange, Queue, Queues, Send, Service};

use crate::command::QueueArguments;
use crate::control::client::{Connection, Served};
use crate::control::{Rows, deploy, table};
use crate::output::{self, Report, number};
use crate::{guests, machine};

const QUEUES: i64 = 64;
const CALLERS: usize = 256;
const BODY_BYTES: usize = 100;
/// Messages of a batch that is sent or delivered.
const BATCH: usize = 100;
/// Queues from which is delivered.
const DELIVERED_QUEUES: usize = 8;

/// Measures, and adds the tables to the report.
pub fn run(arguments: &QueueArguments, report: &mut Report) -> anyhow::Result<()> {
    let mut rows = Rows::new(report.raw(arguments.json.as_deref(), "queue")?);
    let folder = arguments.folder.clone().unwrap_or_else(|| output::folder().join(format!("queue-data-{}", std::process::id())));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let wants = |part: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == part);
    let measured = machine::multi_thread(threads)?.block_on(async {
        let mut facts = String::new();
        if wants("store") {
            facts.push_str(&store(arguments, &folder.join("store"), &mut rows).await?);
        }
        if wants("deliver") {
            facts.push_str(&deliver(arguments, &folder.join("host")).await?);
        }
        anyhow::Ok(facts)
    });
    // What was written is of no use to anybody, also after a failure.
    let _ = std::fs::remove_dir_all(&folder);
    let facts = measured?;
    report.add("## Queues");
    report.add(&table(&rows));
    report.add(&facts);
    Ok(())
}

fn messages(count: usize) -> Vec<Send> {
    vec![Send { body: Bytes::from_static(&[b'x'; BODY_BYTES]), ..Send::default() }; count]
}

/// Queue number n, which is of a service of its own, so that they are spread over the files.
fn queue(number: i64) -> Queue {
    Queue(number % QUEUES + 1)
}

/// What so many callers send without pause, unless a queue asks for one: the time of each request that was let in, in ms, and messages in a second.
async fn sends(queues: &Queues, callers: usize, duration: Duration, batch: usize) -> anyhow::Result<(Vec<f64>, f64)> {
    let began = Instant::now();
    let tasks = (0..callers).map(|caller| {
        let queues = queues.clone();
        tokio::spawn(async move {
            let mut ms = Vec::new();
            while began.elapsed() < duration {
                let started = Instant::now();
                match queues.send(queue(i64::try_from(caller)?), messages(batch)).await {
                    Ok(_) => ms.push(started.elapsed().as_secs_f64() * 1e3),
                    // Batches can come faster than the queues let them in, which is 320,000 messages a second.
                    Err(Error::Rate { wait_ms }) => Clock::system().sleep(Duration::from_millis(wait_ms)).await,
                    Err(error) => return Err(error.into()),
                }
            }
            anyhow::Ok(ms)
        })
    });
    let mut all = Vec::new();
    for ms in futures::future::try_join_all(tasks).await? {
        all.append(&mut ms?);
    }
    let per_s = (all.len() * batch) as f64 / began.elapsed().as_secs_f64();
    Ok((all, per_s))
}

/// Fills all queues with so many messages together.
async fn fill(queues: &Queues, messages_wanted: usize) -> anyhow::Result<f64> {
    let began = Instant::now();
    let each = messages_wanted / usize::try_from(QUEUES)? / BATCH;
    let tasks = (0..QUEUES).map(|number| {
        let queues = queues.clone();
        tokio::spawn(async move {
            for _ in 0..each {
                while let Err(error) = queues.send(queue(number), messages(BATCH)).await {
                    ensure!(matches!(error, Error::Rate { .. }), "{error}");
                    Clock::system().sleep(Duration::from_millis(5)).await;
                }
            }
            Ok(())
        })
    });
    for filled in futures::future::try_join_all(tasks).await? {
        filled?;
    }
    Ok((each * BATCH * usize::try_from(QUEUES)?) as f64 / began.elapsed().as_secs_f64())
}

fn resident_mib() -> f64 {
    machine::process_rss_kib(rustix::process::getpid()).unwrap_or_default() as f64 / 1024.0
}

async fn store(arguments: &QueueArguments, folder: &Path, rows: &mut Rows) -> anyhow::Result<String> {
    let queues = Queues::open(folder, Clock::system()).await?;
    for number in 0..QUEUES {
        queues.create(Service(number + 1), queue(number), PolicyChange::default()).await?;
    }
    let duration = Duration::from_secs(arguments.seconds);
    let mut rates = Vec::new();
    let mut both = async |when: &str, rows: &mut Rows| -> anyhow::Result<()> {
        for (what, batch) in [("one message", 1), ("100 messages", BATCH)] {
            let (ms, per_s) = sends(&queues, CALLERS, duration, batch).await?;
            rates.push(per_s);
            rows.add(format!("send {what}, {CALLERS} callers, {QUEUES} queues{when}; messages a second"), ms, Some(per_s))?;
        }
        Ok(())
    };
    both("", rows).await?;
    let before = resident_mib();
    let filled = fill(&queues, arguments.backlog).await?;
    let after = resident_mib();
    both(&format!(", {} messages waiting", arguments.backlog), rows).await?;
    let counted = async {
        let mut waiting = 0;
        for number in 0..QUEUES {
            waiting += queues.metrics(queue(number)).await?.backlog.messages;
        }
        anyhow::Ok(waiting)
    };
    let waiting = counted.await?;
    let limit = one_queue(&queues, duration).await?;
    queues.close().await?;
    let ratio = |at: usize| rates.get(at).zip(rates.get(at + 2)).map_or(f64::NAN, |(empty, full)| empty / full);
    Ok(format!(
        "\n{} messages were sent for the backlog, at {} a second; VmRSS {} MiB before and {} MiB after. With {waiting} waiting in the end, sends of one are {} times and \
         sends of 100 {} times as slow as before. One queue alone takes {} messages a second.\n",
        arguments.backlog,
        number(filled),
        number(before),
        number(after),
        number(ratio(0)),
        number(ratio(1)),
        number(limit),
    ))
}

/// How many messages a second one queue lets in when more are sent.
async fn one_queue(queues: &Queues, duration: Duration) -> anyhow::Result<f64> {
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < duration {
        match queues.send(queue(0), messages(BATCH)).await {
            Ok(_) => sent += BATCH,
            Err(Error::Rate { wait_ms }) => Clock::system().sleep(Duration::from_millis(wait_ms)).await,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent as f64 / began.elapsed().as_secs_f64())
}

/// The path of a queue of the measured service.
fn path(number: usize) -> String {
    format!("/v1/services/bench/queues/trivial-{number}")
}

/// Deliveries by a host in a process of its own, first from one queue and then from all.
async fn deliver(arguments: &QueueArguments, folder: &Path) -> anyhow::Result<String> {
    let host = Served::start(folder)?;
    let mut api = host.api().await?;
    api.json(Method::POST, "/v1/services", Some(json!({"name": "bench"}))).await?;
    for number in 0..DELIVERED_QUEUES {
        let settings = json!({"name": format!("trivial-{number}"), "consumer": "pull", "maxBatchSize": BATCH, "maxBatchTimeoutSeconds": 0});
        api.json(Method::POST, "/v1/services/bench/queues", Some(settings)).await?;
    }
    deploy(&mut api, "bench", &std::fs::read(guests::path("queue")?)?, None).await?;
    let mut facts = String::new();
    for queues in [1, DELIVERED_QUEUES] {
        let each = arguments.delivered / queues;
        let sending = (0..queues).map(async |number| fill_over_api(&mut host.api().await?, number, each).await);
        futures::future::try_join_all(sending).await?;
        // A connection on which nothing is asked for long is closed.
        let mut api = host.api().await?;
        let began = Instant::now();
        for number in 0..queues {
            api.json(Method::PUT, &path(number), Some(json!({"consumer": "worker"}))).await?;
        }
        let mut most = 0;
        for number in 0..queues {
            loop {
                let (_, metrics) = api.json(Method::GET, &format!("{}/metrics", path(number)), None).await?;
                let figure = |name: &str| metrics.get(name).and_then(Value::as_u64).context("no such figure");
                most = most.max(figure("consumerConcurrency")?);
                ensure!(figure("retries")? == 0, "a delivery has failed: {metrics}");
                if figure("backlogCount")? == 0 {
                    break;
                }
                Clock::system().sleep(Duration::from_millis(10)).await;
            }
        }
        let per_s = (each * queues) as f64 / began.elapsed().as_secs_f64();
        let text = format!(
            "\nDelivered from {queues} queues in batches of {BATCH}: {} messages a second, at most {most} batches of a queue at a time.\n",
            number(per_s)
        );
        facts.push_str(&text);
        for number in 0..queues {
            api.json(Method::PUT, &path(number), Some(json!({"consumer": "pull"}))).await?;
        }
    }
    host.stop()?;
    Ok(facts)
}

async fn fill_over_api(api: &mut Connection, queue: usize, messages: usize) -> anyhow::Result<()> {
    let body = "x".repeat(BODY_BYTES);
    let batch = Bytes::from(json!({"messages": vec![json!({"body": body}); BATCH]}).to_string());
    let began = Instant::now();
    for sent in 0..messages / BATCH {
        // A little less than the queue takes in a second.
        let due = Duration::from_secs_f64((sent * BATCH) as f64 / 4_800.0);
        Clock::system().sleep(due.saturating_sub(began.elapsed())).await;
        api.send(Method::POST, &format!("{}/messages/batch", path(queue)), batch.clone()).await?;
    }
    Ok(())
}
