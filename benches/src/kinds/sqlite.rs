//! SQLite: each operation over the API and in a worker, beside a worker that asks nothing. Host and clients share the machine's cores, and every write is
//! synced, so the rows of writes say as much of the disk as of the host.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::command::KindArguments;
use crate::control::client::Served;
use crate::control::{Rows, deploy, table, together};
use crate::output::{self, Report};
use crate::{guests, machine};

/// Rows of the table that is read.
const ROWS: u64 = 100_000;
/// The API's route.
const QUERY: &str = "/v1/services/bench/sqlite/DB/query";

/// One operation: what it is called, its path in the worker, and its body for the caller's n-th turn.
struct Operation {
    name: &'static str,
    worker: &'static str,
    body: fn(usize, usize) -> Value,
}

/// A row to read, different for each turn and spread over the table.
fn id(caller: usize, turn: usize) -> u64 {
    ((caller as u64 + 1) * 7_919 + turn as u64 * 104_729) % ROWS + 1
}

fn insert() -> Value {
    json!({"sql": "insert into written (body) values (?)", "params": ["x".repeat(100)]})
}

const OPERATIONS: [Operation; 5] = [
    Operation {
        name: "one row by key",
        worker: "/query",
        body: |caller, turn| json!({"sql": "select id, body from items where id = ?", "params": [id(caller, turn)]}),
    },
    Operation {
        name: "100 rows of a range",
        worker: "/query",
        body: |caller, turn| json!({"sql": "select id, body from items where id >= ? order by id limit 100", "params": [id(caller, turn)]}),
    },
    Operation { name: "a scan of 100,000 rows", worker: "/query", body: |_, _| json!({"sql": "select count(*) from items where body like '%no%'"}) },
    Operation { name: "one insert", worker: "/query", body: |_, _| insert() },
    Operation { name: "a batch of 10 inserts", worker: "/batch", body: |_, _| Value::Array((0..10).map(|_| insert()).collect()) },
];

/// What only workers have.
const OF_WORKERS: [Operation; 2] = [
    Operation {
        name: "a transaction that reads and writes",
        worker: "/tx",
        body: |caller, turn| json!({"end": "commit", "statements": [{"sql": "select body from items where id = ?", "params": [id(caller, turn)]}, insert()]}),
    },
    Operation { name: "100,000 rows streamed", worker: "/stream", body: |_, _| json!({"sql": "select id, body from items"}) },
];

/// Measures, and adds the table to the report.
pub fn run(arguments: &KindArguments, report: &mut Report) -> anyhow::Result<()> {
    let mut rows = Rows::new(report.raw(arguments.json.as_deref(), "sqlite")?);
    let data = output::folder().join(format!("sqlite-data-{}", std::process::id()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let measured = machine::multi_thread(threads)?.block_on(measure(arguments, &data, &mut rows));
    // What was written is of no use to anybody, also after a failure.
    let _ = std::fs::remove_dir_all(&data);
    let facts = measured?;
    report.add("## SQLite");
    report.add(&table(&rows));
    report.add(&facts);
    Ok(())
}

async fn measure(arguments: &KindArguments, data: &Path, rows: &mut Rows) -> anyhow::Result<String> {
    let host = Served::start(data)?;
    let mut api = host.api().await?;
    api.json(Method::POST, "/v1/services", Some(json!({"name": "bench"}))).await?;
    api.json(Method::POST, "/v1/services/bench/sqlite/databases", Some(json!({"name": "DB"}))).await?;
    let fill = format!(
        "insert into items (body) with recursive n(i) as (select 1 union all select i + 1 from n where i < {ROWS}) select hex(randomblob(50)) from n"
    );
    for sql in ["create table items (id integer primary key, body text)", "create table written (id integer primary key, body text)", &fill] {
        api.json(Method::POST, QUERY, Some(json!({"sql": sql}))).await?;
    }
    for (service, guest) in [("bench", "sqlite"), ("hello", "hello")] {
        deploy(&mut api, service, &std::fs::read(guests::path(guest)?)?, None).await?;
    }
    let duration = Duration::from_secs(arguments.seconds);
    for callers in [1, 16, 64] {
        for operation in &OPERATIONS {
            let body = |caller, turn| match (operation.body)(caller, turn) {
                statements @ Value::Array(_) => json!({"statements": statements}),
                one => one,
            };
            let (ms, per_s) = together(
                async || host.api().await,
                callers,
                duration,
                async |connection, caller, turn| connection.send(Method::POST, QUERY, Bytes::from(body(caller, turn).to_string())).await,
            )
            .await?;
            rows.add(format!("API, {}, {callers} callers", operation.name), ms, Some(per_s))?;
        }
        let nothing = together(
            async || host.service("hello").await,
            callers,
            duration,
            async |connection, _, _| connection.send(Method::GET, "/", Bytes::new()).await,
        );
        let (ms, per_s) = nothing.await?;
        rows.add(format!("a worker that asks nothing, {callers} callers"), ms, Some(per_s))?;
        for operation in OPERATIONS.iter().chain(&OF_WORKERS) {
            let (ms, per_s) = together(
                async || host.service("bench").await,
                callers,
                duration,
                async |connection, caller, turn| {
                    connection.send(Method::POST, operation.worker, Bytes::from((operation.body)(caller, turn).to_string())).await
                },
            )
            .await?;
            rows.add(format!("worker, {}, {callers} callers", operation.name), ms, Some(per_s))?;
        }
    }
    // A connection on which nothing is asked for long is closed.
    api = host.api().await?;
    let backups = "/v1/services/bench/sqlite/DB/backups";
    let (mut made, mut restored) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let (ms, backup) = api.json(Method::POST, backups, None).await?;
        made.push(ms);
        let id = backup.pointer("/backup/id").and_then(Value::as_str).context("no backup")?.to_owned();
        restored.push(api.json(Method::POST, &format!("{backups}/{id}/restore"), None).await?.0);
    }
    rows.add("backup", made, None)?;
    rows.add("restore", restored, None)?;
    let bytes = api.json(Method::POST, QUERY, Some(json!({"sql": "select 1"}))).await?.1;
    host.stop()?;
    let idle = idle(&data.join("idle")).await?;
    Ok(format!(
        "The table that is read has {ROWS} rows of 100 bytes; database and backups had {} bytes at the end. {idle} The guest is given JSON and answers JSON: what it costs \
         beside SQL is not told apart.",
        bytes.get("storageBytes").unwrap_or(&Value::Null),
    ))
}

/// What databases cost that are open and that nobody asks, in a host that has done nothing else: memory that it gives back meanwhile would hide them.
async fn idle(data: &Path) -> anyhow::Result<String> {
    const WARM: usize = 50;
    const MANY: usize = 200;
    let host = Served::start(data)?;
    let mut api = host.api().await?;
    api.json(Method::POST, "/v1/services", Some(json!({"name": "bench"}))).await?;
    let mut before = 0;
    for number in 0..WARM + MANY {
        if number == WARM {
            before = machine::process_rss_kib(host.pid()).unwrap_or_default();
        }
        api.json(Method::POST, "/v1/services/bench/sqlite/databases", Some(json!({"name": format!("IDLE{number}")}))).await?;
        for sql in ["create table t (id integer primary key, body text)", "insert into t (body) values ('x')", "select * from t"] {
            api.json(Method::POST, &format!("/v1/services/bench/sqlite/IDLE{number}/query"), Some(json!({"sql": sql}))).await?;
        }
    }
    let after = machine::process_rss_kib(host.pid()).unwrap_or_default();
    host.stop()?;
    Ok(format!("An idle database that has read and written takes {} KiB of the host's memory.", after.saturating_sub(before) / MANY as u64))
}
