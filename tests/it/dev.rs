//! `tovuk dev` as its users see it: what it prints, what answers, and what an edit changes. Services are components that are copied wherever the
//! build itself is not the subject. What a worker may do is asked in the other files, of hosts inside the test.

use std::net::TcpListener;
use std::process::Command;

use rustix::process::Signal;
use tovuk_tests::{Dev, Program, Project, Reply, component, repository, run, tovuk};

use crate::TOVUK;

/// A public service that calls a private one.
const FRONT_AND_BACK: &str = r#"[services.front]
component = "chain.wasm"
routes = ["/*"]
[[services.front.bindings]]
type = "service"
service = "back"
name = "NEXT"

[services.back]
component = "hello.wasm"
"#;

fn front_and_back() -> Project {
    Project::new(&[("tovuk.toml", FRONT_AND_BACK)]).with_guest("chain.wasm", "chain").with_guest("hello.wasm", "hello")
}

/// What of a response does not change from one to the next.
fn shape(reply: &Reply, service: &str) -> (u16, Vec<String>, String) {
    let headers = reply.headers.iter().filter(|(name, _)| *name != "date").map(|(name, value)| format!("{name}: {value:?}")).collect();
    let mut body = reply.json();
    let id = body.as_object_mut().unwrap().remove("request_id").unwrap();
    assert!(!id.as_str().unwrap().is_empty());
    (reply.status.as_u16(), headers, body.to_string().replace(service, "<service>"))
}

#[tokio::test]
async fn a_private_service_answers_its_callers_and_is_unknown_to_everybody_else() {
    let project = front_and_back();
    let mut dev = Dev::of(tovuk(TOVUK, &["dev", project.path().join("tovuk.toml").to_str().unwrap(), "--listen", "127.0.0.1:0"])).await;
    assert!(dev.program.text().lines().any(|line| line.starts_with("ready back ") && line.ends_with("private")), "{}", dev.program.text());
    assert_eq!(dev.get("front", "/1").await.text(), "hello");
    // One line for the request and one for the call that it made, which ends first.
    dev.line(&["  2 front → back", "GET /0 200", "cpu"]).await;
    dev.line(&["front ", "GET /1 200", "cpu"]).await;

    let (private, unknown) = (dev.get("back", "/").await, dev.get("none", "/").await);
    assert_eq!(private.code(), "service_not_found");
    assert_eq!(shape(&private, "back"), shape(&unknown, "none"));
}

#[tokio::test]
async fn what_workers_log_and_why_they_fail_is_shown() {
    let toml = "[services.log]\ncomponent = \"log.wasm\"\nroutes = [\"/*\"]\n[services.trap]\ncomponent = \"trap.wasm\"\nroutes = [\"/*\"]\n";
    let project = Project::new(&[("tovuk.toml", toml)]).with_guest("log.wasm", "log").with_guest("trap.wasm", "trap");
    let mut dev = Dev::start(TOVUK, project.path()).await;
    assert_eq!(dev.get("log", "/").await.text(), "logged");
    dev.program.any_line(&["log | out: a line"]).await;
    dev.program.any_line(&["log | err: a line"]).await;
    let trapped = dev.get("trap", "/panic").await;
    assert_eq!(trapped.code(), "worker_trapped");
    dev.program.any_line(&["trap | ", "this worker panics on purpose"]).await;
    dev.program.any_line(&["trap ", "GET /panic 500"]).await;
    dev.program.any_line(&["    ", "the_function_that_panics"]).await;
}

#[tokio::test]
async fn a_mistake_in_the_project_file_is_shown_and_changes_nothing_that_runs() {
    let project = front_and_back();
    let mut dev = Dev::start(TOVUK, project.path()).await;
    project.write("tovuk.toml", FRONT_AND_BACK.replace("routes", "rout"));
    dev.line(&["unknown key `rout`"]).await;
    dev.line(&["tovuk.toml:3:1"]).await;
    dev.line(&["did you mean `routes`?"]).await;
    dev.line(&["what ran before still runs"]).await;
    assert_eq!(dev.get("front", "/1").await.text(), "hello");

    project.write("tovuk.toml", FRONT_AND_BACK.replace("/*", "/1"));
    dev.line(&["tovuk.toml has changed"]).await;
    dev.line(&["watching for changes"]).await;
    assert_eq!(dev.get("front", "/1").await.text(), "hello");
    assert_eq!(dev.get("front", "/2").await.code(), "route_not_found");
}

#[tokio::test]
async fn services_come_and_go_with_the_project_file() {
    let project = front_and_back();
    let mut dev = Dev::start(TOVUK, project.path()).await;
    assert_eq!(dev.get("new", "/").await.code(), "service_not_found");

    let with_new = format!("{FRONT_AND_BACK}\n[services.new]\ncomponent = \"hello.wasm\"\nroutes = [\"/*\"]\n");
    project.write("tovuk.toml", with_new);
    dev.line(&["ready new ", "http://new.localhost:"]).await;
    dev.line(&["watching for changes"]).await;
    assert_eq!(dev.get("new", "/").await.text(), "hello");
    assert_eq!(dev.get("front", "/1").await.text(), "hello");

    project.write("tovuk.toml", FRONT_AND_BACK);
    dev.line(&["watching for changes"]).await;
    assert_eq!(dev.get("new", "/").await.code(), "service_not_found");
    assert_eq!(dev.get("front", "/1").await.text(), "hello");

    // A binding whose target is gone fails when it is called, and says so before.
    let (front, _) = FRONT_AND_BACK.split_once("\n[services.back]").unwrap();
    project.write("tovuk.toml", front);
    dev.line(&["front: the binding NEXT leads to `back`"]).await;
    dev.line(&["watching for changes"]).await;
    assert_eq!(dev.get("front", "/0").await.text(), "hello");
    assert_eq!(dev.get("front", "/1").await.json()["error"], "unknown_binding");
}

#[tokio::test]
async fn secrets_are_those_of_the_file_as_it_is_now() {
    // The second service is the test's way to know that the loop is done with what came before.
    let toml = "[services.env]\ncomponent = \"env.wasm\"\nroutes = [\"/*\"]\nsecrets = [\"API_KEY\"]\n\
        [services.marker]\nroot = \"marker\"\nbuild = \"cp source.wasm worker.wasm\"\ncomponent = \"worker.wasm\"\n";
    let project = Project::new(&[("tovuk.toml", toml)]).with_guest("env.wasm", "env").with_guest("marker/source.wasm", "hello");
    let mut dev = Dev::start(TOVUK, project.path()).await;
    assert!(dev.program.text().contains("env: not set in .env.local: API_KEY"), "{}", dev.program.text());
    assert_eq!(dev.get("env", "/").await.json()["API_KEY"], serde_json::Value::Null);

    project.write(".env.local", "API_KEY=first\nUNDECLARED=other\n");
    dev.line(&[".env.local has changed"]).await;
    project.write("marker/edited", "1");
    dev.line(&["built marker"]).await;
    let env = dev.get("env", "/").await.json();
    assert_eq!((&env["API_KEY"], &env["UNDECLARED"]), (&"first".into(), &serde_json::Value::Null));

    // A file that cannot be read leaves what ran, and no value of it is printed.
    project.write(".env.local", "API_KEY=\"hunter2\n");
    dev.line(&["failed env: ", ".env.local:1: "]).await;
    assert_eq!(dev.get("env", "/").await.json()["API_KEY"], "first");
    project.write(".env.local", "API_KEY=hunter2\n");
    dev.line(&[".env.local has changed"]).await;
    project.write("marker/edited", "2");
    dev.line(&["built marker"]).await;
    assert_eq!(dev.get("env", "/").await.json()["API_KEY"], "hunter2");
    assert!(!dev.program.text().contains("hunter2"), "{}", dev.program.text());
}

#[tokio::test]
async fn a_service_that_was_never_built_says_so_until_it_is() {
    let toml = |build: &str| format!("[services.late]\nbuild = \"{build}\"\ncomponent = \"worker.wasm\"\nroutes = [\"/*\"]\n");
    let project = Project::new(&[("tovuk.toml", &toml("sh -c 'echo no luck >&2; exit 3'"))]).with_guest("source.wasm", "hello");
    let mut dev = Dev::start(TOVUK, project.path()).await;
    let said = dev.program.text();
    for text in ["late | no luck", "failed late: ", "exit code 3", "(its build failed)"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let reply = dev.get("late", "/").await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "service_not_deployed"));
    let body = reply.json();
    for key in ["message", "agent_instruction", "docs_url", "request_id"] {
        assert!(body[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {body}");
    }

    project.write("tovuk.toml", toml("cp source.wasm worker.wasm"));
    dev.line(&["built late"]).await;
    dev.answers("late", "/", "hello").await;
}

#[tokio::test]
async fn any_build_command_is_run_again_when_its_sources_change() {
    let toml = "[services.any]\nbuild = \"cp source.wasm worker.wasm\"\ncomponent = \"worker.wasm\"\nroutes = [\"/*\"]\n";
    let project = Project::new(&[("tovuk.toml", toml)]).with_guest("source.wasm", "hello");
    let mut dev = Dev::start(TOVUK, project.path()).await;
    assert_eq!(dev.get("any", "/ok").await.text(), "hello");
    project.write("source.wasm", component("trap"));
    dev.answers("any", "/ok", "ok").await;
    // What is no component is refused by its name, and the last good one serves.
    project.write("source.wasm", "no wasm");
    dev.line(&["failed any: ", "worker.wasm", "not WebAssembly"]).await;
    dev.line(&["any: the last good build still serves"]).await;
    assert_eq!(dev.get("any", "/ok").await.text(), "ok");
}

#[tokio::test]
async fn a_component_that_others_build_is_served_again_when_it_changes() {
    let project = Project::new(&[("tovuk.toml", "[services.hand]\ncomponent = \"hand.wasm\"\nroutes = [\"/*\"]\n")]).with_guest("hand.wasm", "hello");
    let mut dev = Dev::start(TOVUK, project.path()).await;
    assert_eq!(dev.get("hand", "/ok").await.text(), "hello");
    project.write("hand.wasm", component("trap"));
    dev.answers("hand", "/ok", "ok").await;
}

const RUST_FRONT: &str = r#"//! Says what the other says.
use tovuk::{Env, Request, Response, Result};

#[tovuk::handler]
fn handle(_: Request, env: Env) -> Result<Response> {
    let answer = env.service("BACK").fetch(Request::get("/"))?;
    Ok(Response::text(format!("front one, {}", answer.body_text()?)))
}
"#;
const RUST_BACK: &str = r#"//! Answers.
use tovuk::{Request, Response};

#[tovuk::handler]
fn handle(_: Request) -> Response {
    Response::text("back one")
}
"#;

/// A workspace of two workers.
fn rust_project() -> Project {
    let project = Project::kept("dev-rust");
    let manifest = |name: &str| {
        let sdk = repository().join("guest-sdk");
        let package = format!("[package]\nname = \"dev-{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n");
        format!("{package}[dependencies]\ntovuk = {{ path = {sdk:?} }}\n")
    };
    // The profile of the templates, so that the dependencies that they build serve here as well.
    let workspace = "[workspace]\nresolver = \"3\"\nmembers = [\"front\", \"back\"]\n\
        [profile.release]\nopt-level = 3\nlto = true\ncodegen-units = 1\npanic = \"abort\"\nstrip = \"debuginfo\"\n";
    let toml = "[services.front]\nroot = \"front\"\nroutes = [\"/*\"]\n\
        [[services.front.bindings]]\ntype = \"service\"\nservice = \"back\"\nname = \"BACK\"\n[services.back]\nroot = \"back\"\n";
    project.write("Cargo.toml", workspace);
    // Versions that are known here, so that nothing is looked up.
    project.write("Cargo.lock", std::fs::read(repository().join("examples/shop/Cargo.lock")).unwrap());
    project.write("tovuk.toml", toml);
    project.write("front/Cargo.toml", manifest("front"));
    project.write("front/src/lib.rs", RUST_FRONT);
    project.write("back/Cargo.toml", manifest("back"));
    project.write("back/src/lib.rs", RUST_BACK);
    project
}

#[tokio::test]
async fn an_edit_of_a_rust_worker_is_served_and_a_mistake_in_it_is_shown() {
    let project = rust_project();
    let mut dev = Dev::start(TOVUK, project.path()).await;
    dev.answers("front", "/", "front one, back one").await;

    project.write("back/src/lib.rs", RUST_BACK.replace("one", "two"));
    dev.answers("front", "/", "front one, back two").await;

    project.write("back/src/lib.rs", RUST_BACK.replace("\"back one\"", "missing"));
    dev.line(&["back | ", "cannot find value `missing`"]).await;
    dev.line(&["back | ", "--> back/src/lib.rs:6:20"]).await;
    dev.line(&["failed back: ", "cargo build"]).await;
    dev.line(&["back: the last good build still serves"]).await;
    assert_eq!(dev.get("front", "/").await.text(), "front one, back two");

    project.write("back/src/lib.rs", RUST_BACK.replace("one", "three"));
    dev.answers("front", "/", "front one, back three").await;
}

#[tokio::test]
async fn sigterm_and_sigint_end_it_with_success() {
    for signal in [Signal::TERM, Signal::INT] {
        let project = front_and_back();
        let mut dev = Dev::start(TOVUK, project.path()).await;
        assert_eq!(dev.get("front", "/1").await.text(), "hello");
        dev.program.signal(signal);
        dev.line(&["stopping"]).await;
        assert!(dev.program.ended().await.success(), "{}", dev.program.text());
    }
}

#[tokio::test]
async fn it_ends_although_a_response_does_not() {
    let project =
        Project::new(&[("tovuk.toml", "[services.drip]\ncomponent = \"drip.wasm\"\nroutes = [\"/*\"]\n")]).with_guest("drip.wasm", "dripper");
    let mut dev = Dev::start(TOVUK, project.path()).await;
    // A tick is rare enough for the worker's limit on CPU not to end the response first.
    let request = dev.request("drip", "/1000").body(http_body_util::Empty::new()).unwrap();
    let response = dev.client().send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    dev.program.signal(Signal::TERM);
    assert!(dev.program.ended().await.success(), "{}", dev.program.text());
}

#[tokio::test]
async fn a_build_that_runs_ends_with_it() {
    // A build that never ends and says by what id it can be found.
    let toml = "[services.slow]\nbuild = \"sh -c 'echo building as $$; exec sleep 100000'\"\ncomponent = \"worker.wasm\"\nroutes = [\"/*\"]\n";
    let project = Project::new(&[("tovuk.toml", toml)]);
    let mut program = Program::start(tovuk(TOVUK, &["dev", project.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]));
    let line = program.line(&["slow | building as "]).await;
    let pid: i32 = line.rsplit(' ').next().unwrap().parse().unwrap();
    program.signal(Signal::TERM);
    assert!(program.ended().await.success(), "{}", program.text());
    let still_sleeps = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("100000"));
    assert!(!still_sleeps, "the build still runs");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let project = front_and_back();
    let output = run(tovuk(TOVUK, &["dev", project.path().to_str().unwrap(), "--listen", &address]));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("cannot listen at {address}")) && error.contains("--listen 127.0.0.1:0") && error.contains("in use"), "{error}");
}

#[tokio::test]
async fn without_room_for_a_pool_it_says_so_and_still_answers() {
    let project = front_and_back();
    let direct = tovuk(TOVUK, &["dev", project.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    // In KiB: 60 GB, where the smallest pool reserves about 500.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v 60000000; exec \"$@\"", "sh"]).arg(direct.get_program()).args(direct.get_args());
    for (name, value) in direct.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let dev = Dev::of(limited).await;
    let said = dev.program.text();
    assert!(said.contains("no instance pool: too little address space"), "{said}");
    assert_eq!(dev.get("front", "/1").await.text(), "hello");
}
