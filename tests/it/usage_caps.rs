//! Caps of every kind of work, through a real host: nothing goes beyond them, and what they refuse says why.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Empty};
use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::meters::Meter;
use tovuk_resources::database::rusqlite::Connection;
use tovuk_tests::{Client, Operator, Served, component, component_body};

use crate::TOVUK;
use crate::usage::{ask, cap, cap_more, used, with_shop};

/// How many of them are answered with success until all clients are refused. Fails for another refusal than that of a cap.
async fn answered<F: Future<Output = String>>(clients: usize, call: impl Fn(usize) -> F) -> u64 {
    let call = &call;
    let each = (0..clients).map(async |client| {
        let mut answered = 0;
        loop {
            match call(client).await.as_str() {
                "200" | "201" => answered += 1,
                "usage_cap_exceeded" => return answered,
                other => panic!("{other}"),
            }
        }
    });
    join_all(each).await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_binding_call_over_a_cap_fails_alone() {
    let host = Operator::start(TOVUK).await;
    for name in ["back", "front"] {
        host.ok("POST", "/v1/services", Some(json!({"name": name}))).await;
    }
    host.ok("POST", "/v1/services/front/service-bindings", Some(json!({"bindingName": "NEXT", "targetService": "back"}))).await;
    host.deploy(&host.token, "back", "chain", json!({})).await;
    host.deploy(&host.token, "front", "chain", json!({"routes": ["/*"]})).await;
    host.ok("PUT", "/v1/usage/caps/worker_requests?service=back", Some(json!({"period": "day", "capValue": 150}))).await;
    let front = used(&host, Some("front"), Meter::WorkerRequests).await;
    let calls = answered(64, async |_| host.get("front", "/1").await.code()).await;
    assert_eq!((calls, used(&host, Some("back"), Meter::WorkerRequests).await), (150, 150));
    assert_eq!(used(&host, Some("front"), Meter::WorkerRequests).await, front + 150 + 64, "its own invocations went on");
    let refused = host.get("front", "/1").await;
    // What the caller was told, which may know everything.
    let told = refused.json();
    assert!(told["message"].as_str().unwrap().contains("tovuk limits set worker_requests --period day --value <n> --service service_1"), "{told}");
    assert_eq!(host.get("front", "/0").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cpu_time_stops_where_its_cap_does() {
    let host = with_shop("spin").await;
    let before = used(&host, None, Meter::WorkerCpuMs).await;
    cap_more(&host, Meter::WorkerCpuMs, 600).await;
    let stopped = join_all((0..64).map(async |_| host.get("shop", "/").await)).await;
    for reply in stopped {
        assert_eq!((reply.status.as_u16(), reply.code()), (429, "usage_cap_exceeded".to_owned()));
    }
    let used = used(&host, None, Meter::WorkerCpuMs).await - before;
    // What is left of a ms counts later. Each of the guests that ran goes on to its next yield, which is a few ms in a build without optimisation.
    assert!((590..600 + 64 * 10).contains(&used), "{used} ms");
    let refused = host.get("shop", "/turns/1").await;
    assert_eq!(refused.code(), "usage_cap_exceeded");
    host.ok("DELETE", "/v1/usage/caps/worker_cpu_ms/day", None).await;
    assert_eq!(host.get("shop", "/turns/1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_cut_where_the_cap_on_transfer_ends() {
    let host = with_shop("big").await;
    let before = used(&host, None, Meter::WorkerTransferBytes).await;
    cap_more(&host, Meter::WorkerTransferBytes, (1 << 20) + 100).await;
    let address = host.host.public_address();
    let request = Request::get("/4").header("host", format!("shop.localhost:{}", address.port())).body(Empty::<bytes::Bytes>::new()).unwrap();
    let mut body = Client::new(address).send(request).await.unwrap().into_body();
    let (mut received, mut is_cut) = (0, false);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => received += frame.data_ref().map_or(0, |data| data.len() as u64),
            Err(_) => {
                is_cut = true;
                break;
            }
        }
    }
    let charged = used(&host, None, Meter::WorkerTransferBytes).await - before;
    assert!(is_cut && received <= charged && charged <= (1 << 20) + 100 && charged > 900 << 10, "{received} of {charged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_that_have_no_room_are_not_written() {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.ok("POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "DB"}))).await;
    host.deploy(&host.token, "shop", "sqlite", json!({"routes": ["/*"], "limits": {"cpu_ms": 20_000}})).await;
    let path = "/v1/services/shop/sqlite/DB/query";
    host.ok("POST", path, Some(json!({"sql": "create table t (i integer)"}))).await;
    cap_more(&host, Meter::SqliteRowsWritten, 101).await;
    let insert = json!({"sql": "insert into t values (1), (2)"});
    // Half of them by the API, half of them by the worker.
    let written = answered(64, async |client| {
        if client % 2 == 0 {
            return host.ask("POST", path, Some(insert.clone())).await.code();
        }
        let reply = ask(&host, "shop", "/query", &insert).await.json();
        reply["error"].as_str().or(reply["code"].as_str()).unwrap_or("200").to_owned()
    });
    assert_eq!(written.await, 50, "one row is left, and each writes two");
    let count = async || host.ok("POST", path, Some(json!({"sql": "select count(*) as n from t"}))).await["rows"][0]["n"].clone();
    assert_eq!(count().await, 100);
    host.ok("POST", path, Some(json!({"sql": "insert into t values (3)"}))).await;
    let refused = host.ask("POST", path, Some(json!({"statements": [{"sql": "insert into t values (4)"}]}))).await;
    assert_eq!((refused.code(), count().await), ("usage_cap_exceeded".to_owned(), json!(101)));
    cap_more(&host, Meter::SqliteRowsRead, 150).await;
    assert_eq!(host.ask("POST", path, Some(json!({"sql": "select * from t"}))).await.status, 200);
    assert_eq!(host.ask("POST", path, Some(json!({"sql": "select * from t"}))).await.code(), "usage_cap_exceeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn queues_state_and_objects_keep_to_their_caps() {
    let host = with_shop("kv").await;
    host.ok("POST", "/v1/services/shop/queues", Some(json!({"name": "jobs", "consumer": "pull"}))).await;
    host.ok("POST", "/v1/services/shop/state/namespaces", Some(json!({"className": "Room"}))).await;
    let (queue, object) = ("/v1/services/shop/queues/jobs", "/v1/services/shop/state/namespaces/Room/objects/o/values/k");
    cap_more(&host, Meter::QueueOperations, 77).await;
    let sent = answered(64, async |_| host.ask("POST", &format!("{queue}/messages"), Some(json!({"body": "x"}))).await.code()).await;
    assert_eq!((sent, used(&host, None, Meter::QueueOperations).await), (77, 77));
    assert_eq!(host.ask("GET", &format!("{queue}/messages"), None).await.code(), "usage_cap_exceeded");

    cap_more(&host, Meter::StateSqliteRowsWritten, 60).await;
    let put = answered(64, async |_| host.ask("PUT", object, Some(json!({"value": "x"}))).await.code()).await;
    assert_eq!((put, used(&host, None, Meter::StateSqliteRowsWritten).await), (60, 60));
    cap_more(&host, Meter::StateRequests, 5).await;
    assert_eq!(answered(8, async |_| host.ask("GET", object, None).await.code()).await, 5);

    cap_more(&host, Meter::ObjectStorageBytes, 10).await;
    let begin = json!({"path": "a", "sizeBytes": 4, "publicRead": true});
    let begun = host.ok("POST", "/v1/services/shop/storage/upload-url", Some(begin.clone())).await;
    host.ok("POST", "/v1/services/shop/storage/upload-url", Some(json!({"path": "b", "sizeBytes": 6}))).await;
    let refused = host.ask("POST", "/v1/services/shop/storage/upload-url", Some(json!({"path": "c", "sizeBytes": 1}))).await;
    assert_eq!(refused.code(), "usage_cap_exceeded");
    assert!(refused.text().contains("delete something"), "{}", refused.text());
    assert_eq!(host.at("PUT", begun["url"].as_str().unwrap(), &[], "1234").await.status, 200);
    let object = host.ok("POST", "/v1/services/shop/storage/complete", Some(json!({"path": "a"}))).await;
    assert_eq!(used(&host, None, Meter::ObjectStorageClassAOperations).await, 1);
    let (url, head) = (object["publicUrl"].as_str().unwrap(), Meter::ObjectStorageClassBOperations);
    assert_eq!((host.at("GET", url, &[], "").await.text(), used(&host, None, head).await), ("1234", 1));
    assert_eq!(host.at("GET", url, &[("range", "bytes=0-1")], "").await.text(), "12");
    assert_eq!(used(&host, Some("shop"), Meter::ObjectStorageEgressBytes).await, 6);
    cap_more(&host, Meter::ObjectStorageEgressBytes, 0).await;
    assert_eq!(host.at("GET", url, &[], "").await.code(), "usage_cap_exceeded");
    assert_eq!(host.at("HEAD", url, &[], "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_clients_store_and_get_exactly_as_many_bytes_as_the_caps_allow() {
    let host = with_shop("kv").await;
    let storage = "/v1/services/shop/storage";
    let begin = async |path: String, size: u64| {
        host.ask("POST", &format!("{storage}/upload-url"), Some(json!({"path": path, "sizeBytes": size, "publicRead": true}))).await
    };
    let upload = begin("a".to_owned(), 10).await.json()["url"].as_str().unwrap().to_owned();
    assert_eq!(host.at("PUT", &upload, &[], "0123456789").await.status, 200);
    let object = host.ok("POST", &format!("{storage}/complete"), Some(json!({"path": "a"}))).await;
    let url = object["publicUrl"].as_str().unwrap();
    cap_more(&host, Meter::ObjectStorageEgressBytes, 1_000).await;
    assert_eq!(answered(64, async |_| host.at("GET", url, &[], "").await.code()).await, 100);
    assert_eq!(used(&host, None, Meter::ObjectStorageEgressBytes).await, 1_000);
    // Each has a path of its own, and one byte is left.
    cap_more(&host, Meter::ObjectStorageBytes, 701).await;
    let number = AtomicU64::new(0);
    let path = || format!("b{}", number.fetch_add(1, Ordering::Relaxed));
    assert_eq!(answered(64, async |_| begin(path(), 7).await.code()).await, 100);
    assert_eq!(used(&host, None, Meter::ObjectStorageBytes).await, 710);
    assert_eq!(begin(path(), 1).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn caps_take_effect_at_once_under_load() {
    const CLIENTS: u64 = 16;
    let host = with_shop("kv").await;
    let (done, answered, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let client = async || {
        while done.load(Ordering::Relaxed) == 0 {
            match ask(&host, "shop", "/", &json!([])).await.code().as_str() {
                "200" => answered.fetch_add(1, Ordering::Relaxed),
                "usage_cap_exceeded" => refused.fetch_add(1, Ordering::Relaxed),
                other => panic!("{other}"),
            };
        }
    };
    let at_least = async |counted: &AtomicU64, more: u64| {
        let until = counted.load(Ordering::Relaxed) + more;
        while counted.load(Ordering::Relaxed) < until {
            tokio::task::yield_now().await;
        }
    };
    let steps = async || {
        at_least(&answered, 50).await;
        // Set: as many more as it says, but for those that were on their way then.
        let value = used(&host, None, Meter::WorkerRequests).await + 200;
        cap(&host, Meter::WorkerRequests, value).await;
        at_least(&refused, 5 * CLIENTS).await;
        let reached = used(&host, None, Meter::WorkerRequests).await;
        assert!((value - CLIENTS..=value + CLIENTS).contains(&reached), "{reached} of {value}");
        // Raised, and lowered below what is used: none begins after that.
        cap(&host, Meter::WorkerRequests, reached + 1_000_000).await;
        at_least(&answered, 50).await;
        cap(&host, Meter::WorkerRequests, 1).await;
        let reached = used(&host, None, Meter::WorkerRequests).await;
        at_least(&refused, 5 * CLIENTS).await;
        assert!(used(&host, None, Meter::WorkerRequests).await <= reached + CLIENTS);
        // Removed.
        host.ok("DELETE", "/v1/usage/caps/worker_requests/day", None).await;
        at_least(&answered, 50).await;
        done.store(1, Ordering::Relaxed);
    };
    let ((), _) = tokio::join!(steps(), join_all((0..CLIENTS).map(|_| client())));
    assert_eq!(used(&host, Some("shop"), Meter::WorkerRequests).await, answered.load(Ordering::Relaxed), "what was refused is free");
}

/// Noon of the 30th of November 2026, in UTC.
const NOVEMBER_30: u64 = 1_796_040_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_day_and_a_month_end_under_load() {
    let host = Operator::with_clock(TOVUK, Clock::advanceable_at(NOVEMBER_30)).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.deploy(&host.token, "shop", "kv", json!({"routes": ["/*"]})).await;
    for (period, value) in [("day", 50), ("month", 120)] {
        host.ok("PUT", "/v1/usage/caps/worker_requests", Some(json!({"period": period, "capValue": value}))).await;
    }
    let day = std::time::Duration::from_secs(86_400);
    let requests = async || answered(16, async |_| ask(&host, "shop", "/", &json!([])).await.code()).await;
    assert_eq!(requests().await, 50);
    // Another day, and another month.
    host.clock.advance(day);
    assert_eq!(requests().await, 50);
    let instant = std::time::Duration::from_millis(1);
    host.clock.advance(day * 3 / 2 - instant);
    // Midnight comes in between, and nothing else: a longer step would end what runs for being overdue.
    let (during, ()) = tokio::join!(requests(), async {
        while used(&host, None, Meter::WorkerRequests).await < 10 {}
        host.clock.advance(instant);
    });
    let mut all = 50 + during;
    for _ in 0..2 {
        all += requests().await;
        host.clock.advance(day);
    }
    assert_eq!(all, 120, "the month's cap");
    assert_eq!(requests().await, 0);
    let usage = host.ok("GET", "/v1/usage", None).await["usage"]["meters"].clone();
    assert_eq!(usage["month"]["worker_requests"], 120);
    assert_eq!(usage["day"]["worker_requests"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_forgets_no_cap() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut host = Served::start(TOVUK, &data).await;
    let made = host.ok("POST", "/v1/deploy", Some(&component_body("shop", &component("hello"), json!({"routes": ["/*"]}), ""))).await;
    assert_eq!(host.built(made["build_job"]["id"].as_str().unwrap()).await["status"], "succeeded");
    host.ok("PUT", "/v1/usage/caps/worker_requests", Some(&json!({"period": "month", "capValue": 500}))).await;
    // What no cap is on is written each second.
    host.ok("POST", "/v1/services/shop/kv/namespaces", Some(&json!({"name": "CACHE"}))).await;
    for key in 0..20 {
        host.ok("PUT", &format!("/v1/services/shop/kv/CACHE/values/{key}"), Some(&json!({"value": "x"}))).await;
    }
    let written = Connection::open(data.join("meters.db")).unwrap();
    let written = || written.query_row("select coalesce(max(used), 0) from days where meter = 'kv_writes'", [], |row| row.get::<_, i64>(0)).unwrap();
    let began = std::time::Instant::now();
    while written() < 20 {
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{}", written());
        tokio::task::yield_now().await;
    }
    let mut answered = 0;
    for round in 0..4 {
        for _ in 0..60 + round {
            assert_eq!(host.get("shop", "/").await.status, 200);
            answered += 1;
        }
        host.kill().await;
        host = Served::start(TOVUK, &data).await;
    }
    while host.get("shop", "/").await.status == 200 {
        answered += 1;
    }
    // What was leased and not used counts as used: a fiftieth of the cap at each death.
    assert!((400..=500).contains(&answered), "{answered}");
    host.kill().await;
    let host = Served::start(TOVUK, &data).await;
    assert_eq!(host.get("shop", "/").await.status, 429);
    let usage = host.ok("GET", "/v1/usage", None).await["usage"]["meters"]["month"].clone();
    assert!(usage["worker_requests"].as_u64().unwrap() <= 500 && usage["kv_writes"] == 20, "{usage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_has_every_meter_with_its_price() {
    let host = Operator::start(TOVUK).await;
    let catalogue = host.api("GET", "/v1/capabilities", None, None).await.json();
    let all = catalogue["products"].as_array().unwrap().iter().find(|product| product["key"] == "usage_caps").unwrap();
    let names: Vec<_> = all["meters"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(names, Meter::ALL.map(Meter::as_str));
    assert_eq!(all["meter_details"][0]["cap_commands"]["day"], "tovuk limits set worker_requests --period day --value <n>");
    for product in catalogue["products"].as_array().unwrap() {
        for plan in catalogue["plans"].as_array().unwrap() {
            for field in ["limit_fields", "pricing_fields"].iter().flat_map(|list| product[list].as_array().unwrap()) {
                let path = format!("/{}", field.as_str().unwrap().replace('.', "/"));
                assert!(plan.pointer(&path).is_some_and(Value::is_number), "{field} of {}", product["key"]);
            }
        }
    }
    let pro = &catalogue["plans"][1]["pricing"];
    assert_eq!((&pro["subscriptionUsdCentsPerMonth"], &pro["objectStorage"]["classAOverageUsdMicrosPerMillion"]), (&json!(500), &json!(4_500_000)));
}
