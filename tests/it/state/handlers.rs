//! Handlers of objects: one call at a time with the object's storage, committed before its response leaves, undone when it fails, and never a wait that
//! could only end by itself.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tovuk_tests::{Gate, Operator};

use super::{LOG, ROOM, config, loopback, one, posted, run, value, with_worker};
use crate::TOVUK;

/// A step that calls an object's handler with steps.
fn call(object: &str, steps: Value) -> Value {
    json!({"op": "call", "object": object, "steps": steps})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sees_its_own_writes_and_they_are_there_when_it_has_answered() {
    let host = with_worker("state").await;
    let at = host.clock.now_unix_ms() + 3_600_000;
    let steps = json!([
        {"op": "put", "key": "a", "value": "1"},
        {"op": "get", "key": "a"},
        {"op": "increment", "key": "n", "delta": 3},
        {"op": "cas", "key": "a", "expected": "1", "value": "2"},
        {"op": "write", "changes": [["expect", "a", "2"], ["put", "b", "x"]]},
        {"op": "write", "changes": [["expect", "a", "9"], ["put", "b", "y"]]},
        {"op": "delete", "key": "a"},
        {"op": "keys"},
        {"op": "page", "limit": 1},
        {"op": "set_alarm", "at": at},
        {"op": "alarm"},
        {"op": "objects"},
        {"op": "get", "key": "b", "class": "state_namespace_2", "object": "room-1"},
    ]);
    let answer = one(&host, call("room-1", steps)).await;
    assert_eq!(answer["status"], 200, "{answer}");
    let answers = answer["body"].as_array().unwrap();
    assert_eq!(answers[..7], [json!(null), json!("1"), json!(3), json!([true, "1"]), json!(null), json!("a"), json!(true)]);
    assert_eq!(answers[7], json!([["b", 1], ["n", 1]]));
    assert_eq!((&answers[8]["keys"], &answers[9], &answers[10]), (&json!(["b"]), &json!(at), &json!([at, at, 0])));
    // A list of objects shows what is committed, and an object of the same key in another class is another.
    assert_eq!(answers[11..], [json!([]), json!(null)]);
    let host = host.restart().await;
    assert_eq!((value(&host, "room-1", "b").await, value(&host, "room-1", "n").await), (json!("x"), json!("3")));
    assert_eq!(host.ok("GET", &format!("{ROOM}/objects/room-1/alarm"), None).await["alarm"]["scheduledAtUnixMs"], at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_leaves_nothing_and_an_answer_of_any_status_commits() {
    let host = with_worker("state").await;
    let wrote = json!({"op": "increment", "key": "n", "delta": 1});
    let failed = one(&host, call("room", json!([wrote, {"op": "set_alarm", "seconds": 60}, {"op": "fail", "status": 418}]))).await;
    assert_eq!((&failed["status"], &failed["body"]["error"]), (&json!(418), &json!("on purpose")), "{failed}");
    let trapped = one(&host, call("room", json!([wrote, {"op": "trap"}]))).await;
    assert_eq!((&trapped["status"], &trapped["body"]["code"]), (&json!(500), &json!("worker_trapped")), "{trapped}");
    assert_eq!(value(&host, "room", "n").await, Value::Null);
    assert_eq!(host.ok("GET", &format!("{ROOM}/objects"), None).await["objects"], json!([]));
    let answered = one(&host, call("room", json!([wrote, {"op": "answer", "status": 409}]))).await;
    assert_eq!((&answered["status"], &answered["body"]), (&json!(409), &json!([1])));
    assert_eq!(value(&host, "room", "n").await, "1");
    // One that uses up its time is undone as well, and the object is free again.
    host.deploy(&host.token, "shop", "state", json!({"routes": ["/*"], "state": ["Room", "Log"], "limits": {"cpu_ms": 60}})).await;
    let spun = one(&host, call("room", json!([wrote, {"op": "spin"}]))).await;
    assert_eq!(spun["body"]["code"], "worker_cpu_exceeded", "{spun}");
    assert_eq!(one(&host, call("room", json!([wrote]))).await["body"], json!([2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_object_are_serial_and_lose_nothing() {
    let host = with_worker("state").await;
    let calls = (0..64).map(|_| async { host.get("shop", "/call/hot").await.status });
    assert!(join_all(calls).await.iter().all(|status| *status == 200));
    assert_eq!(value(&host, "hot", "n").await, "64");
    // One worker that calls the same object several times at once waits for itself in no way.
    let calls: Vec<_> = (0..20).map(|_| json!({"object": "hot", "steps": [{"op": "increment", "key": "n", "delta": 1}]})).collect();
    let answers = posted(&host, "shop", "/at-once", json!(calls)).await.json();
    let mut seen: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["body"][0].as_i64().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (65..85).collect::<Vec<_>>());
    let host = host.restart().await;
    assert_eq!(value(&host, "hot", "n").await, "84");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_would_wait_for_itself_fails_at_once() {
    let host = with_worker("state").await;
    let read = json!([{"op": "get", "key": "k"}]);
    // Its own object again, by a call, and through another object; then a plain operation on an object that its caller has.
    let own = one(&host, call("a", json!([call("a", read.clone())]))).await;
    assert_eq!(own["body"][0]["error"], "state_deadlock", "{own}");
    let around = one(&host, call("a", json!([call("b", json!([call("a", read.clone()), {"op": "increment", "key": "n", "delta": 1}]))]))).await;
    assert_eq!(around["body"][0]["body"][0]["error"], "state_deadlock", "{around}");
    assert_eq!(value(&host, "b", "n").await, "1", "the caller has handled it");
    let plain = one(&host, call("a", json!([call("b", json!([{"op": "get", "key": "k", "object": "a"}]))]))).await;
    assert_eq!(plain["body"][0]["body"][0]["error"], "state_deadlock", "{plain}");
    // Over the API of the host too, and where nobody handles it.
    let api = json!({"op": "own_api", "url": format!("{ROOM}/objects/a/values/k")});
    let by_api = one(&host, call("a", json!([api]))).await;
    assert_eq!(by_api["body"][0]["body"]["code"], "state_deadlock", "{by_api}");
    let passed = one(&host, call("a", json!([{"op": "pass", "object": "a", "steps": read}]))).await;
    assert_eq!(passed["status"], 508, "{passed}");
    // Nothing is held afterwards.
    assert_eq!(one(&host, call("a", read)).await["status"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_chains_that_wait_for_each_other_do_not_wait_long() {
    let host = with_worker("state").await;
    let gate = Gate::start().await;
    let outbound = [format!("http://127.0.0.1:{}", gate.port)];
    host.deploy(&host.token, "shop", "state", json!({"routes": ["/*"], "state": ["Room", "Log"], "outbound": outbound})).await;
    let wait = json!({"op": "gate", "url": format!("http://127.0.0.1:{}/", gate.port)});
    let chain = |first: &str, then: &str| call(first, json!([wait, call(then, json!([{"op": "increment", "key": "n", "delta": 1}]))]));
    let (one_way, other_way) = (chain("a", "b"), chain("b", "a"));
    let both = async { tokio::join!(one(&host, one_way), one(&host, other_way)) };
    let let_both = async {
        gate.arrived().await;
        gate.arrived().await;
        gate.pass();
        gate.pass();
    };
    let ((first, second), ()) = tokio::join!(both, let_both);
    let inner = [first, second].map(|answer| answer["body"][1].clone());
    let refused = inner.iter().filter(|answer| answer["error"] == "state_deadlock").count();
    let went_on = inner.iter().filter(|answer| answer["body"] == json!([1])).count();
    assert_eq!((refused, went_on), (1, 1), "{inner:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_an_object_ends_after_ten_seconds() {
    let host = with_worker("state").await;
    let gate = Gate::start().await;
    let outbound = [format!("http://127.0.0.1:{}", gate.port)];
    let config = json!({"routes": ["/*"], "state": ["Room", "Log"], "outbound": outbound, "limits": {"wall_ms": 900_000}});
    host.deploy(&host.token, "shop", "state", config).await;
    let held = call("a", json!([{"op": "gate", "url": format!("http://127.0.0.1:{}/", gate.port)}, {"op": "put", "key": "k", "value": "x"}]));
    let holding = async { one(&host, held).await };
    let waiting = async {
        gate.arrived().await;
        let token = host.token.clone();
        let path = format!("{ROOM}/objects/a/values/k");
        let late = async {
            tokio::join!(
                one(&host, call("a", json!([{"op": "get", "key": "k"}]))),
                one(&host, json!({"op": "get", "key": "k", "object": "a"})),
                host.refused(&token, "GET", &path, None),
            )
        };
        // Another object is not concerned.
        assert_eq!(one(&host, call("b", json!([{"op": "increment", "key": "n", "delta": 1}]))).await["body"], json!([1]));
        let advancing = async {
            // Whoever has not begun to wait has by the next time, so time goes on until all have ended, and not so fast that the one who holds it has to.
            loop {
                for _ in 0..20 {
                    host.ok("GET", "/v1/status", None).await;
                }
                host.clock.advance(Duration::from_secs(11));
            }
        };
        let (called, read, api) = tokio::select! {
            late = late => late,
            () = advancing => unreachable!(),
        };
        assert_eq!((&called, &read, api.as_str()), (&json!("state_object_busy"), &json!("state_object_busy"), "state_object_busy"));
        gate.pass();
    };
    let (held, ()) = tokio::join!(holding, waiting);
    assert_eq!(held["status"], 200, "{held}");
    assert_eq!(value(&host, "a", "k").await, "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_an_invocation_of_the_chain_and_a_subrequest() {
    let host = with_worker("state").await;
    let told = host.get("shop", "/headers/room").await.json();
    assert_eq!(told, json!(["PUT", "/headers?q=1", "service_1", "2", null, "shop.tovuk.internal"]));
    // The worker and its call of one object are two invocations; 31 calls are one too many.
    let calls: Vec<_> = (0..32).map(|number| call(&format!("o{number}"), json!([]))).collect();
    let answers = run(&host, json!(calls)).await;
    let made = answers.iter().filter(|answer| answer["status"] == 200).count();
    assert_eq!((made, &answers[31]["error"]), (31, &json!("binding_chain_limit")));
    // Deep as well: each level is another object.
    let mut nested = json!([]);
    for level in (0..40).rev() {
        nested = json!([{"op": "pass", "object": format!("o{level}"), "steps": nested}]);
    }
    let reply = posted(&host, "shop", "/", nested).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (508, "binding_chain_limit"));
    host.deploy(&host.token, "shop", "state", json!({"routes": ["/*"], "state": ["Room", "Log"], "limits": {"subrequests": 2}})).await;
    let answers = run(&host, json!([call("a", json!([])), call("b", json!([])), call("c", json!([]))])).await;
    assert_eq!(answers[2]["error"], "subrequest_limit", "{answers:?}");
    let log = host.log(&host.token, "/v1/services/shop/logs").await;
    assert!(log.iter().any(|line| line.contains("POST /.tovuk/state/Room/o1/steps")), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_other_objects_stands_whatever_becomes_of_the_call() {
    let host = with_worker("state").await;
    let steps = json!([
        {"op": "put", "key": "k", "value": "own"},
        {"op": "put", "key": "k", "value": "x", "object": "other"},
        call("third", json!([{"op": "put", "key": "k", "value": "y"}])),
        {"op": "trap"},
    ]);
    one(&host, call("room", steps)).await;
    let values = [value(&host, "room", "k").await, value(&host, "other", "k").await, value(&host, "third", "k").await];
    assert_eq!(values, [json!(null), json!("x"), json!("y")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_handler_says_so() {
    let host = Operator::with(TOVUK, loopback).await;
    host.deploy(&host.token, "shop", "state", config()).await;
    assert_eq!(one(&host, json!({"op": "call", "class": "Nope", "steps": []})).await, "resource_not_found");
    assert_eq!(one(&host, call(&"k".repeat(513), json!([]))).await, "state_key_invalid");
    host.ok("PUT", &format!("{LOG}/objects/x/values/k"), Some(json!({"value": "1"}))).await;
    // A version that has none goes live while this one still runs: the call goes to the live one.
    let gate = Gate::start().await;
    let outbound = [format!("http://127.0.0.1:{}", gate.port)];
    host.deploy(&host.token, "shop", "state", json!({"routes": ["/*"], "state": ["Room", "Log"], "outbound": outbound})).await;
    let wait = json!({"op": "gate", "url": format!("http://127.0.0.1:{}/", gate.port)});
    let steps = json!([wait, call("a", json!([]))]);
    let calling = async { run(&host, steps).await };
    let replacing = async {
        gate.arrived().await;
        host.deploy(&host.token, "shop", "env", json!({"routes": ["/*"]})).await;
        gate.pass();
    };
    let (answers, ()) = tokio::join!(calling, replacing);
    assert_eq!(answers[1]["error"], "state_handler_missing", "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_undoes_its_call() {
    let host = with_worker("state").await;
    let gate = Gate::start().await;
    let outbound = [format!("http://127.0.0.1:{}", gate.port)];
    host.deploy(&host.token, "shop", "state", json!({"routes": ["/*"], "state": ["Room", "Log"], "outbound": outbound})).await;
    let held = call("a", json!([{"op": "put", "key": "k", "value": "x"}, {"op": "gate", "url": format!("http://127.0.0.1:{}/", gate.port)}]));
    tokio::select! {
        answer = one(&host, held) => panic!("{answer}"),
        () = gate.arrived() => {}
    }
    assert_eq!(one(&host, call("a", json!([{"op": "get", "key": "k"}]))).await["body"], json!([null]));
}
