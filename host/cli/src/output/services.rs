//! Services as text: the list with what each has, and one service whole.

use serde_json::{Map, Value};

use super::generic::{enabled, named};
use super::{next_actions, one_line, pairs, table};

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn flags<'a>(value: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    value.pointer(pointer).and_then(Value::as_object)
}

/// Numbers with their names, those that are not 0.
fn counts(counts: impl IntoIterator<Item = (String, u64)>) -> String {
    let shown: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

/// The services of an account.
pub fn list(answer: &Value) -> String {
    let services = answer.get("services").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if services.is_empty() {
        return "no services\nnext: Make one with `tovuk new <folder>`, then run `tovuk deploy <folder>`.\n".to_owned();
    }
    let row = |service: &Value| {
        let none = || "none".to_owned();
        let resources = flags(service, "/resources").map(|map| counts(map.iter().map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0)))));
        let mut cells: Vec<String> =
            ["/name", "/serviceId", "/kind", "/runtimeStatus", "/url"].map(|pointer| text(service, pointer).to_owned()).into();
        cells.push(flags(service, "/capabilities").map_or_else(none, enabled));
        cells.push(flags(service, "/capabilities").map_or_else(none, |flags| named(flags, false)));
        cells.push(resources.unwrap_or_else(none));
        cells
    };
    table(&["name", "id", "kind", "status", "url", "enabled", "disabled", "resources"], services.iter().map(row))
}

/// Everything about one service.
pub fn show(answer: &Value) -> String {
    let service = |field: &str| text(answer, &format!("/status/service/{field}")).to_owned();
    let mut lines = vec![
        ("service".to_owned(), format!("{} ({})", service("name"), service("id"))),
        ("kind".to_owned(), service("kind")),
        ("status".to_owned(), service("runtime_status")),
        ("url".to_owned(), service("url")),
    ];
    if let Some(flags) = flags(answer, "/status/service/capabilities") {
        lines.push(("enabled".to_owned(), enabled(flags)));
        lines.push(("disabled".to_owned(), named(flags, false)));
    }
    let length = |pointer: &str| answer.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len) as u64;
    let held = ["sqliteDatabases", "kvNamespaces", "queues", "cronTriggers", "stateNamespaces", "serviceBindings", "usageCaps"]
        .map(|name| (name.to_owned(), length(&format!("/resources/{name}"))))
        .into_iter()
        .chain([("secrets".to_owned(), length("/env")), ("domains".to_owned(), length("/domains"))]);
    lines.push(("resources".to_owned(), counts(held)));
    lines.push(("account usage".to_owned(), usage(answer)));
    for (name, field) in [("latest deploy", "latest_deploy"), ("live deploy", "live_deploy"), ("latest build", "latest_build_job")] {
        let part = |part: &str| text(answer, &format!("/status/{field}/{part}")).to_owned();
        if !part("id").is_empty() {
            let message = part("message");
            lines.push((
                name.to_owned(),
                format!("{} {}{}", part("id"), part("status"), if message.is_empty() { message } else { format!(": {message}") }),
            ));
        }
    }
    let lines: Vec<_> = lines.into_iter().map(|(name, value)| (name, one_line(&value))).collect();
    pairs(&lines) + &next_actions(answer)
}

fn usage(answer: &Value) -> String {
    let number = |pointer: &str| answer.pointer(pointer).and_then(Value::as_u64);
    let measures = [
        ("services", "/accountUsage/serviceCount"),
        ("stored objects", "/accountUsage/storageObjectCount"),
        ("stored MiB", "/accountUsage/objectStorageMib"),
        ("requests today", "/accountUsage/meters/day/worker_requests"),
        ("CPU ms today", "/accountUsage/meters/day/worker_cpu_ms"),
        ("build minutes this month", "/accountUsage/meters/month/build_minutes"),
    ];
    let shown: Vec<_> = measures.iter().filter_map(|(name, pointer)| number(pointer).map(|number| format!("{name} {number}"))).collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_has_the_columns_that_the_documents_promise() {
        let services = json!({"services": [{"name": "api", "serviceId": "service_1", "kind": "rust_worker", "runtimeStatus": "running", "url": "http://api.localhost",
            "capabilities": {"worker": true, "kv": false, "logs": true}, "resources": {"serviceBindings": 2, "queues": 0, "secrets": 1}}]});
        insta::assert_snapshot!(list(&services), @r"
        NAME  ID         KIND         STATUS   URL                   ENABLED       DISABLED  RESOURCES
        api   service_1  rust_worker  running  http://api.localhost  logs, worker  kv        secrets 1, serviceBindings 2
        ");
        assert!(list(&json!({"services": []})).contains("next: "));
    }

    #[test]
    fn a_service_is_shown_with_what_to_do_next() {
        let snapshot = json!({"status": {"service": {"id": "service_1", "name": "api", "kind": "rust_worker", "runtime_status": "running", "url": "u",
            "capabilities": {"worker": true}}, "latest_deploy": {"id": "deploy_2", "status": "failed", "message": "no"}, "latest_build_job": {"id": "job_2", "status": "failed"}},
            "resources": {"serviceBindings": [1]}, "env": [1, 2], "domains": [], "accountUsage": {"serviceCount": 1, "meters": {"day": {"worker_requests": 7}}},
            "next_actions": ["a", "b", "c", "d"]});
        insta::assert_snapshot!(show(&snapshot), @r"
        service        api (service_1)
        kind           rust_worker
        status         running
        url            u
        enabled        worker
        disabled       none
        resources      serviceBindings 1, secrets 2
        account usage  services 1, requests today 7
        latest deploy  deploy_2 failed: no
        latest build   job_2 failed
        next: a
        next: b
        next: c
        ");
    }
}
