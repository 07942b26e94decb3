//! The commands of queues: as documents have them, and in their other forms.

use serde_json::json;
use tovuk_tests::Operator;

use crate::TOVUK;

async fn host() -> Operator {
    let host = Operator::start(TOVUK).await;
    host.line("tovuk service create app").ok();
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_commands_of_queues_run_verbatim() {
    let host = host().await;
    let made = host.line("tovuk queue create --service service_1 jobs --max-retries 3 --retention-seconds 86400 --json").ok().json();
    assert_eq!((&made["queue"]["maxRetries"], &made["queue"]["retentionSeconds"]), (&json!(3), &json!(86_400)), "{made}");
    let left = host.line("tovuk queue delete --service service_1 jobs --json").ok().json();
    assert_eq!(left["queues"], json!([]));
    host.line("tovuk queue create --service service_1 failed_jobs --json").ok();
    let create =
        "tovuk queue create --service service_1 jobs --max-batch-size 10 --max-batch-timeout-seconds 5 --dead-letter-queue failed_jobs --json";
    assert_eq!(host.line(create).ok().json()["queue"]["deadLetterQueue"], "failed_jobs");
    let update = "tovuk queue update --service service_1 jobs --max-batch-size 25 --max-batch-timeout-seconds 10 --json";
    let updated = host.line(update).ok().json();
    assert_eq!((&updated["queue"]["maxBatchSize"], &updated["queue"]["maxBatchTimeoutSeconds"]), (&json!(25), &json!(10)));
    let cleared = host.line("tovuk queue update --service service_1 jobs --clear-dead-letter-queue --json").ok().json();
    assert_eq!((&cleared["queue"]["deadLetterQueue"], &cleared["queue"]["maxBatchSize"]), (&json!(null), &json!(25)));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_sent_shown_pulled_and_settled() {
    let host = host().await;
    let line = |line: &str| host.line(&format!("{line} --service app --json"));
    line("tovuk queue create jobs --consumer pull --visibility-timeout-seconds 60 --delivery-delay-seconds 0 --max-concurrency 5").ok();
    let id = line("tovuk queue send jobs two words").ok().json()["id"].as_str().unwrap().to_owned();
    line("tovuk queue send jobs --value 'by flag' --delay-seconds 60").ok();
    line("tovuk queue send jobs AP8= --encoding base64").ok();
    let batch = r#"tovuk queue send-batch jobs '{"messages":["a",{"b":1},{"body":{"c":2},"delaySeconds":30},7],"delaySeconds":0}'"#;
    // An element without a body is none.
    assert_eq!(line(batch).refused().failure()["code"], "invalid_request");
    let batch = r#"tovuk queue send-batch jobs '{"messages":["a",{"body":{"c":2},"delaySeconds":30},7],"delaySeconds":0}'"#;
    assert_eq!(line(batch).ok().json()["ids"].as_array().unwrap().len(), 3);
    line(r#"tovuk queue send-batch jobs --value '["late"]' --delay-seconds 90"#).ok();
    let listed = line("tovuk queue messages jobs").ok().json();
    let shown: Vec<_> = listed["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| (message["body"].as_str().unwrap(), message["state"].as_str().unwrap()))
        .collect();
    let expected = [
        ("two words", "ready"),
        ("by flag", "delayed"),
        ("AP8=", "ready"),
        ("a", "ready"),
        (r#"{"c":2}"#, "delayed"),
        ("7", "ready"),
        ("late", "delayed"),
    ];
    assert_eq!((shown.as_slice(), listed["messages"][0]["id"].as_str()), (expected.as_slice(), Some(id.as_str())));
    assert_eq!(line("tovuk queue messages jobs --limit 2").ok().json()["has_more"], true);
    let pulled = line("tovuk queue pull jobs --batch-size 3 --visibility-timeout-seconds 600").ok().json();
    let lease = |at: usize| pulled["messages"][at]["leaseId"].as_str().unwrap().to_owned();
    assert_eq!(line(&format!("tovuk queue ack jobs {} {}", lease(0), lease(1))).ok().json()["acked"], 2);
    let retried = line(&format!(r#"tovuk queue retry jobs '[{{"leaseId":"{}","delaySeconds":5}}]'"#, lease(2))).ok().json();
    assert_eq!(retried["retried"], 1, "{retried}");
    let metrics = line("tovuk queue metrics jobs").ok().json();
    assert_eq!(
        (&metrics["backlogCount"], &metrics["deliveries"], &metrics["retries"], &metrics["consumerState"]),
        (&json!(5), &json!(3), &json!(1), &json!("pull"))
    );
    for list in ["tovuk queue list", "tovuk queue"] {
        assert_eq!(line(list).ok().json()["queues"][0]["maxConcurrency"], 5, "{list}");
    }
    let shown = host.line("tovuk queue messages jobs --service app").ok().stdout;
    assert!(shown.contains("STATE") && shown.contains("by flag"), "{shown}");
    assert!(host.line("tovuk queue metrics jobs --service app").ok().stdout.contains("backlogCount"));
    for (text, code) in [
        ("tovuk queue update jobs", "invalid_request"),
        ("tovuk queue update jobs --max-batch-size 101", "queue_policy_invalid"),
        ("tovuk queue send nope x", "resource_not_found"),
        ("tovuk queue send-batch jobs 7", "invalid_argument"),
        ("tovuk queue send jobs x --delay-seconds 86401", "invalid_request"),
    ] {
        assert_eq!(line(text).refused().failure()["code"], code, "{text}");
    }
}
