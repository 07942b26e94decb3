//! Reading lines in pages. Without a cursor a page has the newest lines, in the order in which they were written; `next_cursor` leads to those
//! before them. `follow_cursor` leads the other way, to what has been written since.

use schemars::JsonSchema;
use serde::Serialize;
use tovuk_kernel::ids::{BuildId, DeployId, ServiceId};
use tovuk_kernel::limits::{LOG_PAGE_BYTES_MAX, PAGE_DEFAULT, PAGE_MAX};
use tovuk_resources::database;
use tovuk_resources::database::rusqlite::{Connection, Row, ToSql, types::Value};

use super::Error;
use super::line::Stream;

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Most lines of the page.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
}

/// Whose lines.
pub(super) enum Subject {
    Service(ServiceId),
    Deploy(ServiceId, DeployId),
    Build(ServiceId, BuildId),
}

/// A page of lines, oldest first.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "LogPage")]
pub struct Page {
    /// The lines.
    pub lines: Vec<Entry>,
    /// Whether there are more in the direction in which this page was read.
    pub has_more: bool,
    /// Where they begin: before these lines, or after them if this page was read with a `follow_cursor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Where lines begin that are written after these.
    pub follow_cursor: String,
}

/// A line.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "LogEntry")]
pub struct Entry {
    /// When it was written, RFC 3339 in UTC.
    pub timestamp: String,
    /// `stdout`, `stderr`, `build`, `deploy`, `system` or `invocation`.
    pub stream: &'static str,
    /// The line.
    pub message: String,
    /// The deploy that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploy_id: Option<String>,
    /// The build that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// The trace of the invocation that wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The number of that invocation in its chain; 1 is the request from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation: Option<u32>,
    /// For the summary of an invocation: how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The status of its response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long it took, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
    /// CPU time, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<f64>,
    /// The most memory it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
}

/// A direction with its beginning.
#[derive(Clone, Copy)]
enum From {
    Before(i64),
    After(i64),
}

/// What part of the lines.
#[derive(Clone, Copy)]
pub(super) struct Range {
    from: From,
    lines_max: u32,
}

impl Query {
    pub(super) fn range(&self) -> Result<Range, Error> {
        let lines_max = self.limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&lines_max) {
            return Err(Error::Limit);
        }
        let from = match &self.cursor {
            None => From::Before(i64::MAX),
            Some(cursor) => parse(cursor).ok_or_else(|| Error::Cursor(shown(cursor)))?,
        };
        Ok(Range { from, lines_max })
    }
}

fn parse(cursor: &str) -> Option<From> {
    let (direction, digits) = cursor.split_once('_')?;
    // Only as it was given out: `parse` alone would take `+7` and `007`.
    let id: i64 = digits.parse().ok().filter(|id: &i64| *id >= 0 && id.to_string() == digits)?;
    match direction {
        "before" => Some(From::Before(id)),
        "after" => Some(From::After(id)),
        _ => None,
    }
}

/// As much of a wrong cursor as a message may have.
fn shown(cursor: &str) -> String {
    cursor.chars().filter(|char| !char.is_control()).take(64).collect()
}

pub(super) fn read(connection: &Connection, subject: &Subject, range: Range) -> Result<Page, Error> {
    read_page(connection, subject, range).map_err(|error| database::Error::from(error).into())
}

fn read_page(connection: &Connection, subject: &Subject, range: Range) -> Result<Page, database::rusqlite::Error> {
    let (filter, service, part) = match subject {
        Subject::Service(service) => ("", service, None),
        Subject::Deploy(service, deploy) => ("AND deploy = ?4", service, Some(deploy.as_str())),
        Subject::Build(service, build) => ("AND build = ?4", service, Some(build.as_str())),
    };
    let (comparison, order, id) = match range.from {
        From::Before(id) => ("<", "DESC", id),
        From::After(id) => (">", "ASC", id),
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, at_ms, stream, message, deploy, build, trace, number, outcome, status, duration_us, cpu_us, memory_peak_bytes FROM lines \
         WHERE service = (SELECT number FROM services WHERE service = ?1) AND id {comparison} ?2 {filter} ORDER BY id {order} LIMIT ?3"
    ))?;
    // One more than the page has, to know whether there is one.
    let limit = Value::Integer(i64::from(range.lines_max) + 1);
    let service = service.as_str();
    let mut parameters: Vec<&dyn ToSql> = vec![&service, &id, &limit];
    parameters.extend(part.as_ref().map(|part| part as &dyn ToSql));
    let mut rows = statement.query(parameters.as_slice())?;
    let (mut lines, mut bytes, mut has_more) = (Vec::new(), 0, false);
    while let Some(row) = rows.next()? {
        let (id, line) = (row.get::<_, i64>(0)?, entry(row)?);
        bytes += line.message.len();
        // A page has at least one line, or nobody could read past a long one.
        if lines.len() == range.lines_max as usize || (bytes > LOG_PAGE_BYTES_MAX && !lines.is_empty()) {
            has_more = true;
            break;
        }
        lines.push((id, line));
    }
    if matches!(range.from, From::Before(_)) {
        lines.reverse();
    }
    let oldest = lines.first().map(|(id, _)| *id);
    let follow = match (lines.last(), range.from) {
        (Some((newest, _)), _) => *newest,
        (None, From::After(id)) => id,
        (None, From::Before(_)) => 0,
    };
    let next = match range.from {
        From::Before(_) => oldest.map(|id| format!("before_{id}")),
        From::After(_) => Some(format!("after_{follow}")),
    };
    let lines = lines.into_iter().map(|(_, line)| line).collect();
    Ok(Page { lines, has_more, next_cursor: next.filter(|_| has_more), follow_cursor: format!("after_{follow}") })
}

fn entry(row: &Row<'_>) -> Result<Entry, database::rusqlite::Error> {
    let milliseconds = |us: Option<i64>| us.map(|us| us as f64 / 1e3);
    let stream = Stream::ALL.get(usize::from(row.get::<_, u8>(2)?)).map_or("unknown", |stream| stream.as_str());
    let mut entry = Entry {
        timestamp: jiff::Timestamp::from_millisecond(row.get(1)?).map(|moment| format!("{moment:.3}")).unwrap_or_default(),
        stream,
        message: row.get(3)?,
        deploy_id: row.get(4)?,
        build_id: row.get(5)?,
        trace_id: row.get::<_, Option<[u8; 16]>>(6)?.map(hex::encode),
        invocation: row.get(7)?,
        outcome: row.get(8)?,
        status: row.get(9)?,
        duration_ms: milliseconds(row.get(10)?),
        cpu_ms: milliseconds(row.get(11)?),
        memory_peak_bytes: row.get::<_, Option<i64>>(12)?.and_then(|bytes| u64::try_from(bytes).ok()),
    };
    if let Some(message) = summary(&entry) {
        entry.message = message;
    }
    Ok(entry)
}

/// The text of the summary of an invocation: its request, how it ended, what it cost, and why if it failed.
fn summary(entry: &Entry) -> Option<String> {
    let (outcome, duration, cpu) = (entry.outcome.as_deref()?, entry.duration_ms?, entry.cpu_ms?);
    let (request, why) = entry.message.split_once('\n').map_or((entry.message.as_str(), None), |(request, why)| (request, Some(why)));
    let status = entry.status.map_or_else(|| "---".to_owned(), |status| status.to_string());
    let figures = format!("{request} {status} {outcome} in {duration:.1} ms, cpu {cpu:.1} ms");
    Some(why.map_or_else(|| figures.clone(), |why| format!("{figures}\n{why}")))
}
