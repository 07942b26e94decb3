//! Objects as text.

use serde_json::Value;

use super::{one_line, table};

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The objects of a service.
pub fn list(answer: &Value) -> String {
    let objects = answer.get("objects").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if objects.is_empty() {
        return "no objects\n".to_owned();
    }
    let size = |object: &Value| object.get("sizeBytes").and_then(Value::as_u64).unwrap_or(0).to_string();
    let rows = objects.iter().map(|object| vec![text(object, "path"), size(object), text(object, "status"), text(object, "publicUrl")]);
    let mut shown = table(&["path", "bytes", "status", "public_url"], rows);
    if let Some(cursor) = answer.get("next_cursor").and_then(Value::as_str) {
        shown.push_str(&format!("more: repeat with --cursor {}\n", one_line(cursor)));
    }
    shown
}

/// A URL, alone, so that scripts can take it as it is.
pub fn url(answer: &Value) -> String {
    format!("{}\n", one_line(&text(answer, "url")))
}

/// What a deletion has removed.
pub fn deleted(answer: &Value) -> String {
    let path = one_line(&text(answer, "path"));
    let number = |field: &str| answer.get(field).and_then(Value::as_u64).unwrap_or(0);
    if answer.get("deleted") != Some(&Value::Bool(true)) {
        return format!("there was no object {path}\n");
    }
    match number("abortedUploads") {
        0 => format!("{path} is deleted ({} bytes)\n", number("deletedBytes")),
        uploads => format!("{path} is deleted ({} bytes, open uploads: {uploads})\n", number("deletedBytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_shown_without_what_drives_a_terminal() {
        let shown =
            list(&json!({"objects": [{"path": "a\u{1b}[2J", "sizeBytes": 5, "status": "ready", "publicUrl": "http://x"}], "next_cursor": "c"}));
        assert!(shown.contains("PATH") && shown.contains("http://x") && shown.contains("--cursor c") && !shown.contains('\u{1b}'), "{shown}");
        assert_eq!(list(&json!({"objects": []})), "no objects\n");
        assert_eq!(url(&json!({"url": "http://x\n"})), "http://x\\n\n");
        assert!(deleted(&json!({"path": "a", "deleted": false})).contains("no object"));
        assert_eq!(deleted(&json!({"path": "a", "deleted": true, "deletedBytes": 5})), "a is deleted (5 bytes)\n");
    }
}
