//! What can be asked of the host, described from the table of operations: the OpenAPI document, the page for people and `docs/reference/api.md` are
//! three renderings of this. It knows no HTTP and no host; what an operation does is not its business.

pub mod curl;
pub mod openapi;
mod shape;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::error::ErrorBody;
use tovuk_kernel::operation::{Access, Method, Operation};

pub use self::shape::{Piece, shape};
use super::api;
use super::handler::Registered;

/// Where schemas refer to types.
pub const TYPES: &str = "#/components/schemas/";

/// Everything that can be asked.
pub struct Reference {
    /// The operations, in the order of the table.
    pub entries: Vec<Entry>,
    /// The types of requests and responses, as JSON schemas, by name.
    pub types: BTreeMap<String, Value>,
    /// Types that have one name and two schemas. There are none: a test looks.
    pub ambiguous: Vec<String>,
}

/// One operation.
pub struct Entry {
    /// Its row.
    pub operation: &'static Operation,
    /// The fields of its request: those of the path in its order, then the rest by name.
    pub fields: Vec<Field>,
    /// The schema of what it answers with.
    pub response: Value,
}

/// One field of a request or of a type.
pub struct Field {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub place: Place,
    /// Whether it has to be there.
    pub required: bool,
    /// What it may be.
    pub schema: Value,
    /// What it means.
    pub description: String,
}

/// Where a field of a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A segment of the path.
    Path,
    /// The query.
    Query,
    /// The JSON body.
    Body,
}

impl Place {
    /// One word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Body => "body",
        }
    }
}

/// The reference of this program. It is made once.
pub fn reference() -> &'static Reference {
    static REFERENCE: LazyLock<Reference> = LazyLock::new(|| Reference::of(api::operations()));
    &REFERENCE
}

impl Reference {
    fn of(operations: &[Registered]) -> Self {
        let mut reference = Self { entries: Vec::new(), types: BTreeMap::new(), ambiguous: Vec::new() };
        for registered in operations {
            let (schema, types) = described(SchemaSettings::draft2020_12(), registered.request);
            reference.add(types);
            let fields = request_fields(registered.operation, schema);
            let (response, types) = referred(SchemaSettings::draft2020_12().for_serialize(), registered.response);
            reference.add(types);
            reference.entries.push(Entry { operation: registered.operation, fields, response });
        }
        let (_, types) = referred(SchemaSettings::draft2020_12().for_serialize(), |generator| generator.subschema_for::<ErrorBody<'_>>());
        reference.add(types);
        reference
    }

    fn add(&mut self, types: Map<String, Value>) {
        for (name, schema) in types {
            if self.types.get(&name).is_some_and(|known| *known != schema) {
                self.ambiguous.push(name);
            } else {
                self.types.insert(name, schema);
            }
        }
    }

    /// The subjects that operations are about, in the order of the table.
    pub fn subjects(&self) -> Vec<&'static str> {
        let mut subjects: Vec<&str> = Vec::new();
        for entry in &self.entries {
            if !subjects.contains(&entry.subject()) {
                subjects.push(entry.subject());
            }
        }
        subjects
    }

    /// The operations about a subject.
    pub fn about<'a>(&'a self, subject: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.subject() == subject)
    }
}

impl Entry {
    /// What it is about: the first part of its name.
    pub fn subject(&self) -> &'static str {
        self.operation.name.split('.').next().unwrap_or_default()
    }

    /// The fields that come from one place.
    pub fn from(&self, place: Place) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(move |field| field.place == place)
    }

    /// The codes that it can fail with besides those of every operation.
    pub fn own_errors(&self) -> Vec<&'static Code> {
        let of_service = (self.operation.path.contains("{service}")).then_some(&codes::SERVICE_NOT_FOUND);
        let of_caps = (!self.operation.meters.is_empty()).then_some(&codes::USAGE_CAP_EXCEEDED);
        let mut errors: Vec<_> = of_service.into_iter().chain(self.operation.errors.iter().copied()).chain(of_caps).collect();
        errors.dedup();
        errors
    }

    /// Every code that it can fail with, by status and then by name.
    pub fn errors(&self) -> Vec<&'static Code> {
        let mut errors = self.own_errors();
        errors.extend(api::common_errors());
        if self.operation.access != Access::Public {
            errors.extend(TOKEN_ERRORS);
        }
        errors.sort_by_key(|code| (code.status, code.code));
        errors.dedup();
        errors
    }
}

/// What a request that needs a token can fail with before its operation is asked.
pub const TOKEN_ERRORS: [&Code; 3] = [&codes::UNAUTHORIZED, &codes::TOKEN_SCOPE, &codes::ACCOUNT_SUSPENDED];

/// Who may call an operation, as a sentence.
pub fn access_text(operation: &Operation) -> &'static str {
    match operation.access {
        Access::Public => "Needs no token.",
        Access::Account if operation.method == Method::Get => "Needs a token of the account, of any scope.",
        Access::Account => "Needs a token of the account that may change things: one of the scope `read` may not.",
        Access::Runtime => "Needs a token of the account, or the token of a running worker for its own service.",
        Access::Operator => "Needs a token of the operator.",
    }
}

/// An operation's access in one word.
pub fn access_name(access: Access) -> &'static str {
    match access {
        Access::Public => "public",
        Access::Account => "account",
        Access::Runtime => "runtime",
        Access::Operator => "operator",
    }
}

/// The fields of an object's schema, by name.
pub fn fields(schema: &Value) -> Vec<Field> {
    let required: Vec<&str> = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    let field = |(name, schema): (&String, &Value)| Field {
        name: name.clone(),
        place: Place::Body,
        required: required.contains(&name.as_str()),
        schema: without_description(schema),
        description: description(schema),
    };
    properties.into_iter().flatten().map(field).collect()
}

/// What a schema says of itself, in one paragraph.
pub fn description(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn without_description(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("description");
    }
    schema
}

fn request_fields(operation: &Operation, schema: Value) -> Vec<Field> {
    let rest = if operation.method.has_body() { Place::Body } else { Place::Query };
    let mut fields = fields(&schema);
    let position = |name: &str| operation.path_fields().position(|field| field == name);
    for field in &mut fields {
        field.place = if position(&field.name).is_some() { Place::Path } else { rest };
    }
    fields.sort_by_key(|field| position(&field.name).unwrap_or(usize::MAX));
    fields
}

/// A schema that refers to the types it uses, and those types.
fn referred(mut settings: SchemaSettings, schema: impl FnOnce(&mut SchemaGenerator) -> schemars::Schema) -> (Value, Map<String, Value>) {
    settings.definitions_path = TYPES.trim_start_matches('#').trim_end_matches('/').to_owned().into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let schema = schema(&mut generator).to_value();
    let types = generator.take_definitions(true);
    (schema, types)
}

/// The same with the outermost type written out: a request's own type has a name that means nothing outside.
fn described(settings: SchemaSettings, schema: impl FnOnce(&mut SchemaGenerator) -> schemars::Schema) -> (Value, Map<String, Value>) {
    let (schema, mut types) = referred(settings, schema);
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix(TYPES));
    match name.and_then(|name| types.remove(name)) {
        Some(own) => (own, types),
        None => (schema, types),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_one_schema_and_a_name_that_says_what_it_is() {
        assert_eq!(reference().ambiguous, Vec::<String>::new(), "give one of each pair another name with #[schemars(rename = \"…\")]");
        for name in reference().types.keys() {
            assert!(!name.ends_with(|last: char| last.is_ascii_digit()), "{name} was numbered, because another type has its name");
        }
    }

    #[test]
    fn every_field_of_a_path_is_a_field_of_the_request_and_has_to_be_there() {
        for entry in &reference().entries {
            let found: Vec<_> = entry.from(Place::Path).map(|field| field.name.as_str()).collect();
            assert_eq!(found, entry.operation.path_fields().collect::<Vec<_>>(), "{}", entry.operation.name);
            assert!(entry.from(Place::Path).all(|field| field.required), "{}", entry.operation.name);
        }
    }

    #[test]
    fn everything_is_described() {
        for entry in &reference().entries {
            for field in &entry.fields {
                assert!(!field.description.is_empty(), "{}: {}", entry.operation.name, field.name);
            }
        }
        for (name, schema) in &reference().types {
            assert!(!description(schema).is_empty(), "{name}");
            for field in fields(schema) {
                assert!(!field.description.is_empty(), "{name}.{}", field.name);
            }
        }
    }
}
