//! Checks a value against the JSON schema that the types derive: unknown keys, wrong types, missing keys, numbers out of range. It reports every
//! problem and returns what is left when the wrong parts are taken out, so that the rules after it can look at the rest.
//!
//! A general JSON-schema validator would do the first half with forty more dependencies and with messages about schemas instead of files. This
//! one knows the keywords that schemars writes for our types, and a test fails when it meets another one.

use serde_json::{Map, Value};

use super::document::{Spans, index, join};
use super::{Problem, Severity};
use crate::names::nearest;

/// Checks `value` and returns the acceptable part of it with its places, by the paths of that part.
pub(crate) fn check(schema: &Value, value: Value, source: &Spans, problems: &mut Vec<Problem>) -> (Option<Value>, Spans) {
    let mut checker = Checker { root: schema, source, kept: Spans::default(), problems };
    let value = checker.visit(schema, value, "", "");
    (value, checker.kept)
}

struct Checker<'a> {
    /// The whole schema, which references point into.
    root: &'a Value,
    /// Places by the paths of the file.
    source: &'a Spans,
    /// Places by the paths of what is kept.
    kept: Spans,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Checker<'a> {
    /// Checks the value at `path` of the file, which becomes `kept_path` of the result.
    fn visit(&mut self, schema: &'a Value, value: Value, path: &str, kept_path: &str) -> Option<Value> {
        // A value that reading has refused already: nothing more is to be said about it.
        if value.is_null() {
            return None;
        }
        let schema = self.choose(self.resolve(schema), &value);
        if !accepts(schema, &value) {
            self.wrong_type(schema, &value, path);
            return None;
        }
        self.kept.insert(kept_path.to_owned(), self.source.place(path));
        match value {
            Value::Object(table) => self.table(schema, table, path, kept_path).map(Value::Object),
            Value::Array(entries) => Some(Value::Array(self.array(schema, entries, path, kept_path))),
            Value::String(text) => self.text(schema, text, path),
            Value::Number(number) => self.number(schema, &number, path).then_some(Value::Number(number)),
            other => Some(other),
        }
    }

    /// The acceptable part of a table, or nothing when a required key is missing and cannot be made up for.
    fn table(&mut self, schema: &'a Value, table: Map<String, Value>, path: &str, kept_path: &str) -> Option<Map<String, Value>> {
        let mut kept = Map::new();
        let mut seen = Vec::new();
        for (key, value) in table {
            let (path, kept_path) = (join(path, &key), join(kept_path, &key));
            let member =
                properties(schema).and_then(|known| known.get(&key)).or_else(|| schema.get("additionalProperties").filter(|any| any.is_object()));
            match member {
                Some(member) => {
                    seen.push(key.clone());
                    if let Some(value) = self.visit(member, value, &path, &kept_path) {
                        kept.insert(key, value);
                    }
                }
                None => self.unknown_key(schema, &key, &path),
            }
        }
        let missing: Vec<&str> = required(schema).filter(|key| !seen.iter().any(|seen| seen == key)).collect();
        if !missing.is_empty() {
            self.missing_keys(schema, &missing, path);
        }
        for key in required(schema) {
            if !kept.contains_key(key) {
                let placeholder = self.placeholder(properties(schema)?.get(key)?)?;
                kept.insert(key.to_owned(), placeholder);
            }
        }
        Some(kept)
    }

    fn array(&mut self, schema: &'a Value, entries: Vec<Value>, path: &str, kept_path: &str) -> Vec<Value> {
        let mut kept = Vec::new();
        for (position, entry) in entries.into_iter().enumerate() {
            let kept_path = index(kept_path, kept.len());
            match schema.get("items") {
                Some(items) => kept.extend(self.visit(items, entry, &index(path, position), &kept_path)),
                None => kept.push(entry),
            }
        }
        kept
    }

    fn text(&mut self, schema: &Value, text: String, path: &str) -> Option<Value> {
        let choices = choices(schema);
        if !choices.is_empty() && !choices.contains(&text.as_str()) {
            let help = match nearest(&text, choices.iter().copied()) {
                Some(choice) => format!("did you mean \"{choice}\"?"),
                None => format!("write one of {}", quoted(&choices, '"')),
            };
            self.report(format!("`{path}` cannot be \"{text}\""), help, self.source.place(path).value, path);
            return None;
        }
        if schema.get("minLength").and_then(Value::as_u64).is_some_and(|least| (text.chars().count() as u64) < least) {
            self.report(format!("`{path}` must not be empty"), "give it a value or remove the line".to_owned(), self.source.place(path).value, path);
            return None;
        }
        Some(Value::String(text))
    }

    fn number(&mut self, schema: &Value, number: &serde_json::Number, path: &str) -> bool {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let value = number.as_f64().unwrap_or(f64::NAN);
        let span = self.source.place(path).value;
        if let Some(least) = bound("minimum").filter(|least| value < *least) {
            self.report(format!("`{path}` is {number}, below the least possible value, {least}"), format!("write {least} or more"), span, path);
            return false;
        }
        if let Some(most) = bound("maximum").filter(|most| value > *most) {
            self.report(format!("`{path}` is {number}, above the ceiling of {most}"), format!("write {most} or less"), span, path);
            return false;
        }
        true
    }

    fn unknown_key(&mut self, schema: &'a Value, key: &str, path: &str) {
        let known: Vec<&str> = properties(schema).into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let inner = known.iter().find(|table| self.member(schema, table).and_then(properties).is_some_and(|keys| keys.contains_key(key)));
        let table = path.rsplit_once('.').map_or("", |(table, _)| table);
        let help = match (nearest(key, known.iter().copied()), inner) {
            (_, Some(inner)) => format!("`{key}` belongs in the table `[{}]`", join(table, inner)),
            (Some(near), None) => format!("did you mean `{near}`?"),
            (None, None) => format!("the keys here are {}", quoted(&known, '`')),
        };
        let place = self.source.place(path);
        self.report(format!("unknown key `{key}`"), help, place.key.or(place.value), path);
    }

    fn missing_keys(&mut self, schema: &'a Value, missing: &[&str], path: &str) {
        let what = if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
        let lines: Vec<String> = missing
            .iter()
            .filter_map(|key| {
                let member = self.member(schema, key)?;
                let inner: Vec<String> =
                    required(member).filter_map(|key| Some(format!("{key} = {}", self.example(self.member(member, key)?)))).collect();
                Some(if inner.is_empty() { format!("{key} = {}", self.example(member)) } else { format!("[{key}]\n{}", inner.join("\n")) })
            })
            .collect();
        let separator = if lines.len() > 3 { "\n" } else { ", " };
        let lines = lines.join(separator);
        let help = if lines.contains('\n') { format!("add\n{lines}") } else { format!("add {lines}") };
        self.report(format!("{what} lacks {}", quoted(missing, '`')), help, self.source.place(path).value, path);
    }

    fn wrong_type(&mut self, schema: &'a Value, value: &Value, path: &str) {
        let expected: Vec<&str> =
            branches(schema).flat_map(|branch| types(self.resolve(branch))).filter(|name| *name != "null").map(type_in_words).collect();
        let found = value_in_words(value);
        let help = match value {
            Value::String(_) if expected.contains(&"an array") => format!("write [{value}]"),
            Value::String(text) if expected.contains(&"an integer") && text.parse::<i64>().is_ok() => format!("write {text} without quotes"),
            Value::Number(_) | Value::Bool(_) if expected.contains(&"a string") => format!("write \"{value}\""),
            _ => format!("for example {}", self.example(schema)),
        };
        let expected = expected.join(" or ");
        self.report(format!("`{path}` must be {expected}, not {found}"), help, self.source.place(path).value, path);
    }

    fn report(&mut self, message: String, help: String, span: Option<std::ops::Range<usize>>, path: &str) {
        self.problems.push(Problem { severity: Severity::Error, message, help: Some(help), span, path: path.to_owned() });
    }

    /// Follows a reference into the definitions.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|reference| self.root.pointer(reference.trim_start_matches('#')));
        target.unwrap_or(schema)
    }

    /// The branch of an `anyOf` that takes this type of value, so that problems inside it are told in its terms.
    fn choose(&self, schema: &'a Value, value: &Value) -> &'a Value {
        branches(schema).map(|branch| self.resolve(branch)).find(|branch| accepts(branch, value)).unwrap_or(schema)
    }

    fn member(&self, schema: &'a Value, key: &str) -> Option<&'a Value> {
        properties(schema)?.get(key).map(|member| self.resolve(member))
    }

    /// A value that lets the rest of a table with a missing key be checked.
    fn placeholder(&self, schema: &'a Value) -> Option<Value> {
        let schema = self.resolve(schema);
        match types(schema).first().copied() {
            Some("boolean") => Some(Value::Bool(false)),
            Some("object") => {
                let known = properties(schema)?;
                let members = required(schema).map(|key| Some((key.to_owned(), self.placeholder(known.get(key)?)?)));
                members.collect::<Option<Map<_, _>>>().map(Value::Object)
            }
            _ => choices(schema).first().map(|choice| Value::from(*choice)),
        }
    }

    /// What a value could look like in the file.
    fn example(&self, schema: &'a Value) -> String {
        let schema = self.resolve(branches(schema).next().unwrap_or(schema));
        if let Some(example) = schema.get("examples").and_then(|examples| examples.get(0)) {
            return toml::Value::try_from(example).map_or_else(|_| example.to_string(), |example| example.to_string());
        }
        match types(schema).first().copied() {
            Some("boolean") => "true".to_owned(),
            Some("integer" | "number") => schema.get("maximum").map_or("1".to_owned(), Value::to_string),
            Some("array") => format!("[{}]", schema.get("items").map_or(String::new(), |items| self.example(items))),
            Some("object") => {
                let known = properties(schema);
                let members = required(schema).filter_map(|key| Some(format!("{key} = {}", self.example(known?.get(key)?))));
                format!("{{ {} }}", members.collect::<Vec<_>>().join(", ")).replace("{  }", "{}")
            }
            _ => choices(schema).first().map_or("\"…\"".to_owned(), |choice| format!("\"{choice}\"")),
        }
    }
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    let any = schema.get("anyOf").and_then(Value::as_array);
    any.into_iter().flatten().chain(any.is_none().then_some(schema))
}

/// The JSON types that a schema without branches accepts; empty when it accepts all. The texts of an enumeration count as `string`.
fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ if !choices(schema).is_empty() => vec!["string"],
        _ => Vec::new(),
    }
}

fn accepts(schema: &Value, value: &Value) -> bool {
    if schema.get("anyOf").is_some() {
        return false;
    }
    let types = types(schema);
    types.is_empty()
        || types.iter().any(|name| match *name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            _ => false,
        })
}

/// The texts of an enumeration, which schemars writes as `enum` or, when its variants have descriptions, as `oneOf` of `const`.
fn choices(schema: &Value) -> Vec<&str> {
    let plain = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let described = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten().filter_map(|choice| choice.get("const"));
    plain.chain(described).filter_map(Value::as_str).collect()
}

fn type_in_words(name: &str) -> &str {
    match name {
        "object" => "a table",
        "array" => "an array",
        "string" => "a string",
        "boolean" => "true or false",
        "integer" => "an integer",
        "number" => "a number",
        other => other,
    }
}

fn value_in_words(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "a table",
    }
}

fn quoted(words: &[&str], quote: char) -> String {
    words.iter().map(|word| format!("{quote}{word}{quote}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use super::*;

    /// What the checker reads, and what may be passed over because it documents and does not constrain.
    const KNOWN: [&str; 21] = [
        "$ref",
        "$defs",
        "type",
        "properties",
        "additionalProperties",
        "required",
        "items",
        "anyOf",
        "oneOf",
        "const",
        "enum",
        "minimum",
        "maximum",
        "minLength",
        "title",
        "description",
        "default",
        "format",
        "$schema",
        "examples",
        "writeOnly",
    ];

    fn assert_known(schema: &Value) {
        let Value::Object(keywords) = schema else { return };
        for (keyword, value) in keywords {
            assert!(KNOWN.contains(&keyword.as_str()), "the checker does not know the keyword `{keyword}`: {value}");
            match (keyword.as_str(), value) {
                ("properties" | "$defs", Value::Object(members)) => members.values().for_each(assert_known),
                ("anyOf" | "oneOf", Value::Array(branches)) => branches.iter().for_each(assert_known),
                ("items" | "additionalProperties", value) => assert_known(value),
                _ => {}
            }
        }
    }

    #[test]
    fn the_schemas_use_no_keyword_that_the_checker_does_not_know() {
        assert_known(&super::super::schema());
        assert_known(&super::super::published_schema());
    }
}
