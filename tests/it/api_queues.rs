//! Queues over the API: what they are set to, what may be sent, pulling, and whose they are.

use std::time::Duration;

use serde_json::{Value, json};
use tovuk_tests::Operator;

use crate::TOVUK;
use crate::queues::QUEUES;

/// A host with a service `shop` that has the queue `jobs`, from which clients pull.
async fn with_queue() -> Operator {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    let created = host.ok("POST", QUEUES, Some(json!({"name": "jobs", "consumer": "pull"}))).await;
    assert_eq!(
        (&created["queue"]["id"], &created["queue"]["env"], &created["queues"][0]["name"]),
        (&json!("queue_1"), &json!("TOVUK_QUEUE_JOBS"), &json!("jobs"))
    );
    host
}

async fn sent(host: &Operator, body: Value) -> Value {
    host.ok("POST", &format!("{QUEUES}/jobs/messages"), Some(body)).await
}

async fn pulled(host: &Operator, body: Value) -> Vec<Value> {
    host.ok("POST", &format!("{QUEUES}/jobs/messages/pull"), Some(body)).await["messages"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_kept_shown_and_checked() {
    let host = with_queue().await;
    let token = host.token.clone();
    let defaults = json!({"maxBatchSize": 10, "maxBatchTimeoutSeconds": 5, "maxRetries": 3, "retentionSeconds": 345_600, "visibilityTimeoutSeconds": 30,
        "deliveryDelaySeconds": 0, "maxConcurrency": 250, "deadLetterQueue": null, "consumer": "pull"});
    let shown = |queue: &Value| -> Value {
        defaults.as_object().unwrap().keys().map(|key| (key.clone(), queue[key].clone())).collect::<serde_json::Map<_, _>>().into()
    };
    let of = async |host: &Operator| shown(&host.ok("GET", "/v1/services/shop/resources", None).await["queues"][0]);
    assert_eq!(of(&host).await, defaults);
    host.ok("POST", QUEUES, Some(json!({"name": "z-failed"}))).await;
    let all = json!({"maxBatchSize": 100, "maxBatchTimeoutSeconds": 60, "maxRetries": 100, "retentionSeconds": 1_209_600, "visibilityTimeoutSeconds": 43_200,
        "deliveryDelaySeconds": 86_400, "maxConcurrency": 1, "deadLetterQueue": "z-failed", "consumer": "worker"});
    assert_eq!(shown(&host.ok("PUT", &format!("{QUEUES}/queue_1"), Some(all.clone())).await["queue"]), all);
    let host = host.restart().await;
    assert_eq!(of(&host).await, all);
    assert_eq!(shown(&host.ok("GET", "/v1/services/shop/overview", None).await["resources"]["queues"][0]), all);
    for (change, code) in [
        (json!({}), "invalid_request"),
        (json!({"maxBatchSize": 0}), "queue_policy_invalid"),
        (json!({"maxBatchSize": 101}), "queue_policy_invalid"),
        (json!({"maxBatchTimeoutSeconds": 61}), "queue_policy_invalid"),
        (json!({"maxRetries": 101}), "queue_policy_invalid"),
        (json!({"retentionSeconds": 59}), "queue_policy_invalid"),
        (json!({"retentionSeconds": 1_209_601}), "queue_policy_invalid"),
        (json!({"visibilityTimeoutSeconds": 0}), "queue_policy_invalid"),
        (json!({"visibilityTimeoutSeconds": 43_201}), "queue_policy_invalid"),
        (json!({"deliveryDelaySeconds": 86_401}), "queue_policy_invalid"),
        (json!({"maxConcurrency": 251}), "queue_policy_invalid"),
        (json!({"deadLetterQueue": "jobs"}), "queue_dead_letter_refused"),
        (json!({"deadLetterQueue": "none"}), "queue_dead_letter_refused"),
        (json!({"consumer": "nobody"}), "invalid_request"),
        (json!({"maxRetries": -1}), "invalid_request"),
    ] {
        assert_eq!(host.refused(&token, "PUT", &format!("{QUEUES}/jobs"), Some(change.clone())).await, code, "{change}");
    }
    assert_eq!(
        host.refused(&token, "PUT", &format!("{QUEUES}/z-failed"), Some(json!({"deadLetterQueue": "jobs"}))).await,
        "queue_dead_letter_refused"
    );
    assert_eq!(of(&host).await, all, "nothing was changed");
    let cleared = host.ok("PUT", &format!("{QUEUES}/jobs"), Some(json!({"deadLetterQueue": null}))).await;
    assert_eq!((&cleared["queue"]["deadLetterQueue"], &cleared["queue"]["maxRetries"]), (&json!(null), &json!(100)));
    // One that cannot be set as asked is not there, and its number is not given out again.
    assert_eq!(host.refused(&token, "POST", QUEUES, Some(json!({"name": "new", "maxRetries": 101}))).await, "queue_policy_invalid");
    assert_eq!(host.refused(&token, "POST", QUEUES, Some(json!({"name": "new", "deadLetterQueue": "new"}))).await, "queue_dead_letter_refused");
    assert_eq!(host.ok("POST", QUEUES, Some(json!({"name": "new"}))).await["queue"]["id"], "queue_4");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_a_limit_is_refused_and_what_is_at_it_is_not() {
    let host = with_queue().await;
    let token = host.token.clone();
    let text = |bytes: usize| json!({"body": "é".repeat(bytes / 2) + &"x".repeat(bytes % 2)});
    assert_eq!(sent(&host, text(127_900)).await["operations"], 2);
    // The longest that they can be written.
    sent(&host, json!({"body": "\u{1}".repeat(127_900)})).await;
    sent(&host, json!({"body": "x", "delaySeconds": 86_400})).await;
    sent(&host, json!({"body": "", "delaySeconds": 0})).await;
    let batch = |messages: Vec<Value>| Some(json!({"messages": messages}));
    let path = format!("{QUEUES}/jobs/messages/batch");
    let most = host.ok("POST", &path, batch(vec![text(2_560); 100])).await;
    assert_eq!((most["ids"].as_array().unwrap().len(), &most["bytes"], &most["operations"]), (100, &json!(256_000), &json!(100)));
    host.ok("POST", &path, batch(vec![json!({"body": "\u{1}".repeat(127_900)}); 2])).await;
    for (body, code) in [
        (batch(vec![text(1); 101]), "queue_batch_too_large"),
        (batch(vec![text(2_560), text(126_720), text(126_721)]), "queue_batch_too_large"),
        (batch(vec![]), "invalid_request"),
        (batch(vec![json!({"nobody": 1})]), "invalid_request"),
        (batch(vec![text(127_901)]), "queue_message_too_large"),
        (Some(json!({"messages": [text(1)], "delaySeconds": 86_401})), "invalid_request"),
        (batch(vec![text(1), json!({"body": "?", "encoding": "base64"})]), "invalid_request"),
    ] {
        assert_eq!(host.refused(&token, "POST", &path, body).await, code);
    }
    for (body, code) in [
        (text(127_901), "queue_message_too_large"),
        (json!({"body": "x", "delaySeconds": 86_401}), "invalid_request"),
        (json!({"body": "x", "delaySeconds": -1}), "invalid_request"),
        (json!({"body": "?", "encoding": "base64"}), "invalid_request"),
        (json!({"body": "x", "encoding": "rot13"}), "invalid_request"),
        (json!({"encoding": "text"}), "invalid_request"),
    ] {
        assert_eq!(host.refused(&token, "POST", &format!("{QUEUES}/jobs/messages"), Some(body)).await, code);
    }
    assert_eq!(host.ok("GET", &format!("{QUEUES}/jobs/metrics"), None).await["backlogCount"], 106, "a batch is sent as a whole or not at all");
    let first = host.ok("GET", &format!("{QUEUES}/jobs/messages?limit=2"), None).await;
    assert_eq!((&first["has_more"], &first["operations"], first["messages"].as_array().unwrap().len()), (&json!(true), &json!(4), 2));
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = host.ok("GET", &format!("{QUEUES}/jobs/messages?cursor={cursor}"), None).await;
    assert_eq!((rest["messages"].as_array().unwrap().len(), &rest["has_more"]), (104, &json!(false)), "a list without a limit is whole");
    for query in ["limit=0", "limit=1001", "cursor=!"] {
        let code = host.refused(&token, "GET", &format!("{QUEUES}/jobs/messages?{query}"), None).await;
        assert_eq!(code, if query == "cursor=!" { "invalid_cursor" } else { "invalid_request" });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pulled_is_hidden_until_it_is_settled_or_its_time_has_passed() {
    let host = with_queue().await;
    let token = host.token.clone();
    host.ok("PUT", &format!("{QUEUES}/jobs"), Some(json!({"maxRetries": 1, "visibilityTimeoutSeconds": 60}))).await;
    let ack = async |body: Value| host.ok("POST", &format!("{QUEUES}/jobs/messages/ack"), Some(body)).await;
    let lease = |message: &Value| message["leaseId"].as_str().unwrap().to_owned();
    for body in ["a", "b", "c"] {
        sent(&host, json!({"body": body})).await;
    }
    let first = pulled(&host, json!({"batchSize": 2})).await;
    let bodies: Vec<_> = first.iter().map(|message| (message["body"].as_str().unwrap(), message["attempts"].as_u64().unwrap())).collect();
    assert_eq!(bodies, [("a", 1), ("b", 1)]);
    assert_eq!(pulled(&host, json!({})).await.len(), 1, "only the third is left");
    let metrics = host.ok("GET", &format!("{QUEUES}/jobs/metrics"), None).await;
    assert_eq!((&metrics["inFlight"], &metrics["backlogCount"], &metrics["deliveries"]), (&json!(3), &json!(3), &json!(3)));
    let settled = ack(json!({"acks": [lease(&first[0])], "retries": [{"leaseId": lease(&first[1]), "delaySeconds": 10}]})).await;
    assert_eq!((&settled["acked"], &settled["retried"], &settled["refused"]), (&json!(1), &json!(1), &json!([])));
    assert_eq!(ack(json!({"acks": [lease(&first[0])]})).await["refused"], json!([lease(&first[0])]), "it is gone");
    // Leases outlive the host.
    let host = host.restart().await;
    assert_eq!(pulled(&host, json!({})).await, Vec::<Value>::new());
    host.clock.advance(Duration::from_secs(11));
    let again = pulled(&host, json!({"visibilityTimeoutSeconds": 43_200})).await;
    assert_eq!((again.len(), &again[0]["body"], &again[0]["attempts"]), (1, &json!("b"), &json!(2)));
    // A lease that has run out settles its message until somebody else has it.
    host.clock.advance(Duration::from_secs(60));
    let third = pulled(&host, json!({})).await;
    assert_eq!((third.len(), &third[0]["body"], &third[0]["attempts"]), (1, &json!("c"), &json!(2)));
    host.clock.advance(Duration::from_secs(43_200));
    assert_eq!(pulled(&host, json!({})).await, Vec::<Value>::new(), "they were pulled as often as they may be");
    let metrics = host.ok("GET", &format!("{QUEUES}/jobs/metrics"), None).await;
    assert_eq!((&metrics["backlogCount"], &metrics["deadLetters"], &metrics["discarded"]), (&json!(0), &json!(2), &json!(2)));
    for (path, body, code) in [
        ("pull", json!({"batchSize": 0}), "invalid_request"),
        ("pull", json!({"batchSize": 101}), "invalid_request"),
        ("pull", json!({"visibilityTimeoutSeconds": 0}), "invalid_request"),
        ("pull", json!({"visibilityTimeoutSeconds": 43_201}), "invalid_request"),
        ("ack", json!({}), "invalid_request"),
        ("ack", json!({"acks": ["nonsense"]}), "invalid_request"),
        ("ack", json!({"acks": ["2-1-0123456789abcdef"]}), "invalid_request"),
        ("ack", json!({"acks": vec![lease(&first[0]); 101]}), "invalid_request"),
        ("ack", json!({"retries": [{"leaseId": lease(&first[0]), "delaySeconds": 86_401}]}), "invalid_request"),
    ] {
        assert_eq!(host.refused(&token, "POST", &format!("{QUEUES}/jobs/messages/{path}"), Some(body.clone())).await, code, "{path} {body}");
    }
    host.ok("PUT", &format!("{QUEUES}/jobs"), Some(json!({"consumer": "worker"}))).await;
    assert_eq!(host.refused(&token, "POST", &format!("{QUEUES}/jobs/messages/pull"), None).await, "queue_consumer_mismatch");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_with_what_they_belong_to_and_belong_to_one_account() {
    let host = with_queue().await;
    let token = host.token.clone();
    let bob = host.account("bob").await;
    sent(&host, json!({"body": "first"})).await;
    assert_eq!(host.refused(&bob, "GET", &format!("{QUEUES}/jobs/messages"), None).await, "service_not_found");
    host.ok_as(&bob, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    for (method, path) in [("GET", "messages"), ("POST", "messages/pull"), ("GET", "metrics")] {
        assert_eq!(host.refused(&bob, method, &format!("{QUEUES}/queue_1/{path}"), None).await, "resource_not_found", "{path}");
    }
    assert_eq!(host.refused(&bob, "POST", QUEUES, Some(json!({"name": "mine", "deadLetterQueue": "queue_1"}))).await, "queue_dead_letter_refused");
    // A queue that took dead letters leaves the settings of the others.
    host.ok("POST", QUEUES, Some(json!({"name": "main", "deadLetterQueue": "jobs"}))).await;
    let left = host.ok("DELETE", &format!("{QUEUES}/jobs"), None).await;
    let left = left["queues"].as_array().unwrap();
    assert_eq!((left.len(), &left[0]["name"], &left[0]["deadLetterQueue"]), (1, &json!("main"), &json!(null)));
    assert_eq!(host.refused(&token, "POST", &format!("{QUEUES}/jobs/messages"), Some(json!({"body": "x"}))).await, "resource_not_found");
    let again = host.ok("POST", QUEUES, Some(json!({"name": "jobs", "consumer": "pull"}))).await;
    assert_eq!(again["queue"]["id"], "queue_3");
    assert_eq!(host.ok("GET", &format!("{QUEUES}/jobs/messages"), None).await["messages"], json!([]), "a new one is empty");
    sent(&host, json!({"body": "a-secret-second"})).await;
    host.ok("DELETE", "/v1/services/shop", None).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    let host = host.restart().await;
    assert_eq!(host.ok("POST", QUEUES, Some(json!({"name": "jobs"}))).await["queue"]["id"], "queue_4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_sends_and_counts_with_its_token_and_does_no_more() {
    let host = with_queue().await;
    host.deploy(&host.token, "shop", "own_api", json!({"routes": ["/*"]})).await;
    assert_eq!(host.get("shop", "/env/TOVUK_QUEUE_JOBS").await.text(), "queue_1");
    let worker = host.get("shop", "/env/TOVUK_RUNTIME_TOKEN").await.text().to_owned();
    let queue = "/v1/services/service_1/queues/queue_1";
    host.ok_as(&worker, "POST", &format!("{queue}/messages"), Some(json!({"body": "x"}))).await;
    host.ok_as(&worker, "POST", &format!("{queue}/messages/batch"), Some(json!({"messages": [{"body": "x"}]}))).await;
    assert_eq!(host.ok_as(&worker, "GET", &format!("{queue}/metrics"), None).await["backlogCount"], 2);
    for (method, path) in [("GET", "/messages"), ("POST", "/messages/pull"), ("POST", "/messages/ack"), ("PUT", ""), ("DELETE", "")] {
        assert_eq!(host.refused(&worker, method, &format!("{queue}{path}"), None).await, "token_scope", "{method} {path}");
    }
    assert_eq!(host.refused(&worker, "POST", "/v1/services/service_1/queues", Some(json!({"name": "more"}))).await, "token_scope");
    host.ok("POST", "/v1/services", Some(json!({"name": "other"}))).await;
    host.ok("POST", "/v1/services/other/queues", Some(json!({"name": "jobs"}))).await;
    assert_eq!(host.refused(&worker, "GET", "/v1/services/other/queues/jobs/metrics", None).await, "service_not_found");
}
