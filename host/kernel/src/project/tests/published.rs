//! The published client's form.

use insta::assert_snapshot;

use super::*;

const PUBLISHED: &str = r#"
name = "api"
[capabilities]
static_frontend = false
worker = true
sqlite = true
object_storage = false
kv = false
state = false
queue = false
cron = false
service_bindings = false
secrets = false
custom_domains = false
logs = true
builds = true
usage_caps = true
billing = true
support = true
abuse = true
"#;

#[test]
fn the_published_form_becomes_the_same_model() {
    let service = only_service(PUBLISHED);
    assert_eq!(service.kind(), Kind::RustWorker);
    assert_eq!(service.routes, ["/*"]);
    assert_eq!(service.build.as_deref(), Some(DEFAULT_WORKER_BUILD));
    assert_eq!(service.health.as_deref(), Some("/healthz"));
    assert!(service.capabilities().sqlite);
}

#[test]
fn a_published_fullstack_service_keeps_both_its_builds() {
    let fullstack = PUBLISHED
        .replace("static_frontend = false", "static_frontend = true")
        .replace("name = \"api\"", "name = \"api\"\nkind = \"fullstack\"")
        + "[worker]\nroot = \"services/api\"\nbuild = \"cargo build --release --locked\"\n[frontend]\nroot = \"web\"\nbuild = \"npm run build\"\n";
    let service = only_service(&fullstack);
    assert_eq!(service.root(), "services/api");
    assert_eq!(service.assets.as_deref(), Some("../../web/dist"));
    assert_eq!(service.build.as_deref(), Some("cargo build --release --target wasm32-wasip2 --locked"));
    assert_eq!(service.health.as_deref(), Some("/api/healthz"));
    assert_eq!(service.frontend_build(), Some(FrontendBuild { root: "web".to_owned(), command: Some("npm run build".to_owned()) }));
}

#[test]
fn the_rules_of_the_published_form_are_enforced() {
    let text = PUBLISHED.replace("worker = true", "worker = false").replace("sqlite = true\n", "").replace("abuse = true", "abuse = false")
        + r#"
databases = true
[build]
command = "npm run build"
output = "dist"
check = " "
[run]
command = "./server"
port = 0
health = "healthz"
[resources]
memory = "256mb"
cpu = "0.5"
idle_timeout_minutes = 61
"#;
    assert_snapshot!(problems(&text), @r#"
    3:1 error: `capabilities` lacks `sqlite`
        add sqlite = false
    5:10 error: `capabilities.worker` must be true: kind is `rust_worker`
        write worker = true
    19:9 error: `capabilities.abuse` must be true: every service has it
        write abuse = true
    21:1 error: unknown key `databases`
        the keys here are `abuse`, `billing`, `builds`, `cron`, `custom_domains`, `kv`, `logs`, `object_storage`, `queue`, `secrets`, `service_bindings`, `sqlite`, `state`, `static_frontend`, `support`, `usage_caps`, `worker`
    23:11 error: `build.command` must contain `cargo`, `build` and `--release`
        write "cargo build --release --target wasm32-wasip2", or remove the line to use it
    23:11 error: `build.command` runs `npm`, but a Rust worker is not built or run by a JavaScript runtime
        move it to `frontend.build`, or describe the service in the `[services]` form
    24:10 error: `build.output` is not for a `rust_worker`
        remove the line: the component is found by itself
    25:9 error: `build.check` must not be empty
        give a command, or remove the line to use the default
    27:11 error: `run.command` must name a binary under `target/release/`
        remove the line: a component needs no command to run
    28:8 error: `run.port` must be 1 to 65535
        remove the line: a component listens on no port
    29:10 error: `run.health` must start with `/`
        write a path such as "/healthz"
    31:10 error: `resources.memory` must be 128 MiB
        write memory = "128mb"
    32:7 error: `resources.cpu` must be 1
        write cpu = "1"
    33:24 error: `resources.idle_timeout_minutes` must be 1 to 60
        write idle_timeout_minutes = 15
    "#);
}

#[test]
fn a_published_fullstack_service_needs_two_folders() {
    let text =
        PUBLISHED.replace("static_frontend = false", "static_frontend = true").replace("name = \"api\"", "name = \"-api\"\nkind = \"fullstack\"")
            + "[worker]\nroot = \".\"\n[frontend]\noutput = \"../dist\"\n";
    assert_snapshot!(problems(&text), @r#"
    2:8 error: `-api` cannot be used: the name of a service must consist of lower-case letters, digits and `-`, and begin and end with a letter or digit
        write a name such as name = "auth-service"
    23:8 error: `worker.root` must be a folder below the project's, without `.`, `..` and `\`
        write a folder such as "api"
    24:1 error: a `fullstack` service needs `frontend.root`
        add root = "…" to `[frontend]`
    25:10 error: `frontend.output` must be a relative path without `.`, `..` and `\`
        write a folder such as "dist"
    "#);
}

#[test]
fn all_capabilities_are_told_when_the_table_is_missing() {
    assert_snapshot!(problems("name = \"api\"\n"), @r#"
    1:1 error: the file lacks `capabilities`
        add
    [capabilities]
    static_frontend = false
    worker = true
    sqlite = false
    object_storage = false
    kv = false
    state = false
    queue = false
    cron = false
    service_bindings = false
    secrets = false
    custom_domains = false
    logs = true
    builds = true
    usage_caps = true
    billing = true
    support = true
    abuse = true
    "#);
}
