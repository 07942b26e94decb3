//! What a value may be, in words: a JSON schema for people. It reads the schemas that the types of this program have, and no others.

use serde_json::Value;

use super::TYPES;

/// A piece of such words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Words.
    Text(String),
    /// The name of a type.
    Type(String),
    /// A value as JSON writes it.
    Value(String),
}

/// What a value of this schema may be.
pub fn shape(schema: &Value) -> Vec<Piece> {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix(TYPES)) {
        return vec![Piece::Type(name.to_owned())];
    }
    if let Some(value) = schema.get("const") {
        return vec![Piece::Value(value.to_string())];
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return either(values.iter().map(|value| vec![Piece::Value(value.to_string())]));
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(schemas) = schema.get(key).and_then(Value::as_array) {
            return either(schemas.iter().map(shape));
        }
    }
    match schema.get("type") {
        Some(Value::String(name)) => of_type(name, schema),
        Some(Value::Array(names)) => either(names.iter().filter_map(Value::as_str).map(|name| of_type(name, schema))),
        _ => text("any JSON"),
    }
}

fn of_type(name: &str, schema: &Value) -> Vec<Piece> {
    match name {
        "array" => {
            let mut pieces = text("list of ");
            pieces.extend(schema.get("items").map_or_else(|| text("any JSON"), shape));
            pieces
        }
        "object" => match schema.get("additionalProperties") {
            Some(values @ Value::Object(_)) => {
                let mut pieces = text("object whose values are ");
                pieces.extend(shape(values));
                pieces
            }
            _ => text("object"),
        },
        "string" if schema.get("contentEncoding").is_some() => text("string in base64"),
        name => text(name),
    }
}

fn text(text: &str) -> Vec<Piece> {
    vec![Piece::Text(text.to_owned())]
}

fn either(options: impl Iterator<Item = Vec<Piece>>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for option in options {
        if !pieces.is_empty() {
            pieces.push(Piece::Text(" or ".to_owned()));
        }
        pieces.extend(option);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(schema: &Value) -> String {
        shape(schema)
            .into_iter()
            .map(|piece| match piece {
                Piece::Text(text) | Piece::Type(text) | Piece::Value(text) => text,
            })
            .collect()
    }

    #[test]
    fn schemas_read_as_words() {
        assert_eq!(words(&json!({"type": ["string", "null"]})), "string or null");
        assert_eq!(words(&json!({"type": "array", "items": {"$ref": "#/components/schemas/Deploy"}})), "list of Deploy");
        assert_eq!(words(&json!({"anyOf": [{"$ref": "#/components/schemas/Plan"}, {"type": "null"}]})), "Plan or null");
        assert_eq!(words(&json!({"type": "string", "enum": ["free", "pro"]})), "\"free\" or \"pro\"");
        assert_eq!(words(&json!({"type": "object", "additionalProperties": {"type": "integer"}})), "object whose values are integer");
        assert_eq!(words(&json!({"type": "string", "contentEncoding": "base64"})), "string in base64");
        assert_eq!(words(&json!(true)), "any JSON");
    }
}
