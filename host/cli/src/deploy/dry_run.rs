//! `tovuk deploy --dry-run`: says what a deploy would change, and sends nothing. It builds, because what a service will be able to do is known by its
//! component only.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::account::{Account, Held};
use super::bundle::Bundle;
use super::find::Target;
use crate::client::{Call, Client};
use crate::failure::Failure;
use crate::output::one_line;

/// What a deploy of these services would change, for programs.
pub async fn plan(client: &Client, workspace: &Path, account: &Account, prepared: &[(Target, Bundle)]) -> Result<Value, Failure> {
    let catalog = client.call(Call::get("/v1/capabilities")).await?;
    let mut services = Vec::new();
    let mut warnings = Vec::new();
    for (target, bundle) in prepared {
        let service = service(account, target, bundle)?;
        let list = |name: &str| {
            service
                .pointer(name)
                .and_then(Value::as_array)
                .map(Vec::as_slice)
                .unwrap_or_default()
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
        };
        for secret in list("/resources/secrets_unset") {
            warnings.push(format!("the deploy is refused until `tovuk env set {secret}=<value> --service {}{}` has run", target.name, client.flag()));
        }
        services.push(service);
    }
    if !account.unnamed.is_empty() {
        warnings.push(format!("the account has services that no project here names; they stay as they are: {}", account.unnamed.join(", ")));
    }
    let of_usage = |name: &str| account.usage.get(name).cloned().unwrap_or_default();
    Ok(json!({
        "ok": true, "mode": "dry_run", "dryRun": true, "sourceOfTruth": "tovuk.toml",
        "deployBehavior": "one deploy for each service; each goes live alone, and nothing is ever deleted",
        "workspace": workspace, "services": services, "warnings": warnings,
        "capabilityCatalog": catalog.get("products"), "limits": of_usage("limits"), "usage": of_usage("usage"), "billingEstimate": of_usage("billingEstimate"),
        "nextActions": ["Run `tovuk deploy` to do this."],
    }))
}

fn service(account: &Account, target: &Target, bundle: &Bundle) -> Result<Value, Failure> {
    let nothing = Held::default();
    let held = account.held.get(&target.name);
    let before = held.unwrap_or(&nothing);
    let powers = bundle.powers(target);
    let new_powers: Option<Vec<_>> = powers.as_ref().map(|powers| powers.iter().filter(|power| !before.powers.contains(power)).cloned().collect());
    let mut changes = Vec::new();
    if let Some(config) = &before.config {
        differences("", &whole(config), &whole(&target.kept_config()?), &mut changes);
    }
    Ok(json!({
        "name": target.name, "kind": target.service.kind(), "project": target.project, "new": held.is_none(), "live_deploy": before.live,
        "component_bytes": bundle.component_bytes, "files": bundle.files, "skipped": bundle.skipped,
        "powers": powers, "new_powers": new_powers, "config_changes": changes, "resources": account.resources(target),
    }))
}

/// What is declared for the one service of a configuration, whose name need not be repeated in each change.
fn whole(config: &Value) -> Value {
    let services = config.get("services").and_then(Value::as_object);
    services.and_then(|services| services.values().next()).unwrap_or(config).clone()
}

/// What differs between two configurations: path, before, after.
fn differences(path: &str, before: &Value, after: &Value, changes: &mut Vec<Value>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let get = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                differences(&path, &get(old), &get(new), changes);
            }
        }
        (before, after) if before == after => {}
        (before, after) => changes.push(json!({"path": path, "before": before, "after": after})),
    }
}

/// The same for people.
pub fn text(plan: &Value) -> String {
    let mut text = String::new();
    for service in plan.get("services").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
        let get = |pointer: &str| service.pointer(pointer);
        let names = |pointer: &str| {
            let list = get(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(one_line).collect::<Vec<_>>()
        };
        let is_new = get("/new").and_then(Value::as_bool) == Some(true);
        let live = get("/live_deploy").and_then(Value::as_str);
        let state = match (is_new, live) {
            (true, _) => "would be made".to_owned(),
            (false, Some(live)) => format!("would replace {}", one_line(live)),
            (false, None) => "has no live deploy yet".to_owned(),
        };
        text.push_str(&format!("{}: {state}\n", get("/name").and_then(Value::as_str).unwrap_or_default()));
        for change in get("/config_changes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
            let part = |name: &str| {
                change.get(name).filter(|value| !value.is_null()).map_or_else(|| "nothing".to_owned(), |value| one_line(&value.to_string()))
            };
            let path = one_line(change.get("path").and_then(Value::as_str).unwrap_or_default());
            text.push_str(&format!("  {path}: {} becomes {}\n", part("before"), part("after")));
        }
        for (label, pointer) in [
            ("new powers", "/new_powers"),
            ("bindings that would be made", "/resources/bindings_missing"),
            ("data that would be made", "/resources/data_missing"),
            ("data no longer named, which stays", "/resources/data_unnamed"),
            ("bindings no longer named, which stay", "/resources/bindings_unnamed"),
            ("secrets no longer named, which stay", "/resources/secrets_unnamed"),
            ("not sent", "/skipped"),
        ] {
            let names = names(pointer);
            if !names.is_empty() {
                text.push_str(&format!("  {label}: {}\n", names.join(", ")));
            }
        }
    }
    for warning in plan.get("warnings").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
        text.push_str(&format!("warning: {}\n", one_line(warning.as_str().unwrap_or_default())));
    }
    text.push_str("nothing was sent\nnext: Run `tovuk deploy` to do this.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_has_kept_does_not_drive_the_terminal() {
        let evil = "x\u{1b}]0;y\u{7}";
        let change = json!({"path": evil, "before": evil, "after": null});
        let plan = json!({"services": [{"name": "a", "live_deploy": evil, "new": false, "config_changes": [change], "skipped": [evil]}], "warnings": [evil]});
        assert!(!text(&plan).contains(['\u{1b}', '\u{7}']), "{:?}", text(&plan));
    }

    #[test]
    fn a_change_is_told_with_its_path_and_both_sides() {
        let mut changes = Vec::new();
        let before = json!({"services": {"a": {"routes": ["/*"], "limits": {"cpu_ms": 5}, "root": "x"}}});
        let after = json!({"services": {"a": {"routes": ["/*"], "limits": {"cpu_ms": 9}, "kv": ["C"], "root": "x"}}});
        differences("", &whole(&before), &whole(&after), &mut changes);
        assert_eq!(changes, [json!({"path": "kv", "before": null, "after": ["C"]}), json!({"path": "limits.cpu_ms", "before": 5, "after": 9})]);
    }
}
