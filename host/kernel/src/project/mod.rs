//! The project file, `tovuk.toml`: its model, its JSON schema, and parsing that reports every problem at once with its place in the text. Both
//! forms are read, the one with a `[services]` table and the published client's with a top-level `name`; both give the same model.
//!
//! It opens no files and prints nothing: the command line finds the file, fills in what only the file system knows and renders the problems.

mod bindings;
mod capabilities;
mod document;
mod model;
mod paths;
mod published;
mod rules;
mod structure;
#[cfg(test)]
mod tests;

use std::ops::Range;

use serde_json::Value;

pub use self::capabilities::Capabilities;
pub use self::document::Spans;
pub use self::model::{Binding, BindingFormat, BindingType, Consumer, Kind, Limits, Project, Queue, Service, Sqlite};
pub use self::published::{DEFAULT_WORKER_BUILD, FrontendBuild, Manifest};
pub use self::rules::BOUND_RESOURCES_MAX;
use self::rules::Report;

/// The name of the project file.
pub const FILE_NAME: &str = "tovuk.toml";

/// Whether a problem stops what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but perhaps does not say what was meant.
    Warning,
}

/// One thing that is wrong with a project file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it stops.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// Where, in bytes of the text; absent when the configuration did not come from text.
    pub span: Option<Range<usize>>,
    /// Where, as a path of keys, for example `services.gateway.bindings[0].env`; empty for the whole file.
    pub path: String,
}

/// A project file that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// What it says.
    pub project: Project,
    /// What its author should look at.
    pub warnings: Vec<Problem>,
    /// Where its parts are in the text, for problems that are found later.
    pub spans: Spans,
}

/// Reads a project file in either form. On failure all its problems are returned, warnings included, in the order of the text.
pub fn parse(text: &str) -> Result<Parsed, Vec<Problem>> {
    let mut problems = Vec::new();
    match document::read(text, &mut problems) {
        Some((value, spans)) => finish(value, &spans, problems),
        None => Err(problems),
    }
}

/// Reads the same as JSON, for a configuration that comes with a deploy. Problems have paths and no spans.
pub fn parse_value(value: Value) -> Result<Parsed, Vec<Problem>> {
    let spans = document::paths_of(&value);
    finish(value, &spans, Vec::new())
}

/// The JSON schema of the `[services]` form, which editors can check and complete with.
pub fn schema() -> Value {
    schemars::schema_for!(Project).to_value()
}

/// The JSON schema of the published client's form.
pub fn published_schema() -> Value {
    schemars::schema_for!(Manifest).to_value()
}

fn finish(value: Value, source: &Spans, mut problems: Vec<Problem>) -> Result<Parsed, Vec<Problem>> {
    let has = |key: &str| value.get(key).is_some();
    let read =
        if has("name") && !has("services") { read_published(value, source, &mut problems) } else { read_services(value, source, &mut problems) };
    problems.sort_by_key(|problem| (problem.span.as_ref().map(|span| span.start), problem.severity));
    match read {
        Some((project, spans)) if problems.iter().all(|problem| problem.severity == Severity::Warning) => {
            Ok(Parsed { project, warnings: problems, spans })
        }
        _ => Err(problems),
    }
}

fn read_services(value: Value, source: &Spans, problems: &mut Vec<Problem>) -> Option<(Project, Spans)> {
    let (project, spans) = read::<Project>(&schema(), value, source, problems)?;
    // A mistyped or broken `services` has been told already.
    if !spans.contains("services") && problems.is_empty() {
        Report::new(&spans, problems).error("", "the file declares no services".to_owned(), "begin with\n[services.hello]\nroutes = [\"/*\"]");
    }
    rules::check(&project, &mut Report::new(&spans, problems));
    Some((with_dead_letter_queues(project), spans))
}

fn read_published(value: Value, source: &Spans, problems: &mut Vec<Problem>) -> Option<(Project, Spans)> {
    let (manifest, spans) = read::<Manifest>(&published_schema(), value, source, problems)?;
    manifest.check(&mut Report::new(&spans, problems));
    let services = [(manifest.name.clone(), manifest.into_service())].into();
    Some((Project { services }, spans))
}

/// The typed value of what the schema accepts. What it does not accept has been reported; what is left always has a type, but should a type be
/// stricter than its schema, that is reported too instead of being lost.
fn read<T: serde::de::DeserializeOwned>(schema: &Value, value: Value, source: &Spans, problems: &mut Vec<Problem>) -> Option<(T, Spans)> {
    let (value, spans) = structure::check(schema, value, source, problems);
    match serde_json::from_value(value?) {
        Ok(typed) => Some((typed, spans)),
        Err(error) => {
            if problems.is_empty() {
                let message = error.to_string();
                problems.push(Problem { severity: Severity::Error, message, help: None, span: None, path: String::new() });
            }
            None
        }
    }
}

/// Adds the dead-letter queues that are named and not declared. They are pull queues: what failed waits there until somebody looks.
fn with_dead_letter_queues(mut project: Project) -> Project {
    for service in project.services.values_mut() {
        let named: Vec<String> = service.queues.values().filter_map(|queue| queue.dead_letter_queue.clone()).collect();
        for name in named {
            service.queues.entry(name).or_insert_with(|| Queue { consumer: Some(Consumer::Pull), ..Queue::default() });
        }
    }
    project
}
