//! KV as workers have it: by the SDK's import and by `wasi:keyvalue`, through a real host, and over the API beside them.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::resource::Kind;
use tovuk_resources::kv::{self, Namespace};
use tovuk_resources::objects::Place;
use tovuk_resources::stores::Stores;
use tovuk_tests::{Client, Host, HostConfig, Operator, Reply};

use crate::TOVUK;

const CACHE: &str = "/v1/services/shop/kv/CACHE";

/// A host with a service `shop` that has the namespace `CACHE` and runs a guest.
async fn with_worker(guest: &str) -> Operator {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.ok("POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": "CACHE"}))).await;
    deploy(&host, "shop", guest).await;
    host
}

async fn deploy(host: &Operator, service: &str, guest: &str) {
    host.deploy(&host.token, service, guest, json!({"routes": ["/*"], "limits": {"cpu_ms": 20_000, "memory_mb": 512}})).await;
}

async fn posted(host: &Operator, slug: &str, path: &str, body: Value) -> Reply {
    let address = host.host.public_address();
    let request = Request::post(path).header("host", format!("{slug}.localhost:{}", address.port()));
    Client::new(address).whole(request.body(Full::<Bytes>::new(body.to_string().into())).unwrap()).await
}

/// What the steps answer.
async fn run(host: &Operator, steps: Value) -> Vec<Value> {
    let reply = posted(host, "shop", "/", steps).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json().as_array().unwrap().clone()
}

/// The answer to one step, or the code it was refused with.
async fn one(host: &Operator, step: Value) -> Value {
    let answer = run(host, json!([step])).await.remove(0);
    answer.get("error").cloned().unwrap_or(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_does_everything_and_the_api_sees_it() {
    let host = with_worker("kv").await;
    let expiration = host.clock.now_unix_ms() / 1_000 + 7_200;
    let answers = run(
        &host,
        json!([
            {"op": "get", "key": "k"},
            {"op": "put", "key": "k", "value": "v", "metadata": {"m": 1}, "expiration": expiration},
            {"op": "get", "key": "k", "namespace": "kv_1"},
            {"op": "put_many", "keys": ["b", "a"], "value": "x"},
            {"op": "get_many", "keys": ["a", "none", "k"]},
            {"op": "increment", "key": "n", "delta": 5},
            {"op": "increment", "key": "n", "delta": -7},
            {"op": "keys"},
            {"op": "page", "limit": 2},
            {"op": "delete", "key": "a"},
            {"op": "delete", "key": "a"},
            {"op": "delete_many", "keys": ["a", "b"]},
            {"op": "keys", "prefix": "k"},
        ]),
    )
    .await;
    let entry = json!({"value": "v", "metadata": {"m": 1}, "expiration": expiration});
    let plain = json!({"value": "x", "metadata": null, "expiration": null});
    assert_eq!(answers[..5], [json!(null), json!(null), entry.clone(), json!(null), json!([plain, null, entry])]);
    assert_eq!(answers[5..7], [json!(5), json!(-2)]);
    let listed = json!([["a", null, null], ["b", null, null], ["k", {"m": 1}, expiration], ["n", null, null]]);
    assert_eq!((&answers[7], &answers[8]["keys"]), (&listed, &json!(["a", "b"])));
    assert_eq!(answers[9..], [json!(true), json!(false), json!(1), json!([["k", {"m": 1}, expiration]])]);

    let read = host.ok("GET", &format!("{CACHE}/values/k"), None).await;
    assert_eq!((&read["value"], &read["expiration"]), (&json!("v"), &json!(expiration)));
    host.ok("PUT", &format!("{CACHE}/values/k"), Some(json!({"value": "from outside"}))).await;
    assert_eq!(one(&host, json!({"op": "get", "key": "k"})).await["value"], "from outside");
    one(&host, json!({"op": "put", "key": "soon", "value": "x", "ttl": 60})).await;
    host.clock.advance(Duration::from_secs(62));
    assert_eq!(one(&host, json!({"op": "get", "key": "soon"})).await, json!(null));
    let host = host.restart().await;
    assert_eq!(one(&host, json!({"op": "get", "key": "k"})).await["value"], "from outside");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_walked_page_by_page() {
    let host = with_worker("kv").await;
    one(&host, json!({"op": "put_many", "key": "k", "count": 2_500, "value": "x"})).await;
    let keys = one(&host, json!({"op": "keys", "prefix": "k"})).await;
    let names: Vec<_> = keys.as_array().unwrap().iter().map(|key| key[0].as_str().unwrap().to_owned()).collect();
    let mut sorted: Vec<_> = (0..2_500).map(|number| format!("k{number}")).collect();
    sorted.sort_unstable();
    assert_eq!(names, sorted);
    let first = one(&host, json!({"op": "page", "limit": 1_000})).await;
    let second = one(&host, json!({"op": "page", "limit": 1_000, "cursor": first["cursor"]})).await;
    assert_eq!(second["keys"][0], sorted[1_000]);
    assert_eq!(one(&host, json!({"op": "page", "limit": 1_001})).await, "invalid_request");
    assert_eq!(one(&host, json!({"op": "page", "cursor": "!"})).await, "invalid_cursor");
    assert_eq!(one(&host, json!({"op": "page", "prefix": "p".repeat(513)})).await, "kv_key_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_is_an_error_of_the_worker() {
    let host = with_worker("kv").await;
    let long = "k".repeat(513);
    for (step, code) in [
        (json!({"op": "get", "key": "k", "namespace": "NOPE"}), "resource_not_found"),
        (json!({"op": "put", "key": "k", "namespace": "kv_2"}), "resource_not_found"),
        (json!({"op": "get", "key": long}), "kv_key_invalid"),
        (json!({"op": "put", "key": ".."}), "kv_key_invalid"),
        (json!({"op": "delete", "key": ""}), "kv_key_invalid"),
        (json!({"op": "increment", "key": "."}), "kv_key_invalid"),
        (json!({"op": "put", "key": "k", "bytes": (25 << 20) + 1}), "kv_value_too_large"),
        (json!({"op": "put", "key": "k", "bytes": 29 << 20}), "kv_value_too_large"),
        (json!({"op": "put", "key": "k", "metadata": "m".repeat(1_023)}), "kv_metadata_invalid"),
        (json!({"op": "put", "key": "k", "ttl": 29}), "kv_expiration_too_soon"),
        (json!({"op": "put", "key": "k", "expiration": 1}), "kv_expiration_too_soon"),
        (json!({"op": "get_many", "key": "k", "count": 101}), "kv_bulk_too_large"),
        (json!({"op": "put_many", "key": "k", "count": 10_001}), "kv_bulk_too_large"),
        (json!({"op": "delete_many", "key": "k", "count": 10_001}), "kv_bulk_too_large"),
        // More than a worker's call may have, with what the host looks at and with what only the SDK can.
        (json!({"op": "put_many", "key": "k", "count": 27, "bytes": 1 << 20}), "kv_bulk_too_large"),
        (json!({"op": "put_many", "key": "k", "count": 29, "bytes": 1 << 20}), "kv_bulk_too_large"),
    ] {
        assert_eq!(one(&host, step.clone()).await, code, "{step}");
    }
    assert_eq!(one(&host, json!({"op": "keys"})).await, json!([]), "nothing was written");

    // What just fits.
    assert_eq!(one(&host, json!({"op": "put", "key": "k".repeat(512), "bytes": 25 << 20, "metadata": "m".repeat(1_022)})).await, json!(null));
    assert_eq!(one(&host, json!({"op": "get", "key": "k".repeat(512)})).await["value"], 25 << 20);
    assert_eq!(one(&host, json!({"op": "put_many", "key": "k", "count": 10_000, "bytes": 2_600})).await, json!(null));
    assert_eq!(one(&host, json!({"op": "get_many", "key": "k", "count": 100})).await[99]["value"], 2_600);
    assert_eq!(one(&host, json!({"op": "delete_many", "key": "k", "count": 10_000})).await, 10_000);
    // Each of these was written alone; together they are more than one answer may have.
    let large: Vec<_> = (0..27).map(|number| json!({"op": "put", "key": format!("l{number}"), "bytes": 1 << 20})).collect();
    assert!(run(&host, json!(large)).await.iter().all(Value::is_null));
    assert_eq!(one(&host, json!({"op": "get_many", "key": "l", "count": 26})).await.as_array().unwrap().len(), 26);
    assert_eq!(one(&host, json!({"op": "get_many", "key": "l", "count": 27})).await, "kv_bulk_too_large");
    // A worker that goes round the SDK is ended; the next one is not.
    let trapped = posted(&host, "shop", "/", json!([{"op": "put_raw", "key": "k", "bytes": 29 << 20}])).await;
    assert_eq!(trapped.code(), "worker_trapped");
    assert_eq!(one(&host, json!({"op": "put_raw", "key": "k", "bytes": 27 << 20})).await, "kv_value_too_large");
    assert_eq!(one(&host, json!({"op": "get", "key": "k"})).await, json!(null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_reaches_the_data_of_its_own_service_only() {
    let host = with_worker("kv").await;
    host.ok("POST", "/v1/services", Some(json!({"name": "other"}))).await;
    host.ok("POST", "/v1/services/other/kv/namespaces", Some(json!({"name": "CACHE"}))).await;
    deploy(&host, "other", "kv").await;
    let bob = host.account("bob").await;
    host.ok_as(&bob, "POST", "/v1/services", Some(json!({"name": "bobs"}))).await;
    host.ok_as(&bob, "POST", "/v1/services/bobs/kv/namespaces", Some(json!({"name": "CACHE"}))).await;
    one(&host, json!({"op": "put", "key": "k", "value": "of shop"})).await;
    for namespace in ["kv_2", "kv_3"] {
        assert_eq!(one(&host, json!({"op": "get", "key": "k", "namespace": namespace})).await, "resource_not_found");
    }
    let others = posted(&host, "other", "/", json!([{"op": "get", "key": "k"}, {"op": "get", "key": "k", "namespace": "kv_1"}])).await.json();
    assert_eq!((&others[0], &others[1]["error"]), (&json!(null), &json!("resource_not_found")));
    // One that is made later is seen after a restart, as the answer to making it says.
    let made = host.ok("POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": "LATER"}))).await;
    assert!(made["next_actions"][0].as_str().unwrap().contains("restart"), "{made}");
    let refused = run(&host, json!([{"op": "get", "key": "k", "namespace": "LATER"}])).await.remove(0);
    assert!(refused["message"].as_str().unwrap().contains("restart"), "{refused}");
    host.line("tovuk service restart shop").ok();
    assert_eq!(one(&host, json!({"op": "get", "key": "k", "namespace": "LATER"})).await, json!(null));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_gone_for_a_version_that_still_runs() {
    let host = with_worker("kv").await;
    one(&host, json!({"op": "put_many", "key": "secret-", "count": 500, "value": "a-value-that-has-to-go"})).await;
    assert_eq!(one(&host, json!({"op": "get", "key": "secret-1"})).await["value"], "a-value-that-has-to-go");
    host.ok("DELETE", "/v1/services/shop/kv/namespaces/CACHE", None).await;
    // The version that runs still has the number, also under a namespace of the same name.
    host.ok("POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": "CACHE"}))).await;
    for step in [
        json!({"op": "get", "key": "secret-1"}),
        json!({"op": "get_many", "keys": ["secret-1", "secret-2"]}),
        json!({"op": "put", "key": "late", "value": "x"}),
        json!({"op": "put_many", "keys": ["late"], "value": "x"}),
        json!({"op": "increment", "key": "late", "delta": 1}),
        json!({"op": "delete", "key": "secret-1"}),
        json!({"op": "delete_many", "keys": ["secret-1"]}),
        json!({"op": "keys"}),
    ] {
        assert_eq!(one(&host, step.clone()).await, "resource_not_found", "{step}");
    }
    host.line("tovuk service restart shop").ok();
    assert_eq!(one(&host, json!({"op": "keys"})).await, json!([]), "the new one is empty");
}

/// Bytes of the files that KV has.
fn stored(host: &Operator) -> u64 {
    std::fs::read_dir(host.data.join("kv")).unwrap().map(|file| file.unwrap().metadata().map_or(0, |file| file.len())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_service_or_an_account_its_data_leaves_the_disk() {
    let mut host = with_worker("kv").await;
    let bob = host.account("bob").await;
    host.ok_as(&bob, "POST", "/v1/services", Some(json!({"name": "bobs"}))).await;
    host.ok_as(&bob, "POST", "/v1/services/bobs/kv/namespaces", Some(json!({"name": "CACHE"}))).await;
    host.deploy(&bob, "bobs", "kv", json!({"routes": ["/*"], "limits": {"cpu_ms": 20_000, "memory_mb": 512}})).await;
    let fill = json!([{"op": "put_many", "key": "k", "count": 20, "bytes": 1 << 20}]);
    for slug in ["shop", "bobs"] {
        assert_eq!(posted(&host, slug, "/", fill.clone()).await.json(), json!([null]));
    }
    let before = stored(&host);
    assert!(before > 40 << 20, "{before}");
    host.ok("DELETE", "/v1/services/shop", None).await;
    host.line("tovuk operator account delete bob --confirm bob").ok();
    // It goes in the background, and files are cut when they are closed. Each keeps a few free pages for what comes next.
    for _ in 0..100 {
        host = host.restart().await;
        if stored(&host) < 12 << 20 {
            return;
        }
    }
    panic!("of {before} bytes {} are left", stored(&host));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cancelled_in_a_write_leaves_it_whole_and_the_host_its_memory() {
    let folder = tempfile::tempdir().unwrap();
    let stores = Stores::open(folder.path(), &Place::Folder(folder.path().join("objects")), &Clock::system()).await.unwrap();
    let host = Host::with(HostConfig { stores: Some(stores.clone()), ..HostConfig::new(TOVUK) }).await;
    host.deploy("shop", "kv", |service| service.public().resource(Kind::Kv, "CACHE", 1)).await;
    let list = async |prefix: String| {
        let page = stores.kv.list(Namespace(1), kv::List { prefix, ..kv::List::default() }).await.unwrap();
        page.keys.len()
    };
    for round in 0..8 {
        let steps: Vec<_> = (0..50).map(|step| json!({"op": "put_many", "key": format!("r{round}s{step}-"), "count": 10, "bytes": 20_000})).collect();
        // Once something is there, the client goes away.
        let something = async {
            while list(format!("r{round}s{round}-")).await == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = something => {}
            answered = host.post("shop", "/", json!(steps).to_string()) => assert_eq!(answered.status, 200),
        }
    }
    // What was under way is written or not, and then nothing of it is held any more: neither guests nor values.
    host.observed.ended("shop", 8).await;
    host.memory_is_free().await;
    for key in (0..8).flat_map(|round| (0..50).map(move |step| format!("r{round}s{step}-"))) {
        let keys = list(key.clone()).await;
        assert!(matches!(keys, 0 | 10), "{key}: {keys}");
    }
    stores.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_room_or_without_stores_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let stores = Stores::open(folder.path(), &Place::Folder(folder.path().join("objects")), &Clock::system()).await.unwrap();
    // The guest itself fits, and then a value does not.
    let runtime = Box::new(|config: &mut tovuk_runtime::runtime::RuntimeConfig| config.guest_memory_bytes = Some(24 << 20));
    let host = Host::with(HostConfig { stores: Some(stores.clone()), runtime, ..HostConfig::new(TOVUK) }).await;
    host.deploy("shop", "kv", |service| service.public().resource(Kind::Kv, "CACHE", 1)).await;
    let step = |bytes: usize| json!([{"op": "put", "key": "k", "bytes": bytes}]).to_string();
    let refused = host.post("shop", "/", step(15 << 20)).await.json();
    assert_eq!((&refused[0]["error"], &refused[0]["retryable"]), (&json!("host_busy"), &json!(true)));
    assert_eq!(host.post("shop", "/", step(1_000)).await.json(), json!([null]));
    // What is read counts before it is read.
    let large = kv::Put { key: "large".to_owned(), value: vec![b'x'; 23 << 20].into(), ..kv::Put::default() };
    stores.kv.put(Namespace(1), large).await.unwrap();
    let reads = json!([{"op": "get", "key": "large"}, {"op": "get_many", "keys": ["k", "large"]}, {"op": "get", "key": "k"}]);
    let read = host.post("shop", "/", reads.to_string()).await.json();
    assert_eq!((&read[0]["error"], &read[1]["error"], read[2].get("error")), (&json!("host_busy"), &json!("host_busy"), None), "{read}");
    host.memory_is_free().await;
    stores.close().await;
    let closed = host.post("shop", "/", step(1_000)).await.json();
    assert_eq!((&closed[0]["error"], &closed[0]["retryable"]), (&json!("storage_failed"), &json!(true)), "{closed}");

    let host = crate::host().await;
    host.deploy("shop", "kv", |service| service.public().resource(Kind::Kv, "CACHE", 1)).await;
    assert_eq!(host.post("shop", "/", step(1)).await.json()[0]["error"], "storage_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_of_many_workers_at_once_are_all_counted() {
    let host = with_worker("kv").await;
    let steps = json!(vec![json!({"op": "increment", "key": "hits", "delta": 1}); 5]);
    let requests = (0..20).map(|_| posted(&host, "shop", "/", steps.clone()));
    let replies = futures::future::join_all(requests).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(one(&host, json!({"op": "get", "key": "hits"})).await["value"], "100");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_drafts_of_wasi_keyvalue_reach_the_same_data() {
    let host = with_worker("keyvalue").await;
    host.ok("PUT", &format!("{CACHE}/values/api"), Some(json!({"value": "from the API", "metadata": {"m": 1}, "expirationTtlSeconds": 600}))).await;
    for draft in ["/draft", "/draft2"] {
        // The only namespace by its name, its id, and as the one that there is.
        for bucket in ["CACHE", "kv_1", "", "default"] {
            let steps = json!([
                {"op": "get", "bucket": bucket, "key": "api"},
                {"op": "set", "bucket": bucket, "key": "k", "value": "v"},
                {"op": "exists", "bucket": bucket, "key": "k"},
                {"op": "delete", "bucket": bucket, "key": "k"},
                {"op": "exists", "bucket": bucket, "key": "k"},
                {"op": "set_many", "bucket": bucket, "keys": ["a", "b"], "value": "x"},
                {"op": "get_many", "bucket": bucket, "keys": ["b", "k", "a"]},
                {"op": "list", "bucket": bucket},
                {"op": "delete_many", "bucket": bucket, "keys": ["a", "b", "k"]},
                {"op": "increment", "bucket": bucket, "key": "n", "delta": 2},
                {"op": "delete", "bucket": bucket, "key": "n"},
                {"op": "get", "bucket": bucket, "key": ".."},
            ]);
            let answers = posted(&host, "shop", draft, steps).await.json();
            let expected = json!(["from the API", null, true, null, false, null, [["b", "x"], null, ["a", "x"]],
                {"keys": ["a", "api", "b"], "cursor": null}, null, 2, null]);
            let answers = answers.as_array().unwrap();
            assert_eq!(answers[..11], *expected.as_array().unwrap(), "{draft} {bucket}");
            assert!(answers[11]["error"].as_str().unwrap().contains("kv_key_invalid"), "{answers:?}");
        }
        let answers = posted(&host, "shop", draft, json!([{"op": "open", "bucket": "NOPE"}, {"op": "open", "bucket": "kv_2"}])).await.json();
        assert!((0..2).all(|at| answers[at]["error"].as_str().unwrap().contains("NoSuchStore")), "{answers}");
    }
    // Where there are two, `default` is neither.
    host.ok("POST", "/v1/services/shop/kv/namespaces", Some(json!({"name": "SECOND"}))).await;
    host.line("tovuk service restart shop").ok();
    let answers = posted(&host, "shop", "/draft2", json!([{"op": "open", "bucket": "default"}, {"op": "open", "bucket": "SECOND"}])).await.json();
    assert!(answers[0]["error"].as_str().unwrap().contains("NoSuchStore") && answers[1].is_null(), "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wasi_keyvalue_walks_lists_and_swaps() {
    let host = with_worker("keyvalue").await;
    let entries: Vec<_> = (0..2_100).map(|number| json!({"key": format!("k{number:04}"), "value": "x"})).collect();
    host.ok("PUT", &format!("{CACHE}/bulk"), Some(json!({"entries": entries}))).await;
    let list = |cursor: Value| json!({"op": "list", "bucket": "CACHE", "cursor": cursor});
    // Cursors of the first draft are numbers that belong to an open bucket.
    let steps = json!([list(json!(null)), list(json!(1_000)), list(json!(2_000)), list(json!(null)), list(json!(7))]);
    let answers = posted(&host, "shop", "/draft", steps).await.json();
    let found: Vec<_> = (0..3).map(|page| (answers[page]["keys"][0].clone(), answers[page]["cursor"].clone())).collect();
    assert_eq!(found, [(json!("k0000"), json!(1_000)), (json!("k1000"), json!(2_000)), (json!("k2000"), json!(null))]);
    assert!(answers[4]["error"].as_str().unwrap().contains("invalid_cursor"), "{answers}");
    let first = posted(&host, "shop", "/draft2", json!([list(json!(null))])).await.json();
    let second = posted(&host, "shop", "/draft2", json!([list(first[0]["cursor"].clone())])).await.json();
    assert_eq!(second[0]["keys"][0], "k1000");

    let race = |key: &str, meanwhile: Value| json!({"op": "race", "bucket": "CACHE", "key": key, "value": "mine", "meanwhile": meanwhile});
    let steps =
        json!([race("new", json!(null)), race("new", json!(null)), race("new", json!("theirs")), {"op": "get", "bucket": "CACHE", "key": "new"}]);
    let answers = posted(&host, "shop", "/draft2", steps).await.json();
    let expected = json!([
        {"seen": null, "swapped": true}, {"seen": "mine", "swapped": true},
        {"seen": "mine", "swapped": false, "found": "theirs", "again": true}, "mine"
    ]);
    assert_eq!(answers, expected);
    // A counter keeps when it expires.
    host.ok("PUT", &format!("{CACHE}/values/n"), Some(json!({"value": "40", "expirationTtlSeconds": 600}))).await;
    let steps =
        json!([{"op": "increment", "bucket": "CACHE", "key": "n", "delta": 2}, {"op": "increment", "bucket": "CACHE", "key": "k0000", "delta": 1}]);
    let answers = posted(&host, "shop", "/draft", steps).await.json();
    assert!(answers[0] == 42 && answers[1]["error"].as_str().unwrap().contains("no decimal number"), "{answers}");
    assert!(host.ok("GET", &format!("{CACHE}/values/n"), None).await["expiration"].is_number());
}
