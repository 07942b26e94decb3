//! What `tovuk dev` has in common with an operator's host: the control API, the data that outlives it, and what workers and programs beside it need to
//! reach both. The loop itself is asked in `dev`.

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rustix::process::Signal;
use serde_json::{Value, json};
use tovuk_tests::{Dev, Operator, Project, Reply, component, ran, run, tovuk};

use crate::TOVUK;

const SERVICES: &str = "[services.front]\ncomponent = \"chain.wasm\"\nroutes = [\"/*\"]\n[services.back]\ncomponent = \"hello.wasm\"\n";

fn project() -> Project {
    Project::new(&[("tovuk.toml", SERVICES)]).with_guest("chain.wasm", "chain").with_guest("hello.wasm", "hello")
}

fn beside_the_data(project: &Project, file: &str) -> String {
    std::fs::read_to_string(project.path().join(".tovuk").join(file)).unwrap().trim().to_owned()
}

/// `localhost` with the port, as the file that clients read has it.
fn authority(project: &Project) -> String {
    beside_the_data(project, "dev-url").strip_prefix("http://").unwrap().to_owned()
}

async fn send(dev: &Dev, request: http::request::Builder, body: Option<Value>) -> Reply {
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    dev.client().whole(request.body(Full::new(body)).unwrap()).await
}

/// A request to the API as a program in the project's folder makes it.
async fn api(dev: &Dev, project: &Project, method: &str, path: &str, body: Option<Value>) -> Reply {
    let token = beside_the_data(project, "dev-token");
    let request = Request::builder().method(method).uri(path).header("host", authority(project));
    send(dev, request.header("authorization", format!("Bearer {token}")), body).await
}

async fn stop(mut dev: Dev) {
    dev.program.signal(Signal::TERM);
    assert!(dev.program.ended().await.success(), "{}", dev.program.text());
}

fn names(services: &Value) -> Vec<(String, String)> {
    let services = services["services"].as_array().unwrap().iter();
    services.map(|service| (service["name"].as_str().unwrap().to_owned(), service["runtimeStatus"].as_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn the_api_answers_to_the_token_beside_the_data_and_to_no_page_of_elsewhere() {
    let project = project();
    let dev = Dev::start(TOVUK, project.path()).await;
    let token = project.path().join(".tovuk/dev-token");
    assert_eq!(token.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let bearer = format!("Bearer {}", beside_the_data(&project, "dev-token"));
    let listed = api(&dev, &project, "GET", "/v1/services", None).await;
    let running = |name: &str| (name.to_owned(), "running".to_owned());
    assert_eq!(names(&listed.json()), [running("back"), running("front")], "{}", listed.text());

    let own = authority(&project);
    let port = own.rsplit_once(':').unwrap().1;
    let ask = |host: &str, origin: Option<&str>, token: Option<&str>| {
        let mut request = Request::builder().uri("/v1/services").header("host", host);
        for (name, value) in [("origin", origin), ("authorization", token)] {
            request = value.into_iter().fold(request, |request, value| request.header(name, value));
        }
        send(&dev, request, None)
    };
    for (host, origin) in [(own.clone(), None), (format!("127.0.0.1:{port}"), None), (own.clone(), Some(format!("http://{own}")))] {
        assert_eq!(ask(&host, origin.as_deref(), Some(&bearer)).await.status, 200, "{host} {origin:?}");
    }
    assert_eq!(ask(&own, None, None).await.code(), "unauthorized");
    for origin in ["https://evil.example", "http://localhost:1", &format!("http://front.{own}"), &format!("https://{own}"), "null"] {
        assert_eq!(ask(&own, Some(origin), Some(&bearer)).await.code(), "service_not_found", "{origin}");
    }
    // A name that somebody else's DNS leads here.
    for host in ["evil.example", &format!("evil.example:{port}"), &format!("localhost.evil.example:{port}"), &format!("back.{own}")] {
        assert_eq!(ask(host, None, Some(&bearer)).await.code(), "service_not_found", "{host}");
    }
    stop(dev).await;
    assert!(!project.path().join(".tovuk/dev-url").exists());
}

#[tokio::test]
async fn a_worker_reaches_the_api_with_the_token_of_its_own_service() {
    let toml = "[services.asks]\ncomponent = \"outbound.wasm\"\nroutes = [\"/*\"]\n[services.other]\ncomponent = \"hello.wasm\"\n\
        [[services.asks.bindings]]\ntype = \"service\"\nservice = \"other\"\nname = \"NEXT\"\n";
    let project = Project::new(&[("tovuk.toml", toml)]).with_guest("outbound.wasm", "outbound").with_guest("hello.wasm", "hello");
    let dev = Dev::start(TOVUK, project.path()).await;
    let ask = async |path: &str| dev.get("asks", &format!("/own-api?path={path}")).await.json();
    let own = ask("/v1/services/asks/resources").await;
    assert_eq!(own["status"], 200, "{own}");
    assert!(own["body"].as_str().unwrap().contains("\"targetServiceName\":\"other\""), "{own}");
    for (path, status) in [("/v1/services/other/resources", 404), ("/v1/services", 403)] {
        assert_eq!(ask(path).await["status"], status, "{path}");
    }
}

#[tokio::test]
async fn what_the_api_was_told_outlives_the_program() {
    let project = project();
    let dev = Dev::start(TOVUK, project.path()).await;
    assert_eq!(dev.get("front", "/1").await.json()["error"], "unknown_binding");
    let binding = json!({"bindingName": "NEXT", "targetService": "back"});
    let made = api(&dev, &project, "POST", "/v1/services/front/service-bindings", Some(binding)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let restarted = api(&dev, &project, "POST", "/v1/services/front/restart", None).await;
    assert_eq!(restarted.status, 200, "{}", restarted.text());
    assert_eq!(dev.get("front", "/1").await.text(), "hello");
    let before = (beside_the_data(&project, "dev-token"), api(&dev, &project, "GET", "/v1/services/front/resources", None).await.json());
    stop(dev).await;

    let mut dev = Dev::start(TOVUK, project.path()).await;
    assert_eq!(dev.get("front", "/1").await.text(), "hello");
    let after = (beside_the_data(&project, "dev-token"), api(&dev, &project, "GET", "/v1/services/front/resources", None).await.json());
    assert_eq!(before, after);

    // One that the file declares follows the file, and takes nothing else with it.
    let declared = "[[services.front.bindings]]\ntype = \"service\"\nservice = \"back\"\nname = \"OTHER\"\n";
    let bindings = async |dev: &Dev| {
        let resources = api(dev, &project, "GET", "/v1/services/front/resources", None).await.json();
        let bindings = resources["serviceBindings"].as_array().unwrap().iter();
        bindings.map(|binding| binding["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    project.write("tovuk.toml", format!("{SERVICES}{declared}"));
    dev.line(&["watching for changes"]).await;
    assert_eq!(bindings(&dev).await, ["NEXT", "OTHER"]);
    project.write("tovuk.toml", SERVICES);
    dev.line(&["watching for changes"]).await;
    assert_eq!(bindings(&dev).await, ["NEXT"]);
    assert_eq!(dev.get("front", "/1").await.text(), "hello");
}

#[tokio::test]
async fn a_service_that_the_file_no_longer_names_keeps_its_data_and_answers_nobody() {
    let project = project();
    let mut dev = Dev::start(TOVUK, project.path()).await;
    let id = async |dev: &Dev| {
        let services = api(dev, &project, "GET", "/v1/services", None).await.json();
        let front = services["services"].as_array().unwrap().iter().find(|service| service["name"] == "front").unwrap().clone();
        (front["serviceId"].as_str().unwrap().to_owned(), front["runtimeStatus"].as_str().unwrap().to_owned())
    };
    let (before, _) = id(&dev).await;
    project.write("tovuk.toml", SERVICES.split_once("[services.back]").unwrap().1.replace("\ncomponent", "[services.back]\ncomponent"));
    dev.line(&["front: tovuk.toml names it no longer", "`tovuk service delete front"]).await;
    dev.line(&["watching for changes"]).await;
    assert_eq!(dev.get("front", "/0").await.code(), "service_not_found");
    assert_eq!(id(&dev).await, (before.clone(), "not_deployed".to_owned()));

    project.write("tovuk.toml", SERVICES);
    dev.line(&["watching for changes"]).await;
    assert_eq!(dev.get("front", "/0").await.text(), "hello");
    assert_eq!(id(&dev).await, (before, "running".to_owned()));
}

#[tokio::test]
async fn a_restart_through_the_api_has_the_secrets_and_files_of_the_author() {
    let toml = "[services.api]\nkind = \"fullstack\"\ncomponent = \"env.wasm\"\nassets = \"site\"\nsecrets = [\"API_KEY\", \"STORED\"]\n";
    let project = Project::new(&[("tovuk.toml", toml), ("site/index.html", "one"), (".env.local", "API_KEY=first\n")]).with_guest("env.wasm", "env");
    let dev = Dev::start(TOVUK, project.path()).await;
    assert!(dev.program.text().contains("api: not set in .env.local: STORED"), "{}", dev.program.text());
    // The name is the slug, also where an operator's host has other uses for it.
    let env = dev.get("api", "/api/").await.json();
    assert_eq!((&env["TOVUK_SERVICE_SLUG"], &env["API_KEY"], &env["TOVUK_SERVICE_PLAN"]), (&"api".into(), &"first".into(), &"free".into()));
    assert_eq!(env["TOVUK_API_BASE_URL"], beside_the_data(&project, "dev-url"));

    let stored = json!({"name": "STORED", "value": "second"});
    assert_eq!(api(&dev, &project, "PUT", "/v1/services/api/env", Some(stored)).await.status, 200);
    project.write("site/index.html", "two");
    assert_eq!(api(&dev, &project, "POST", "/v1/services/api/restart", None).await.status, 200);
    let env = dev.get("api", "/api/").await.json();
    assert_eq!((&env["API_KEY"], &env["STORED"]), (&"first".into(), &"second".into()));
    assert_eq!(dev.get("api", "/").await.text(), "two");
}

#[tokio::test]
async fn builds_and_logs_can_be_read_and_only_the_last_deploys_are_kept() {
    let project = Project::new(&[("tovuk.toml", "[services.log]\ncomponent = \"log.wasm\"\nroutes = [\"/*\"]\n")]).with_guest("log.wasm", "log");
    let mut dev = Dev::start(TOVUK, project.path()).await;
    for round in 0..6 {
        project.write("log.wasm", component(if round % 2 == 0 { "hello" } else { "log" }));
        dev.line(&["built log"]).await;
    }
    assert_eq!(dev.get("log", "/").await.text(), "logged");
    let deploys = api(&dev, &project, "GET", "/v1/services/log/deploys", None).await.json();
    let deploys = deploys["deploys"].as_array().unwrap().clone();
    assert_eq!((deploys.len(), &deploys[0]["status"], &deploys[0]["source"]), (5, &"live".into(), &"local".into()));
    let build = deploys[0]["build_job_id"].as_str().unwrap().to_owned();
    stop(dev).await;
    let dev = Dev::start(TOVUK, project.path()).await;
    let logs = api(&dev, &project, "GET", "/v1/services/log/logs", None).await;
    assert!(logs.text().contains("out: a line"), "{}", logs.text());
    let logs = api(&dev, &project, "GET", &format!("/v1/builds/{build}/logs"), None).await;
    assert!(logs.text().contains("live at http://log.localhost:"), "{}", logs.text());
}

#[tokio::test]
async fn a_project_runs_once() {
    let project = project();
    let dev = Dev::start(TOVUK, project.path()).await;
    let output = run(tovuk(TOVUK, &["dev", project.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]));
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = format!("another `tovuk dev` runs this project at http://{}", authority(&project));
    assert!(output.status.code() == Some(1) && error.contains(&expected), "{:?}: {error}", output.status);
    assert_eq!(dev.get("front", "/0").await.text(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_moved_ahead_instead_of_waited_for() {
    let project = project();
    let dev = Dev::start(TOVUK, project.path()).await;
    let at_home = |line: &str| {
        let words: Vec<_> = line.split_whitespace().skip(1).collect();
        let mut command = tovuk(TOVUK, &words);
        command.current_dir(project.path()).env("HOME", project.path());
        tokio::task::block_in_place(|| ran(command))
    };
    at_home("tovuk kv create --service front CACHE").ok();
    at_home("tovuk kv put --service front CACHE short v --ttl 60").ok();
    at_home("tovuk kv put --service front CACHE long v --ttl 7200").ok();
    let before = at_home("tovuk clock --json").ok().json()["nowUnixMs"].as_u64().unwrap();
    let after = at_home("tovuk clock advance 1h --json").ok().json()["nowUnixMs"].as_u64().unwrap();
    assert!(after >= before + 3_600_000, "{before} {after}");
    assert!(at_home("tovuk kv get --service front CACHE short").refused().stderr.contains("there is no key `short`"));
    at_home("tovuk kv get --service front CACHE long").ok();
    assert!(at_home("tovuk clock advance yesterday").refused().stderr.contains("90s"));
    // What answered before answers on.
    assert_eq!(dev.get("back", "/").await.code(), "service_not_found");
    stop(dev).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_clock_is_moved_by_nobody() {
    let host = Operator::start(TOVUK).await;
    assert_eq!(host.refused(&host.token, "POST", "/v1/clock/advance", Some(json!({"by": "1h"}))).await, "not_on_this_host");
    assert!(host.ok("GET", "/v1/clock", None).await["nowUnixMs"].is_u64());
}

#[tokio::test]
async fn why_a_queue_does_not_move_and_which_cap_fills_up_is_shown() {
    let toml = "[services.jobs]\ncomponent = \"trap.wasm\"\nroutes = [\"/*\"]\n";
    let project = Project::new(&[("tovuk.toml", toml)]).with_guest("trap.wasm", "trap");
    let mut dev = Dev::start(TOVUK, project.path()).await;
    let queue = json!({"name": "mail", "maxBatchTimeoutSeconds": 0, "maxRetries": 0});
    assert_eq!(api(&dev, &project, "POST", "/v1/services/jobs/queues", Some(queue)).await.status, 201);
    let sent = api(&dev, &project, "POST", "/v1/services/jobs/queues/mail/messages", Some(json!({"body": "hello"}))).await;
    assert!(sent.status.is_success(), "{}", sent.text());
    dev.program.any_line(&["jobs queue mail: the delivery of a message has failed: "]).await;
    dev.program.any_line(&["jobs queue mail: a message failed for the last time and went nowhere"]).await;
}
