//! What SQL answered, as people read it: rows as tables, what they cost in one line below, and what would make it cheaper.

use std::fmt::Write as _;

use serde_json::Value;

use super::{one_line, table};

/// The answer to a query or a batch.
pub fn query(answer: &Value) -> String {
    let mut text = String::new();
    match answer.get("results").and_then(Value::as_array) {
        Some(results) => {
            for (result, number) in results.iter().zip(1..) {
                if is_table(result) {
                    let _ = write!(text, "statement {number}:\n{}\n", rows(result));
                }
            }
        }
        None => text = rows(answer),
    }
    let count = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or(0);
    let ms = answer.get("durationMs").and_then(Value::as_f64).unwrap_or(0.0);
    let _ = writeln!(
        text,
        "{} rows read, {} written, {} steps, {ms} ms; the database has {} bytes",
        count("rowsRead"),
        count("rowsWritten"),
        count("vmSteps"),
        count("storageBytes")
    );
    let actions = answer.get("nextActions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    text.extend(actions.iter().filter_map(Value::as_str).map(|action| format!("next: {}\n", one_line(action))));
    text
}

fn columns(answer: &Value) -> Vec<&str> {
    answer.get("columns").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn is_table(answer: &Value) -> bool {
    !columns(answer).is_empty()
}

fn rows(answer: &Value) -> String {
    let names = columns(answer);
    if names.is_empty() {
        return String::new();
    }
    let shown: Vec<_> = names.iter().map(|name| one_line(name)).collect();
    let header: Vec<_> = shown.iter().map(String::as_str).collect();
    let rows = answer.get("rows").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    table(&header, rows.iter().map(|row| names.iter().map(|name| row.get(*name).map(cell).unwrap_or_default()).collect()))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(tagged) => match tagged.iter().next().map(|(kind, value)| (kind.as_str(), value)) {
            Some(("integer" | "real", Value::String(number))) => number.clone(),
            _ => value.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_are_a_table_with_their_cost_below() {
        let answer = json!({"columns": ["id", "name"], "rows": [{"id": {"integer": "9223372036854775807"}, "name": "a\u{1b}[2J"}, {"id": 2, "name": null}],
            "rowsRead": 2, "rowsWritten": 0, "vmSteps": 9, "fullscanSteps": 1, "storageBytes": 8192, "durationMs": 0.12, "nextActions": ["Do this."]});
        insta::assert_snapshot!(query(&answer), @r"
        ID                   NAME
        9223372036854775807  a\u{1b}[2J
        2                    NULL
        2 rows read, 0 written, 9 steps, 0.12 ms; the database has 8192 bytes
        next: Do this.
        ");
        let batch = json!({"results": [{"columns": []}, {"columns": ["n"], "rows": [{"n": 1}]}], "rowsWritten": 1});
        assert!(query(&batch).starts_with("statement 2:\nN\n1\n"), "{}", query(&batch));
    }
}
