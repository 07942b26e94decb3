//! KV from the command line: the documents' commands as they stand there, at a time when their dates have not passed.

use serde_json::json;
use tovuk_kernel::clock::Clock;
use tovuk_tests::Operator;

use crate::TOVUK;

/// 2026-05-31, noon.
const BEFORE_THE_DATES_OF_DOCUMENTS: u64 = 1_780_228_800_000;

async fn host() -> Operator {
    let host = Operator::with_clock(TOVUK, Clock::advanceable_at(BEFORE_THE_DATES_OF_DOCUMENTS)).await;
    host.line("tovuk service create shop").ok();
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_commands_run_verbatim() {
    let host = host().await;
    let created = host.line("tovuk kv create --service service_1 CACHE --json").ok().json();
    assert_eq!((&created["namespace"]["id"], &created["kvNamespaces"][0]["env"]), (&json!("kv_1"), &json!("TOVUK_KV_CACHE")));
    host.line(r#"tovuk kv put --service service_1 CACHE user:1 '{"name":"Ada"}' --metadata '{"kind":"profile"}' --ttl 3600 --json"#).ok();
    host.line(r#"tovuk kv put --service service_1 CACHE session:1 '{"ok":true}' --expiration 1780272000 --json"#).ok();
    let read = host.line("tovuk kv get --service service_1 CACHE user:1 --json").ok().json();
    assert_eq!((&read["value"], &read["metadata"]), (&json!(r#"{"name":"Ada"}"#), &json!({"kind": "profile"})));
    let now = BEFORE_THE_DATES_OF_DOCUMENTS / 1_000;
    assert!((now + 3_600..now + 3_700).contains(&read["expiration"].as_u64().unwrap()), "{read}");
    let keys = host.line("tovuk kv keys --service service_1 CACHE --json").ok().json();
    let names: Vec<_> = keys["keys"].as_array().unwrap().iter().map(|key| (key["name"].as_str().unwrap(), key["expiration"].as_u64())).collect();
    assert_eq!(names, [("session:1", Some(1_780_272_000)), ("user:1", read["expiration"].as_u64())]);
    let shown = host.line("tovuk service show service_1 --json").ok().json();
    assert_eq!(shown["resources"]["kvNamespaces"][0]["name"], "CACHE");
    let left = host.line("tovuk kv namespace delete --service service_1 CACHE --json").ok().json();
    assert_eq!(left["kvNamespaces"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_command_means_what_the_wire_says() {
    let host = host().await;
    host.line("tovuk kv create CACHE --service shop").ok();
    // A list of what the service has, with and without its word.
    for line in ["tovuk kv list --service shop --json", "tovuk kv --service shop --json", "tovuk --service shop --json kv list"] {
        assert_eq!(host.line(line).ok().json()["kvNamespaces"][0]["id"], "kv_1", "{line}");
    }
    host.line("tovuk kv put CACHE words two words --expiration-ttl-seconds 60 --service shop").ok();
    host.line("tovuk kv put CACHE flag --value 'by flag' --service shop").ok();
    host.line("tovuk kv put CACHE bytes AP8= --encoding base64 --service shop").ok();
    let put = r#"tovuk kv bulk put CACHE '[{"key":"a","value":1},{"key":"b","value":"AP8=","encoding":"base64","metadata":{"m":1},"expirationTtlSeconds":60}]' --service shop"#;
    host.line(put).ok();
    host.line(r#"tovuk kv bulk put CACHE '{"entries":[{"key":"c","value":"x","expiration":1780272000}]}' --service shop"#).ok();
    host.line(r#"tovuk kv bulk put CACHE --value '{"d":"text","e/f":{"json":true}}' --service shop"#).ok();
    let read = host.line("tovuk kv bulk get CACHE words flag bytes a b c d e/f none --service shop --json").ok().json();
    let values: Vec<_> = read["values"].as_array().unwrap().iter().map(|entry| entry["value"].as_str().unwrap()).collect();
    assert_eq!(values, ["two words", "by flag", "AP8=", "1", "AP8=", "x", "text", r#"{"json":true}"#]);
    assert_eq!((&read["values"][4]["metadata"], &read["missing"]), (&json!({"m": 1}), &json!(["none"])));
    for form in [r#"--value '["a","b"]'"#, r#"'{"keys":["a","b"]}'"#] {
        let read = host.line(&format!("tovuk kv bulk get CACHE {form} --service shop --json")).ok().json();
        assert_eq!(read["values"].as_array().unwrap().len(), 2, "{form}");
    }
    assert_eq!(host.line("tovuk kv bulk delete CACHE a b none --service shop --json").ok().json()["removed"], 2);
    assert_eq!(host.line("tovuk kv delete CACHE e/f --service shop --json").ok().json()["deleted"], true);
    let page = host.line("tovuk kv keys CACHE --prefix w --limit 1 --service shop --json").ok().json();
    assert_eq!((&page["keys"][0]["name"], &page["has_more"]), (&json!("words"), &json!(false)));
    let shown = host.line("tovuk kv keys CACHE --service shop").ok().stdout;
    assert!(shown.contains("NAME") && shown.contains("words") && shown.contains("1780272000"), "{shown}");
    assert!(host.line("tovuk kv get CACHE flag --service shop").ok().stdout.contains("by flag"));
    for (line, code) in [
        ("tovuk kv get CACHE none", "kv_key_not_found"),
        ("tovuk kv put CACHE k x --ttl 29", "kv_expiration_too_soon"),
        ("tovuk kv put CACHE k x --expiration 1", "kv_expiration_too_soon"),
        ("tovuk kv put CACHE k x --metadata {", "invalid_argument"),
        ("tovuk kv get NOPE k", "resource_not_found"),
        ("tovuk kv keys CACHE --limit 1001", "invalid_request"),
        ("tovuk kv keys CACHE --cursor '!'", "invalid_cursor"),
    ] {
        assert_eq!(host.line(&format!("{line} --service shop --json")).refused().failure()["code"], code, "{line}");
    }
}
