//! Any answer as text: lists of objects as tables, everything else as names and values. It knows no operation; only which columns come first, and which
//! of a long row are worth their place.

use serde_json::{Map, Value};

use super::{next_actions, one_line, pairs, table};

/// Columns in this order come before others.
const FIRST: [&str; 8] = ["name", "domain", "handle", "id", "service_id", "kind", "status", "url"];
/// Lists whose rows have more than fits: the columns that are shown.
const CHOSEN: [(&str, &[&str]); 2] = [
    ("deploys", &["id", "service_id", "status", "source", "commit_sha", "created_at", "message"]),
    ("domains", &["domain", "status", "dns_record_value", "problem"]),
];
/// What is said in another way.
const APART: [&str; 3] = ["next_actions", "has_more", "next_cursor"];
/// Longest hexadecimal text that is shown whole.
const HEX_MAX: usize = 12;

/// An answer as text.
pub fn generic(answer: &Value) -> String {
    let Value::Object(map) = answer else { return format!("{}\n", one_line(&cell(answer))) };
    let mut text = object(map, "");
    if let Some(cursor) = map.get("next_cursor").and_then(Value::as_str) {
        text.push_str(&format!("more: repeat with --cursor {}\n", one_line(cursor)));
    }
    text + &next_actions(answer)
}

fn object(map: &Map<String, Value>, path: &str) -> String {
    let shown: Vec<_> = ordered(map).into_iter().filter(|(name, _)| !APART.contains(&name.as_str())).collect();
    let alone = shown.len() == 1;
    let mut values = Vec::new();
    let mut sections = String::new();
    for (name, value) in shown {
        let title = one_line(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") });
        match value {
            Value::Array(rows) if is_list_of_objects(rows) => {
                let heading = if alone && path.is_empty() { String::new() } else { format!("\n{title}:\n") };
                sections.push_str(&format!("{heading}{}", list(name, rows)));
            }
            Value::Array(rows) if rows.is_empty() => {
                if alone && path.is_empty() {
                    sections.push_str(&format!("no {title}\n"));
                } else {
                    values.push((title, "none".to_owned()));
                }
            }
            Value::Object(inner) if is_flat(inner) && inner.values().all(Value::is_boolean) => values.push((title, enabled(inner))),
            Value::Object(inner) => {
                sections.push_str(&if alone && path.is_empty() { object(inner, "") } else { format!("\n{title}:\n{}", object(inner, "")) })
            }
            Value::Null if alone && path.is_empty() => sections.push_str(&format!("no {title}\n")),
            Value::Null => {}
            value => values.push((title, cell(value))),
        }
    }
    let text = pairs(&values) + &sections;
    text.trim_start_matches('\n').to_owned()
}

fn is_list_of_objects(rows: &[Value]) -> bool {
    !rows.is_empty() && rows.iter().all(Value::is_object)
}

fn is_flat(map: &Map<String, Value>) -> bool {
    !map.is_empty() && map.values().all(|value| !value.is_object() && !value.is_array())
}

/// The names of what is true.
pub(super) fn enabled(flags: &Map<String, Value>) -> String {
    named(flags, true)
}

/// The names of the flags that have this value.
pub(super) fn named(flags: &Map<String, Value>, value: bool) -> String {
    let names: Vec<_> = flags.iter().filter(|(_, flag)| flag.as_bool() == Some(value)).map(|(name, _)| name.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn ordered(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let rank = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(name, _)| rank(name));
    entries
}

fn list(name: &str, rows: &[Value]) -> String {
    let objects: Vec<_> = rows.iter().filter_map(Value::as_object).collect();
    let mut columns: Vec<&str> = Vec::new();
    for (column, value) in objects.iter().flat_map(|row| ordered(row)) {
        if !columns.contains(&column.as_str()) && !value.is_object() && !value.is_null() {
            columns.push(column);
        }
    }
    columns.sort_by_key(|name| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
    if let Some((_, chosen)) = CHOSEN.iter().find(|(list, _)| *list == name) {
        let there: Vec<&str> = chosen.iter().copied().filter(|column| columns.contains(column)).collect();
        columns = if there.is_empty() { columns } else { there };
    }
    let header: Vec<String> = columns.iter().map(|column| one_line(column)).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    table(&header, objects.iter().map(|row| columns.iter().map(|column| row.get(*column).map(cell).unwrap_or_default()).collect()))
}

pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        Value::String(text) if text.len() > HEX_MAX && text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            text.chars().take(HEX_MAX).collect()
        }
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_is_a_table_and_what_is_left_is_below() {
        let answer = json!({"tokens": [{"id": "token_1", "name": "ci", "scope": "account"}, {"id": "token_2", "name": "b", "scope": "read", "expiresAt": "t"}],
            "has_more": true, "next_cursor": "before_1", "next_actions": ["Do this."]});
        insta::assert_snapshot!(generic(&answer), @r"
        NAME  ID       SCOPE    EXPIRES AT
        ci    token_1  account
        b     token_2  read     t
        more: repeat with --cursor before_1
        next: Do this.
        ");
        assert_eq!(generic(&json!({"tokens": [], "has_more": false, "next_cursor": null})), "no tokens\n");
    }

    #[test]
    fn an_object_is_names_and_values() {
        let answer = json!({"deploy": {"id": "deploy_1", "status": "live", "powers": ["a", "b"], "artifact": "ab".repeat(32), "commit_sha": null}, "build_job": {"id": "job_1"}});
        insta::assert_snapshot!(generic(&answer), @r"
        build_job:
        id  job_1

        deploy:
        id        deploy_1
        status    live
        artifact  abababababab
        powers    a, b
        ");
        assert_eq!(generic(&json!({"ok": true})), "ok  yes\n");
        assert_eq!(generic(&Value::Null), "\n");
    }
}
