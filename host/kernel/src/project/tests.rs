//! What parsing says about project files, as an author reads it: severity, line, column, message and help.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod properties;
mod published;
mod queues;

use insta::assert_snapshot;

use super::*;
use crate::limits;

const EXAMPLE: &str = r#"
[services.gateway]
kind = "fullstack"
root = "gateway"
build = "cargo build --release --target wasm32-wasip2"
component = "target/wasm32-wasip2/release/gateway.wasm"
routes = ["/*"]
assets = "web/dist"
health = "/healthz"
sqlite = { DB = { migrations = "migrations" } }
kv = ["CACHE"]
state = ["Room"]
secrets = ["STRIPE_KEY"]
outbound = ["https://api.stripe.com"]
[services.gateway.queues.jobs]
max_batch_size = 10
dead_letter_queue = "failed_jobs"
[services.gateway.crons]
nightly = "0 0 * * *"
[services.gateway.limits]
cpu_ms = 50
memory_mb = 128
[[services.gateway.bindings]]
type = "service"
service = "auth"
name = "AUTH_SERVICE"
format = "url"
env = "AUTH_INTERNAL_URL"
[services.auth]
root = "auth"
"#;

fn told(text: &str, problems: &[Problem]) -> String {
    let mut lines = String::new();
    for problem in problems {
        let before = problem.span.as_ref().map(|span| &text[..span.start]).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let severity = if problem.severity == Severity::Error { "error" } else { "warning" };
        lines.push_str(&format!("{line}:{column} {severity}: {}", problem.message));
        if let Some(help) = &problem.help {
            lines.push_str(&format!("\n    {help}"));
        }
        lines.push('\n');
    }
    lines
}

/// All problems of a text, whether or not it can be used.
fn problems(text: &str) -> String {
    match parse(text) {
        Ok(parsed) => told(text, &parsed.warnings),
        Err(problems) => told(text, &problems),
    }
}

fn only_service(text: &str) -> Service {
    parse(text).unwrap_or_else(|problems| panic!("{}", told(text, &problems))).project.services.into_values().next().unwrap()
}

#[test]
fn the_documented_example_is_read_whole() {
    let parsed = parse(EXAMPLE).unwrap();
    let gateway = &parsed.project.services["gateway"];
    assert_eq!(gateway.kind(), Kind::Fullstack);
    assert_eq!(gateway.sqlite["DB"].migrations.as_deref(), Some("migrations"));
    assert_eq!(gateway.queues["jobs"].max_batch_size, Some(10));
    assert_eq!(gateway.crons["nightly"], "0 0 * * *");
    assert_eq!(gateway.limits.entries().collect::<Vec<_>>(), [("cpu_ms", 50), ("memory_mb", 128)]);
    assert_eq!(gateway.bindings[0].name(), "AUTH_SERVICE");
    assert!(gateway.is_public() && !parsed.project.services["auth"].is_public());
    assert_eq!(parsed.project.services["auth"].kind(), Kind::RustWorker);
}

#[test]
fn every_unknown_key_is_told_with_the_nearest_valid_one() {
    let text = r#"
name = "x"
[services.a]
rout = ["/*"]
bulid = "x"
cpu_ms = 5
zzz = 1
[services.a.limits]
memory = 128
[services.a.queues.q]
max_retry = 3
[[services.a.bindings]]
type = "service"
service = "a"
nam = "A"
env = "A_URL"
"#;
    assert_snapshot!(problems(text), @r#"
    2:1 error: unknown key `name`
        the keys here are `services`
    4:1 error: unknown key `rout`
        did you mean `routes`?
    5:1 error: unknown key `bulid`
        did you mean `build`?
    6:1 error: unknown key `cpu_ms`
        `cpu_ms` belongs in the table `[services.a.limits]`
    7:1 error: unknown key `zzz`
        the keys here are `assets`, `bindings`, `build`, `component`, `crons`, `health`, `kind`, `kv`, `limits`, `object_storage`, `outbound`, `queues`, `root`, `routes`, `secrets`, `sqlite`, `state`
    9:1 error: unknown key `memory`
        did you mean `memory_mb`?
    11:1 error: unknown key `max_retry`
        did you mean `max_retries`?
    15:1 error: unknown key `nam`
        did you mean `name`?
    "#);
}

#[test]
fn wrong_types_and_values_are_told_beside_each_other() {
    let text = r#"
[services.a]
kind = "rust-worker"
kv = "CACHE"
routes = ["/*", 1]
sqlite = 3
object_storage = "yes"
build = ""
health = 1979-05-27
[services.a.limits]
cpu_ms = "50"
memory_mb = 4096
wall_ms = 0
subrequests = 99999999999999999999
[services.a.queues]
jobs = 1
other = { max_batch_size = 101, consumer = "pul" }
[services.a.crons]
nightly = ["0 0 * * *"]
[[services.a.bindings]]
name = "B"
"#;
    assert_snapshot!(problems(text), @r#"
    3:8 error: `services.a.kind` cannot be "rust-worker"
        did you mean "rust_worker"?
    4:6 error: `services.a.kv` must be an array, not a string
        write ["CACHE"]
    5:17 error: `services.a.routes[1]` must be a string, not an integer
        write "1"
    6:10 error: `services.a.sqlite` must be an array or a table, not an integer
        for example ["…"]
    7:18 error: `services.a.object_storage` must be true or false, not a string
        for example true
    8:9 error: `services.a.build` must not be empty
        give it a value or remove the line
    9:10 error: `services.a.health` is a date or time, which no key of this file takes; put it in quotes
    11:10 error: `services.a.limits.cpu_ms` must be an integer, not a string
        write 50 without quotes
    12:13 error: `services.a.limits.memory_mb` is 4096, above the ceiling of 1024
        write 1024 or less
    13:11 error: `services.a.limits.wall_ms` is 0, below the least possible value, 1
        write 1 or more
    14:15 error: `services.a.limits.subrequests` is too large for an integer
    16:8 error: `services.a.queues.jobs` must be a table, not an integer
        for example {}
    17:28 error: `services.a.queues.other.max_batch_size` is 101, above the ceiling of 100
        write 100 or less
    17:44 error: `services.a.queues.other.consumer` cannot be "pul"
        did you mean "pull"?
    19:11 error: `services.a.crons.nightly` must be a string, not an array
        for example "…"
    20:1 error: `services.a.bindings[0]` lacks `type`, `service`
        add type = "service", service = "…"
    "#);
}

#[test]
fn a_wrong_entry_does_not_hide_or_move_problems_of_later_entries() {
    let text = r#"
[services.a]
kv = [1, "bad name", "GOOD"]
bindings = [{ type = "service" }, { type = "service", service = "a", name = "9" }]
"#;
    let problems = parse(text).unwrap_err();
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["services.a.kv[0]", "services.a.kv[1]", "services.a.bindings[0]", "services.a.bindings[1].name"]);
    assert_eq!(&text[problems[3].span.clone().unwrap()], "\"9\"");
}

#[test]
fn names_paths_routes_and_outbound_entries_are_checked() {
    let text = r#"
[services.Bad_Name]
root = "../up"
[services.a]
root = "a"
component = "/abs.wasm"
assets = "../../out"
routes = ["api", "/a*", "/.tovuk/x", "/a?b", "/ok/*", "/ok/*"]
health = "healthz"
kv = ["1st", "kv_1", "databases", "a-b", "A_B"]
sqlite = { DB = { migrations = "..\\x" } }
outbound = ["api.stripe.com", "https://ok.example", "https://*.*.example"]
secrets = ["OK", "TOVUK_X", "A-B", "OK"]
[services.a.crons]
c = "0 0 * *"
d = "0 0 * * $"
[services.a.queues.q]
dead_letter_queue = "q"
"#;
    assert_snapshot!(problems(text), @r#"
    2:11 error: `Bad_Name` cannot be used: the name of a service must consist of lower-case letters, digits and `-`, and begin and end with a letter or digit
        rename the table, for example to [services.auth-service]
    3:8 error: `services.Bad_Name.root` leaves the project's folder: "../up"
        write a path inside the project's folder
    6:13 error: `services.a.component` must be relative, not absolute: "/abs.wasm"
        write a path inside the project's folder
    7:10 error: `services.a.assets` leaves the project's folder: "../../out"
        write a path inside the project's folder
    8:11 error: the route `api` does not start with `/`
        write "/api"
    8:18 error: the route `/a*` has a `*` that is not its last part
        write "/api/*" for everything below a path, or "/api" for the path alone
    8:25 error: the route `/.tovuk/x` lies in `/.tovuk`, which is never public
        choose another path
    8:38 error: the route `/a?b` is not a plain path
        write it without query, escapes, `//` and dot parts
    8:55 error: the route `/ok/*` is declared twice
        remove one of the two
    9:10 error: `services.a.health` must start with `/`
        write "/healthz"
    10:7 error: `1st` cannot be used: the name of a resource must start with a letter and consist of letters, digits, `_` and `-`
        choose a name such as CACHE or failed-jobs
    10:14 error: `kv_1` cannot be used as a name because it looks like an id; ids and names are accepted in the same places
        choose a name that does not end with `_` and a number after the word for a kind
    10:22 error: `databases` is reserved and cannot be the name of a resource
        choose a name such as CACHE or failed-jobs
    10:42 error: `a-b` and `A_B` would share the environment variable `TOVUK_KV_A_B`
        rename one of the two
    11:32 error: `services.a.sqlite.DB.migrations` must be written with `/`, not `\`: "..\x"
        write a path inside the project's folder
    12:13 error: `api.stripe.com` cannot stand in `outbound`: it has no scheme. Write `https://api.stripe.com`
    12:53 error: `https://*.*.example` cannot stand in `outbound`: `*` can only stand alone as the first label of a name, where it means any one label. Write an entry like `https://api.stripe.com`, `http://203.0.114.7:8080`, `https://*.example.com`
    13:18 error: `TOVUK_X` cannot be used: the name of an environment variable must not begin with `TOVUK_`, because those are set by the host
        choose a name such as STRIPE_KEY or AUTH_INTERNAL_URL
    13:29 error: `A-B` cannot be used: the name of an environment variable must consist of letters, digits and `_` and not begin with a digit
        choose a name such as STRIPE_KEY or AUTH_INTERNAL_URL
    13:36 error: the environment variable `OK` is declared already, at `services.a.secrets[0]`
        rename one of the two
    15:5 error: the cron expression "0 0 * *" has 4 fields instead of five
        write minute, hour, day of month, month and weekday in UTC, for example "0 0 * * *"
    16:5 error: the cron expression "0 0 * * $" has a field that is none: `$`
        use numbers, names, `*`, `,`, `-`, `/`, `L`, `W` and `#`
    18:21 error: the queue `q` cannot be its own dead-letter queue
        name another queue of the service, or remove the line
    "#);
}

#[test]
fn bindings_are_checked_among_each_other_and_against_the_services() {
    let text = r#"
[services.front]
assets = "dist"
[services.a]
secrets = ["SHARED"]
bindings = [
    { type = "service", service = "auth", name = "AUTH" },
    { type = "service", service = "front", name = "AUTH" },
    { type = "service", service = "fron", name = "auth" },
    { type = "service", service = "a", format = "url" },
    { type = "service", service = "a", env = "SHARED" },
    { type = "service", service = "a", env = "TOVUK_URL" },
    { type = "service", service = "a", name = "SELF", env = "SELF_URL" },
]
"#;
    assert_snapshot!(problems(text), @r#"
    7:35 warning: the file declares no service `auth`
        add [services.auth] to the file; without it `tovuk deploy` looks for `auth` among the account's services
    8:35 error: `front` is a static frontend; a binding leads to a worker
        bind to a service with a worker
    8:51 error: two bindings are named `AUTH`
        rename one of the two
    9:35 warning: the file declares no service `fron`
        did you mean `front`? Otherwise `tovuk deploy` looks for `fron` among the account's services
    9:50 error: `AUTH` and `auth` would share the environment variable `TOVUK_BINDING_AUTH`
        rename one of the two
    10:5 error: the binding has neither a name nor an environment variable
        add name = "A"
    10:49 error: a binding with `format` needs `env`, the environment variable for the URL
        add env = "A_INTERNAL_URL"
    11:46 error: the environment variable `SHARED` is declared already, at `services.a.secrets[0]`
        rename one of the two
    12:46 error: `TOVUK_URL` cannot be used: the name of an environment variable must not begin with `TOVUK_`, because those are set by the host
        choose a name such as STRIPE_KEY or AUTH_INTERNAL_URL
    "#);
}

#[test]
fn kinds_that_contradict_what_is_declared_are_refused() {
    let text = r#"
[services.a]
kind = "static_frontend"
kv = ["CACHE"]
[services.b]
kind = "rust_worker"
assets = "dist"
[services.c]
kind = "fullstack"
"#;
    assert_snapshot!(problems(text), @r#"
    3:8 error: a service of kind `static_frontend` needs `assets`, the folder of its static files
        add assets = "dist" to `[services.a]`, or write kind = "rust_worker"
    3:8 error: a service of kind `static_frontend` has no worker that could use what is declared
        write kind = "fullstack", or remove what is for a worker
    7:10 error: a service of kind `rust_worker` has no static files
        remove `assets`, or write kind = "fullstack"
    9:8 error: a service of kind `fullstack` needs `assets`, the folder of its static files
        add assets = "dist" to `[services.c]`, or write kind = "rust_worker"
    "#);
}

#[test]
fn errors_of_syntax_are_told_all_with_their_places() {
    assert_snapshot!(problems("[services.a]\nroutes = [\"/*\"\nkv = [\"A\"]\n[services.b\nroot = x\n"), @r#"
    3:1 error: missing comma between array elements, expected `,`
    "#);
    assert_snapshot!(problems("[services.a]\nroot = a\nkv = A\nx = 1\n"), @r#"
    2:8 error: string values must be quoted, expected literal string
    3:6 error: string values must be quoted, expected literal string
    3:6 error: `services.a.kv` must be an array, not a string
        write ["A"]
    4:1 error: unknown key `x`
        the keys here are `assets`, `bindings`, `build`, `component`, `crons`, `health`, `kind`, `kv`, `limits`, `object_storage`, `outbound`, `queues`, `root`, `routes`, `secrets`, `sqlite`, `state`
    "#);
    assert_snapshot!(problems("[services.a]\nroot = \"a\"\nroot = \"b\"\n"), @r#"
    3:1 error: duplicate key
    "#);
}

#[test]
fn a_file_without_services_is_told_how_to_begin() {
    assert_snapshot!(problems(""), @r#"
    1:1 error: the file declares no services
        begin with
    [services.hello]
    routes = ["/*"]
    "#);
    assert_snapshot!(problems("[services]\n"), @r#"
    1:1 error: the project has no services
        declare one, for example with the table [services.hello]
    "#);
    assert_snapshot!(problems("[service.a]\n"), @r#"
    1:2 error: unknown key `service`
        did you mean `services`?
    "#);
}

#[test]
fn the_kind_follows_from_what_is_declared() {
    assert_eq!(only_service("[services.a]\n").kind(), Kind::RustWorker);
    assert_eq!(only_service("[services.a]\nassets = 'dist'\nbuild = 'npm run build'\n").kind(), Kind::StaticFrontend);
    assert_eq!(only_service("[services.a]\nassets = 'dist'\nbuild = 'cargo build'\n").kind(), Kind::Fullstack);
    assert_eq!(only_service("[services.a]\nassets = 'dist'\nkv = ['A']\n").kind(), Kind::Fullstack);
}

#[test]
fn databases_are_a_table_or_an_array() {
    let array = only_service("[services.a]\nsqlite = ['DB']\n");
    let table = only_service("[services.a]\nsqlite = { DB = {} }\n");
    assert_eq!(array, table);
}

#[test]
fn capabilities_follow_from_what_is_declared() {
    let on = |service: &Service| service.capabilities().entries().filter(|(_, on)| *on).map(|(name, _)| name).collect::<Vec<_>>().join(" ");
    let parsed = parse(EXAMPLE).unwrap();
    assert_eq!(Capabilities::default().entries().count(), 17);
    assert_eq!(
        on(&parsed.project.services["gateway"]),
        "static_frontend worker sqlite kv state queue cron service_bindings secrets logs builds usage_caps billing support abuse"
    );
    assert_eq!(on(&parsed.project.services["auth"]), "worker logs builds usage_caps billing support abuse");
}

#[test]
fn a_project_survives_the_way_through_json() {
    let parsed = parse(EXAMPLE).unwrap();
    let json = serde_json::to_value(&parsed.project).unwrap();
    assert_eq!(parse_value(json).unwrap().project, parsed.project);
}

#[test]
fn problems_of_json_have_paths() {
    let problems = parse_value(serde_json::json!({ "services": { "a": { "kv": ["1"], "x": 1 } } })).unwrap_err();
    let paths: Vec<_> = problems.iter().map(|problem| (problem.path.as_str(), problem.span.clone())).collect();
    assert_eq!(paths, [("services.a.x", None), ("services.a.kv[0]", None)]);
}

#[test]
fn the_limits_of_the_file_are_the_rows_of_the_limits_table() {
    let schema = schema();
    let declared = schema.pointer("/$defs/Limits/properties").and_then(Value::as_object).unwrap();
    for row in limits::WORKER {
        assert_eq!(declared[row.name]["maximum"].as_u64(), Some(row.ceiling), "{}", row.name);
    }
    assert_eq!(declared.len(), limits::WORKER.len());
}
