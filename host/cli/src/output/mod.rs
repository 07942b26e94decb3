//! Answers of a host as people read them: compact tables and lines. With `--json` they are printed as they came. What is shown comes from tenants and their
//! workers; nothing of it may drive the terminal.

mod generic;
mod services;
mod sqlite;
mod storage;
mod traces;
mod usage;

use std::borrow::Cow;
use std::io::IsTerminal;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use tovuk_kernel::operation::Operation;

pub use self::generic::generic;

/// Prints an answer: as JSON, or as the text that is made of it.
pub fn print(answer: &Value, json: bool, text: impl FnOnce(&Value) -> String) {
    crate::print(&if json { format!("{answer:#}\n") } else { text(answer) });
}

/// Most next actions that are shown.
const NEXT_MAX: usize = 3;
/// What a service has of each kind, and the first word of the commands that are about it.
const KINDS: [(&str, &str); 6] = [
    ("sqliteDatabases", "sqlite"),
    ("kvNamespaces", "kv"),
    ("queues", "queue"),
    ("cronTriggers", "cron"),
    ("stateNamespaces", "state"),
    ("serviceBindings", "binding"),
];

/// An answer with all resources of a service, without those of kinds that the command is not about.
fn of_kind<'a>(kind: &str, answer: &'a Value) -> Cow<'a, Value> {
    let has_all = KINDS.iter().all(|(list, _)| answer.get(list).is_some());
    if !has_all || KINDS.iter().all(|(_, word)| *word != kind) {
        return Cow::Borrowed(answer);
    }
    let mut answer = answer.clone();
    if let Value::Object(map) = &mut answer {
        map.retain(|name, _| name != "usageCaps" && KINDS.iter().all(|(list, word)| list != name || *word == kind));
    }
    Cow::Owned(answer)
}

/// The answer of an operation as text. `kind` is the first word of the command, `service` the one that was asked about.
pub fn of_operation(operation: &Operation, kind: &str, service: Option<&str>, answer: &Value) -> String {
    match operation.name {
        "service.list" => services::list(answer),
        "service.show" => services::show(answer),
        "sqlite.query" => sqlite::query(answer),
        "storage.list" => storage::list(answer),
        "storage.download" => storage::url(answer),
        "storage.delete" => storage::deleted(answer),
        "trace.show" => traces::show(answer),
        "trace.list" => traces::list(answer),
        name if name.ends_with(".logs") => lines(answer),
        "capabilities" => usage::pricing(answer),
        "usage.show" => usage::usage(answer, service),
        _ => generic(&of_kind(kind, answer)),
    }
}

/// The answer with what the client itself says to do next: after the catalogue of prices.
pub fn with_next_actions(operation: &Operation, mut answer: Value) -> Value {
    if operation.name == "capabilities"
        && let Value::Object(map) = &mut answer
    {
        let actions = [
            "Run `tovuk usage` to see what is used and what it comes to.",
            "Run `tovuk limits set <meter> --period <period> --value <n>` to cap a meter.",
        ];
        map.insert("nextActions".to_owned(), actions.as_slice().into());
    }
    answer
}

/// The lines of a log.
pub fn lines(page: &Value) -> String {
    let lines = page.get("lines").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if lines.is_empty() {
        return "no lines\n".to_owned();
    }
    lines.iter().map(line).collect()
}

/// A line of a log. What has several lines, such as a backtrace, goes on below it, indented, so that nobody can write what looks like a line of its own. The
/// summary of an invocation says which trace it is, for `tovuk trace`.
pub fn line(line: &Value) -> String {
    let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
    let (first, rest) = text("message").split_once('\n').unwrap_or((text("message"), ""));
    let trace = if text("stream") == "invocation" { text("trace_id") } else { "" };
    let first = format!("{} {:<10} {}  {}", one_line(text("timestamp")), one_line(text("stream")), one_line(first), one_line(trace));
    let mut shown = format!("{}\n", first.trim_end());
    rest.lines().for_each(|below| shown.extend(["    ", &one_line(below), "\n"]));
    shown
}

/// Whether this could drive a terminal or turn the direction of writing. Line breaks and tabs could not.
pub fn drives_terminal(letter: char) -> bool {
    letter.is_control() && !matches!(letter, '\n' | '\t')
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text without what could drive a terminal.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        if drives_terminal(letter) { safe.extend(letter.escape_unicode()) } else { safe.push(letter) }
    }
    safe
}

/// The same on one line.
pub fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\\n")
}

/// A table without lines. On a terminal it is as wide as that; elsewhere each row is one line.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(|name| title(name)));
    let arrangement = if std::io::stdout().is_terminal() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    for row in rows {
        table.add_row(row.iter().map(|cell| one_line(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    format!("{}\n", table.trim_fmt())
}

/// `createdAt` and `created_at` as `CREATED AT`.
fn title(name: &str) -> String {
    let mut title = String::new();
    for letter in name.chars() {
        match letter {
            '_' => title.push(' '),
            letter if letter.is_uppercase() => title.extend([' ', letter]),
            letter => title.extend(letter.to_uppercase()),
        }
    }
    title
}

/// Names and values, the values below each other.
pub(crate) fn pairs(pairs: &[(String, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    pairs.iter().map(|(name, value)| format!("{}{}  {}\n", name, " ".repeat(width - name.chars().count()), one_line(value))).collect()
}

/// What to do next, as the host says or as [`with_next_actions`] does.
pub(crate) fn next_actions(answer: &Value) -> String {
    let actions = answer.get("next_actions").or_else(|| answer.get("nextActions"));
    let actions = actions.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    actions.iter().filter_map(Value::as_str).take(NEXT_MAX).map(|action| format!("next: {}\n", one_line(action))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_of_a_log_is_one_line_and_what_goes_on_is_below_it() {
        let trapped = json!({"timestamp": "t", "stream": "invocation", "message": "GET / 500 trap\nat\u{1b}\n  0: main", "trace_id": "4bf9"});
        assert_eq!(line(&trapped), "t invocation GET / 500 trap  4bf9\n    at\\u{1b}\n      0: main\n");
        assert_eq!(line(&json!({"timestamp": "t", "stream": "stdout", "message": "a", "trace_id": "4bf9"})), "t stdout     a\n");
    }

    #[test]
    fn nothing_that_is_shown_drives_the_terminal() {
        assert_eq!(one_line("a\u{1b}[31mb\rc\nd\u{202e}\t"), "a\\u{1b}[31mb\\u{d}c\\nd\\u{202e}\t");
        let shown = lines(&json!({"lines": [{"timestamp": "t", "stream": "stdout", "message": "\u{1b}]0;x\u{7}"}]}));
        assert_eq!(shown, "t stdout     \\u{1b}]0;x\\u{7}\n");
        let shown = generic(&json!({"tokens": [{"name": "\u{1b}[2J"}], "x\u{7}": 1}));
        assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown}");
    }
}
