//! What services are charged with and what caps hold them to, through a real host: every figure comes from requests that went through its doors.

use std::time::Duration;

use futures::future::join_all;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tovuk_kernel::meters::Meter;
use tovuk_tests::{Client, Operator, Reply};

use crate::TOVUK;

/// A host with the service `shop`, which has the namespace `CACHE` and runs a guest.
pub(crate) async fn with_shop(guest: &str) -> Operator {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.ok("POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": "CACHE"}))).await;
    let config = json!({"routes": ["/*"], "limits": {"cpu_ms": 20_000}});
    host.deploy(&host.token, "shop", guest, config).await;
    host
}

pub(crate) async fn ask(host: &Operator, service: &str, path: &str, body: &Value) -> Reply {
    let address = host.host.public_address();
    let request = Request::post(path).header("host", format!("{service}.localhost:{}", address.port()));
    Client::new(address).whole(request.body(Full::new(body.to_string().into())).unwrap()).await
}

/// What was used today, of the account or of a service.
pub(crate) async fn used(host: &Operator, service: Option<&str>, meter: Meter) -> u64 {
    let query = service.map_or_else(String::new, |service| format!("?service={service}"));
    let usage = host.ok("GET", &format!("/v1/usage{query}"), None).await;
    usage["usage"]["meters"]["day"][meter.as_str()].as_u64().unwrap()
}

pub(crate) async fn cap(host: &Operator, meter: Meter, value: u64) {
    let body = json!({"period": "day", "capValue": value, "hardStop": true, "notifyAtPercent": 80});
    host.ok("PUT", &format!("/v1/usage/caps/{}", meter.as_str()), Some(body)).await;
}

/// A cap of so much more than was used until now.
pub(crate) async fn cap_more(host: &Operator, meter: Meter, more: u64) {
    let before = used(host, None, meter).await;
    cap(host, meter, before + more).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_charged_and_what_was_refused_is_free() {
    let host = with_shop("kv").await;
    let before = used(&host, Some("shop"), Meter::WorkerRequests).await;
    for _ in 0..3 {
        assert_eq!(ask(&host, "shop", "/", &json!([])).await.text(), "[]");
    }
    assert_eq!(ask(&host, "nobody", "/", &json!([])).await.code(), "service_not_found");
    assert_eq!(used(&host, Some("shop"), Meter::WorkerRequests).await, before + 3);
    assert_eq!(used(&host, None, Meter::WorkerTransferBytes).await % 2, 0, "each answered `[]`");
    let overview = host.ok("GET", "/v1/services/shop/overview", None).await;
    assert_eq!(overview["accountUsage"]["meters"]["day"]["worker_requests"], before + 3);
    assert_eq!(overview["serviceUsage"]["month"]["worker_requests"], before + 3);
    let estimate = &overview["billingEstimate"];
    assert_eq!((estimate["plan"].as_str(), estimate["lineItems"].as_array().unwrap().len()), (Some("pro"), 24), "{estimate}");
    // The day ends, and the month does not.
    host.clock.advance(Duration::from_secs(86_400));
    let usage = host.ok("GET", "/v1/usage", None).await;
    assert_eq!(usage["usage"]["meters"]["day"]["worker_requests"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_leave_are_free() {
    for guest in ["hello", "hello_p2"] {
        let host = with_shop(guest).await;
        let address = host.host.public_address();
        for (method, bytes) in [("HEAD", 0), ("GET", 5), ("HEAD", 5), ("GET", 10)] {
            let request = Request::builder().method(method).uri("/").header("host", format!("shop.localhost:{}", address.port()));
            let reply = Client::new(address).whole(request.body(Full::new(bytes::Bytes::new())).unwrap()).await;
            assert_eq!(reply.status, 200);
            assert_eq!(used(&host, None, Meter::WorkerTransferBytes).await, bytes, "{guest}: {method}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_caps_and_prices_by_the_command_line() {
    let host = with_shop("hello").await;
    let set = "tovuk limits set worker_requests --period day --value 100000 --notify-at-percent 80";
    let cap = host.line(&format!("{set} --json")).ok().json()["cap"].clone();
    assert_eq!((&cap["metric"], &cap["period"], &cap["capValue"]), (&json!("worker_requests"), &json!("day"), &json!(100_000)));
    assert_eq!((&cap["hardStop"], &cap["notifyAtPercent"]), (&json!(true), &json!(80)));
    for (line, parts) in [
        (set, vec!["worker_requests", "day", "100000"]),
        ("tovuk limits set kv_reads month 0 --service shop", vec!["kv_reads", "month", "service_1"]),
        ("tovuk limits list", vec!["worker_requests", "kv_reads", "100000"]),
        ("tovuk usage", vec!["worker_requests", "plan", "month comes to", "beyond what is included"]),
        ("tovuk pricing", vec!["worker_requests", "queues.includedOperationsPerMonth", "pro", "next: "]),
        ("tovuk limits delete kv_reads month --service shop", vec!["deleted"]),
        ("tovuk limits delete worker_requests --period day", vec!["deleted"]),
    ] {
        let shown = host.line(line).ok().stdout;
        for part in parts {
            assert!(shown.contains(part), "{line}: {part} is not in\n{shown}");
        }
    }
    assert_eq!(host.line("tovuk limits list --json").ok().json()["caps"], json!([]));
    let usage = host.line("tovuk usage --json").ok().json();
    for field in
        ["/usage/serviceCount", "/usage/storageObjectCount", "/usage/objectStorageMib", "/limits/projects", "/limits/workerCompressedSizeMib"]
    {
        assert!(usage.pointer(field).is_some_and(Value::is_u64), "{field}: {usage}");
    }
    for window in ["day", "month"] {
        let meters = usage["usage"]["meters"][window].as_object().unwrap();
        assert!(meters.len() == 24 && Meter::ALL.iter().all(|meter| meters[meter.as_str()].is_u64()), "{meters:?}");
    }
    let estimate = &usage["billingEstimate"];
    let items: Vec<_> = estimate["lineItems"].as_array().unwrap().iter().map(|item| item["meter"].as_str().unwrap()).collect();
    assert_eq!(items, Meter::ALL.map(Meter::as_str));
    assert!(estimate["plan"].is_string() && estimate["estimatedMonthlyTotalUsdMicros"].is_u64() && estimate["currentMonthOverageUsdMicros"].is_u64());
    assert_eq!(usage["products"].as_array().unwrap().len(), host.line("tovuk pricing --json").ok().json()["products"].as_array().unwrap().len());
    let prices = host.line("tovuk pricing --json").ok().json();
    assert!(["plans", "products", "nextActions"].iter().all(|field| prices[field].is_array()), "{prices}");
    for product in prices["products"].as_array().unwrap() {
        for list in ["features", "meters", "meter_details", "limit_fields", "pricing_fields"] {
            assert!(product[list].is_array(), "{list} of {}", product["key"]);
        }
        for (meter, detail) in product["meters"].as_array().unwrap().iter().zip(product["meter_details"].as_array().unwrap()) {
            let known = Meter::named(meter.as_str().unwrap()).unwrap();
            assert_eq!((&detail["name"], &detail["unit"]), (meter, &json!(known.unit())));
            assert!(detail["description"].is_string() && detail["cap_commands"]["month"].is_string(), "{detail}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kv_is_charged_alike_through_both_doors() {
    let host = with_shop("kv").await;
    let meters = [Meter::KvReads, Meter::KvWrites, Meter::KvDeletes, Meter::KvLists];
    let figures = async || {
        let mut figures = Vec::new();
        for meter in meters {
            figures.push(used(&host, Some("shop"), meter).await);
        }
        figures
    };
    let values = "/v1/services/shop/kv/CACHE/values";
    let bulk = "/v1/services/shop/kv/CACHE/bulk";
    host.ok("PUT", &format!("{values}/a"), Some(json!({"value": "x"}))).await;
    host.ok("PUT", bulk, Some(json!({"entries": [{"key": "b", "value": "x"}, {"key": "c", "value": "x"}]}))).await;
    host.ok("GET", &format!("{values}/a"), None).await;
    assert_eq!(host.ask("GET", &format!("{values}/none"), None).await.code(), "kv_key_not_found");
    host.ok("POST", bulk, Some(json!({"keys": ["a", "b", "none"]}))).await;
    host.ok("DELETE", &format!("{values}/a"), None).await;
    host.ok("POST", &format!("{bulk}/removals"), Some(json!({"keys": ["b", "none"]}))).await;
    host.ok("GET", "/v1/services/shop/kv/CACHE/keys", None).await;
    let through_api = figures().await;
    assert_eq!(through_api, [5, 3, 3, 1]);
    let steps = json!([
        {"op": "put", "key": "a", "value": "x"},
        {"op": "put_many", "keys": ["b", "c"], "value": "x"},
        {"op": "get", "key": "a"},
        {"op": "get", "key": "none"},
        {"op": "get_many", "keys": ["a", "b", "none"]},
        {"op": "delete", "key": "a"},
        {"op": "delete_many", "keys": ["b", "none"]},
        {"op": "keys"},
    ]);
    assert_eq!(ask(&host, "shop", "/", &steps).await.status, 200);
    let twice: Vec<_> = through_api.iter().map(|figure| figure * 2).collect();
    assert_eq!(figures().await, twice);
    // What was refused is free.
    assert_eq!(host.ask("GET", &format!("{values}/{}", "k".repeat(513)), None).await.code(), "kv_key_invalid");
    assert_eq!(figures().await, twice);
    assert!(used(&host, Some("shop"), Meter::KvStorageBytes).await > 0);
    let host = host.restart().await;
    assert_eq!(used(&host, Some("shop"), Meter::KvReads).await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_clients_get_exactly_as_many_requests_as_the_cap_allows() {
    let host = with_shop("kv").await;
    for allowed in [0, 1, 100] {
        cap_more(&host, Meter::WorkerRequests, allowed).await;
        let client = async || {
            let mut answered = 0;
            loop {
                let reply = ask(&host, "shop", "/", &json!([])).await;
                if reply.status != 200 {
                    return (answered, reply);
                }
                answered += 1;
            }
        };
        let ended = join_all((0..64).map(|_| client())).await;
        assert_eq!(ended.iter().map(|(answered, _)| answered).sum::<u64>(), allowed);
        for (_, refused) in ended {
            assert_eq!((refused.status.as_u16(), refused.code()), (429, "usage_cap_exceeded".to_owned()));
            let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=86_400).contains(&seconds), "until midnight: {seconds}");
            // The public is told nothing about caps.
            assert!(!refused.text().contains("limits set"), "{}", refused.text());
        }
    }
    host.clock.advance(Duration::from_secs(86_400));
    assert_eq!(ask(&host, "shop", "/", &json!([])).await.status, 200, "the next day has its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_clients_get_exactly_as_many_keys_as_the_cap_allows() {
    let host = with_shop("kv").await;
    cap_more(&host, Meter::KvReads, 301).await;
    // Half of them by the API, half of them by the worker.
    let clients = (0..64).map(async |client| {
        let mut keys = 0;
        loop {
            let code = if client % 2 == 0 {
                let reply = host.ask("POST", "/v1/services/shop/kv/CACHE/bulk", Some(json!({"keys": ["a", "b"]}))).await;
                if reply.status == 200 { None } else { Some((reply.code(), reply.text().to_owned())) }
            } else {
                let reply = ask(&host, "shop", "/", &json!([{"op": "get_many", "keys": ["a", "b"]}])).await.json();
                reply[0]["error"].as_str().map(|code| (code.to_owned(), reply[0]["message"].to_string()))
            };
            match code {
                None => keys += 2,
                Some((code, text)) => {
                    assert_eq!(code, "usage_cap_exceeded");
                    assert!(text.contains("tovuk limits set kv_reads --period day --value"), "{text}");
                    return keys;
                }
            }
        }
    });
    // One key is left, and each asks for two.
    assert_eq!(join_all(clients).await.into_iter().sum::<u64>(), 300);
    assert_eq!(host.ask("GET", "/v1/services/shop/kv/CACHE/values/a", None).await.code(), "kv_key_not_found");
    let refused = host.ask("GET", "/v1/services/shop/kv/CACHE/values/a", None).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (429, "usage_cap_exceeded".to_owned()));
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn caps_are_set_lowered_and_removed_while_the_host_runs() {
    let host = with_shop("kv").await;
    let set = host.ok("PUT", "/v1/usage/caps/kv_lists", Some(json!({"period": "month", "capValue": 5}))).await;
    assert_eq!((&set["cap"]["capValue"], &set["cap"]["notifyAtPercent"], &set["cap"]["hardStop"]), (&json!(5), &json!(80), &json!(true)));
    let own = "/v1/usage/caps/kv_lists?service=shop";
    host.ok("PUT", own, Some(json!({"period": "day", "capValue": 1, "notifyAtPercent": 50}))).await;
    let list = async || host.ask("GET", "/v1/services/shop/kv/CACHE/keys", None).await.status.as_u16();
    assert_eq!([list().await, list().await], [200, 429], "the service's own cap");
    host.ok("DELETE", "/v1/usage/caps/kv_lists/day?service=shop", None).await;
    assert_eq!([list().await, list().await], [200, 200]);
    host.line("tovuk limits set kv_lists month 3").ok();
    assert_eq!(list().await, 429);
    let caps = host.line("tovuk limits list --json").json();
    assert_eq!((&caps["caps"][0]["used"], &caps["caps"][0]["remaining"], caps["caps"].as_array().unwrap().len()), (&json!(3), &json!(0), 1));
    let overview = host.ok("GET", "/v1/services/shop/overview", None).await;
    assert_eq!(overview["resources"]["usageCaps"][0]["metric"], "kv_lists");
    assert_eq!(host.line("tovuk limits delete kv_lists month --json").json()["deleted"], true);
    assert_eq!(list().await, 200);
    for (path, body, names) in [
        ("kv_list", json!({"period": "day", "capValue": 1}), "worker_requests, worker_cpu_ms"),
        ("kv_lists", json!({"period": "week", "capValue": 1}), "day, month"),
        ("kv_lists", json!({"period": "day", "capValue": 1, "notifyAtPercent": 0}), "1 to 100"),
        ("kv_lists", json!({"period": "day", "capValue": 1, "hardStop": false}), "hardStop"),
    ] {
        let refused = host.ask("PUT", &format!("/v1/usage/caps/{path}"), Some(body)).await;
        assert_eq!(refused.code(), "invalid_request");
        assert!(refused.text().contains(names), "{}", refused.text());
    }
    let activity = host.ok("GET", "/v1/account/activity", None).await;
    assert!(activity.to_string().contains("usage.cap.delete"), "{activity}");
}
