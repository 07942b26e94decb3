//! Reading lines in pages. Without a cursor a page has the newest lines, in the order in which they were written; `next_cursor` leads to those
//! before them. `follow_cursor` leads the other way, to what has been written since.
//!
//! Lines can be asked for by outcome and by trace. There is no index for that, which every line would pay for: a page looks at a bounded number of lines,
//! and one that has found nothing leads to where the next one goes on.

use schemars::JsonSchema;
use serde::Serialize;
use tovuk_kernel::ids::{BuildId, DeployId, ServiceId};
use tovuk_kernel::limits::{LOG_PAGE_BYTES_MAX, LOG_PAGE_SCAN_MAX, PAGE_DEFAULT, PAGE_MAX};
use tovuk_resources::database;
use tovuk_resources::database::rusqlite::{Connection, Row, ToSql, types::Value};
use tovuk_runtime::record::Outcome;
use tovuk_runtime::trace::TraceId;

use super::Error;
use super::line::Stream;
use crate::stamped::{id_of, shown};

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Most lines of the page.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
    /// Summaries of invocations that ended so alone: a word of [`Outcome`], or `error` for all but `ok`.
    pub outcome: Option<String>,
    /// Lines of this trace alone.
    pub trace: Option<String>,
}

/// Whose lines.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Of a service: builds, deploys, workers and invocations.
    Service(ServiceId),
    /// Of one deploy of a service.
    Deploy(ServiceId, DeployId),
    /// Of one build of a service.
    Build(ServiceId, BuildId),
}

impl Subject {
    /// The service.
    pub fn service(&self) -> &ServiceId {
        match self {
            Self::Service(service) | Self::Deploy(service, _) | Self::Build(service, _) => service,
        }
    }
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
    /// Where lines begin that are written after this one. In what is followed alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
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
    /// Fuel: what it executed, in units of the engine. Not time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// The most memory it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// Body bytes that it received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// Body bytes that it answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// How many invocations its chain had when it ended, itself included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hops: Option<u32>,
    /// The service that called it, for a call by another worker of the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
}

/// A direction with its beginning.
#[derive(Clone, Copy)]
pub(super) enum From {
    Before(i64),
    After(i64),
}

/// Which lines of them.
#[derive(Clone, Copy, Default)]
pub(super) struct Filter {
    outcome: Option<Ending>,
    trace: Option<TraceId>,
}

#[derive(Clone, Copy)]
enum Ending {
    As(Outcome),
    Failing,
}

impl Filter {
    fn is_empty(self) -> bool {
        self.outcome.is_none() && self.trace.is_none()
    }

    fn takes(self, row: &Row<'_>) -> Result<bool, database::rusqlite::Error> {
        if let Some(trace) = self.trace
            && row.get::<_, Option<[u8; 16]>>(6)? != Some(trace.to_bytes())
        {
            return Ok(false);
        }
        let Some(wanted) = self.outcome else { return Ok(true) };
        let outcome = row
            .get_ref(8)?
            .as_str_or_null()
            .map_err(|error| database::rusqlite::Error::FromSqlConversionFailure(8, database::rusqlite::types::Type::Text, error.into()))?;
        Ok(outcome.is_some_and(|outcome| match wanted {
            Ending::As(wanted) => outcome == wanted.as_str(),
            Ending::Failing => outcome != Outcome::Response.as_str(),
        }))
    }
}

/// What part of the lines.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub from: From,
    pub lines_max: u32,
    pub filter: Filter,
}

/// What a page is made from.
pub(super) struct Found {
    /// The lines with their ids, oldest first.
    pub lines: Vec<(i64, Entry)>,
    pub has_more: bool,
    /// The last line that was looked at, in the direction of reading.
    last: Option<i64>,
    /// The newest line that was looked at, or where there was none, the beginning.
    pub newest: i64,
}

/// The cursor of what is written after this line.
pub(super) fn after(id: i64) -> String {
    format!("after_{id}")
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
        Ok(Range { from, lines_max, filter: self.filter()? })
    }

    fn filter(&self) -> Result<Filter, Error> {
        let outcome = match self.outcome.as_deref() {
            None => None,
            Some("error") => Some(Ending::Failing),
            Some(name) => {
                let known = Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == name);
                Some(Ending::As(known.ok_or_else(|| Error::Outcome(shown(name)))?))
            }
        };
        let trace = self.trace.as_deref().map(|id| TraceId::parse(id).ok_or_else(|| Error::Trace(shown(id)))).transpose()?;
        Ok(Filter { outcome, trace })
    }
}

fn parse(cursor: &str) -> Option<From> {
    let (direction, digits) = cursor.split_once('_')?;
    let id = id_of(digits).filter(|id| *id >= 0)?;
    match direction {
        "before" => Some(From::Before(id)),
        "after" => Some(From::After(id)),
        _ => None,
    }
}

pub(super) fn read(connection: &Connection, subject: &Subject, range: Range) -> Result<Found, Error> {
    find(connection, subject, range).map_err(|error| database::Error::from(error).into())
}

impl Found {
    /// The page for whoever has asked for it.
    pub fn page(self, from: From) -> Page {
        let next = match from {
            From::Before(_) => self.last.map(|id| format!("before_{id}")),
            From::After(_) => Some(after(self.newest)),
        };
        let lines = self.lines.into_iter().map(|(_, line)| line).collect();
        Page { lines, has_more: self.has_more, next_cursor: next.filter(|_| self.has_more), follow_cursor: after(self.newest) }
    }
}

fn find(connection: &Connection, subject: &Subject, range: Range) -> Result<Found, database::rusqlite::Error> {
    let (filter, service, part) = match subject {
        Subject::Service(service) => ("", service, None),
        Subject::Deploy(service, deploy) => ("AND deploy = ?4", service, Some(deploy.as_str())),
        Subject::Build(service, build) => ("AND build = ?4", service, Some(build.as_str())),
    };
    let (comparison, order, begin) = match range.from {
        From::Before(id) => ("<", "DESC", id),
        From::After(id) => (">", "ASC", id),
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, at_ms, stream, message, deploy, build, trace, number, outcome, status, duration_us, cpu_us, memory_peak_bytes, fuel, bytes_in, \
         bytes_out, hops, caller FROM lines \
         WHERE service = (SELECT number FROM services WHERE service = ?1) AND id {comparison} ?2 {filter} ORDER BY id {order} LIMIT ?3"
    ))?;
    let looked_at_max = if range.filter.is_empty() { range.lines_max } else { LOG_PAGE_SCAN_MAX };
    // One more than is looked at, to know whether there is one.
    let limit = Value::Integer(i64::from(looked_at_max) + 1);
    let service = service.as_str();
    let mut parameters: Vec<&dyn ToSql> = vec![&service, &begin, &limit];
    parameters.extend(part.as_ref().map(|part| part as &dyn ToSql));
    let mut rows = statement.query(parameters.as_slice())?;
    let newest = if let From::After(id) = range.from { id } else { 0 };
    let mut found = Found { lines: Vec::new(), has_more: false, last: None, newest };
    let (mut bytes, mut looked_at) = (0, 0);
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        let taken = if looked_at == looked_at_max { None } else { Some(range.filter.takes(row)?) };
        let line = if taken == Some(true) { Some(entry(row)?) } else { None };
        bytes += line.as_ref().map_or(0, |line| line.message.len());
        // A page has at least one line, or nobody could read past a long one.
        let is_full = line.is_some() && (found.lines.len() == range.lines_max as usize || (bytes > LOG_PAGE_BYTES_MAX && !found.lines.is_empty()));
        if taken.is_none() || is_full {
            found.has_more = true;
            break;
        }
        looked_at += 1;
        found.last = Some(id);
        found.newest = found.newest.max(id);
        found.lines.extend(line.map(|line| (id, line)));
    }
    if matches!(range.from, From::Before(_)) {
        found.lines.reverse();
    }
    Ok(found)
}

fn entry(row: &Row<'_>) -> Result<Entry, database::rusqlite::Error> {
    let milliseconds = |us: Option<i64>| us.map(|us| us as f64 / 1e3);
    let stream = Stream::ALL.get(usize::from(row.get::<_, u8>(2)?)).map_or("unknown", |stream| stream.as_str());
    let figure = |column: usize| Ok::<_, database::rusqlite::Error>(row.get::<_, Option<i64>>(column)?.and_then(|figure| u64::try_from(figure).ok()));
    let mut entry = Entry {
        timestamp: jiff::Timestamp::from_millisecond(row.get(1)?).map(|moment| format!("{moment:.3}")).unwrap_or_default(),
        stream,
        message: row.get(3)?,
        cursor: None,
        deploy_id: row.get(4)?,
        build_id: row.get(5)?,
        trace_id: row.get::<_, Option<[u8; 16]>>(6)?.map(hex::encode),
        invocation: row.get(7)?,
        outcome: row.get(8)?,
        status: row.get(9)?,
        duration_ms: milliseconds(row.get(10)?),
        cpu_ms: milliseconds(row.get(11)?),
        memory_peak_bytes: figure(12)?,
        fuel: figure(13)?,
        bytes_in: figure(14)?,
        bytes_out: figure(15)?,
        hops: row.get(16)?,
        caller: row.get(17)?,
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
