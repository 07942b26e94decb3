//! Ticks of cron triggers as workers get them: at their times, once where they succeed, again where they fail, and never lost.

use std::time::Duration;

use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_tests::{Dev, Operator, Project, ran, tovuk};

use crate::TOVUK;

/// 31 May 2026, 23:59:30 UTC.
const START_UNIX_MS: u64 = 1_780_271_970_000;
const MIDNIGHT_UNIX_MS: u64 = 1_780_272_000_000;
const MINUTE: Duration = Duration::from_secs(60);

async fn host() -> Operator {
    Operator::with_clock(TOVUK, Clock::advanceable_at(START_UNIX_MS)).await
}

async fn deployed(crons: Value) -> Operator {
    let host = host().await;
    host.deploy(&host.token, "app", "cron", json!({"routes": ["/*"], "crons": crons})).await;
    host
}

/// The history of a trigger once it is as somebody waits for.
async fn history(host: &Operator, trigger: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    loop {
        let answer = host.ok("GET", &format!("/v1/services/app/cron/{trigger}/history"), None).await;
        let runs = answer["runs"].as_array().unwrap();
        if wanted(runs) {
            return runs.clone();
        }
        tokio::task::yield_now().await;
    }
}

fn ended(count: usize) -> impl Fn(&[Value]) -> bool {
    move |runs| runs.iter().filter(|run| !run["endedAt"].is_null()).count() == count
}

async fn log(host: &Operator, part: &str) -> Vec<String> {
    let lines = host.log(&host.token, "/v1/services/app/logs").await;
    lines.into_iter().filter(|line| line.contains(part)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_comes_at_its_time_and_once() {
    let host = deployed(json!({"nightly": "0 0 * * *"})).await;
    host.clock.advance(MINUTE);
    let run = history(&host, "nightly", ended(1)).await.remove(0);
    assert_eq!((&run["outcome"], &run["attempts"], &run["manual"], &run["detail"]), (&json!("ok"), &json!(1), &json!(false), &json!("answered 204")));
    assert_eq!(run["scheduledTime"], "2026-06-01T00:00:00.000Z");
    assert_eq!(log(&host, "tick ").await, [format!("tick nightly 0 0 * * * {MIDNIGHT_UNIX_MS} cron")]);
    // Neither later nor after a start.
    host.clock.advance(MINUTE);
    let host = host.restart().await;
    let asked = host.ok("POST", "/v1/services/app/cron/nightly/run", None).await["run"].clone();
    let runs = history(&host, "nightly", ended(2)).await;
    assert_eq!((runs.len(), &runs[0]["run"], &runs[0]["manual"]), (2, &asked, &json!(true)));
    assert_eq!(log(&host, "tick ").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_comes_again_after_1_2_and_4_minutes_and_then_no_more() {
    let host =
        deployed(json!({"status-500": "0 0 * * *", "absent": "0 0 * * *", "traps": "0 0 * * *", "fine": "0 0 * * *", "large": "0 0 * * *"})).await;
    for (attempts, minutes) in [(1, 1), (2, 1), (3, 2), (4, 4)] {
        host.clock.advance(minutes * MINUTE + Duration::from_secs(1));
        for trigger in ["status-500", "absent", "traps"] {
            history(&host, trigger, |runs| runs.first().is_some_and(|run| run["attempts"] == attempts && run["outcome"] != "running")).await;
        }
    }
    for (trigger, detail) in [("status-500", "answered 500"), ("absent", "answered 404"), ("traps", "")] {
        let run = history(&host, trigger, ended(1)).await.remove(0);
        assert_eq!((&run["outcome"], &run["scheduledTime"]), (&json!("failed"), &json!("2026-06-01T00:00:00.000Z")));
        assert!(run["detail"].as_str().unwrap().contains(detail), "{run}");
        let lines = log(&host, &format!("cron trigger {trigger}: delivery ")).await;
        assert!(lines.len() == 4 && lines.iter().filter(|line| line.contains("it is not delivered again")).count() == 1, "{lines:?}");
    }
    assert_eq!(log(&host, "tick status-500").await.len(), 4);
    // What fails holds up nothing else.
    assert_eq!((log(&host, "tick fine").await.len(), log(&host, "tick large").await.len()), (1, 1), "nobody reads how a success is worded");
    host.clock.advance(60 * MINUTE);
    history(&host, "fine", ended(1)).await;
    assert_eq!(log(&host, "tick ").await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_can_take_waits_and_does_not_count() {
    let host = host().await;
    host.ok("POST", "/v1/services", Some(json!({"name": "app"}))).await;
    host.ok("POST", "/v1/services/app/cron", Some(json!({"name": "often", "cronExpression": "* * * * *"}))).await;
    for minute in 0..4 {
        host.clock.advance(MINUTE);
        let time = format!("2026-06-01T00:0{minute}:00.000Z");
        let is_held = |run: &Value| run["scheduledTime"] == time && run["outcome"] == "waiting" && run["detail"].is_string();
        history(&host, "often", |runs| runs.first().is_some_and(is_held)).await;
    }
    let host = host.restart().await;
    let runs = history(&host, "often", |runs| runs.iter().filter(|run| run["outcome"] == "waiting").count() == 1).await;
    assert!(runs.iter().all(|run| run["attempts"] == 0), "{runs:?}");
    let last = runs[0]["scheduledTime"].clone();
    // The clock stands still: what waits comes because a version went on the air.
    host.deploy(&host.token, "app", "cron", json!({"routes": ["/*"]})).await;
    let runs = history(&host, "often", |runs| runs.iter().any(|run| run["outcome"] == "ok")).await;
    assert_eq!((&runs[0]["outcome"], &runs[0]["attempts"], &runs[0]["scheduledTime"]), (&json!("ok"), &json!(1), &last));
    assert_eq!(log(&host, "tick ").await.len(), 1, "of those that were missed the last one comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_while_the_host_was_down_comes_once() {
    let host = deployed(json!({"hourly": "0 * * * *"})).await;
    let clock = host.clock.clone();
    let host = host.restart_with(move |_| assert!(clock.advance(600 * MINUTE))).await;
    let runs = history(&host, "hourly", ended(1)).await;
    assert_eq!((runs.len(), &runs[0]["scheduledTime"]), (1, &json!("2026-06-01T09:00:00.000Z")));
    host.clock.advance(60 * MINUTE);
    assert_eq!(history(&host, "hourly", ended(2)).await[0]["scheduledTime"], "2026-06-01T10:00:00.000Z");
    assert_eq!(log(&host, "tick ").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_trigger_ticks_when_it_is_asked_to_and_a_changed_one_at_its_new_times() {
    let host = deployed(json!({"nightly": "0 0 * * *"})).await;
    host.ok("PUT", "/v1/services/app/cron/nightly", Some(json!({"enabled": false}))).await;
    host.clock.advance(5 * MINUTE);
    host.ok("POST", "/v1/services/app/cron/nightly/run", None).await;
    let runs = history(&host, "nightly", ended(1)).await;
    assert_eq!((runs.len(), &runs[0]["manual"]), (1, &json!(true)));
    host.ok("PUT", "/v1/services/app/cron/nightly", Some(json!({"enabled": true}))).await;
    host.ok("PUT", "/v1/services/app/cron/nightly", Some(json!({"cronExpression": "0 1 * * *"}))).await;
    host.clock.advance(60 * MINUTE);
    assert_eq!(history(&host, "nightly", ended(2)).await[0]["scheduledTime"], "2026-06-01T01:00:00.000Z");
    assert_eq!(log(&host, "tick nightly 0 1 * * *").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_are_due_in_the_same_minute_all_come() {
    let crons: serde_json::Map<_, _> = (0..300).map(|number| (format!("c{number}"), json!("0 0 * * *"))).collect();
    let host = deployed(Value::Object(crons)).await;
    host.clock.advance(MINUTE);
    for number in 0..300 {
        history(&host, &format!("c{number}"), ended(1)).await;
    }
    assert_eq!(log(&host, "tick c").await.len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_gives_triggers_the_expressions_of_its_file() {
    let host = deployed(json!({"nightly": "0 0 * * *", "old": "0 0 * * *"})).await;
    let token = host.token.clone();
    let triggers = async || {
        let resources = host.ok("GET", "/v1/services/app/resources", None).await;
        let triggers = resources["cronTriggers"].as_array().unwrap().iter();
        triggers.map(|trigger| (trigger["name"].clone(), trigger["cronExpression"].clone(), trigger["enabled"].clone())).collect::<Vec<_>>()
    };
    let trigger = |name: &str, expression: &str, enabled: bool| (json!(name), json!(expression), json!(enabled));
    assert_eq!(triggers().await, [trigger("nightly", "0 0 * * *", true), trigger("old", "0 0 * * *", true)]);
    assert!(host.get("app", "/").await.text() == "up");
    host.ok("PUT", "/v1/services/app/cron/nightly", Some(json!({"enabled": false}))).await;
    // A deploy that fails changes none; one with an expression that names no time is not taken at all.
    let mut failing = Operator::deploy_body("app", "cron", json!({"routes": ["/*"], "crons": {"nightly": "0 1 * * *"}}));
    failing["component_base64"] = json!("AGFzbQ==");
    let accepted = host.ok("POST", "/v1/deploy", Some(failing)).await;
    assert_eq!(host.built(&token, accepted["build_job"]["id"].as_str().unwrap()).await["status"], "failed");
    let refused = host.ask("POST", "/v1/deploy", Some(Operator::deploy_body("app", "cron", json!({"crons": {"nightly": "0 25 * * *"}})))).await;
    assert!(refused.code() == "cron_expression_invalid" && refused.text().contains("crons.nightly"), "{}", refused.text());
    assert_eq!(triggers().await[0], trigger("nightly", "0 0 * * *", false));
    host.deploy(&token, "app", "cron", json!({"routes": ["/*"], "crons": {"nightly": "0 2 * * *", "new": "* * * * *"}})).await;
    let expected = [trigger("new", "* * * * *", true), trigger("nightly", "0 2 * * *", false), trigger("old", "0 0 * * *", true)];
    assert_eq!(triggers().await, expected, "what is paused stays so, and what is no longer named stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_development_loop_ticks_by_its_clock_and_follows_the_file() {
    let toml = |crons: &str| format!("[services.app]\ncomponent = \"w.wasm\"\nroutes = [\"/*\"]\n[services.app.crons]\n{crons}\n");
    let project = Project::new(&[("tovuk.toml", &toml("daily = \"0 12 * * *\"\nstatus-500 = \"0 12 * * *\""))]).with_guest("w.wasm", "cron");
    let mut dev = Dev::start(TOVUK, project.path()).await;
    let at_home = |line: &str| {
        let words: Vec<_> = line.split_whitespace().skip(1).collect();
        let mut command = tovuk(TOVUK, &words);
        command.current_dir(project.path()).env("HOME", project.path());
        tokio::task::block_in_place(|| ran(command)).ok()
    };
    at_home("tovuk clock advance 24h");
    // The two may tick in either order, so this one is not waited for by its line.
    while at_home("tovuk cron history daily --service app --json").json()["runs"][0]["outcome"] != "ok" {}
    // The wait begins when the failure is written down, which is after its line.
    let failed = |attempts: u64| {
        while at_home("tovuk cron history status-500 --service app --json").json()["runs"][0]["attempts"] != attempts {}
    };
    for (attempts, seconds) in [(1, 61), (2, 121), (3, 241)] {
        dev.line(&["tick status-500"]).await;
        failed(attempts);
        at_home(&format!("tovuk clock advance {seconds}s"));
    }
    dev.line(&["tick status-500"]).await;
    project.write("tovuk.toml", toml("daily = \"30 * * * *\"\nfresh = \"0 0 1 1 *\""));
    dev.line(&["watching for changes"]).await;
    at_home("tovuk clock advance 1h");
    dev.line(&["tick daily 30 * * * *"]).await;
    at_home("tovuk cron run fresh --service app");
    dev.line(&["tick fresh"]).await;
}
