//! Logs over the API and in the command: what an invocation leaves, lines as they are written, and those that were asked for.

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tovuk_tests::{Client, Operator, Program, tovuk};

use crate::TOVUK;

/// An answer that goes on.
struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    async fn of(host: &Operator, token: &str, path: &str) -> Self {
        let request = Request::get(path).header("host", host.host.api_address().to_string()).header("authorization", format!("Bearer {token}"));
        let response = Client::new(host.host.api_address()).send(request.body(Full::<bytes::Bytes>::default()).unwrap()).await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()), (200, "application/x-ndjson"));
        Self { body: response.into_body(), rest: Vec::new() }
    }

    /// The next line that is not empty; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if line.len() > 1 {
                    return Some(serde_json::from_slice(&line).unwrap());
                }
                continue;
            }
            self.rest.extend_from_slice(self.body.frame().await?.unwrap().data_ref().unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_leaves_its_lines_and_a_summary_and_a_trap_its_backtrace() {
    let host = Operator::start(TOVUK).await;
    let token = host.account("alice").await;
    host.deploy(&token, "shop", "log", json!({"routes": ["/*"]})).await;
    host.deploy(&token, "traps", "trap", json!({"routes": ["/*"]})).await;
    host.get("shop", "/").await;
    assert_eq!(host.get("traps", "/").await.status, 500);
    host.get("traps", "/ok").await;
    host.host.control().flush_logs().await;
    let page = host.ok_as(&token, "GET", "/v1/services/shop/logs", None).await;
    let lines: Vec<&Value> = page["lines"].as_array().unwrap().iter().filter(|line| !line["trace_id"].is_null()).collect();
    let (summary, written) = lines.split_last().unwrap();
    assert!(written.len() > 3 && written.iter().all(|line| line["invocation"] == 1 && line["trace_id"] == summary["trace_id"]), "{page}");
    assert_eq!((&summary["outcome"], &summary["status"], &summary["hops"]), (&json!("ok"), &json!(200), &json!(1)));
    for figure in ["cpu_ms", "duration_ms", "fuel", "memory_peak_bytes"] {
        assert!(summary[figure].as_f64().unwrap() > 0.0, "{figure}: {summary}");
    }
    assert!(summary["bytes_in"].is_u64() && summary["bytes_out"].is_u64(), "{summary}");

    let failed = host.ok_as(&token, "GET", "/v1/services/traps/logs?outcome=error", None).await;
    let failed = failed["lines"].as_array().unwrap();
    assert_eq!((failed.len(), &failed[0]["outcome"]), (1, &json!("trap")));
    assert!(failed[0]["message"].as_str().unwrap().contains("the_function_that_traps"), "{}", failed[0]);
    let trace = failed[0]["trace_id"].as_str().unwrap();
    let of_trace = host.ok_as(&token, "GET", &format!("/v1/services/traps/logs?trace={trace}"), None).await;
    assert!(of_trace["lines"].as_array().unwrap().iter().all(|line| line["trace_id"] == trace));
    assert_eq!(host.refused(&token, "GET", "/v1/services/traps/logs?outcome=no", None).await, "invalid_request");
    let shown = host.line("tovuk logs --service traps --outcome error --json").refused();
    assert_eq!(shown.failure()["code"], "service_not_found", "it is alice's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_until_the_token_or_the_host_ends() {
    let host = Operator::start(TOVUK).await;
    let token = host.account("alice").await;
    let deployed = host.deploy(&token, "shop", "log", json!({"routes": ["/*"]})).await;
    let mut lines = Lines::of(&host, &token, "/v1/services/shop/logs/follow?limit=0").await;
    let build = deployed["build_job"]["id"].as_str().unwrap();
    let mut of_build = Lines::of(&host, &token, &format!("/v1/builds/{build}/logs/follow?waitSeconds=0")).await;
    assert_eq!(of_build.next().await.unwrap()["stream"], "build");
    while of_build.next().await.is_some() {}
    // What comes is written after a moment that passes by itself.
    host.get("shop", "/").await;
    let mut first = lines.next().await.unwrap();
    while first["stream"] != "stdout" {
        first = lines.next().await.unwrap();
    }
    assert_eq!(first["message"], "out: a line");
    while lines.next().await.unwrap()["stream"] != "invocation" {}
    host.get("shop", "/").await;
    let cursor = lines.next().await.unwrap()["cursor"].as_str().unwrap().to_owned();
    let mut resumed = Lines::of(&host, &token, &format!("/v1/services/shop/logs/follow?cursor={cursor}&outcome=ok")).await;
    assert_eq!(resumed.next().await.unwrap()["outcome"], "ok");
    let older = host.api("GET", "/v1/services/shop/logs/follow?cursor=before_5", Some(&token), None).await;
    assert_eq!(older.code(), "invalid_cursor");
    assert!(older.text().contains("`before_5` leads to older lines"), "{}", older.text());

    let made = host.ok_as(&token, "POST", "/v1/tokens", Some(json!({"name": "other", "scope": "read"}))).await;
    let mut of_other = Lines::of(&host, made["token"].as_str().unwrap(), "/v1/services/shop/logs/follow?limit=0").await;
    host.ok_as(&token, "DELETE", &format!("/v1/tokens/{}", made["details"]["id"].as_str().unwrap()), None).await;
    host.clock.advance(Duration::from_secs(15));
    assert_eq!(of_other.next().await, None);
    let mut until_the_end = Lines::of(&host, &token, "/v1/services/shop/logs/follow?limit=0").await;
    let Operator { host, .. } = host;
    // It does not wait for whoever follows.
    let (ended, ()) = tokio::join!(until_the_end.next(), host.stop());
    assert_eq!(ended, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_follows_for_people_and_for_programs() {
    let host = Operator::start(TOVUK).await;
    host.deploy(&host.token, "shop", "log", json!({"routes": ["/*"]})).await;
    let start = |arguments: &[&str]| {
        let mut command = tovuk(TOVUK, arguments);
        command.env("HOME", &host.data).env_remove("XDG_CONFIG_HOME").current_dir(&host.data);
        command.env("TOVUK_API_BASE_URL", format!("http://{}", host.host.api_address())).env("TOVUK_TOKEN", &host.token);
        Program::start(command)
    };
    let mut people = start(&["logs", "--service", "shop", "--follow"]);
    let mut programs = start(&["logs", "--service", "shop", "--follow", "--json", "--outcome", "ok"]);
    // Both have begun once they have shown what was there.
    people.line(&["build", "live at"]).await;
    host.get("shop", "/").await;
    people.line(&["stdout", "out: a line"]).await;
    people.line(&["invocation", "GET / 200 ok in"]).await;
    let line: Value = serde_json::from_str(&programs.line(&["\"outcome\""]).await).unwrap();
    assert_eq!((&line["stream"], &line["outcome"]), (&json!("invocation"), &json!("ok")));
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_that_do_not_read_and_floods_of_long_lines_hold_up_nobody() {
    let host = Operator::start(TOVUK).await;
    host.deploy(&host.token, "floods", "log", json!({"routes": ["/*"], "limits": {"cpu_ms": 30_000}})).await;
    host.deploy(&host.token, "quiet", "log", json!({"routes": ["/*"]})).await;
    // They have their answer's head and take nothing of its body.
    let mut followers = Vec::new();
    for _ in 0..8 {
        followers.push(Lines::of(&host, &host.token, "/v1/services/floods/logs/follow?limit=0").await);
    }
    // 32 MiB of lines, each cut to what a line may have.
    let floods = (0..32).map(|_| host.get("floods", "/long"));
    let (statuses, quiet) = tokio::join!(futures::future::join_all(floods), host.get("quiet", "/"));
    assert!(statuses.iter().all(|reply| reply.status == 200) && quiet.status == 200);
    host.host.control().flush_logs().await;
    let of_quiet = host.log(&host.token, "/v1/services/quiet/logs").await;
    assert!(of_quiet.iter().any(|line| line == "out: a line") && !of_quiet.iter().any(|line| line.contains("dropped")), "{of_quiet:?}");
    let page = host.ok("GET", "/v1/services/floods/logs?limit=50", None).await;
    let longest = page["lines"].as_array().unwrap().iter().map(|line| line["message"].as_str().unwrap().len()).max().unwrap();
    assert!((100 << 10..=256 << 10).contains(&longest), "{longest}");
    // One that reads at last has every line that is kept.
    let mut late = followers.pop().unwrap();
    while late.next().await.unwrap()["stream"] != "invocation" {}
    // Theirs are requests that run, for which the end of the host waits as for all, until the drain timeout.
    let (clock, Operator { host, .. }) = (host.clock.clone(), host);
    let mut stopping = std::pin::pin!(host.stop());
    while tokio::time::timeout(Duration::from_millis(20), stopping.as_mut()).await.is_err() {
        clock.advance(Duration::from_secs(5));
    }
}
