//! A trace as a tree: for each span a bar that shows when it ran and how long, of which the full part is CPU time.

use std::collections::{HashMap, HashSet};
use std::io::IsTerminal;

use serde_json::Value;

use super::{one_line, table};

/// Letters of the bars.
const BAR_WIDTH: usize = 32;
/// Letters of names, with what leads to them.
const NAME_WIDTH: usize = 46;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, name: &str) -> Option<f64> {
    value.get(name).and_then(Value::as_f64)
}

/// The tree.
pub(super) fn show(trace: &Value) -> String {
    let spans = trace.get("spans").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let duration = number(trace, "duration_ms").unwrap_or_default();
    let cpu = number(trace, "cpu_ms").unwrap_or_default();
    let mut shown = format!(
        "{}  {}  {duration:.2} ms, cpu {cpu:.2} ms, {} {}\n",
        one_line(text(trace, "trace_id")),
        one_line(text(trace, "started_at")),
        spans.len(),
        if spans.len() == 1 { "span" } else { "spans" }
    );
    let ids: HashSet<&str> = spans.iter().map(|span| text(span, "span_id")).collect();
    let mut children: HashMap<&str, Vec<&Value>> = HashMap::new();
    let mut roots = Vec::new();
    for span in spans {
        let parent = text(span, "parent_span_id");
        // Whoever names itself as its cause would never be shown.
        if ids.contains(parent) && parent != text(span, "span_id") { children.entry(parent).or_default().push(span) } else { roots.push(span) }
    }
    // Without recursion: what is drawn has come from elsewhere.
    let mut open: Vec<(String, String, &Value)> = roots.into_iter().rev().map(|root| (String::new(), String::new(), root)).collect();
    let mut seen = HashSet::new();
    while let Some((lead, below, span)) = open.pop() {
        if !seen.insert(text(span, "span_id")) {
            continue;
        }
        shown.push_str(&line(&lead, span, duration));
        let own = children.get(text(span, "span_id")).map(Vec::as_slice).unwrap_or_default();
        for (position, child) in own.iter().enumerate().rev() {
            let (branch, further) = if position + 1 == own.len() { ("└ ", "  ") } else { ("├ ", "│ ") };
            open.push((format!("{below}{branch}"), format!("{below}{further}"), child));
        }
    }
    if trace.get("has_more").and_then(Value::as_bool) == Some(true) {
        shown.push_str("… there are more spans than are shown\n");
    }
    shown
}

fn line(lead: &str, span: &Value, whole_ms: f64) -> String {
    let (offset, duration, cpu) =
        (number(span, "offset_ms").unwrap_or_default(), number(span, "duration_ms").unwrap_or_default(), number(span, "cpu_ms"));
    let mut name = match span.get("invocation").and_then(Value::as_u64) {
        Some(_) => format!("{lead}{} {}", text(span, "service"), text(span, "name")),
        None => format!("{lead}{} {}", text(span, "kind"), text(span, "name")),
    };
    let status = span.get("status").and_then(Value::as_u64);
    name.extend(status.map(|status| format!(" {status}")));
    let outcome = text(span, "outcome");
    if !matches!(outcome, "" | "ok") {
        name = format!("{name} {outcome}");
    }
    let name = one_line(&name);
    let letters = name.chars().count();
    let name = if letters > NAME_WIDTH {
        name.chars().take(NAME_WIDTH - 1).chain(['…']).collect()
    } else {
        format!("{name}{}", " ".repeat(NAME_WIDTH - letters))
    };
    let mut figures = cpu.map(|cpu| format!("  cpu {cpu:.2} ms")).unwrap_or_default();
    if let Some(did) = span.get("did").and_then(Value::as_str) {
        figures = format!("{figures}  {}", one_line(did));
    }
    format!("{name} {} {duration:>9.2} ms{figures}\n", bar(offset, duration, cpu.unwrap_or_default(), whole_ms))
}

/// Where in the whole it ran: `█` for the part that is CPU time, `░` for the rest.
fn bar(offset: f64, duration: f64, cpu: f64, whole: f64) -> String {
    let place = |ms: f64| if whole > 0.0 { ((ms / whole).clamp(0.0, 1.0) * BAR_WIDTH as f64).round() as usize } else { 0 };
    let start = place(offset).min(BAR_WIDTH - 1);
    let length = place(duration).clamp(1, BAR_WIDTH - start);
    let full = if cpu > 0.0 { place(cpu).clamp(1, length) } else { 0 };
    let rest = BAR_WIDTH - start - length;
    format!("{}{}{}{}", " ".repeat(start), "█".repeat(full), "░".repeat(length - full), " ".repeat(rest))
}

/// The traces of a service.
pub(super) fn list(page: &Value) -> String {
    let traces = page.get("traces").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if traces.is_empty() {
        return "no traces that began with a request to this service; a call from another is in the trace of that one\n".to_owned();
    }
    let row = |trace: &Value| {
        let ms = |name: &str| number(trace, name).map(|ms| format!("{ms:.2}")).unwrap_or_default();
        let status = trace.get("status").and_then(Value::as_u64).map(|status| status.to_string()).unwrap_or_default();
        vec![
            text(trace, "trace_id").to_owned(),
            text(trace, "started_at").to_owned(),
            text(trace, "name").to_owned(),
            status,
            text(trace, "outcome").to_owned(),
            ms("duration_ms"),
            ms("cpu_ms"),
        ]
    };
    let mut shown = table(&["trace", "started", "name", "status", "outcome", "ms", "cpu_ms"], traces.iter().map(row));
    if let Some(cursor) = page.get("next_cursor").and_then(Value::as_str) {
        shown.push_str(&format!("more: --cursor {}\n", one_line(cursor)));
    }
    if std::io::stdout().is_terminal() {
        shown.push_str("`tovuk trace <trace>` shows one\n");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_trace_is_a_tree_with_bars() {
        let span = |id: &str, parent: &str, name: &str, offset: f64, duration: f64| {
            json!({"span_id": id, "parent_span_id": parent, "kind": "http", "name": name, "service": "shop", "invocation": 1, "status": 200, "outcome": "ok",
                   "offset_ms": offset, "duration_ms": duration, "cpu_ms": duration / 2.0})
        };
        let mut operation = span("3", "2", "CACHE", 60.0, 10.0);
        (operation["kind"], operation["did"]) = (json!("kv.get"), json!("found 3 bytes"));
        for gone in ["invocation", "status", "cpu_ms"] {
            operation.as_object_mut().unwrap().remove(gone);
        }
        let mut failed = span("4", "1", "GET /late\u{1b}[2J", 99.0, 1.0);
        failed["outcome"] = json!("trap");
        let trace = json!({"trace_id": "t", "started_at": "s", "duration_ms": 100.0, "cpu_ms": 90.0,
                           "spans": [span("1", "f", "GET /", 0.0, 100.0), span("2", "1", "GET /a", 50.0, 25.0), operation, failed]});
        let shown = show(&trace);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 5, "{shown}");
        assert!(lines[1].starts_with("shop GET / 200 ") && lines[1].contains(&format!("{}{}", "█".repeat(16), "░".repeat(16))), "{shown}");
        assert!(lines[2].starts_with("├ shop GET /a 200 ") && lines[2].contains(" ████░░░░ "), "{shown}");
        assert!(lines[3].starts_with("│ └ kv.get CACHE ") && lines[3].ends_with(" ms  found 3 bytes") && !lines[3].contains("cpu"), "{shown}");
        assert!(lines[4].starts_with("└ shop GET /late\\u{1b}[2J 200 trap") && !shown.contains('\u{1b}'), "{shown}");
        // What cannot be a tree is drawn all the same, once.
        let circle = json!({"spans": [span("1", "2", "a", 0.0, 1.0), span("2", "1", "b", 0.0, 1.0), span("3", "3", "c", 0.0, 1.0)]});
        assert_eq!(show(&circle).lines().count(), 2);
    }
}
