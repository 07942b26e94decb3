//! Calls of operations as command lines of curl, for documentation. Values that only the reader can know stand in angle brackets.

use serde_json::{Map, Value};
use tovuk_kernel::operation::{Access, Method};

use super::{Entry, Field, Place};

/// A call of an operation with the fields that it needs.
pub fn curl(entry: &Entry) -> String {
    let operation = entry.operation;
    let mut line = "curl".to_owned();
    let shown = |field: &Field| (field.name.clone(), value(field));
    let mut body: Map<String, Value> = entry.from(Place::Body).filter(|field| field.required).map(shown).collect();
    // A change of nothing is refused, so one that needs no field in particular is shown with the first that is plain.
    if body.is_empty() && operation.method == Method::Put {
        body.extend(entry.from(Place::Body).map(shown).find(|(_, value)| !value.is_object()));
    }
    // With a body, curl sends POST unless it is told otherwise; without one, GET.
    let implied = if body.is_empty() { Method::Get } else { Method::Post };
    if operation.method != implied {
        line.push_str(" -X ");
        line.push_str(operation.method.as_str());
    }
    if operation.access != Access::Public {
        line.push_str(" -H \"authorization: Bearer $TOVUK_TOKEN\"");
    }
    if !body.is_empty() {
        line.push_str(" --json '");
        line.push_str(&Value::Object(body).to_string());
        line.push('\'');
    }
    let path = operation.path.replace('{', "<").replace('}', ">");
    let query: Vec<_> = entry.from(Place::Query).filter(|field| field.required).map(|field| format!("{0}=<{0}>", field.name)).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    line.push_str(&format!(" \"$TOVUK_API_BASE_URL{path}{query}\""));
    line
}

fn value(field: &Field) -> Value {
    let types = field.schema.get("type");
    let of_several = || types.and_then(Value::as_array)?.iter().filter_map(Value::as_str).find(|name| *name != "null");
    match types.and_then(Value::as_str).or_else(of_several) {
        Some("boolean") => true.into(),
        Some("integer" | "number") => 1.into(),
        Some("array") => Value::Array(Vec::new()),
        Some("object") => Value::Object(Map::new()),
        // What may be any JSON is an object wherever one is required today.
        None if field.schema.get("$ref").is_none() => Value::Object(Map::new()),
        _ => format!("<{}>", field.name).into(),
    }
}
