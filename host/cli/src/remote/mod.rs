//! The commands that ask a host. They are not written anywhere: grammar, request and help follow from the table of operations, so that a new operation is
//! a new command. How answers are shown is in `output`.

mod arguments;
mod tree;

use std::process::ExitCode;

use clap::ArgMatches;
use serde_json::Value;
use tovuk_kernel::operation::Operation;

use crate::client::{Call, Client, encoded};
use crate::failure::Failure;
use crate::output;
use crate::session::ClientArgs;

pub use self::arguments::Fields;
pub use self::tree::{Row, tree};

/// The request of an operation with these fields. What the path does not take goes into the body or, where there is none, into the query.
pub fn call_of(operation: &Operation, mut fields: Fields) -> Result<Call, Failure> {
    let mut target = String::new();
    for segment in operation.path.split('/').skip(1) {
        target.push('/');
        match segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}')) {
            None => target.push_str(segment),
            Some(field) => {
                let value = fields.remove(field).map(|value| text(&value)).unwrap_or_default();
                if matches!(value.as_str(), "" | "." | "..") {
                    return Err(Failure::local("invalid_argument", format!("`{value}` cannot be the {field}")).instruct("Give its id or name."));
                }
                target.push_str(&encoded(&value));
            }
        }
    }
    if operation.method.has_body() {
        let body = Some(Value::Object(fields)).filter(|body| body.as_object().is_some_and(|fields| !fields.is_empty()));
        return Ok(Call { method: operation.method, target, body });
    }
    let query: Vec<_> =
        fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| format!("{name}={}", encoded(&text(value)))).collect();
    if !query.is_empty() {
        target = format!("{target}?{}", query.join("&"));
    }
    Ok(Call { method: operation.method, target, body: None })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The operations that these matches name, if the table has such a command.
pub fn find(matches: &ArgMatches) -> Option<(&'static [Row], &ArgMatches)> {
    tree().find(matches)
}

/// The operation that the arguments name, and its request.
pub fn request(rows: &[Row], matches: &ArgMatches) -> Result<(&'static Operation, Call), Failure> {
    let (row, fields) = arguments::choose(rows, matches)?;
    Ok((row.operation, call_of(row.operation, fields)?))
}

/// Asks for what the arguments say, and prints the answer.
pub async fn run(rows: &[Row], matches: &ArgMatches, args: &ClientArgs) -> anyhow::Result<ExitCode> {
    let (row, fields) = arguments::choose(rows, matches)?;
    let service = fields.get("service").and_then(Value::as_str).map(str::to_owned);
    let (operation, call) = (row.operation, call_of(row.operation, fields)?);
    let answer = Client::for_operation(args, operation)?.call(call).await?;
    let kind = rows.first().and_then(|row| row.command.words.split(' ').next()).unwrap_or_default();
    let answer = output::with_next_actions(operation, answer);
    output::print(&answer, args.json, |answer| output::of_operation(operation, kind, service.as_deref(), answer));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tovuk_kernel::operation::Method;

    static GET: Operation = Operation::new("a", Method::Get, "/v1/kv/{ns}/values/{key}", "");
    static POST: Operation = Operation::new("b", Method::Post, "/v1/x/{ns}", "");

    fn fields(value: Value) -> Fields {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn fields_go_where_the_method_has_room_for_them() {
        let call = call_of(&GET, fields(json!({"ns": "n", "key": "a/b c", "limit": 5, "force": true, "none": null, "cursor": "&"}))).unwrap();
        assert_eq!((call.target.as_str(), call.body), ("/v1/kv/n/values/a%2Fb%20c?cursor=%26&force=true&limit=5", None));
        let call = call_of(&POST, fields(json!({"ns": "n", "clear": null}))).unwrap();
        assert_eq!((call.target.as_str(), call.body), ("/v1/x/n", Some(json!({"clear": null}))));
        assert_eq!(call_of(&POST, fields(json!({"ns": "n"}))).unwrap().body, None);
    }

    #[test]
    fn a_segment_that_would_leave_its_place_is_refused() {
        for key in ["", ".", ".."] {
            assert!(call_of(&GET, fields(json!({"ns": "n", "key": key}))).is_err(), "{key}");
        }
    }
}
