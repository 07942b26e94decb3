//! Reading traces: one whole, or those that began at a service.

use schemars::JsonSchema;
use serde::Serialize;
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::limits::{PAGE_DEFAULT, PAGE_MAX, TRACE_SPANS_SHOWN_MAX};
use tovuk_resources::database;
use tovuk_resources::database::rusqlite::{self, Connection, Row, params};
use tovuk_runtime::record::Outcome;
use tovuk_runtime::trace::TraceId;

use super::Error;
use crate::stamped::{id_of, shown};

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Most traces of the page.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
    /// Those that did not end well, or with a status of 500 or above, alone.
    pub failed: bool,
}

/// A trace.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Trace {
    /// Its id.
    pub trace_id: String,
    /// When the first of these spans began, RFC 3339 in UTC.
    pub started_at: String,
    /// From then to the end of the last, in ms.
    pub duration_ms: f64,
    /// CPU time of all of them, in ms.
    pub cpu_ms: f64,
    /// The spans, in the order in which they began. One whose `parent_span_id` is not among them was caused by somebody else: another account's service, or
    /// whoever sent the request.
    pub spans: Vec<Span>,
    /// Whether there are more than are shown.
    pub has_more: bool,
}

/// A span: something that took time.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "TraceSpan")]
pub struct Span {
    /// Names it in its trace: 16 hexadecimal digits.
    pub span_id: String,
    /// The span that caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// What it is: `http`, `binding`, `state`, `queue`, `cron` or `alarm` for an invocation by what started it; otherwise an operation of a worker, such as
    /// `kv.get` or `outbound`.
    pub kind: String,
    /// The request, the event, or what the operation was about.
    pub name: String,
    /// The service that did it.
    pub service: String,
    /// Its id.
    pub service_id: String,
    /// When it began, RFC 3339 in UTC.
    pub started_at: String,
    /// The same, in ms after the trace.
    pub offset_ms: f64,
    /// How long it took, in ms.
    pub duration_ms: f64,
    /// For an invocation: its number in its chain; 1 is the request from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation: Option<u32>,
    /// For an invocation: CPU time, in ms, without what it called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<f64>,
    /// The status of the response, of an invocation or of a request to a host outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How it ended: `ok`, `cancelled` where whoever asked was gone before, or what went wrong: for an invocation `trap`, `cpu`, `memory`, `wall`, `refused` or
    /// `failed`, for an operation the code of its error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// For an operation that ended well: what it did, in words, where there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub did: Option<String>,
}

/// Traces that began at a service.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "TracePage")]
pub struct Roots {
    /// The traces, the latest first.
    pub traces: Vec<Root>,
    /// Whether there are more.
    pub has_more: bool,
    /// Where they begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// How a trace began.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "TraceRoot")]
pub struct Root {
    /// Its id.
    pub trace_id: String,
    /// The invocation that it began with.
    #[serde(flatten)]
    pub span: Span,
}

/// What part of the traces.
pub(super) struct Range {
    before: i64,
    limit: u32,
    failed: bool,
}

impl Query {
    pub(super) fn range(&self) -> Result<Range, Error> {
        let limit = self.limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(Error::Limit);
        }
        let before = match &self.cursor {
            None => i64::MAX,
            Some(cursor) => cursor.strip_prefix("before_").and_then(id_of).ok_or_else(|| Error::Cursor(shown(cursor)))?,
        };
        Ok(Range { before, limit, failed: self.failed })
    }
}

const COLUMNS: &str = "id, trace, span, parent, service, name, kind, what, start_us, duration_us, number, cpu_us, status, outcome, did";

fn read<T>(of: impl FnOnce() -> Result<T, rusqlite::Error>) -> Result<T, Error> {
    of().map_err(|error| database::Error::from(error).into())
}

pub(super) fn trace(connection: &Connection, account: &str, trace: TraceId) -> Result<Option<Trace>, Error> {
    read(|| {
        let mut statement =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM spans WHERE trace = ?1 AND account = ?2 ORDER BY start_us, id LIMIT ?3"))?;
        let mut rows = statement.query(params![trace.to_bytes(), account, TRACE_SPANS_SHOWN_MAX as i64 + 1])?;
        let (mut spans, mut first, mut end, mut cpu_us) = (Vec::new(), None, 0, 0);
        while let Some(row) = rows.next()? {
            let (start, duration): (i64, i64) = (row.get(8)?, row.get(9)?);
            end = end.max(start.saturating_add(duration));
            cpu_us += row.get::<_, Option<i64>>(11)?.unwrap_or_default();
            spans.push(span(row, *first.get_or_insert(start))?);
        }
        let Some(first) = first else { return Ok(None) };
        let has_more = spans.len() > TRACE_SPANS_SHOWN_MAX;
        spans.truncate(TRACE_SPANS_SHOWN_MAX);
        Ok(Some(Trace {
            trace_id: trace.to_string(),
            started_at: timestamp(first),
            duration_ms: ms(end - first),
            cpu_ms: ms(cpu_us),
            spans,
            has_more,
        }))
    })
}

pub(super) fn roots(connection: &Connection, service: &ServiceId, range: &Range) -> Result<Roots, Error> {
    let filter = if range.failed { format!("AND (outcome <> '{}' OR status >= 500)", Outcome::Response.as_str()) } else { String::new() };
    read(|| {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM spans INDEXED BY roots_by_service WHERE service = ?1 AND number = 1 AND id < ?2 {filter} ORDER BY id DESC LIMIT ?3"
        ))?;
        let mut rows = statement.query(params![service.as_str(), range.before, range.limit + 1])?;
        let (mut traces, mut last, mut has_more) = (Vec::new(), None, false);
        while let Some(row) = rows.next()? {
            if traces.len() == range.limit as usize {
                has_more = true;
                break;
            }
            last = Some(row.get::<_, i64>(0)?);
            traces.push(Root { trace_id: TraceId::from_bytes(row.get(1)?).to_string(), span: span(row, row.get(8)?)? });
        }
        Ok(Roots { traces, has_more, next_cursor: last.filter(|_| has_more).map(|id| format!("before_{id}")) })
    })
}

fn span(row: &Row<'_>, first_us: i64) -> Result<Span, rusqlite::Error> {
    let hex = |id: i64| format!("{:016x}", id.cast_unsigned());
    let start: i64 = row.get(8)?;
    Ok(Span {
        span_id: hex(row.get(2)?),
        parent_span_id: Some(row.get::<_, i64>(3)?).filter(|parent| *parent != 0).map(hex),
        service_id: row.get(4)?,
        service: row.get(5)?,
        kind: row.get(6)?,
        name: row.get(7)?,
        started_at: timestamp(start),
        offset_ms: ms(start - first_us),
        duration_ms: ms(row.get(9)?),
        invocation: row.get(10)?,
        cpu_ms: row.get::<_, Option<i64>>(11)?.map(ms),
        status: row.get(12)?,
        outcome: row.get(13)?,
        did: row.get(14)?,
    })
}

fn ms(us: i64) -> f64 {
    us as f64 / 1e3
}

fn timestamp(unix_us: i64) -> String {
    jiff::Timestamp::from_microsecond(unix_us).map(|moment| format!("{moment:.6}")).unwrap_or_default()
}
