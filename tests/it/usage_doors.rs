//! Every operation charges what its declaration says, on every door: the API's operations by their table, the imports of workers by the functions of their
//! interfaces, each compared with the operation that it corresponds to, and the URLs of objects. The command line has no door of its own: it calls the API.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tovuk_kernel::meters::{METERS, Meter, Sort};
use tovuk_kernel::operation::{Access, Method, Operation};
use tovuk_server::control::api::operations;
use tovuk_tests::Operator;

use crate::TOVUK;
use crate::api_access::World;
use crate::usage::ask;

/// What is charged by something else than the operation: the worker that it lets run, or the build.
const LATER: [Meter; 7] = [
    Meter::BuildMinutes,
    Meter::LogEvents,
    // Eight milliseconds of a handler are one of these, so most calls charge none and one charges what others have left.
    Meter::StateDurationGbMilliseconds,
    Meter::StaticTransferBytes,
    Meter::WorkerCpuMs,
    Meter::WorkerRequests,
    Meter::WorkerTransferBytes,
];

type Figures = [u64; METERS];

fn figures(usage: &Value) -> Figures {
    Meter::ALL.map(|meter| usage["usage"]["meters"]["month"][meter.as_str()].as_u64().unwrap())
}

/// What has grown, without what is charged by something else.
fn grown(before: &Figures, after: &Figures) -> BTreeSet<Meter> {
    Meter::ALL.into_iter().filter(|meter| before[meter.index()] < after[meter.index()] && !LATER.contains(meter)).collect()
}

fn operation(name: &str) -> &'static Operation {
    operations().iter().map(|registered| registered.operation).find(|operation| operation.name == name).unwrap_or_else(|| panic!("{name}"))
}

/// Bodies with which an operation does all that it can charge, after what they need is there. None for those that [`World::call`] knows how to call.
async fn bodies(world: &World, name: &str, turn: usize) -> Option<Vec<Value>> {
    let (queue, object) = ("/v1/services/shop/queues/ALICES_QUEUE", "/v1/services/shop/state/namespaces/AlicesRoom/objects/alices-object");
    let longer = "x".repeat(100 + turn);
    Some(match name {
        "kv.put" | "state.put" => vec![json!({"value": longer})],
        "kv.bulk.put" => vec![json!({"entries": [{"key": format!("k{turn}"), "value": "x"}]})],
        "queue.pull" | "queue.messages" => {
            world.ok("POST", &format!("{queue}/messages"), Some(json!({"body": "x"}))).await;
            vec![json!({})]
        }
        "queue.ack" => {
            world.ok("POST", &format!("{queue}/messages"), Some(json!({"body": "x"}))).await;
            let pulled = world.ok("POST", &format!("{queue}/messages/pull"), Some(json!({}))).await;
            vec![json!({"acks": [pulled["messages"][0]["leaseId"]]})]
        }
        "sqlite.query" => vec![
            json!({"sql": format!("create table q{turn} (i integer)")}),
            json!({"sql": format!("insert into q{turn} values (1), (2)")}),
            json!({"sql": format!("select * from q{turn}")}),
        ],
        "sqlite.migrate" => {
            let sql = format!("create table m{turn} (i integer); insert into m{turn} values (1), (2); update m{turn} set i = i + 1;");
            vec![json!({"migrations": [{"name": format!("{turn:04}.sql"), "sql": sql}]})]
        }
        "storage.upload" => vec![json!({"path": format!("new-{turn}"), "sizeBytes": 1})],
        "storage.multipart.create" => vec![json!({"path": format!("large-{turn}"), "sizeBytes": 1})],
        "state.alarm.delete" | "state.alarm.get" => {
            world.ok("PUT", &format!("{object}/alarm"), Some(json!({"delaySeconds": 60}))).await;
            vec![json!({})]
        }
        "state.value.delete" | "state.object.delete" => {
            world.ok("PUT", &format!("{object}/values/alices-key"), Some(json!({"value": longer}))).await;
            vec![json!({})]
        }
        "kv.get" | "kv.delete" => {
            world.ok("PUT", "/v1/services/shop/kv/ALICES_CACHE/values/alices-key", Some(json!({"value": longer}))).await;
            vec![json!({})]
        }
        _ => return None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_charges_what_it_declares() {
    let world = World::new().await;
    let mut wrong = Vec::new();
    let mut all: Vec<&Operation> = operations().iter().map(|registered| registered.operation).collect();
    // What workers may do comes first, because a restart ends their tokens; what removes comes last, and what holds others after them.
    all.sort_by_key(|operation| {
        let depth = if operation.method == Method::Delete { usize::MAX - operation.path.split('/').count() } else { 0 };
        (operation.access != Access::Runtime, depth)
    });
    for (turn, operation) in all.into_iter().enumerate() {
        let name = operation.name;
        if operation.access == Access::Operator {
            assert!(operation.meters.is_empty(), "{name}: the operator's work is nobody's");
            continue;
        }
        // Those of workers have two doors.
        let doors = if operation.access == Access::Runtime { vec![&world.alice, &world.shop_worker] } else { vec![&world.alice] };
        for (door, token) in doors.into_iter().enumerate() {
            let mut charged = BTreeSet::new();
            let mut fails = None;
            let bodies = bodies(&world, name, 2 * turn + door).await;
            let mut bodies = bodies.map_or(vec![None], |bodies| bodies.into_iter().map(Some).collect());
            for body in bodies.drain(..) {
                let before = figures(&world.usage().await);
                let reply = match body {
                    None => world.call(operation, Some(token)).await,
                    Some(body) => world.send(operation, Some(token), "", body).await,
                };
                charged.extend(grown(&before, &figures(&world.usage().await)));
                if !reply.status.is_success() {
                    fails = Some(reply.text().to_owned());
                }
            }
            let declared: BTreeSet<Meter> = operation.meters.iter().copied().collect();
            // What grows without being charged for it, as its description says.
            charged.retain(|meter| declared.contains(meter) || !operation.description.contains(meter.as_str()));
            if charged != declared || (fails.is_some() && !declared.is_empty()) {
                wrong.push(format!("{name} at door {door} charges {charged:?} and declares {declared:?} {fails:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A function of an import, the operations of the API that do the same together, and how a guest calls it. Without a call it is part of another's.
struct Import {
    function: &'static str,
    operations: &'static [&'static str],
    guest: &'static str,
    calls: Vec<(&'static str, Value)>,
    /// Invocations that it begins besides the caller's.
    invocations: u64,
}

fn import(function: &'static str, operations: &'static [&'static str], guest: &'static str, call: (&'static str, Value)) -> Import {
    Import { function, operations, guest, calls: vec![call], invocations: 0 }
}

/// A function that costs nothing of its own, and is part of what another calls.
fn part(function: &'static str) -> Import {
    Import { function, operations: &[], guest: "", calls: Vec::new(), invocations: 0 }
}

fn kv_imports() -> Vec<Import> {
    let step = |function, operations, step: Value| import(function, operations, "kv", ("/", json!([step])));
    vec![
        step("kv/store.get", &["kv.get"], json!({"op": "get", "key": "a"})),
        step("kv/store.get-many", &["kv.bulk.get"], json!({"op": "get_many", "keys": ["a", "none"]})),
        step("kv/store.put", &["kv.put"], json!({"op": "put", "key": "a", "value": "x"})),
        step("kv/store.put-many", &["kv.bulk.put"], json!({"op": "put_many", "keys": ["a", "b"], "value": "x"})),
        step("kv/store.delete", &["kv.delete"], json!({"op": "delete", "key": "a"})),
        step("kv/store.delete-many", &["kv.bulk.delete"], json!({"op": "delete_many", "keys": ["a", "b"]})),
        step("kv/store.increment", &["kv.put"], json!({"op": "increment", "key": "n", "delta": 1})),
        step("kv/store.list", &["kv.keys"], json!({"op": "page"})),
    ]
}

fn keyvalue_imports() -> Vec<Import> {
    let both = |function, operations, step: Value| {
        let calls = ["/draft", "/draft2"].map(|path| (path, json!([step]))).into();
        Import { function, operations, guest: "keyvalue", calls, invocations: 0 }
    };
    let swap = ("/draft2", json!([{"op": "race", "bucket": "CACHE", "key": "n", "value": "2"}]));
    vec![
        both("keyvalue.open", &[], json!({"op": "open", "bucket": "CACHE"})),
        both("keyvalue.get", &["kv.get"], json!({"op": "get", "bucket": "CACHE", "key": "a"})),
        both("keyvalue.set", &["kv.put"], json!({"op": "set", "bucket": "CACHE", "key": "a", "value": "x"})),
        both("keyvalue.delete", &["kv.delete"], json!({"op": "delete", "bucket": "CACHE", "key": "a"})),
        both("keyvalue.exists", &["kv.get"], json!({"op": "exists", "bucket": "CACHE", "key": "a"})),
        both("keyvalue.list-keys", &["kv.keys"], json!({"op": "list", "bucket": "CACHE"})),
        both("keyvalue.increment", &["kv.put"], json!({"op": "increment", "bucket": "CACHE", "key": "n", "delta": 1})),
        both("keyvalue.get-many", &["kv.bulk.get"], json!({"op": "get_many", "bucket": "CACHE", "keys": ["a", "none"]})),
        both("keyvalue.set-many", &["kv.bulk.put"], json!({"op": "set_many", "bucket": "CACHE", "keys": ["a", "b"], "value": "x"})),
        both("keyvalue.delete-many", &["kv.bulk.delete"], json!({"op": "delete_many", "bucket": "CACHE", "keys": ["a", "b"]})),
        import("keyvalue.swap", &["kv.get", "kv.put"], "keyvalue", swap),
        part("keyvalue.new"),
        part("keyvalue.current"),
    ]
}

fn state_imports() -> Vec<Import> {
    let step = |function, operations, step: Value| import(function, operations, "state", ("/", json!([step])));
    let call = json!([{"op": "call", "object": "other", "steps": []}]);
    let called = |function, path| Import { invocations: 1, ..import(function, &["state.call"], "state", (path, call.clone())) };
    vec![
        step("state/store.put", &["state.put"], json!({"op": "put", "key": "k", "value": "1"})),
        step("state/store.get", &["state.get"], json!({"op": "get", "key": "k"})),
        step("state/store.compare-and-set", &["state.get", "state.put"], json!({"op": "cas", "key": "k", "expected": "1", "value": "2"})),
        step("state/store.increment", &["state.get", "state.put"], json!({"op": "increment", "key": "k", "delta": 1})),
        step("state/store.write", &["state.get", "state.put"], json!({"op": "write", "changes": [["expect", "k", "3"], ["put", "k", "4"]]})),
        step("state/store.list", &["state.keys"], json!({"op": "page"})),
        step("state/store.objects", &["state.objects"], json!({"op": "objects"})),
        step("state/store.set-alarm", &["state.alarm.set"], json!({"op": "set_alarm", "seconds": 3_600})),
        step("state/store.get-alarm", &["state.alarm.get"], json!({"op": "alarm"})),
        step("state/store.delete-alarm", &["state.alarm.delete"], json!({"op": "delete_alarm"})),
        step("state/store.delete", &["state.value.delete"], json!({"op": "delete", "key": "k"})),
        called("state/calls.fetch", "/"),
        called("state/calls.fetch-all", "/at-once"),
    ]
}

fn other_imports() -> Vec<Import> {
    let sql = |function, calls| Import { function, operations: &["sqlite.query"], guest: "sqlite", calls, invocations: 0 };
    let (insert, select) = (json!({"sql": "insert into t values (1)"}), json!({"sql": "select * from t"}));
    let tx = |end| json!({"statements": [insert.clone(), select.clone()], "end": end});
    let object = |function, operations, path| import(function, operations, "objects", (path, json!({})));
    let bound = |function, path, guest| Import { invocations: 1, ..import(function, &[], guest, (path, json!({}))) };
    vec![
        sql("sqlite/database.query", vec![("/query", insert.clone()), ("/query", select.clone())]),
        sql("sqlite/database.batch", vec![("/batch", json!([insert.clone(), select.clone()]))]),
        sql("sqlite/database.begin", vec![("/tx", tx("commit"))]),
        part("sqlite/database.transaction.query"),
        part("sqlite/database.transaction.commit"),
        part("sqlite/database.transaction.rollback"),
        Import { operations: &["sqlite.query.reads"], ..sql("sqlite/database.read-rows", vec![("/stream", select.clone())]) },
        part("sqlite/database.rows.columns"),
        part("sqlite/database.rows.next"),
        part("sqlite/database.rows.counts"),
        import("queue/producer.send", &["queue.send"], "queue", ("/", json!([{"queue": "jobs", "body": "x"}]))),
        import("queue/producer.send-batch", &["queue.send_batch"], "queue", ("/", json!([{"queue": "jobs", "bodies": ["x", "y"]}]))),
        import("queue/producer.count", &["queue.metrics"], "queue", ("/", json!([{"queue": "jobs"}]))),
        object("objects/store.put", &["storage.multipart.create"], "/put?path=a"),
        object("objects/store.create", &["storage.multipart.create"], "/write?path=b"),
        part("objects/store.writer.write"),
        part("objects/store.writer.finish"),
        object("objects/store.head", &["storage.download"], "/head?path=a"),
        object("objects/store.get", &["storage.download"], "/get?path=a"),
        part("objects/store.reader.read"),
        object("objects/store.list", &["storage.list"], "/list?path=a"),
        object("objects/store.download-url", &["storage.download"], "/download-url?path=a"),
        object("objects/store.upload-url", &["storage.upload"], "/upload-url?path=c&bytes=1"),
        object("objects/store.complete", &["storage.complete"], "/complete?path=c"),
        object("objects/store.delete", &["storage.delete"], "/delete?path=a"),
        bound("bindings/service.fetch", "/1", "chain"),
        bound("bindings/service.fetch-all", "/1/1", "fan"),
        // Requests to elsewhere are bounded and not metered; their answers are part of the caller's CPU time.
        part("http/client.fetch"),
        part("http/client.fetch-all"),
    ]
}

/// The functions of interfaces, as `interface.function` or `interface.resource.function`.
fn functions(wit: &str) -> Vec<(String, String)> {
    let (mut interface, mut resource) = (String::new(), String::new());
    let mut found = Vec::new();
    for line in wit.lines().map(str::trim) {
        let named = |line: &str| line.split([' ', ';', '{']).next().unwrap_or_default().to_owned();
        match (line.strip_prefix("interface "), line.strip_prefix("resource ").filter(|line| line.ends_with('{'))) {
            (Some(rest), _) => interface = named(rest),
            (_, Some(rest)) => resource = format!("{}.", named(rest)),
            _ if line == "}" => resource.clear(),
            _ => {}
        }
        if let Some((name, _)) = line.split_once(':').filter(|(_, rest)| rest.contains("func(") && !line.starts_with("//")) {
            found.push((interface.clone(), format!("{resource}{}", name.trim_start_matches('%'))));
        }
    }
    found
}

/// All functions that workers can import. What workers export is called by the host.
fn importable() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/deps")).unwrap() {
        let path = file.unwrap().path();
        let package = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let imported = functions(&std::fs::read_to_string(&path).unwrap()).into_iter().filter(|(interface, _)| !interface.ends_with("handler"));
        all.extend(imported.map(|(interface, function)| format!("{package}/{interface}.{function}")));
    }
    let keyvalue = include_str!("../guests/src/keyvalue.rs");
    all.extend(functions(keyvalue).into_iter().map(|(_, function)| format!("keyvalue.{}", function.rsplit('.').next().unwrap())));
    all
}

/// A host with a service for each guest, named as that is, with all that they use.
async fn with_guests() -> Operator {
    let host = Operator::start(TOVUK).await;
    for guest in ["kv", "keyvalue", "queue", "state", "sqlite", "objects", "chain", "fan"] {
        host.ok("POST", "/v1/services", Some(json!({"name": guest}))).await;
        for (kind, body) in [
            ("kv/namespaces", json!({"name": "CACHE"})),
            ("queues", json!({"name": "jobs", "consumer": "pull"})),
            ("sqlite/databases", json!({"name": "DB"})),
        ] {
            host.ok("POST", &format!("/v1/services/{guest}/{kind}"), Some(body)).await;
        }
        let mut config = json!({"routes": ["/*"], "limits": {"cpu_ms": 20_000}});
        match guest {
            "state" => config["state"] = json!(["Room", "Log"]),
            "chain" | "fan" => {
                let name = if guest == "chain" { "NEXT" } else { "SELF" };
                host.ok("POST", &format!("/v1/services/{guest}/service-bindings"), Some(json!({"bindingName": name, "targetService": guest}))).await;
            }
            _ => {}
        }
        host.deploy(&host.token, guest, guest, config).await;
    }
    host.ok("POST", "/v1/services/sqlite/sqlite/DB/query", Some(json!({"sql": "create table t (i integer)"}))).await;
    host
}

/// What the operations charge together: counters, because what is stored differs.
fn declared(names: &[&str]) -> BTreeSet<Meter> {
    let one = |name: &&str| match *name {
        "state.call" => vec![Meter::StateRequests],
        "sqlite.query.reads" => vec![Meter::SqliteRowsRead],
        name => operation(name).meters.to_vec(),
    };
    names.iter().flat_map(one).filter(|meter| meter.sort() == Sort::Counter && !LATER.contains(meter)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_import_of_workers_charges_what_its_operation_declares() {
    let imports: Vec<Import> = [kv_imports(), keyvalue_imports(), state_imports(), other_imports()].into_iter().flatten().collect();
    let listed: BTreeSet<String> = imports.iter().map(|import| import.function.to_owned()).collect();
    assert_eq!(listed, importable(), "every function has its line");
    let host = with_guests().await;
    let now = async || figures(&host.ok("GET", "/v1/usage", None).await);
    let mut wrong = Vec::new();
    for Import { function, operations, guest, calls, invocations } in imports {
        let (mut charged, begun) = (BTreeSet::new(), calls.len() as u64 * (1 + invocations));
        let mut before = now().await;
        let requests = before[Meter::WorkerRequests.index()];
        for (path, body) in calls {
            let reply = if matches!(guest, "chain" | "fan") { host.get(guest, path).await } else { ask(&host, guest, path, &body).await };
            let text = reply.text();
            if reply.status != 200 || text.contains("no such step") || text.contains("nothing here") || text.contains("error\":\"") {
                // Nobody has sent the bytes of this upload.
                if function != "objects/store.complete" {
                    wrong.push(format!("{function}: {} {text}", reply.status));
                }
            }
            let after = now().await;
            charged.extend(grown(&before, &after).into_iter().filter(|meter| meter.sort() == Sort::Counter));
            before = after;
        }
        let declared = declared(operations);
        let begins = before[Meter::WorkerRequests.index()] - requests;
        if charged != declared || begins != begun {
            wrong.push(format!("{function} charges {charged:?} and {begins} invocations, and not {declared:?} and {begun}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_of_objects_charge_what_is_done_and_what_leaves() {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    let storage = "/v1/services/shop/storage";
    let meters = [Meter::ObjectStorageClassAOperations, Meter::ObjectStorageClassBOperations, Meter::ObjectStorageEgressBytes];
    let now = async || {
        let figures = figures(&host.ok("GET", "/v1/usage", None).await);
        meters.map(|meter| figures[meter.index()])
    };
    let begun = host.ok("POST", &format!("{storage}/upload-url"), Some(json!({"path": "a", "sizeBytes": 4, "publicRead": true}))).await;
    let upload = begun["url"].as_str().unwrap();
    assert_eq!(host.at("PUT", upload, &[], "123").await.status, 400);
    assert_eq!(now().await, [0, 0, 0], "what was refused is free");
    assert_eq!(host.at("PUT", upload, &[], "1234").await.status, 200);
    let object = host.ok("POST", &format!("{storage}/complete"), Some(json!({"path": "a"}))).await;
    assert_eq!(now().await, [1, 0, 0]);
    let url = object["publicUrl"].as_str().unwrap();
    let etag = host.at("GET", url, &[], "").await.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(now().await, [1, 1, 4]);
    assert_eq!(host.at("HEAD", url, &[], "").await.status, 200);
    assert_eq!(host.at("GET", url, &[("if-none-match", &etag)], "").await.status, 304);
    assert_eq!(host.at("GET", url, &[("if-match", "\"other\"")], "").await.status, 412);
    assert_eq!(host.at("GET", url, &[("range", "bytes=9-")], "").await.status, 416);
    assert_eq!(host.at("GET", &format!("{url}-none"), &[], "").await.status, 404);
    assert_eq!(now().await, [1, 6, 4], "each looks, and nothing leaves");
    assert_eq!(host.at("GET", url, &[("range", "bytes=1-2")], "").await.text(), "23");
    assert_eq!(now().await, [1, 7, 6]);
    assert_eq!(host.at("OPTIONS", url, &[], "").await.status, 204);
    assert_eq!(now().await, [1, 7, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_is_charged_as_the_api() {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.line("tovuk kv create --service shop CACHE").ok();
    let now = async || figures(&host.ok("GET", "/v1/usage", None).await);
    let before = now().await;
    host.line("tovuk kv put --service shop CACHE a x").ok();
    host.line("tovuk kv get --service shop CACHE a").ok();
    let after = now().await;
    assert_eq!(grown(&before, &after), [Meter::KvReads, Meter::KvWrites, Meter::KvStorageBytes].into_iter().collect());
    assert_eq!(after[Meter::KvReads.index()] - before[Meter::KvReads.index()], 1);
}
