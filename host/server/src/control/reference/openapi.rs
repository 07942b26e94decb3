//! The OpenAPI 3.1 document of the control API. It has what the table of operations says and nothing more.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tovuk_kernel::codes::Code;
use tovuk_kernel::operation::Access;

use super::{Entry, Field, Place, Reference, TYPES, access_name, access_text};

/// The name of the one way to show who asks.
const TOKEN: &str = "token";

/// The document of a host whose API is at this URL.
pub fn document(reference: &Reference, server_url: &str) -> Value {
    let mut paths = Map::new();
    for entry in &reference.entries {
        let path = paths.entry(entry.operation.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(entry.operation.method.as_str().to_ascii_lowercase(), operation(entry));
        }
    }
    let tags: Vec<_> = reference.subjects().into_iter().map(|subject| json!({"name": subject})).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tovuk control API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server_url}],
        "security": [{TOKEN: []}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": reference.types,
            "securitySchemes": {TOKEN: {"type": "http", "scheme": "bearer", "description": "A token that `tovuk login` or `tovuk token create` has made."}},
        },
    })
}

const ABOUT: &str = "What people and their programs can ask of a tovuk host. Requests and responses are JSON. `{service}` is the id or the name of a service; \
    path segments are percent-encoded one by one. Failures have one flat body, whose `code` is a row of the table of codes. A trailing slash is ignored.";

fn operation(entry: &Entry) -> Value {
    let row = entry.operation;
    let mut description = access_text(row).to_owned();
    if !row.description.is_empty() {
        description = format!("{}\n\n{description}", row.description);
    }
    let parameters: Vec<_> = entry.fields.iter().filter(|field| field.place != Place::Body).map(parameter).collect();
    let mut operation = json!({
        "operationId": row.name,
        "summary": row.summary,
        "description": description,
        "tags": [entry.subject()],
        "parameters": parameters,
        "responses": responses(entry),
        "x-tovuk-access": access_name(row.access),
        "x-tovuk-body-bytes-max": row.body_bytes_max,
        "x-tovuk-meters": row.meters.iter().map(|meter| meter.as_str()).collect::<Vec<_>>(),
        "x-tovuk-commands": row.commands.iter().flat_map(|command| command.examples).collect::<Vec<_>>(),
    });
    if let Some(operation) = operation.as_object_mut() {
        if row.access == Access::Public {
            operation.insert("security".to_owned(), json!([]));
        }
        if row.method.has_body() {
            operation.insert("requestBody".to_owned(), body(entry));
        }
    }
    operation
}

fn parameter(field: &Field) -> Value {
    json!({
        "name": field.name,
        "in": field.place.as_str(),
        "required": field.required,
        "description": field.description,
        "schema": field.schema,
    })
}

fn body(entry: &Entry) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in entry.from(Place::Body) {
        properties.insert(field.name.clone(), described(field));
        if field.required {
            required.push(field.name.as_str());
        }
    }
    let schema = json!({"type": "object", "properties": properties, "required": required});
    // An absent body stands for an object without fields.
    json!({"required": !required.is_empty(), "content": {"application/json": {"schema": schema}}})
}

fn described(field: &Field) -> Value {
    match &field.schema {
        Value::Object(schema) => {
            let mut schema = schema.clone();
            schema.insert("description".to_owned(), field.description.as_str().into());
            Value::Object(schema)
        }
        // `true`: anything.
        _ => json!({"description": field.description}),
    }
}

fn responses(entry: &Entry) -> Value {
    let mut responses = Map::new();
    let success = json!({"description": "Done.", "content": {entry.operation.content_type(): {"schema": entry.response}}});
    responses.insert(entry.operation.status.to_string(), success);
    let mut by_status = BTreeMap::<u16, Vec<&Code>>::new();
    for code in entry.errors() {
        by_status.entry(code.status).or_default().push(code);
    }
    for (status, codes) in by_status {
        let description: Vec<_> = codes.iter().map(|code| format!("`{}`: {}", code.code, code.message)).collect();
        let names: Vec<_> = codes.iter().map(|code| code.code).collect();
        let schema = json!({"allOf": [{"$ref": format!("{TYPES}ErrorBody")}, {"properties": {"code": {"enum": names}}}]});
        let response = json!({"description": description.join("\n\n"), "content": {"application/json": {"schema": schema}}});
        responses.insert(status.to_string(), response);
    }
    Value::Object(responses)
}
