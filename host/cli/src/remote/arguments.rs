//! The arguments of commands that the table declares: as clap's, and from what was typed to the fields of a request.

use clap::{Arg, ArgAction, ArgMatches};
use serde_json::{Map, Value};
use tovuk_kernel::operation::{Argument, Form, PAGE_ARGUMENTS, Place};

use super::tree::Row;
use crate::failure::Failure;

/// The fields of a request.
pub type Fields = Map<String, Value>;

/// The arguments of a command. Fields of the path that it does not declare are flags; the service always is one.
fn arguments_of(row: &Row) -> Vec<Argument> {
    let declared = |field: &str| row.command.arguments.iter().any(|argument| argument.field == field);
    let of_path = row.operation.path_fields().filter(|field| !declared(field));
    let implied = of_path.map(|field| Argument::flag(field, field, if field == "service" { "The service: its id or name" } else { "" }).required());
    implied.chain(row.command.arguments.iter().copied()).collect()
}

fn flag_of(argument: &Argument) -> Option<(&'static str, &'static [&'static str])> {
    match argument.place {
        Place::Flag(name, others) => Some((name, others)),
        Place::Either(name) => Some((name, &[])),
        Place::Positional => None,
    }
}

fn is_positional(argument: &Argument) -> bool {
    matches!(argument.place, Place::Positional | Place::Either(_)) && !matches!(argument.form, Form::Always(_))
}

fn has_value(argument: &Argument) -> bool {
    !matches!(argument.form, Form::True | Form::False | Form::Null)
}

fn flag_id(flag: &str) -> String {
    format!("--{flag}")
}

/// An operation that answers whole, and whose command takes the flags of a page all the same, because scripts pass them.
const UNPAGED: &str = "account.show";

/// Adds the arguments of the operations that share a command. One is required if it is for all of them.
pub fn declare(mut command: clap::Command, rows: &[Row]) -> clap::Command {
    let lists: Vec<_> = rows.iter().map(arguments_of).collect();
    let mut merged: Vec<(Argument, bool)> = Vec::new();
    for argument in lists.iter().flatten() {
        if !merged.iter().any(|(known, _)| known.field == argument.field && known.place == argument.place) {
            let everywhere =
                lists.iter().all(|list| list.iter().any(|other| other.field == argument.field && other.place == argument.place && other.required));
            merged.push((*argument, everywhere));
        }
    }
    let mut words_certain = true;
    for (argument, required) in &merged {
        let alone = merged.iter().filter(|(other, _)| other.field == argument.field).count() == 1;
        if is_positional(argument) {
            words_certain &= alone && argument.place == Place::Positional;
            command = command.arg(positional(argument, *required && words_certain));
        }
        if let Some((flag, others)) = flag_of(argument) {
            let rivals = merged
                .iter()
                .filter(|(other, _)| other.field == argument.field)
                .filter_map(|(other, _)| flag_of(other))
                .filter(|(other, _)| *other != flag);
            let mut arg = Arg::new(flag_id(flag)).long(flag).visible_aliases(others.iter().copied()).help(argument.help);
            arg = if has_value(argument) {
                arg.value_name(value_name(argument.field)).allow_negative_numbers(true)
            } else {
                arg.action(ArgAction::SetTrue)
            };
            arg = arg.required(*required && alone && !is_positional(argument)).conflicts_with_all(rivals.map(|(other, _)| flag_id(other)));
            command = command.arg(arg);
        }
    }
    if rows.iter().any(|row| row.operation.name == UNPAGED) {
        let flags = PAGE_ARGUMENTS.iter().filter_map(flag_of);
        command = command.args(flags.map(|(flag, _)| Arg::new(flag_id(flag)).long(flag).hide(true)));
    }
    command
}

fn positional(argument: &Argument, required: bool) -> Arg {
    let name = match argument.form {
        Form::KeyValue(value) => format!("{}={}", value_name(argument.field), value_name(value)),
        _ => value_name(argument.field),
    };
    let arg = Arg::new(argument.field).value_name(name).help(argument.help).required(required).allow_negative_numbers(true);
    if matches!(argument.form, Form::Words | Form::List | Form::Keys | Form::Entries | Form::Messages) { arg.num_args(1..) } else { arg }
}

/// `displayName` as `DISPLAY_NAME`.
fn value_name(field: &str) -> String {
    field.chars().flat_map(|letter| letter.is_uppercase().then_some('_').into_iter().chain(letter.to_uppercase())).collect()
}

/// Finds the operation that is meant: of those whose arguments are given, the one whose path names the most.
pub fn choose<'a>(rows: &'a [Row], matches: &ArgMatches) -> Result<(&'a Row, Fields), Failure> {
    let mut chosen: Option<(&Row, Fields)> = None;
    let mut refused = None;
    for row in rows {
        match fields(row, matches) {
            Ok(fields) => {
                let names = |row: &Row| row.operation.path_fields().count();
                if chosen.as_ref().is_none_or(|(other, _)| names(other) < names(row)) {
                    chosen = Some((row, fields));
                }
            }
            Err(failure) => refused = refused.or(Some(failure)),
        }
    }
    chosen.ok_or_else(|| refused.unwrap_or_else(|| Failure::local("unknown_command", "there is no such command")))
}

fn fields(row: &Row, matches: &ArgMatches) -> Result<Fields, Failure> {
    let arguments = arguments_of(row);
    let mut fields = Fields::new();
    for argument in &arguments {
        let Some((flag, _)) = flag_of(argument) else { continue };
        let id = flag_id(flag);
        if !has_value(argument) {
            if matches.try_get_one::<bool>(&id).ok().flatten().copied().unwrap_or(false) {
                set(&mut fields, argument, Vec::new())?;
            }
        } else if let Some(text) = matches.try_get_one::<String>(&id).ok().flatten() {
            set(&mut fields, argument, vec![text.clone()])?;
        }
    }
    let mut words = words(&arguments, matches).into_iter().peekable();
    for argument in arguments.iter().filter(|argument| is_positional(argument)) {
        // A word stands for the first that no flag has given.
        if fields.contains_key(argument.field) || words.peek().is_none() {
            continue;
        }
        let whole = matches!(argument.form, Form::Words | Form::List | Form::Keys | Form::Entries | Form::Messages);
        let taken = if whole { words.by_ref().collect() } else { words.next().into_iter().collect() };
        set(&mut fields, argument, taken)?;
    }
    if let Some(word) = words.next() {
        return Err(invalid(row, format!("`{word}` is one word too many")));
    }
    for argument in &arguments {
        if matches!(argument.form, Form::Always(_)) {
            set(&mut fields, argument, Vec::new())?;
        } else if argument.required && !fields.contains_key(argument.field) {
            let flag = flag_of(argument).map_or_else(|| value_name(argument.field), |(flag, _)| format!("--{flag}"));
            let code = if argument.field == "service" { "missing_service" } else { "missing_argument" };
            return Err(example(row, Failure::local(code, format!("`tovuk {}` needs {flag}", row.command.words))));
        }
    }
    Ok(fields)
}

/// All words after the command, in the order in which they were given.
fn words(arguments: &[Argument], matches: &ArgMatches) -> Vec<String> {
    let given =
        arguments.iter().filter(|argument| is_positional(argument)).map(|argument| matches.try_get_many::<String>(argument.field).ok().flatten());
    given.flatten().flatten().cloned().collect()
}

fn invalid(row: &Row, message: String) -> Failure {
    example(row, Failure::local("invalid_argument", message))
}

fn example(row: &Row, failure: Failure) -> Failure {
    match row.command.examples.first() {
        Some(example) => failure.instruct(format!("For example: `{example}`.")),
        None => failure.instruct(format!("See `tovuk {} --help`.", row.command.words)),
    }
}

fn set(fields: &mut Fields, argument: &Argument, words: Vec<String>) -> Result<(), Failure> {
    let name = || flag_of(argument).map_or_else(|| value_name(argument.field), |(flag, _)| format!("--{flag}"));
    let refused = |text: String| Failure::local("invalid_argument", text).instruct("Correct it and run the command again.");
    let text = words.join(" ");
    let value = match argument.form {
        Form::Text | Form::Words => Value::String(text),
        Form::List => Value::Array(words.into_iter().map(Value::String).collect()),
        Form::Keys => keys(argument.field, words).map_err(|text| refused(format!("{} {text}", name())))?,
        Form::Entries => entries(argument.field, &text).map_err(|text| refused(format!("{} {text}", name())))?,
        Form::Messages => {
            let (list, others) = messages(argument.field, &text).map_err(|text| refused(format!("{} {text}", name())))?;
            // What a flag says stands before.
            for (field, value) in others {
                fields.entry(field).or_insert(value);
            }
            list
        }
        Form::Scripts => scripts(&text).map_err(refused)?,
        Form::Integer => text.parse::<i64>().map(Value::from).map_err(|_| refused(format!("{} must be a whole number, and is `{text}`", name())))?,
        Form::Json => serde_json::from_str(&text).map_err(|error| refused(format!("{} must be JSON: {error}", name())))?,
        Form::True | Form::Always(true) => Value::Bool(true),
        Form::False | Form::Always(false) => Value::Bool(false),
        Form::Null => Value::Null,
        Form::KeyValue(value) => {
            let (key, rest) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
                // What was meant to be the value of a secret must not be repeated.
                refused("it must be NAME=value: the name, `=`, and the value in one word".to_owned())
            })?;
            fields.insert(value.to_owned(), Value::String(rest.to_owned()));
            Value::String(key.to_owned())
        }
    };
    fields.insert(argument.field.to_owned(), value);
    Ok(())
}

/// The scripts of a folder.
fn scripts(folder: &str) -> Result<Value, String> {
    let scripts = crate::migrations::read(std::path::Path::new(folder))?;
    serde_json::to_value(scripts).map_err(|error| error.to_string())
}

/// Words, or one word of JSON that stands for them.
fn keys(field: &str, words: Vec<String>) -> Result<Value, String> {
    let json = match words.as_slice() {
        [only] if only.starts_with(['[', '{']) => serde_json::from_str::<Value>(only).ok(),
        _ => None,
    };
    let Some(json) = json else { return Ok(Value::Array(words.into_iter().map(Value::String).collect())) };
    let list = match json {
        Value::Object(mut object) => object.remove(field).unwrap_or_default(),
        other => other,
    };
    let is_list_of_keys = list.as_array().is_some_and(|list| list.iter().all(|key| key.as_str().is_some_and(|key| !key.trim().is_empty())));
    if is_list_of_keys { Ok(list) } else { Err(format!("must be a list of keys, or {{\"{field}\": [...]}}")) }
}

/// Entries from JSON.
fn entries(field: &str, text: &str) -> Result<Value, String> {
    match serde_json::from_str(text).map_err(|error| format!("must be JSON: {error}"))? {
        list @ Value::Array(_) => Ok(list),
        Value::Object(mut object) if object.contains_key(field) => Ok(object.remove(field).unwrap_or_default()),
        Value::Object(object) => {
            let entry = |(key, value): (String, Value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                serde_json::json!({"key": key, "value": text, "encoding": "text"})
            };
            Ok(Value::Array(object.into_iter().map(entry).collect()))
        }
        _ => Err("must be a list of entries or an object of keys and values".to_owned()),
    }
}

/// Messages from JSON, and what else the object that they stand in has.
fn messages(field: &str, text: &str) -> Result<(Value, Fields), String> {
    let (list, others) = match serde_json::from_str(text).map_err(|error| format!("must be JSON: {error}"))? {
        Value::Object(mut object) => (object.remove(field).unwrap_or_default(), object),
        list => (list, Fields::new()),
    };
    let Value::Array(list) = list else { return Err(format!("must be a list of messages, or {{\"{field}\": [...]}}")) };
    let as_text = |value: &mut Value| {
        if !value.is_string() {
            *value = Value::String(value.to_string());
        }
    };
    let message = |value: Value| match value {
        Value::Object(mut message) => {
            if let Some(body) = message.get_mut("body") {
                as_text(body);
                message.entry("encoding").or_insert_with(|| "text".into());
            }
            Value::Object(message)
        }
        mut body => {
            as_text(&mut body);
            serde_json::json!({"body": body, "encoding": "text"})
        }
    };
    Ok((list.into_iter().map(message).collect(), others))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::tree::Row;
    use serde_json::json;
    use tovuk_kernel::operation::{Command, Method, Operation};

    static LIST: Operation = Operation::new("x.list", Method::Get, "/v1/x", "List").commands(&[Command::new("x list")]);
    static OF_SERVICE: Operation = Operation::new("x.of", Method::Get, "/v1/services/{service}/x", "List").commands(&[Command::new("x list")]);
    static PUT: Operation = Operation::new("x.put", Method::Put, "/v1/services/{service}/x/{name}", "Put").commands(&[Command::new("x put")
        .arguments(&[
            Argument::positional("name", ""),
            Argument::either("toWhom", "to", ""),
            Argument::positional("value", "").form(Form::Words).optional(),
            Argument::flag("value", "value", ""),
            Argument::flag("ttl", "ttl", "").form(Form::Integer),
            Argument::flag("meta", "meta", "").form(Form::Json),
            Argument::flag("queue", "queue", ""),
            Argument::flag("queue", "clear-queue", "").form(Form::Null),
            Argument::constant("stop", true),
        ])]);
    static SET: Operation = Operation::new("x.set", Method::Put, "/v1/x/{name}", "Set")
        .commands(&[Command::new("x set").arguments(&[Argument::positional("name", "").form(Form::KeyValue("value"))])]);

    fn chosen(rows: &[&'static Operation], line: &str) -> Result<(&'static str, Value), String> {
        let rows: Vec<_> = rows.iter().map(|operation| Row { operation, command: &operation.commands[0] }).collect();
        let matches = declare(clap::Command::new("x"), &rows).try_get_matches_from(shlex::split(line).unwrap()).map_err(|error| error.to_string())?;
        let (row, fields) = choose(&rows, &matches).map_err(|failure| failure.message)?;
        Ok((row.operation.name, Value::Object(fields)))
    }

    #[test]
    fn words_fill_what_no_flag_has_given() {
        let put = |line: &str| chosen(&[&PUT], line).map(|(_, fields)| fields);
        let whole = json!({"service": "s", "name": "n", "toWhom": "t", "value": "a b", "ttl": -5, "meta": {"k": 1}, "queue": null, "stop": true});
        assert_eq!(put("x --service s n t a b --ttl -5 --meta '{\"k\":1}' --clear-queue"), Ok(whole.clone()));
        assert_eq!(put("x n --to t a --service=s b --ttl=-5 --meta '{\"k\":1}' --clear-queue"), Ok(whole));
        assert_eq!(put("x n t --value 'a b' --service s"), Ok(json!({"service": "s", "name": "n", "toWhom": "t", "value": "a b", "stop": true})));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |line: &str| chosen(&[&PUT], line).unwrap_err();
        assert!(error("x n t").contains("--service"));
        assert!(error("x --service s").contains("<NAME>"));
        assert!(error("x --service s n").contains("--to"));
        assert!(error("x --service s n t --value v w").contains("`w` is one word too many"));
        assert!(error("x --service s n t --ttl soon").contains("--ttl must be a whole number"));
        assert!(error("x --service s n t --queue q --clear-queue").contains("cannot be used with"));
        assert!(!chosen(&[&SET], "x hunter2").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn a_value_may_have_the_sign_that_ends_its_name() {
        assert_eq!(chosen(&[&SET], "x KEY=a=b="), Ok(("x.set", json!({"name": "KEY", "value": "a=b="}))));
        assert_eq!(chosen(&[&SET], "x KEY="), Ok(("x.set", json!({"name": "KEY", "value": ""}))));
    }

    #[test]
    fn messages_are_what_is_in_the_list() {
        let (list, others) = messages("messages", r#"{"messages":["a",{"b":1},{"body":{"c":[2]},"delaySeconds":3},7],"delaySeconds":5}"#).unwrap();
        let expected = json!([
            {"body": "a", "encoding": "text"},
            {"b": 1},
            {"body": "{\"c\":[2]}", "encoding": "text", "delaySeconds": 3},
            {"body": "7", "encoding": "text"},
        ]);
        assert_eq!((list, Value::Object(others)), (expected, json!({"delaySeconds": 5})));
        assert_eq!(messages("messages", r#"[{"body":"AP8=","encoding":"base64"}]"#).unwrap().0, json!([{"body": "AP8=", "encoding": "base64"}]));
        for text in ["7", "{}", "{\"messages\":7}", "["] {
            assert!(messages("messages", text).is_err(), "{text}");
        }
    }

    #[test]
    fn of_two_operations_the_arguments_choose_one() {
        assert_eq!(chosen(&[&LIST, &OF_SERVICE], "x"), Ok(("x.list", json!({}))));
        assert_eq!(chosen(&[&OF_SERVICE, &LIST], "x --service s"), Ok(("x.of", json!({"service": "s"}))));
    }
}
