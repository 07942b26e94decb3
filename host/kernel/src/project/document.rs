//! From TOML text to a JSON value and the place of each part of it in the text. Everything that checks a project file works on the value, so a
//! configuration that arrives as JSON is checked by the same code, only without places.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Problem, Severity};

/// Where the parts of a project file are in its text, by path. A path is written as in TOML, for example `services.gateway.bindings[0].env`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spans(HashMap<String, Place>);

/// One part of a project file: its path in the file and its bytes in the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Place {
    /// The path as it is in the file. It differs from the one it is found by when an earlier entry of an array was refused.
    pub path: String,
    /// The key, where there is one.
    pub key: Option<Range<usize>>,
    /// The value. For a table with a header, the header.
    pub value: Option<Range<usize>>,
}

impl Spans {
    /// The bytes of the value at a path; for a key without a value of its own, those of the key.
    pub fn value(&self, path: &str) -> Option<Range<usize>> {
        let place = self.0.get(path)?;
        place.value.clone().or_else(|| place.key.clone())
    }

    /// The bytes of the key at a path; in an array, those of the value.
    pub fn key(&self, path: &str) -> Option<Range<usize>> {
        let place = self.0.get(path)?;
        place.key.clone().or_else(|| place.value.clone())
    }

    /// The bytes of the innermost part around a path that has a place.
    pub(crate) fn nearest(&self, path: &str) -> Option<Range<usize>> {
        // An end inside a quoted key is the path of nothing and is passed over.
        path.rmatch_indices(['.', '[']).find_map(|(end, _)| self.value(path.get(..end)?))
    }

    /// Whether the file has something at this path.
    pub fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    pub(crate) fn place(&self, path: &str) -> Place {
        self.0.get(path).cloned().unwrap_or_else(|| Place { path: path.to_owned(), ..Place::default() })
    }

    pub(crate) fn insert(&mut self, path: String, place: Place) {
        self.0.insert(path, place);
    }
}

/// The path of a key in a table, quoted where TOML would quote it.
pub(crate) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let key = if bare { key.to_owned() } else { Value::from(key).to_string() };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// The path of an array's entry.
pub(crate) fn index(path: &str, position: usize) -> String {
    format!("{path}[{position}]")
}

/// What the TOML parser says about errors that do not change how the text after them is read.
const LOCAL_ERRORS: [&str; 2] = ["duplicate key", "string values must be quoted"];

/// Reads TOML and reports its errors of syntax: all up to the first that makes the rest doubtful, for example a bracket that is not closed.
/// After such a one there is no value, because what could still be read would be told as wrong for no fault of its own.
pub(crate) fn read(text: &str, problems: &mut Vec<Problem>) -> Option<(Value, Spans)> {
    let (table, mut errors) = DeTable::parse_recoverable(text);
    errors.sort_by_key(|error| error.span().map(|span| span.start));
    let is_local = |error: &toml::de::Error| LOCAL_ERRORS.iter().any(|local| error.message().starts_with(local));
    let doubtful = errors.iter().position(|error| !is_local(error));
    problems.extend(errors.iter().take(doubtful.map_or(usize::MAX, |position| position + 1)).map(|error| Problem {
        severity: Severity::Error,
        message: error.message().trim_end().replace('\n', ", "),
        help: None,
        span: error.span(),
        path: String::new(),
    }));
    if doubtful.is_some() {
        return None;
    }
    let mut reader = Reader { spans: Spans::default(), problems };
    reader.spans.insert(String::new(), Place { value: Some(0..0), ..Place::default() });
    let value = reader.table("", table.get_ref());
    Some((Value::Object(value), reader.spans))
}

/// The places of a value that did not come from text: paths only.
pub(crate) fn paths_of(value: &Value) -> Spans {
    fn visit(value: &Value, path: &str, spans: &mut Spans) {
        spans.insert(path.to_owned(), Place { path: path.to_owned(), ..Place::default() });
        match value {
            Value::Object(table) => table.iter().for_each(|(key, value)| visit(value, &join(path, key), spans)),
            Value::Array(entries) => entries.iter().enumerate().for_each(|(position, value)| visit(value, &index(path, position), spans)),
            _ => {}
        }
    }
    let mut spans = Spans::default();
    visit(value, "", &mut spans);
    spans
}

struct Reader<'a> {
    spans: Spans,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn table(&mut self, path: &str, table: &DeTable<'_>) -> Map<String, Value> {
        let mut members = Map::new();
        for (key, value) in table.iter() {
            let path = join(path, key.get_ref());
            if let Some(value) = self.value(&path, Some(key.span()), value) {
                members.insert(key.get_ref().to_string(), value);
            }
        }
        members
    }

    /// The value as JSON, or nothing for the few values of TOML that JSON and the project file do not have.
    fn value(&mut self, path: &str, key: Option<Range<usize>>, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        let place = Place { path: path.to_owned(), key, value: Some(value.span()) };
        self.spans.insert(path.to_owned(), place);
        match value.get_ref() {
            DeValue::String(text) => Some(Value::from(text.as_ref())),
            DeValue::Boolean(flag) => Some(Value::from(*flag)),
            DeValue::Table(table) => Some(Value::Object(self.table(path, table))),
            DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(number) => Some(Value::from(number)),
                Err(_) => self.refuse(path, value.span(), "is too large for an integer"),
            },
            DeValue::Float(digits) => match digits.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
                Some(number) => Some(Value::Number(number)),
                None => self.refuse(path, value.span(), "must be a finite number"),
            },
            DeValue::Datetime(_) => self.refuse(path, value.span(), "is a date or time, which no key of this file takes; put it in quotes"),
            DeValue::Array(entries) => {
                let mut kept = Vec::new();
                for (position, entry) in entries.iter().enumerate() {
                    kept.push(self.value(&index(path, position), None, entry).unwrap_or(Value::Null));
                }
                Some(Value::Array(kept))
            }
        }
    }

    fn refuse(&mut self, path: &str, span: Range<usize>, what: &str) -> Option<Value> {
        let message = format!("`{path}` {what}");
        self.problems.push(Problem { severity: Severity::Error, message, help: None, span: Some(span), path: path.to_owned() });
        None
    }
}
