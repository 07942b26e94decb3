//! Cron triggers over the API and from the command line: made, changed, paused, shown and deleted, by whom they may be.

use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_tests::Operator;

use crate::TOVUK;

/// 31 May 2026, 12:00:30 UTC, a Sunday.
const START_UNIX_MS: u64 = 1_780_228_830_000;
const CRON: &str = "/v1/services/shop/cron";

async fn host() -> Operator {
    let host = Operator::with_clock(TOVUK, Clock::advanceable_at(START_UNIX_MS)).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host
}

async fn create(host: &Operator, name: &str, expression: &str) -> Value {
    host.ok("POST", CRON, Some(json!({"name": name, "cronExpression": expression}))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_is_made_shown_changed_and_paused() {
    let host = host().await;
    let made = create(&host, "nightly", " 0  0 * * * ").await;
    let expected = json!({
        "id": "cron_1", "name": "nightly", "env": "TOVUK_CRON_NIGHTLY", "createdAt": made["trigger"]["createdAt"], "cronExpression": "0 0 * * *",
        "enabled": true, "nextTime": "2026-06-01T00:00:00.000Z",
    });
    assert_eq!((&made["trigger"], &made["cronTriggers"]), (&expected, &json!([expected])));
    let host = host.restart().await;
    let shown = host.ok("GET", &format!("{CRON}/nightly"), None).await;
    assert_eq!((&shown["trigger"], &shown["nextTimes"][4]), (&expected, &json!("2026-06-05T00:00:00.000Z")));
    assert_eq!(shown["nextTimes"].as_array().unwrap().len(), 5);
    let updated = host.ok("PUT", &format!("{CRON}/cron_1"), Some(json!({"cronExpression": "*/15 * * * *"}))).await;
    assert_eq!(
        (&updated["trigger"]["nextTime"], &updated["cronTriggers"][0]["cronExpression"]),
        (&json!("2026-05-31T12:15:00.000Z"), &json!("*/15 * * * *"))
    );
    let paused = host.ok("PUT", &format!("{CRON}/nightly"), Some(json!({"enabled": false}))).await;
    assert_eq!((&paused["trigger"]["enabled"], &paused["trigger"]["nextTime"]), (&json!(false), &Value::Null));
    let host = host.restart().await;
    let shown = host.ok("GET", "/v1/services/shop/overview", None).await;
    assert_eq!(shown["resources"]["cronTriggers"][0]["enabled"], false);
    let resumed = host.ok("PUT", &format!("{CRON}/nightly"), Some(json!({"enabled": true}))).await;
    assert_eq!(resumed["trigger"]["nextTime"], "2026-05-31T12:15:00.000Z");
    assert_eq!(host.ok("GET", &format!("{CRON}/nightly/history"), None).await["runs"], json!([]));
    assert_eq!(host.ok("GET", "/v1/services", None).await["services"][0]["resources"]["cronTriggers"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_trigger_is_refused_and_leaves_nothing() {
    let host = host().await;
    let token = host.token.clone();
    let long = format!("{}0 0 * * *", "0,".repeat(150));
    for (name, expression, code) in [
        ("nightly", "0 0 * *", "cron_expression_invalid"),
        ("nightly", "0 0 * * * *", "cron_expression_invalid"),
        ("nightly", "61 0 * * *", "cron_expression_invalid"),
        ("nightly", "@daily", "cron_expression_invalid"),
        ("nightly", "0 0 30 2 *", "cron_expression_invalid"),
        ("nightly", &long, "cron_expression_invalid"),
        ("nightly", "", "cron_expression_invalid"),
        ("1x", "0 0 * * *", "invalid_name"),
        ("cron_7", "0 0 * * *", "invalid_name"),
        ("a/b", "0 0 * * *", "invalid_name"),
    ] {
        let body = json!({"name": name, "cronExpression": expression});
        assert_eq!(host.refused(&token, "POST", CRON, Some(body)).await, code, "{name} {expression}");
    }
    assert_eq!(host.refused(&token, "POST", CRON, Some(json!({"name": "nightly"}))).await, "invalid_request");
    assert_eq!(host.ok("GET", "/v1/services/shop/resources", None).await["cronTriggers"], json!([]));
    create(&host, "nightly", "0 0 * * *").await;
    for name in ["nightly", "NIGHTLY"] {
        assert_eq!(host.refused(&token, "POST", CRON, Some(json!({"name": name, "cronExpression": "0 0 * * *"}))).await, "resource_exists");
    }
    for (body, code) in [
        (json!({}), "invalid_request"),
        (json!({"cronExpression": "0 0 * * *", "enabled": true}), "invalid_request"),
        (json!({"cronExpression": "0 0 * * 8"}), "cron_expression_invalid"),
    ] {
        assert_eq!(host.refused(&token, "PUT", &format!("{CRON}/nightly"), Some(body)).await, code);
    }
    assert_eq!(host.ok("GET", &format!("{CRON}/nightly"), None).await["trigger"]["cronExpression"], "0 0 * * *");
    for (method, path, body) in
        [("PUT", "", Some(json!({"enabled": true}))), ("GET", "", None), ("GET", "/history", None), ("POST", "/run", None), ("DELETE", "", None)]
    {
        assert_eq!(host.refused(&token, method, &format!("{CRON}/other{path}"), body).await, "resource_not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn triggers_go_with_what_they_belong_to_and_belong_to_one_account() {
    let host = host().await;
    let token = host.token.clone();
    let bob = host.account("bob").await;
    create(&host, "nightly", "0 0 * * *").await;
    host.ok_as(&bob, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    for (method, path) in [("GET", "cron_1"), ("GET", "cron_1/history"), ("POST", "cron_1/run"), ("DELETE", "cron_1")] {
        assert_eq!(host.refused(&bob, method, &format!("{CRON}/{path}"), None).await, "resource_not_found");
    }
    assert_eq!(host.ok("POST", &format!("{CRON}/nightly/run"), None).await["run"], 1);
    let left = host.ok("DELETE", &format!("{CRON}/nightly"), None).await;
    assert_eq!(left["cronTriggers"], json!([]));
    assert_eq!(host.refused(&token, "GET", &format!("{CRON}/nightly/history"), None).await, "resource_not_found");
    let again = create(&host, "nightly", "0 0 * * *").await;
    assert_eq!(again["trigger"]["id"], "cron_2");
    assert_eq!(host.ok("GET", &format!("{CRON}/nightly/history"), None).await["runs"], json!([]), "a new one has no history");
    host.ok("DELETE", "/v1/services/shop", None).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    assert_eq!(create(&host, "nightly", "0 0 * * *").await["trigger"]["id"], "cron_3");
    let file = host.data.join("cron.db");
    host.host.stop().await;
    let crons = tovuk_resources::cron::Crons::open(&file, host.clock.clone()).await.unwrap();
    assert_eq!(crons.all().await.unwrap().len(), 1, "nothing is left of those that were deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_triggers_that_a_death_has_parted_are_settled_at_the_next_start() {
    let host = host().await;
    let (control, crons) = (host.data.join("control.db"), host.data.join("cron.db"));
    create(&host, "kept", "0 0 * * *").await;
    let saved = host.data.join("saved.db");
    let (from, to) = (control.clone(), saved.clone());
    let host = host.restart_with(move |_| assert!(std::fs::copy(&from, &to).is_ok())).await;
    create(&host, "later", "0 0 * * *").await;
    // A trigger without a row.
    let host = host.restart_with(move |_| assert!(std::fs::copy(&saved, &control).is_ok())).await;
    assert_eq!(host.ok("GET", "/v1/services/shop/resources", None).await["cronTriggers"].as_array().unwrap().len(), 1);
    assert_eq!(create(&host, "later", "0 1 * * *").await["trigger"]["id"], "cron_3", "its number is not given out again");
    // Rows without triggers.
    let host = host.restart_with(move |_| std::fs::remove_file(&crons).unwrap()).await;
    assert_eq!(host.ok("GET", "/v1/services/shop/resources", None).await["cronTriggers"], json!([]));
    assert_eq!(create(&host, "kept", "0 0 * * *").await["trigger"]["name"], "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_commands_run_verbatim() {
    let host = host().await;
    let made = host.line("tovuk cron create --service service_1 nightly \"0 0 * * *\" --json").ok().json();
    assert_eq!((&made["trigger"]["id"], &made["cronTriggers"][0]["cronExpression"]), (&json!("cron_1"), &json!("0 0 * * *")));
    let updated = host.line("tovuk cron update --service service_1 nightly \"*/15 * * * *\" --json").ok().json();
    assert_eq!(updated["cronTriggers"][0]["cronExpression"], "*/15 * * * *");
    let paused = host.line("tovuk cron disable --service service_1 nightly --json").ok().json();
    assert_eq!(paused["trigger"]["enabled"], false);
    let resumed = host.line("tovuk cron enable --service service_1 nightly --json").ok().json();
    assert_eq!(resumed["trigger"]["enabled"], true);
    let left = host.line("tovuk cron delete --service service_1 nightly --json").ok().json();
    assert_eq!(left["cronTriggers"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_command_means_what_the_wire_says() {
    let host = host().await;
    host.line("tovuk cron create nightly 0 0 '*' '*' SUN --service shop").ok();
    for line in ["tovuk cron list --service shop --json", "tovuk cron --service shop --json"] {
        assert_eq!(host.line(line).ok().json()["cronTriggers"][0]["cronExpression"], "0 0 * * SUN", "{line}");
    }
    host.line("tovuk cron update nightly --value '0 6 * * *' --service shop").ok();
    let shown = host.line("tovuk cron show nightly --service shop").ok().stdout;
    assert!(shown.contains("0 6 * * *") && shown.contains("2026-06-05T06:00:00.000Z"), "{shown}");
    assert_eq!(host.line("tovuk cron run nightly --service shop --json").ok().json()["run"], 1);
    let runs = host.line("tovuk cron history nightly --service shop --json").ok().json();
    assert_eq!((&runs["runs"][0]["manual"], &runs["runs"][0]["attempts"]), (&json!(true), &json!(0)));
    let listed = host.line("tovuk cron list --service shop").ok().stdout;
    assert!(listed.contains("nightly") && listed.contains("0 6 * * *"), "{listed}");
    // What else the service has is in the JSON, and a trigger needs no restart.
    let made = host.line("tovuk cron create hourly --value '0 * * * *' --service shop").ok().stdout;
    for text in [&listed, &made] {
        assert!(!text.contains("queues") && !text.contains("sqlite") && !text.contains("restart"), "{text}");
    }
    for (line, code) in [
        ("tovuk cron create", "missing_argument"),
        ("tovuk cron create weekly", "missing_argument"),
        ("tovuk cron update nightly", "missing_argument"),
        ("tovuk cron create weekly nonsense", "cron_expression_invalid"),
        ("tovuk cron run other", "resource_not_found"),
    ] {
        assert_eq!(host.line(&format!("{line} --service shop --json")).refused().failure()["code"], code, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_a_thousand_triggers_which_are_no_bound_resources() {
    let host = host().await;
    let token = host.token.clone();
    let crons = |count: usize| (0..count).map(|number| (format!("c{number}"), json!("0 0 * * *"))).collect::<serde_json::Map<_, _>>();
    let refused = host.ask("POST", "/v1/deploy", Some(Operator::deploy_body("shop", "cron", json!({"crons": crons(1_001)})))).await;
    assert!(refused.text().contains("the service has 1001 cron triggers; 1000 are allowed"), "{}", refused.text());
    host.deploy(&token, "shop", "cron", json!({"routes": ["/*"], "crons": crons(1_000)})).await;
    let more = Some(json!({"name": "more", "cronExpression": "0 0 * * *"}));
    assert_eq!(host.refused(&token, "POST", CRON, more.clone()).await, "resource_limit");
    host.ok("DELETE", &format!("{CRON}/c0"), None).await;
    host.ok("POST", CRON, more).await;
}
