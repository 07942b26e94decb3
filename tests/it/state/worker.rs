//! The worker's import: everything that it can do, every limit, and that the API sees the same.

use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::resource::Kind;
use tovuk_resources::objects::Place;
use tovuk_resources::state::{Options, State};
use tovuk_resources::stores::Stores;
use tovuk_tests::{Host, HostConfig};

use super::{ROOM, one, posted, run, value, with_worker};
use crate::TOVUK;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_does_everything_and_the_api_sees_it() {
    let host = with_worker("state").await;
    let at = host.clock.now_unix_ms() + 3_600_000;
    let answers = run(
        &host,
        json!([
            {"op": "get", "key": "k"},
            {"op": "put", "key": "k", "value": "v"},
            {"op": "get", "key": "k", "class": "state_namespace_1"},
            {"op": "increment", "key": "n", "delta": 5},
            {"op": "increment", "key": "n", "delta": -7},
            {"op": "cas", "key": "lock", "value": "ada"},
            {"op": "cas", "key": "lock", "value": "grace"},
            {"op": "cas", "key": "lock", "expected": "ada"},
            {"op": "write", "changes": [["expect", "k", "v"], ["put", "a/b", "1"], ["delete", "n", null], ["expect", "none", null]]},
            {"op": "write", "changes": [["put", "a/b", "2"], ["expect", "k", "w"]]},
            {"op": "keys"},
            {"op": "page", "limit": 1},
            {"op": "set_alarm", "at": at},
            {"op": "alarm"},
            {"op": "put", "key": "k", "value": "x", "object": "other"},
            {"op": "objects"},
            {"op": "delete_alarm"},
            {"op": "delete_alarm"},
            {"op": "delete", "key": "k"},
            {"op": "delete", "key": "k"},
        ]),
    )
    .await;
    assert_eq!(
        answers[..8],
        [json!(null), json!(null), json!("v"), json!(5), json!(-2), json!([true, null]), json!([false, "ada"]), json!([true, "ada"])]
    );
    assert_eq!(answers[8..11], [json!(null), json!("k"), json!([["a/b", 1], ["k", 1]])]);
    assert_eq!(answers[11]["keys"], json!(["a/b"]));
    assert_eq!(answers[12..15], [json!(at), json!([at, at, 0]), json!(null)]);
    assert_eq!(answers[15], json!([["other", 1, 2, null], ["room", 2, 6, at]]));
    assert_eq!(answers[16..], [json!(true), json!(false), json!(true), json!(false)]);
    assert_eq!(value(&host, "room", "a%2Fb").await, "1");
    host.ok("PUT", &format!("{ROOM}/objects/room/values/k"), Some(json!({"value": "from outside"}))).await;
    assert_eq!(one(&host, json!({"op": "get", "key": "k"})).await, "from outside");
    let host = host.restart().await;
    assert_eq!(one(&host, json!({"op": "get", "key": "k"})).await, "from outside");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_walked_page_by_page() {
    let host = with_worker("state").await;
    for part in ["a", "b", "c"] {
        one(&host, json!({"op": "write", "key": part, "count": 900, "value": "x"})).await;
    }
    let keys = one(&host, json!({"op": "keys"})).await;
    let names: Vec<_> = keys.as_array().unwrap().iter().map(|key| key[0].as_str().unwrap().to_owned()).collect();
    let mut sorted: Vec<_> = ["a", "b", "c"].into_iter().flat_map(|part| (0..900).map(move |number| format!("{part}{number}"))).collect();
    sorted.sort_unstable();
    assert_eq!(names, sorted);
    let first = one(&host, json!({"op": "page", "limit": 1_000})).await;
    let second = one(&host, json!({"op": "page", "limit": 1_000, "cursor": first["cursor"]})).await;
    assert_eq!(second["keys"][0], sorted[1_000]);
    assert_eq!(one(&host, json!({"op": "keys", "prefix": "b89"})).await.as_array().unwrap().len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_is_an_error_of_the_worker_also_within_a_call() {
    let host = with_worker("state").await;
    let long = "k".repeat(513);
    let steps = [
        (json!({"op": "get", "key": "k", "class": "Nope"}), "resource_not_found"),
        (json!({"op": "put", "key": "k", "class": "state_namespace_9"}), "resource_not_found"),
        (json!({"op": "get", "key": long}), "state_key_invalid"),
        (json!({"op": "get", "key": "k", "object": long}), "state_key_invalid"),
        (json!({"op": "put", "key": ".."}), "state_key_invalid"),
        (json!({"op": "delete", "key": ""}), "state_key_invalid"),
        (json!({"op": "increment", "key": "."}), "state_key_invalid"),
        (json!({"op": "put", "key": "k", "bytes": 2 << 20}), "state_value_too_large"),
        (json!({"op": "put", "key": "k", "bytes": 29 << 20}), "state_value_too_large"),
        (json!({"op": "write", "key": "k", "count": 1_001}), "state_batch_too_large"),
        (json!({"op": "write", "key": "k", "count": 15, "bytes": 2_000_000}), "state_batch_too_large"),
        (json!({"op": "page", "limit": 1_001}), "invalid_request"),
        (json!({"op": "page", "limit": 0}), "invalid_request"),
        (json!({"op": "page", "cursor": "!"}), "invalid_cursor"),
        (json!({"op": "page", "prefix": long}), "state_key_invalid"),
        (json!({"op": "set_alarm", "at": 253_402_300_800_000_u64}), "state_alarm_invalid"),
        (json!({"op": "set_alarm", "seconds": 1_u64 << 33}), "state_alarm_invalid"),
    ];
    for (step, code) in steps {
        assert_eq!(one(&host, step.clone()).await, code, "{step}");
        let within = one(&host, json!({"op": "call", "steps": [step]})).await;
        assert_eq!(within["body"][0]["error"], code, "{step}: {within}");
    }
    assert_eq!(one(&host, json!({"op": "keys"})).await, json!([]), "nothing was written");
    one(&host, json!({"op": "put", "key": "text", "value": "many"})).await;
    assert_eq!(one(&host, json!({"op": "increment", "key": "text", "delta": 1})).await, "state_not_integer");
    // What just fits.
    assert_eq!(one(&host, json!({"op": "put", "key": "k".repeat(512), "bytes": (2 << 20) - 512})).await, json!(null));
    assert_eq!(one(&host, json!({"op": "get", "key": "k".repeat(512)})).await, (2 << 20) - 512);
    // What only the host can refuse, because the engine would end the worker before: more in one call than it may write in all.
    let many: Vec<Value> = (0..20).map(|number| json!({"op": "put", "key": format!("k{number}"), "bytes": 2_000_000})).collect();
    let within = one(&host, json!({"op": "call", "object": "large", "steps": many})).await;
    let answers = within["body"].as_array().unwrap();
    assert_eq!(answers.iter().filter(|answer| answer.is_null()).count(), 16, "{within}");
    assert_eq!(answers[16]["error"], "state_batch_too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_accounts_have_so_much_room_and_memory_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let stores = Stores::open(folder.path(), &Place::Folder(folder.path().join("objects")), &clock).await.unwrap();
    let options = Options { object_bytes: |_| 100_000, account_bytes: |_| 150_000, ..Options::default() };
    let state = State::open_with(&folder.path().join("small"), clock, options).await.unwrap();
    let stores = Stores { state, ..stores };
    let host = Host::with(HostConfig { stores: Some(stores.clone()), ..HostConfig::new(TOVUK) }).await;
    host.deploy("shop", "state", |service| service.public().resource(Kind::State, "Room", 1)).await;
    let run = async |steps: Value| host.post("shop", "/", steps.to_string()).await.json();
    let put = |object: &str, key: &str, bytes: usize| json!({"op": "put", "object": object, "key": key, "bytes": bytes});
    let full = "state_storage_full";
    let answers = run(json!([put("a", "k", 60_000), put("a", "l", 60_000), put("b", "k", 60_000), put("b", "l", 60_000), put("a", "k", 10)])).await;
    let codes: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["error"].as_str().unwrap_or("")).collect();
    assert_eq!(codes, ["", full, "", full, ""], "{answers}");
    // Within a call as well, where it is seen at once, and nothing is left of what did not fit.
    let steps = json!([put("c", "k", 80_000), put("c", "l", 30_000), {"op": "keys", "object": "c"}]);
    let within = run(json!([{"op": "call", "object": "c", "steps": steps}])).await;
    assert_eq!((&within[0]["body"][1]["error"], &within[0]["body"][2]), (&json!(full), &json!([["k", 80_000]])), "{within}");
    let trapped = run(json!([{"op": "call", "object": "d", "steps": [put("d", "k", 5_000), {"op": "trap"}]}])).await;
    assert_eq!(trapped[0]["status"], 500);
    assert_eq!(stores.state.account_bytes(1), 140_013, "what was undone takes no room");
    host.memory_is_free().await;
    stores.close().await;
    assert_eq!(run(json!([{"op": "call", "object": "c", "steps": []}])).await[0]["error"], "storage_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_worker_has_what_it_was_promoted_with_and_nothing_of_others() {
    let host = with_worker("state").await;
    host.ok("POST", "/v1/services/shop/state/namespaces", Some(json!({"className": "Late"}))).await;
    let refused = run(&host, json!([{"op": "get", "key": "k", "class": "Late"}])).await.remove(0);
    let says = refused["message"].as_str().unwrap();
    assert!(refused["error"] == "resource_not_found" && says.contains("tovuk state create --service <service> Late"), "{refused}");
    host.ok("POST", "/v1/services/shop/restart", None).await;
    assert_eq!(one(&host, json!({"op": "put", "key": "k", "value": "x", "class": "Late"})).await, json!(null));
    host.deploy(&host.token, "other", "state", json!({"routes": ["/*"]})).await;
    let reply = posted(&host, "other", "/", json!([{"op": "get", "key": "k", "class": "state_namespace_3"}])).await;
    assert_eq!(reply.json()[0]["error"], "resource_not_found");
    host.ok("DELETE", "/v1/services/shop/state/namespaces/Late", None).await;
    assert_eq!(one(&host, json!({"op": "get", "key": "k", "class": "Late"})).await, "resource_not_found");
}
