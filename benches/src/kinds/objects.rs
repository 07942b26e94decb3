//! Objects as clients and workers meet them: each operation of the API, bytes at signed URLs, and each operation in a worker, beside a request to the same worker
//! that does nothing. The host is a process of its own on the same cores.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};

use crate::command::ObjectsArguments;
use crate::control::client::{Connection, Served};
use crate::output::{self, Raw, Report, number, table};
use crate::{guests, machine, stats};

const API: &str = "/v1/services/shop/storage";
/// A small object.
const SMALL_BYTES: usize = 4 << 10;
/// A large one.
const LARGE_BYTES: usize = 64 << 20;
/// Objects that a page lists.
const LISTED: usize = 1_000;

/// One row of the report.
#[derive(Serialize)]
struct Row {
    what: String,
    /// Each one's time, in ms.
    ms: Vec<f64>,
    /// All of them together, in a second.
    per_s: f64,
}

struct Rows {
    rows: Vec<Row>,
    raw: Raw,
    duration: Duration,
}

impl Rows {
    fn add(&mut self, what: impl Into<String>, ms: Vec<f64>, per_s: f64) -> anyhow::Result<()> {
        let row = Row { what: what.into(), ms, per_s };
        let at = |percent| number(stats::percentile(&row.ms, percent));
        eprintln!("{:50} p50 {:>8} ms  p99 {:>8} ms  {:>9} a second", row.what, at(50.0), at(99.0), number(row.per_s));
        self.raw.add(&row)?;
        self.rows.push(row);
        Ok(())
    }

    /// Measures callers that ask without pause, each on connections of its own.
    async fn load<F>(&mut self, what: &str, host: &Served, callers: usize, act: F) -> anyhow::Result<()>
    where
        F: AsyncFn(&mut Caller, usize) -> anyhow::Result<()>,
    {
        let mut all = Vec::new();
        for number in 0..callers {
            all.push(Caller { api: host.api().await?, storage: host.service("storage").await?, worker: host.service("shop").await?, number });
        }
        let (started, duration, act) = (Instant::now(), self.duration, &act);
        let each = all.into_iter().map(|mut caller| async move {
            let mut times = Vec::new();
            while started.elapsed() < duration {
                let begun = Instant::now();
                act(&mut caller, times.len()).await?;
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(times)
        });
        let times: Vec<f64> = futures::future::try_join_all(each).await?.into_iter().flatten().collect();
        let per_s = times.len() as f64 / started.elapsed().as_secs_f64();
        self.add(format!("{what}, {callers} callers"), times, per_s)
    }
}

/// Somebody with a connection to each door.
struct Caller {
    api: Connection,
    storage: Connection,
    worker: Connection,
    number: usize,
}

impl Caller {
    /// Asks for an operation of the API.
    async fn ask(&mut self, route: &str, body: Value) -> anyhow::Result<Value> {
        Ok(self.api.json(Method::POST, &format!("{API}/{route}"), Some(body)).await?.1)
    }

    /// A request to a URL that an operation has answered.
    async fn at(&mut self, method: Method, answer: &Value, body: Bytes) -> anyhow::Result<Bytes> {
        let url = answer.get("url").and_then(Value::as_str).context("no URL")?;
        let path = url.splitn(4, '/').nth(3).context("no path")?;
        Ok(self.storage.send(method, &format!("/{path}"), body).await?.1)
    }

    async fn upload(&mut self, path: &str, body: Bytes) -> anyhow::Result<()> {
        let begun = self.ask("upload-url", json!({"path": path, "sizeBytes": body.len()})).await?;
        self.at(Method::PUT, &begun, body).await?;
        self.ask("complete", json!({"path": path})).await.map(drop)
    }

    async fn work(&mut self, path: &str, body: Bytes) -> anyhow::Result<()> {
        self.worker.send(Method::POST, path, body).await.map(drop)
    }
}

/// Measures, and adds the table to the report.
pub fn run(arguments: &ObjectsArguments, report: &mut Report) -> anyhow::Result<()> {
    let folder = arguments.folder.clone().unwrap_or_else(|| output::folder().join(format!("objects-data-{}", std::process::id())));
    let raw = report.raw(arguments.json.as_deref(), "objects")?;
    let mut rows = Rows { rows: Vec::new(), raw, duration: Duration::from_secs(arguments.seconds) };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let measured = machine::multi_thread(threads)?.block_on(measure(arguments, &folder, &mut rows));
    // What was written is of no use to anybody, also after a failure.
    let _ = std::fs::remove_dir_all(&folder);
    let facts = measured?;
    let cells = |row: &Row| {
        let at = |percent| number(stats::percentile(&row.ms, percent));
        vec![row.what.clone(), row.ms.len().to_string(), at(50.0), at(99.0), number(row.per_s)]
    };
    report.add("## Objects");
    report.add(&table(&["what", "times", "p50 ms", "p99 ms", "a second"], &rows.rows.iter().map(cells).collect::<Vec<_>>()));
    report.add(&facts);
    report.add(&format!("Raw results: {}", rows.raw.path().display()));
    Ok(())
}

async fn measure(arguments: &ObjectsArguments, folder: &Path, rows: &mut Rows) -> anyhow::Result<String> {
    let host = Served::start(folder)?;
    prepare(&host).await?;
    let before_kib = machine::process_rss_kib(host.pid()).unwrap_or_default();
    for callers in &arguments.callers {
        over_api(&host, *callers, rows).await?;
        in_worker(&host, *callers, rows).await?;
    }
    let after_kib = machine::process_rss_kib(host.pid()).unwrap_or_default();
    host.stop()?;
    Ok(format!("VmRSS: {before_kib} KiB before, {after_kib} KiB after. Small objects have {SMALL_BYTES} bytes, large ones {LARGE_BYTES}."))
}

/// A service with a worker that uses objects, and some objects.
async fn prepare(host: &Served) -> anyhow::Result<()> {
    let mut caller = Caller { api: host.api().await?, storage: host.service("storage").await?, worker: host.service("shop").await?, number: 0 };
    let component = STANDARD.encode(std::fs::read(guests::path("objects")?)?);
    let body = json!({"service": "shop", "config": {"routes": ["/*"]}, "component_base64": component});
    let (_, accepted) = caller.api.json(Method::POST, "/v1/deploy", Some(body)).await?;
    let build = accepted.pointer("/build_job/id").and_then(Value::as_str).context("no build")?.to_owned();
    loop {
        let (_, answer) = caller.api.json(Method::GET, &format!("/v1/builds/{build}?waitSeconds=20"), None).await?;
        match answer.pointer("/build/status").and_then(Value::as_str) {
            Some("queued" | "running") => {}
            status => {
                ensure!(status == Some("succeeded"), "the build ended {status:?}");
                break;
            }
        }
    }
    for number in 0..LISTED {
        caller.work(&format!("/put?path=listed/{number:04}"), Bytes::from_static(b"x")).await?;
    }
    caller.upload("small", vec![b'x'; SMALL_BYTES].into()).await?;
    caller.upload("large", vec![b'x'; LARGE_BYTES].into()).await
}

async fn over_api(host: &Served, callers: usize, rows: &mut Rows) -> anyhow::Result<()> {
    let small = Bytes::from(vec![b'x'; SMALL_BYTES]);
    let large = Bytes::from(vec![b'x'; LARGE_BYTES]);
    rows.load("download-url", host, callers, async |caller, _| caller.ask("download-url", json!({"path": "small"})).await.map(drop)).await?;
    rows.load("download-url and GET, 4 KiB", host, callers, async |caller, _| {
        let answer = caller.ask("download-url", json!({"path": "small"})).await?;
        caller.at(Method::GET, &answer, Bytes::new()).await.map(drop)
    })
    .await?;
    rows.load("download-url and GET, 64 MiB", host, callers.min(4), async |caller, _| {
        let answer = caller.ask("download-url", json!({"path": "large"})).await?;
        let got = caller.at(Method::GET, &answer, Bytes::new()).await?;
        ensure!(got.len() == LARGE_BYTES, "{} bytes came", got.len());
        Ok(())
    })
    .await?;
    rows.load("upload-url, PUT, complete, 4 KiB", host, callers, async |caller, _| {
        let path = format!("api/{}", caller.number);
        caller.upload(&path, small.clone()).await
    })
    .await?;
    rows.load("upload-url, PUT, complete, 64 MiB", host, callers.min(4), async |caller, _| {
        let path = format!("large/{}", caller.number);
        caller.upload(&path, large.clone()).await
    })
    .await?;
    rows.load("multipart create and abort", host, callers, async |caller, _| {
        let begun = caller.ask("multipart/create", json!({"path": "parts", "sizeBytes": 1 << 30})).await?;
        caller.ask("multipart/abort", json!({"path": "parts", "uploadId": begun.get("uploadId")})).await.map(drop)
    })
    .await?;
    rows.load("list, 1,000 objects", host, callers, async |caller, _| {
        caller.api.send(Method::GET, &format!("{API}?prefix=listed/&limit=1000"), Bytes::new()).await.map(drop)
    })
    .await?;
    rows.load("delete of nothing", host, callers, async |caller, _| {
        caller.api.send(Method::DELETE, &format!("{API}?path=nothing"), Bytes::new()).await.map(drop)
    })
    .await
}

async fn in_worker(host: &Served, callers: usize, rows: &mut Rows) -> anyhow::Result<()> {
    let small = Bytes::from(vec![b'x'; SMALL_BYTES]);
    for (what, path) in [
        ("worker: nothing", "/nothing"),
        ("worker: head", "/head?path=small"),
        ("worker: get, 4 KiB", "/get?path=small"),
        ("worker: list, 1,000 objects", "/list?path=listed/"),
        ("worker: download-url", "/download-url?path=small"),
        ("worker: delete of nothing", "/delete?path=nothing"),
    ] {
        rows.load(what, host, callers, async |caller, _| caller.work(path, Bytes::new()).await).await?;
    }
    rows.load("worker: put, 4 KiB", host, callers, async |caller, _| {
        let path = format!("/put?path=worker/{}", caller.number);
        caller.work(&path, small.clone()).await
    })
    .await?;
    rows.load("worker: written in pieces, 16 MiB", host, callers.min(4), async |caller, _| {
        let path = format!("/write?mib=16&path=pieces/{}", caller.number);
        caller.work(&path, Bytes::new()).await
    })
    .await
}
