//! Data that the project file declares: who makes it, when its scripts are applied, and what stays when the file no longer names it.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tovuk_tests::{Dev, Operator, Project, Serve, component, ran, tovuk};

use crate::TOVUK;

const CREATE: &str = "create table visits (id integer primary key, at text not null) strict;";

fn body(config: Value, migrations: Value) -> Value {
    json!({"service": "app", "config": config, "component_base64": STANDARD.encode(component("env")), "migrations": migrations})
}

fn config() -> Value {
    json!({"routes": ["/*"], "kv": ["CACHE"], "sqlite": {"DB": {"migrations": "migrations"}, "SCRATCH": {}}})
}

fn names(entries: &Value) -> Vec<&str> {
    entries.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_makes_what_is_declared_and_applies_each_script_once() {
    let host = Operator::start(TOVUK).await;
    let built = async |config: Value, migrations: Value| {
        let accepted = host.ok("POST", "/v1/deploy", Some(body(config, migrations))).await;
        let id = accepted["build_job"]["id"].as_str().unwrap().to_owned();
        let status = host.built(&host.token, &id).await["status"].as_str().unwrap().to_owned();
        (status, host.log(&host.token, &format!("/v1/builds/{id}/logs")).await)
    };
    let first = json!({"name": "0001_visits.sql", "sql": CREATE});
    let (status, log) = built(config(), json!({"DB": [first]})).await;
    assert_eq!((status.as_str(), log.iter().filter(|line| line.contains("applied 0001_visits.sql")).count()), ("succeeded", 1), "{log:?}");
    let resources = host.ok("GET", "/v1/services/app/resources", None).await;
    assert_eq!((names(&resources["sqliteDatabases"]), names(&resources["kvNamespaces"])), (vec!["DB", "SCRATCH"], vec!["CACHE"]));
    let env = host.get("app", "/").await.text().to_owned();
    for variable in ["TOVUK_SQLITE_DB", "TOVUK_SQLITE_SCRATCH", "TOVUK_KV_CACHE"] {
        assert!(env.contains(variable), "{variable}: {env}");
    }
    // A second deploy applies what is new; one whose script fails changes nothing that serves, and keeps what the scripts before it did.
    let second = json!({"name": "0002_index.sql", "sql": "create index visits_at on visits (at);"});
    let broken = json!({"name": "0003_broken.sql", "sql": "create table visits (id);"});
    let before = host.get("app", "/").await.text().to_owned();
    let (status, log) = built(config(), json!({"DB": [first, second, broken]})).await;
    let failed = log.iter().any(|line| line.contains("database `DB`: migration 0003_broken.sql: ") && line.contains("visits"));
    assert!(status == "failed" && failed, "{status}: {log:?}");
    assert_eq!(host.get("app", "/").await.text(), before);
    // What was applied has to stay as it was.
    let edited = json!({"name": "0001_visits.sql", "sql": format!("{CREATE} -- edited")});
    let (status, log) = built(config(), json!({"DB": [edited, second]})).await;
    assert!(status == "failed" && log.iter().any(|line| line.contains("0001_visits.sql")), "{status}: {log:?}");
    let third = json!({"name": "0003_note.sql", "sql": "alter table visits add column note text;"});
    let (status, log) = built(config(), json!({"DB": [first, second, third]})).await;
    assert_eq!((status.as_str(), log.iter().filter(|line| line.contains("applied ")).count()), ("succeeded", 1), "{log:?}");
    // What is no longer declared stays.
    let (status, _) = built(json!({"routes": ["/*"]}), json!({})).await;
    assert_eq!(status, "succeeded");
    let resources = host.ok("GET", "/v1/services/app/resources", None).await;
    assert_eq!((names(&resources["sqliteDatabases"]), names(&resources["kvNamespaces"])), (vec!["DB", "SCRATCH"], vec!["CACHE"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_fit_no_declaration_are_refused_before_anything_is_stored() {
    let host = Operator::start(TOVUK).await;
    for (config, migrations, says) in [
        (json!({"routes": ["/*"]}), json!({"DB": []}), "declares no such database"),
        (config(), json!({}), "declares a folder of migrations for `DB`"),
        (config(), json!({"DB": [{"name": "", "sql": ""}]}), "database `DB`: the name of a migration"),
        (config(), json!({"DB": [{"name": "1", "sql": ""}, {"name": "1", "sql": "x"}]}), "database `DB`: there are two migrations named 1"),
        (config(), json!({"DB": [{"name": "1", "sql": "-".repeat(262_145)}]}), "database `DB`: migration 1 has 262145 bytes"),
        (json!({"routes": ["/*"], "kv": ["a-b", "A_B"]}), json!({}), "TOVUK_KV_A_B"),
        (json!({"routes": ["/*"], "kv": ["kv_1"]}), json!({}), "kv_1"),
    ] {
        let reply = host.ask("POST", "/v1/deploy", Some(body(config.clone(), migrations))).await;
        assert!(reply.status.is_client_error() && reply.text().contains(says), "{config}: {}", reply.text());
    }
    assert_eq!(host.ok("GET", "/v1/services", None).await["services"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_that_migrates_ends_with_the_host_and_is_begun_again() {
    let host = Operator::start(TOVUK).await;
    let token = host.ok("POST", "/v1/operator/accounts", Some(json!({"handle": "ada", "plan": "pro"}))).await["token"].as_str().unwrap().to_owned();
    let endless = "create table t as with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
    let scripts = json!({"DB": [{"name": "1", "sql": CREATE}, {"name": "2", "sql": endless}]});
    let accepted = host.ok_as(&token, "POST", "/v1/deploy", Some(body(config(), scripts))).await;
    let (build, deploy) = (accepted["build_job"]["id"].as_str().unwrap().to_owned(), accepted["deploy"]["id"].as_str().unwrap().to_owned());
    // The table of what has been applied is there before the first script has been.
    let applied = async |host: &Operator| {
        let asked = Some(json!({"sql": "select name from _tovuk_migrations"}));
        loop {
            let reply = host.api("POST", "/v1/services/app/sqlite/DB/query", Some(&token), asked.clone()).await;
            if reply.status == 200 && reply.json()["rows"] != json!([]) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    applied(&host).await;
    let started = Instant::now();
    let host = host.restart().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let status = async || host.ok_as(&token, "GET", &format!("/v1/builds/{build}"), None).await["build"]["status"].as_str().unwrap().to_owned();
    while status().await != "running" {
        tokio::task::yield_now().await;
    }
    applied(&host).await;
    // Nothing goes on for a deploy that is cancelled either.
    host.ok_as(&token, "POST", &format!("/v1/deploys/{deploy}/cancel"), None).await;
    let started = Instant::now();
    let written = Some(json!({"sql": "insert into visits (at) values ('now')"}));
    host.ok_as(&token, "POST", "/v1/services/app/sqlite/DB/query", written).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(host.built(&token, &build).await["status"], "canceled");
}

const PROJECT: &str = "[services.app]\ncomponent = \"w.wasm\"\nroutes = [\"/*\"]\nkv = [\"CACHE\"]\nsqlite = { DB = { migrations = \"migrations\" } }\nqueues = { jobs = { max_batch_size = 7 } }\n";

fn project() -> Project {
    Project::new(&[("tovuk.toml", PROJECT), ("migrations/0001_visits.sql", CREATE)]).with_guest("w.wasm", "env")
}

#[tokio::test]
async fn the_command_says_what_it_would_make_and_sends_the_scripts() {
    let host = Serve::start(TOVUK).await;
    let project = project();
    let path = project.path().to_str().unwrap().to_owned();
    let planned = host.cli(&["deploy", &path, "--dry-run"]).ok().stdout;
    assert!(planned.contains("data that would be made: SQLite database DB, KV namespace CACHE, queue jobs"), "{planned}");
    host.cli(&["deploy", &path]).ok();
    let log = host.line("tovuk logs --service app --limit 100").ok().stdout;
    let log = if log.contains("applied") { log } else { host.line("tovuk logs --build job_1").ok().stdout };
    assert!(log.contains("database DB: applied 0001_visits.sql"), "{log}");
    project.write("tovuk.toml", PROJECT.replace("kv = [\"CACHE\"]\n", ""));
    let queues = host.line("tovuk queue list --service app --json").ok().json();
    assert_eq!((&queues["queues"][0]["name"], &queues["queues"][0]["maxBatchSize"]), (&json!("jobs"), &json!(7)));
    let told = host.cli(&["deploy", &path]).ok();
    assert!(told.stderr.contains("the KV namespace CACHE is no longer named and stays"), "{told:?}");
    project.write("migrations/0002_bad.sql", "nonsense");
    let failed = host.cli(&["deploy", &path]);
    assert!(failed.code == 1 && failed.stderr.contains("0002_bad.sql"), "{failed:?}");
}

/// What a command answers that is run in the project's folder.
fn host_line(project: &Project, line: &str) -> Value {
    let words: Vec<_> = line.split(' ').skip(1).collect();
    let mut command = tovuk(TOVUK, &words);
    command.current_dir(project.path());
    ran(command).ok().json()
}

#[tokio::test]
async fn the_development_loop_makes_and_changes_data_as_the_file_says() {
    let project = project();
    let mut dev = Dev::start(TOVUK, project.path()).await;
    assert!(dev.program.text().contains("app: database DB: applied 0001_visits.sql"), "{}", dev.program.text());
    let env = dev.get("app", "/").await.text().to_owned();
    assert!(env.contains("TOVUK_KV_CACHE") && env.contains("TOVUK_SQLITE_DB"), "{env}");
    project.write("migrations/0002_note.sql", "alter table visits add column note text;");
    dev.line(&["app: database DB: applied 0002_note.sql"]).await;
    let batch = || host_line(&project, "tovuk queue list --service app --json")["queues"][0]["maxBatchSize"].clone();
    assert_eq!(batch(), 7);
    project.write("tovuk.toml", PROJECT.replace("= 7", "= 8"));
    while batch() != 8 {
        tokio::task::yield_now().await;
    }
    project.write("migrations/0003_bad.sql", "nonsense");
    dev.line(&["app", "0003_bad.sql"]).await;
    dev.line(&["the last good build still serves"]).await;
    assert!(dev.get("app", "/").await.text().contains("TOVUK_KV_CACHE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_sets_queues_as_the_file_says_and_leaves_what_it_never_said() {
    let host = Operator::start(TOVUK).await;
    let deploy = async |queues: Value| {
        host.deploy(&host.token, "app", "env", json!({"routes": ["/*"], "queues": queues})).await;
        let resources = host.ok("GET", "/v1/services/app/resources", None).await;
        resources["queues"].as_array().unwrap().clone()
    };
    let shown = |queue: &Value| ["name", "maxBatchSize", "maxRetries", "deadLetterQueue", "consumer"].map(|field| queue[field].clone());
    let made = deploy(json!({"jobs": {"max_batch_size": 20, "max_retries": 7, "dead_letter_queue": "failed"}})).await;
    assert_eq!(shown(&made[0]), [json!("failed"), json!(10), json!(3), json!(null), json!("pull")], "it is named and not declared");
    assert_eq!(shown(&made[1]), [json!("jobs"), json!(20), json!(7), json!("failed"), json!("worker")]);
    // What the file says stands before what somebody has set; what it has never said stays.
    host.ok("PUT", "/v1/services/app/queues/jobs", Some(json!({"maxBatchSize": 30, "maxConcurrency": 5, "maxRetries": 8}))).await;
    let changed = deploy(json!({"jobs": {"max_batch_size": 21, "max_retries": 7}})).await;
    assert_eq!(shown(&changed[1]), [json!("jobs"), json!(21), json!(7), json!(null), json!("worker")], "what it says no longer is the default");
    assert_eq!(changed[1]["maxConcurrency"], 5);
    let left = deploy(json!({})).await;
    assert_eq!((left.len(), &left[1]["maxBatchSize"]), (2, &json!(21)), "what is no longer declared stays");
    // Two that change places are no circle.
    deploy(json!({"jobs": {"dead_letter_queue": "failed"}, "failed": {"consumer": "worker"}})).await;
    let turned = deploy(json!({"failed": {"dead_letter_queue": "jobs"}, "jobs": {}})).await;
    assert_eq!((&turned[0]["deadLetterQueue"], &turned[1]["deadLetterQueue"]), (&json!("jobs"), &json!(null)));
    for (queues, says) in [
        (json!({"jobs": {"max_batch_size": 101}}), "100"),
        (json!({"jobs": {"retention_seconds": 59}}), "60"),
        (json!({"jobs": {"dead_letter_queue": "jobs"}}), "its own dead-letter queue"),
        (json!({"jobs": {"dead_letter_queue": "failed"}, "failed": {"dead_letter_queue": "jobs"}}), "failed → jobs → failed"),
    ] {
        let reply = host.ask("POST", "/v1/deploy", Some(body(json!({"routes": ["/*"], "queues": queues}), json!({})))).await;
        assert!(reply.status.is_client_error() && reply.text().contains(says), "{}", reply.text());
    }
}
