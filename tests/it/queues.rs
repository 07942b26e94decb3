//! Queues as their service's worker has them: what is delivered and when, what becomes of its answers, and what it sends. Each test has a host of its own,
//! whose clock it moves.

mod durable;
mod pace;

use std::time::Duration;

use serde_json::{Value, json};
use tovuk_tests::{Client, Operator, Reply};

use crate::TOVUK;

/// The service of these tests.
pub const QUEUES: &str = "/v1/services/shop/queues";
const SEEN: &str = "/v1/services/shop/kv/SEEN/values";

/// A table of the project file for the guest `queue`, with these queues.
pub fn config(queues: &Value) -> Value {
    json!({"routes": ["/*"], "kv": ["SEEN"], "queues": queues, "limits": {"cpu_ms": 60_000, "memory_mb": 512}})
}

/// A host with the service `shop`, which runs the guest `queue` and has these queues.
pub async fn with_queues(queues: Value) -> Operator {
    let host = Operator::start(TOVUK).await;
    host.deploy(&host.token, "shop", "queue", config(&queues)).await;
    host
}

/// Tells the worker what to do with events of a queue.
pub async fn order(host: &Operator, queue: &str, orders: Value) {
    host.ok("PUT", &format!("{SEEN}/do%2F{queue}"), Some(json!({"value": orders}))).await;
}

/// Sends a message; its id.
pub async fn send(host: &Operator, queue: &str, body: &str) -> String {
    let sent = host.ok("POST", &format!("{QUEUES}/{queue}/messages"), Some(json!({"body": body}))).await;
    sent["id"].as_str().unwrap().to_owned()
}

async fn send_all(host: &Operator, queue: &str, bodies: &[&str]) {
    host.ok(
        "POST",
        &format!("{QUEUES}/{queue}/messages/batch"),
        Some(json!({"messages": bodies.iter().map(|body| json!({"body": body})).collect::<Vec<_>>()})),
    )
    .await;
}

/// The event that a worker was given as its n-th of a queue, once it has been.
pub async fn seen(host: &Operator, queue: &str, number: usize) -> Value {
    loop {
        let reply = host.ask("GET", &format!("{SEEN}/{queue}%2F{number}"), None).await;
        if reply.status == 200 {
            return serde_json::from_str(reply.json()["value"].as_str().unwrap()).unwrap();
        }
        tokio::task::yield_now().await;
    }
}

/// The attempts and bodies of an event's messages.
fn messages(seen: &Value) -> Vec<(u64, String)> {
    let message = |message: &Value| (message["attempts"].as_u64().unwrap(), String::from_utf8(decoded(message)).unwrap());
    seen["event"]["messages"].as_array().unwrap().iter().map(message).collect()
}

fn decoded(message: &Value) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(message["body"].as_str().unwrap()).unwrap()
}

fn of(attempts: u64, bodies: &[&str]) -> Vec<(u64, String)> {
    bodies.iter().map(|body| (attempts, (*body).to_owned())).collect()
}

/// The metrics of a queue, once they are so.
pub async fn until(host: &Operator, queue: &str, holds: impl Fn(&Value) -> bool) -> Value {
    loop {
        let metrics = host.ok("GET", &format!("{QUEUES}/{queue}/metrics"), None).await;
        if holds(&metrics) {
            return metrics;
        }
        tokio::task::yield_now().await;
    }
}

fn pass(host: &Operator, seconds: u64) {
    host.clock.advance(Duration::from_secs(seconds));
}

/// The lines of the service's log that speak of a queue.
async fn log(host: &Operator, queue: &str) -> Vec<String> {
    let lines = host.log(&host.token, "/v1/services/shop/logs").await;
    lines.into_iter().filter_map(|line| line.strip_prefix(&format!("queue {queue}: ")).map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_comes_as_the_contract_says() {
    let host = with_queues(json!({"jobs": {"max_batch_size": 3}})).await;
    let message = host.ok("POST", &format!("{QUEUES}/jobs/messages"), Some(json!({"body": "text", "encoding": "text"}))).await;
    assert_eq!((&message["bytes"], &message["operations"], &message["backlogCount"]), (&json!(4), &json!(1), &json!(1)));
    let batch = json!({"messages": [{"body": "AP8=", "encoding": "base64"}, {"body": {"json": [1]}}]});
    let batch = host.ok("POST", &format!("{QUEUES}/jobs/messages/batch"), Some(batch)).await;
    // Full, so that it does not wait.
    let seen = seen(&host, "jobs", 1).await;
    assert_eq!((&seen["path"], &seen["method"], &seen["kind"]), (&json!("/.tovuk/queues/jobs"), &json!("POST"), &json!("queue")));
    let event = &seen["event"];
    assert_eq!(event.as_object().unwrap().keys().collect::<Vec<_>>(), ["messages", "queue"]);
    assert_eq!(event["queue"], "jobs");
    let delivered = event["messages"].as_array().unwrap();
    let ids: Vec<_> = delivered.iter().map(|message| message["id"].clone()).collect();
    assert_eq!(ids, [message["id"].clone(), batch["ids"][0].clone(), batch["ids"][1].clone()]);
    let bodies: Vec<_> = delivered.iter().map(decoded).collect();
    assert_eq!(bodies, [b"text".to_vec(), vec![0, 0xff], b"{\"json\":[1]}".to_vec()]);
    for message in delivered {
        assert_eq!((&message["attempts"], &message["encoding"], message.as_object().unwrap().len()), (&json!(1), &json!("base64"), 5));
        assert!(message["timestampMs"].as_u64().unwrap().abs_diff(host.clock.now_unix_ms()) < 60_000, "{message}");
    }
    let metrics = until(&host, "jobs", |metrics| metrics["backlogCount"] == 0).await;
    assert_eq!((&metrics["deliveries"], &metrics["retries"], &metrics["backlogBytes"]), (&json!(3), &json!(0), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_can_be_a_consumer_and_nothing_else() {
    let host = Operator::start(TOVUK).await;
    host.deploy(&host.token, "shop", "queue_only", config(&json!({"jobs": {"max_batch_timeout_seconds": 0}, "other": {}}))).await;
    send_all(&host, "jobs", &["a", "bad"]).await;
    let metrics = until(&host, "jobs", |metrics| metrics["retries"] == 1).await;
    assert_eq!(metrics["backlogCount"], 1);
    assert_eq!(host.ok("GET", &format!("{SEEN}/jobs%2F1"), None).await["value"], "a");
    send(&host, "other", "a").await;
    pass(&host, 5);
    until(&host, "other", |metrics| metrics["consumerState"] == "consumer_missing").await;
    assert_eq!(host.get("shop", "/").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_when_it_is_full_or_has_waited() {
    let host = with_queues(json!({"jobs": {"max_batch_size": 2, "max_batch_timeout_seconds": 60}})).await;
    send_all(&host, "jobs", &["a", "b", "c"]).await;
    assert_eq!(messages(&seen(&host, "jobs", 1).await), of(1, &["a", "b"]));
    until(&host, "jobs", |metrics| metrics["backlogCount"] == 1 && metrics["inFlight"] == 1).await;
    pass(&host, 61);
    assert_eq!(messages(&seen(&host, "jobs", 2).await), of(1, &["c"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_answer_is_acted_on() {
    let host = with_queues(json!({"jobs": {"max_batch_size": 3, "max_batch_timeout_seconds": 1}})).await;
    // Named messages come again when they are asked for, the others are done.
    order(&host, "jobs", json!({"ack": ["a"], "retry": ["b"], "delay": 60})).await;
    send_all(&host, "jobs", &["a", "b", "c"]).await;
    seen(&host, "jobs", 1).await;
    until(&host, "jobs", |metrics| metrics["retries"] == 1 && metrics["backlogCount"] == 1).await;
    let listed = host.ok("GET", &format!("{QUEUES}/jobs/messages"), None).await;
    assert_eq!((&listed["messages"][0]["state"], &listed["messages"][0]["attempts"]), (&json!("delayed"), &json!(1)), "{listed}");
    // A failure brings the whole batch again, a second later, then two.
    order(&host, "jobs", json!({"status": 500, "answer": {"ack": []}})).await;
    pass(&host, 62);
    assert_eq!(messages(&seen(&host, "jobs", 2).await), of(2, &["b"]));
    until(&host, "jobs", |metrics| metrics["retries"] == 2).await;
    order(&host, "jobs", json!({"trap": true})).await;
    pass(&host, 4);
    assert_eq!(messages(&seen(&host, "jobs", 3).await), of(3, &["b"]));
    until(&host, "jobs", |metrics| metrics["retries"] == 3).await;
    let failures = log(&host, "jobs").await;
    assert!(failures.iter().any(|line| line.contains("a message has failed: the worker answered 500")), "{failures:?}");
    // Whatever else a success says is nothing about messages.
    order(&host, "jobs", json!({"status": 202, "answer": ["anything"]})).await;
    pass(&host, 6);
    assert_eq!(messages(&seen(&host, "jobs", 4).await), of(4, &["b"]));
    let metrics = until(&host, "jobs", |metrics| metrics["backlogCount"] == 0).await;
    assert_eq!((&metrics["deadLetters"], &metrics["deliveries"]), (&json!(0), &json!(6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_the_last_time_goes_to_the_dead_letters_or_is_said_to_be_gone() {
    let quick = json!({"max_batch_size": 1, "max_batch_timeout_seconds": 0, "max_retries": 1, "dead_letter_queue": "failed"});
    let host = with_queues(json!({"jobs": quick, "lossy": {"max_batch_timeout_seconds": 0, "max_retries": 0}})).await;
    order(&host, "jobs", json!({"poison": ["bad"]})).await;
    order(&host, "lossy", json!({"trap": true})).await;
    let bodies = ["bad", "1", "2", "3", "4", "5"];
    send_all(&host, "jobs", &bodies).await;
    // The bad one holds nobody up.
    until(&host, "jobs", |metrics| metrics["backlogCount"] == 1 && metrics["retries"] == 1).await;
    pass(&host, 2);
    let metrics = until(&host, "jobs", |metrics| metrics["backlogCount"] == 0).await;
    assert_eq!((&metrics["deadLetters"], &metrics["discarded"], &metrics["deliveries"]), (&json!(1), &json!(0), &json!(7)));
    // A queue that is named and not declared takes dead letters for somebody to pull.
    let failed = host.ok("GET", &format!("{QUEUES}/failed/messages"), None).await;
    assert_eq!((&failed["messages"][0]["body"], &failed["messages"][0]["attempts"]), (&json!("bad"), &json!(0)), "{failed}");
    assert_eq!(until(&host, "failed", |_| true).await["consumerState"], "pull");
    send(&host, "lossy", "x").await;
    let metrics = until(&host, "lossy", |metrics| metrics["backlogCount"] == 0).await;
    assert_eq!((&metrics["deadLetters"], &metrics["discarded"]), (&json!(1), &json!(1)));
    let id = failed["messages"][0]["id"].as_str().unwrap();
    let told = log(&host, "jobs").await;
    assert!(told.iter().any(|line| line.contains("went to the dead-letter queue") && line.ends_with(&format!(" as {id}"))), "{told:?}");
    let told = log(&host, "lossy").await;
    assert!(told.iter().any(|line| line.contains("went nowhere, because there is no dead-letter queue")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_count_from_their_change_on_also_for_what_is_being_delivered() {
    let one = json!({"max_batch_timeout_seconds": 0, "dead_letter_queue": "failed"});
    let host = with_queues(json!({"jobs": one, "failed": {"consumer": "pull"}})).await;
    let update = async |change: Value| host.ok("PUT", &format!("{QUEUES}/jobs"), Some(change)).await;
    order(&host, "jobs", json!({"spin_ms": 1_000, "status": 500})).await;
    send(&host, "jobs", "first").await;
    seen(&host, "jobs", 1).await;
    let updated = update(json!({"maxRetries": 0})).await;
    assert_eq!((&updated["queue"]["maxRetries"], &updated["queue"]["deadLetterQueue"]), (&json!(0), &json!("failed")), "{updated}");
    until(&host, "jobs", |metrics| metrics["deadLetters"] == 1 && metrics["discarded"] == 0).await;
    send(&host, "jobs", "second").await;
    seen(&host, "jobs", 2).await;
    assert_eq!(update(json!({"deadLetterQueue": null})).await["queue"]["deadLetterQueue"], json!(null));
    until(&host, "jobs", |metrics| metrics["deadLetters"] == 2 && metrics["discarded"] == 1).await;
    // Who pulls is not delivered to, and what was being delivered is there for them.
    order(&host, "jobs", json!({"spin_ms": 1_000, "retry": ["third"]})).await;
    update(json!({"maxRetries": 5})).await;
    send(&host, "jobs", "third").await;
    seen(&host, "jobs", 3).await;
    update(json!({"consumer": "pull"})).await;
    until(&host, "jobs", |metrics| metrics["consumerState"] == "pull" && metrics["retries"] == 1).await;
    pass(&host, 2);
    let pulled = host.ok("POST", &format!("{QUEUES}/jobs/messages/pull"), None).await;
    assert_eq!((&pulled["messages"][0]["body"], &pulled["messages"][0]["attempts"]), (&json!("third"), &json!(2)), "{pulled}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_worker_has_no_handler_is_paused_until_there_is_another_version_or_it_is_set() {
    let queues = json!({"jobs": {"max_batch_timeout_seconds": 0}});
    let host = Operator::start(TOVUK).await;
    host.deploy(&host.token, "shop", "own_api", config(&queues)).await;
    send(&host, "jobs", "first").await;
    let paused = until(&host, "jobs", |metrics| metrics["consumerState"] == "consumer_missing" && metrics["inFlight"] == 0).await;
    assert!(paused["consumerDetail"].as_str().unwrap().contains("/.tovuk/queues/jobs"), "{paused}");
    assert_eq!((&paused["backlogCount"], &paused["deliveries"]), (&json!(1), &json!(0)));
    pass(&host, 3_600);
    send(&host, "jobs", "second").await;
    assert_eq!(until(&host, "jobs", |_| true).await["consumerState"], "consumer_missing", "time and messages change nothing");
    host.deploy(&host.token, "shop", "queue", config(&queues)).await;
    assert_eq!(messages(&seen(&host, "jobs", 1).await), of(1, &["first", "second"]));
    // The same for 405, which an update ends.
    order(&host, "jobs", json!({"status": 405})).await;
    send(&host, "jobs", "third").await;
    until(&host, "jobs", |metrics| metrics["consumerState"] == "consumer_missing").await;
    order(&host, "jobs", json!({})).await;
    host.ok("PUT", &format!("{QUEUES}/jobs"), Some(json!({"maxBatchSize": 7}))).await;
    until(&host, "jobs", |metrics| metrics["backlogCount"] == 0).await;
    let last = seen(&host, "jobs", 3).await;
    assert_eq!(messages(&last), of(1, &["third"]));
    assert_eq!(log(&host, "jobs").await.iter().filter(|line| line.contains("has no handler for POST /.tovuk/queues/jobs")).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_delivery_from_before_a_change_pauses_nothing() {
    let host = with_queues(json!({"jobs": {"max_batch_timeout_seconds": 0}})).await;
    order(&host, "jobs", json!({"spin_ms": 1_000, "status": 404})).await;
    send(&host, "jobs", "x").await;
    seen(&host, "jobs", 1).await;
    // The worker has read its orders, and answers after this.
    order(&host, "jobs", json!({})).await;
    host.ok("PUT", &format!("{QUEUES}/jobs"), Some(json!({"maxBatchSize": 7}))).await;
    until(&host, "jobs", |metrics| metrics["backlogCount"] == 0).await;
    assert_eq!(messages(&seen(&host, "jobs", 2).await), of(1, &["x"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_wait_for_a_version_without_counting_attempts() {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.ok("POST", QUEUES, Some(json!({"name": "jobs", "maxBatchTimeoutSeconds": 0, "maxRetries": 0}))).await;
    send(&host, "jobs", "early").await;
    let held = until(&host, "jobs", |metrics| metrics["consumerState"] == "held").await;
    assert!(held["consumerDetail"].as_str().unwrap().contains("not on the air"), "{held}");
    for _ in 0..5 {
        pass(&host, 60);
        until(&host, "jobs", |metrics| metrics["backlogCount"] == 1).await;
    }
    let host = host.restart().await;
    until(&host, "jobs", |metrics| metrics["consumerState"] == "held").await;
    host.deploy(&host.token, "shop", "queue", config(&json!({}))).await;
    assert_eq!(messages(&seen(&host, "jobs", 1).await), of(1, &["early"]));
    until(&host, "jobs", |metrics| metrics["backlogCount"] == 0 && metrics["consumerState"] == "idle").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_while_its_messages_are_held_leaves_nothing_behind() {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.ok("POST", QUEUES, Some(json!({"name": "jobs"}))).await;
    assert_eq!(until(&host, "jobs", |_| true).await["consumerState"], "idle", "there is nothing to hold");
    send(&host, "jobs", "x").await;
    until(&host, "jobs", |metrics| metrics["consumerState"] == "held").await;
    host.ok("DELETE", &format!("{QUEUES}/jobs"), None).await;
    host.deploy(&host.token, "shop", "queue", config(&json!({"jobs": {"max_batch_timeout_seconds": 0}}))).await;
    send(&host, "jobs", "y").await;
    assert_eq!(messages(&seen(&host, "jobs", 1).await), of(1, &["y"]));
    host.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_and_retention_go_by_the_clock() {
    let host = with_queues(json!({
        "jobs": {"max_batch_timeout_seconds": 0, "retention_seconds": 3_600},
        "late": {"max_batch_timeout_seconds": 0, "delivery_delay_seconds": 600},
        "kept": {"consumer": "pull", "retention_seconds": 60},
    }))
    .await;
    host.ok("POST", &format!("{QUEUES}/jobs/messages"), Some(json!({"body": "in a day", "delaySeconds": 86_400}))).await;
    host.ok("POST", &format!("{QUEUES}/jobs/messages"), Some(json!({"body": "in a minute", "delaySeconds": 60}))).await;
    send(&host, "late", "as the queue says").await;
    host.ok("POST", &format!("{QUEUES}/late/messages"), Some(json!({"body": "at once", "delaySeconds": 0}))).await;
    assert_eq!(messages(&seen(&host, "late", 1).await), of(1, &["at once"]));
    pass(&host, 61);
    assert_eq!(messages(&seen(&host, "jobs", 1).await), of(1, &["in a minute"]));
    pass(&host, 540);
    assert_eq!(messages(&seen(&host, "late", 2).await), of(1, &["as the queue says"]));
    send(&host, "kept", "x").await;
    pass(&host, 3_601);
    assert_eq!(host.ok("GET", &format!("{QUEUES}/jobs/messages"), None).await["messages"], json!([]), "it waited longer than it is kept");
    assert_eq!(host.ok("POST", &format!("{QUEUES}/kept/messages/pull"), None).await["messages"], json!([]));
    until(&host, "kept", |metrics| metrics["expired"] == 1 && metrics["backlogCount"] == 0).await;
}

async fn posted(host: &Operator, slug: &str, path: &str, body: &Value) -> Reply {
    let address = host.host.public_address();
    let request = http::Request::post(path).header("host", format!("{slug}.localhost:{}", address.port()));
    Client::new(address).whole(request.body(http_body_util::Full::<bytes::Bytes>::new(body.to_string().into())).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_sends_and_every_limit_is_its_error() {
    let host = with_queues(json!({"jobs": {"consumer": "pull"}, "typed": {"max_batch_timeout_seconds": 0, "max_batch_size": 4}})).await;
    let run = async |steps: Value| posted(&host, "shop", "/", &steps).await.json();
    let sent = run(json!([
        {"queue": "jobs", "body": "one", "delay": 86_400},
        {"queue": "queue_1", "bodies": ["two", "three"]},
        {"queue": "jobs", "count": 2, "bytes": 127_900},
        {"queue": "jobs", "count": 100, "bytes": 0},
    ]))
    .await;
    assert_eq!((sent[1].as_array().unwrap().len(), &sent[2], &sent[3]), (2, &json!(2), &json!(100)), "{sent}");
    let listed = host.ok("GET", &format!("{QUEUES}/jobs/messages?limit=4"), None).await;
    let shown = |at: usize, field: &str| listed["messages"][at][field].clone();
    assert_eq!((shown(0, "id"), shown(0, "body"), shown(0, "encoding")), (sent[0].clone(), json!("one"), json!("text")));
    assert_eq!((shown(0, "state"), shown(1, "state"), shown(3, "encoding")), (json!("delayed"), json!("ready"), json!("base64")));
    for (step, code) in [
        (json!({"queue": "nope", "body": "x"}), "resource_not_found"),
        (json!({"queue": "jobs", "body": "x", "delay": 86_401}), "invalid_request"),
        (json!({"queue": "jobs", "count": 1, "bytes": 127_901}), "queue_message_too_large"),
        (json!({"queue": "jobs", "count": 1, "bytes": 29 << 20}), "queue_batch_too_large"),
        (json!({"queue": "jobs", "count": 101, "bytes": 1}), "queue_batch_too_large"),
        (json!({"queue": "jobs", "count": 3, "bytes": 85_334}), "queue_batch_too_large"),
        (json!({"queue": "jobs", "count": 0}), "invalid_request"),
    ] {
        assert_eq!(run(json!([step])).await[0]["error"], code, "{step}");
    }
    let counted = run(json!([{"queue": "jobs"}])).await;
    assert_eq!(counted[0], json!({"count": 105, "bytes": 11 + 2 * 127_900, "inFlight": 0}));
    // What a typed handler does not do comes again, alone.
    run(json!([{"queue": "typed", "bodies": ["2", "3", "4", "no number"]}])).await;
    until(&host, "typed", |metrics| metrics["backlogCount"] == 2 && metrics["retries"] == 2).await;
}
