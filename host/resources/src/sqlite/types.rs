//! What operations take and answer. The JSON forms are those of the API.

use std::collections::HashMap;
use std::sync::Arc;

use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::{self, Plan};

use super::value::{Params, Value};

/// One statement with its parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// The SQL: exactly one statement.
    pub sql: String,
    /// Its parameters.
    #[serde(default)]
    pub params: Params,
}

impl Statement {
    /// A statement with positional parameters.
    pub fn new(sql: impl Into<String>, params: impl Into<Vec<Value>>) -> Self {
        Self { sql: sql.into(), params: Params::Positional(params.into()) }
    }
}

/// What a database may take, by the plan of its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Largest file of the database, in bytes.
    pub database_bytes: u64,
    /// The database and its backups together, in bytes.
    pub storage_bytes: u64,
    /// All databases and backups of the account together, in bytes.
    pub account_bytes: u64,
    /// Steps of the virtual machine of one query or batch.
    pub vm_steps: u64,
    /// Time that one query or batch may run, in ms.
    pub query_ms: u64,
    /// Time that all migrations of one call may run, in ms.
    pub migrate_ms: u64,
    /// Largest result of one query or batch, in bytes.
    pub result_bytes: usize,
    /// Memory of one query or batch, in bytes.
    pub heap_bytes: usize,
}

impl Allowance {
    /// The figures of a plan.
    pub fn of(plan: Plan) -> Self {
        Self {
            database_bytes: limits::sqlite_database_bytes(plan),
            storage_bytes: limits::sqlite_storage_bytes(plan),
            account_bytes: limits::sqlite_account_bytes(plan),
            vm_steps: limits::sqlite_vm_steps(plan),
            query_ms: limits::SQLITE_QUERY_MS_MAX,
            migrate_ms: limits::SQLITE_MIGRATE_MS_MAX,
            result_bytes: limits::SQLITE_RESULT_BYTES_MAX,
            heap_bytes: limits::SQLITE_HEAP_BYTES_MAX,
        }
    }
}

/// What statements cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Rows that were visited in tables and indexes, or what comes closest where SQLite does not count them.
    pub rows_read: u64,
    /// Rows that were inserted, updated or deleted, by triggers and foreign keys too.
    pub rows_written: u64,
    /// Steps of the virtual machine.
    pub vm_steps: u64,
    /// Rows that were visited by going through a whole table.
    pub fullscan_steps: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.rows_read = self.rows_read.saturating_add(other.rows_read);
        self.rows_written = self.rows_written.saturating_add(other.rows_written);
        self.vm_steps = self.vm_steps.saturating_add(other.vm_steps);
        self.fullscan_steps = self.fullscan_steps.saturating_add(other.fullscan_steps);
    }
}

/// Names of columns, each different: a second `id` is `id:2`.
pub type Columns = Arc<[String]>;

/// Makes each name different.
pub(super) fn distinct(names: Vec<String>) -> Columns {
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(names.len());
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let mut count = seen.get(&name).copied().unwrap_or(0) + 1;
        let mut column = if count == 1 { name.clone() } else { format!("{name}:{count}") };
        // A column may have been given such a name.
        while count > 1 && seen.contains_key(&column) {
            count += 1;
            column = format!("{name}:{count}");
        }
        seen.insert(name, count);
        seen.entry(column.clone()).or_insert(1);
        columns.push(column);
    }
    columns.into()
}

/// Rows with a value for each column, one after the other in one list: a list for each would take twice the memory of small rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    width: usize,
    values: Vec<Value>,
}

impl Table {
    /// These values as rows of so many columns.
    pub(super) fn new(width: usize, values: Vec<Value>) -> Self {
        Self { width, values }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The rows.
    pub fn iter(&self) -> impl Iterator<Item = &[Value]> {
        self.values.chunks_exact(self.width.max(1))
    }

    /// The values of all rows, row by row.
    pub fn into_values(self) -> Vec<Value> {
        self.values
    }
}

/// For tests, which know that a row is there.
#[cfg(test)]
#[allow(clippy::indexing_slicing)]
impl std::ops::Index<usize> for Table {
    type Output = [Value];

    fn index(&self, row: usize) -> &[Value] {
        &self.values[row * self.width..(row + 1) * self.width]
    }
}

/// What one statement answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The columns' names.
    pub columns: Columns,
    /// The rows, with a value for each column. In JSON each is an object.
    pub rows: Table,
    /// What it cost.
    pub counts: Counts,
    /// The rowid of the last row that the connection has inserted; of use after an INSERT only.
    pub last_insert_rowid: i64,
}

/// What a query or a batch answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// One answer for each statement.
    pub results: Vec<Answer>,
    /// What all of them cost: what is charged.
    #[serde(flatten)]
    pub counts: Counts,
    /// The database and its backups, in bytes.
    pub storage_bytes: u64,
    /// How long they ran, in ms, without the wait for their turn.
    pub duration_ms: f64,
    /// What would make them cheaper.
    pub next_actions: Vec<String>,
}

/// An outcome as the API answers it: that of a query with the fields of its one answer beside its own, that of a batch with its `results`.
#[derive(Clone, Debug, PartialEq)]
pub enum Flat {
    /// Of one statement that was sent as such.
    Query(Outcome),
    /// Of a batch.
    Batch(Outcome),
}

impl Serialize for Flat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let outcome = match self {
            Self::Batch(outcome) => return outcome.serialize(serializer),
            Self::Query(outcome) => outcome,
        };
        let nothing = Answer::default();
        let answer = outcome.results.first().unwrap_or(&nothing);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("columns", &*answer.columns)?;
        map.serialize_entry("rows", &Objects(answer))?;
        map.serialize_entry("rowsRead", &outcome.counts.rows_read)?;
        map.serialize_entry("rowsWritten", &outcome.counts.rows_written)?;
        map.serialize_entry("vmSteps", &outcome.counts.vm_steps)?;
        map.serialize_entry("fullscanSteps", &outcome.counts.fullscan_steps)?;
        map.serialize_entry("storageBytes", &outcome.storage_bytes)?;
        map.serialize_entry("durationMs", &outcome.duration_ms)?;
        map.serialize_entry("lastInsertRowid", &Value::Integer(answer.last_insert_rowid))?;
        map.serialize_entry("nextActions", &outcome.next_actions)?;
        map.end()
    }
}

/// The rows of an answer as JSON objects.
struct Objects<'a>(&'a Answer);

impl Serialize for Objects<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Object<'a>(&'a [String], &'a [Value]);
        impl Serialize for Object<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(self.1.len()))?;
                for (column, value) in self.0.iter().zip(self.1) {
                    map.serialize_entry(column, value)?;
                }
                map.end()
            }
        }
        let mut rows = serializer.serialize_seq(Some(self.0.rows.len()))?;
        for row in self.0.rows.iter() {
            rows.serialize_element(&Object(&self.0.columns, row))?;
        }
        rows.end()
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            columns: &'a [String],
            rows: Objects<'a>,
            #[serde(flatten)]
            counts: &'a Counts,
            last_insert_rowid: Value,
        }
        let last_insert_rowid = Value::Integer(self.last_insert_rowid);
        Shape { columns: &self.columns, rows: Objects(self), counts: &self.counts, last_insert_rowid }.serialize(serializer)
    }
}

/// One migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Its name, most often that of its file.
    pub name: String,
    /// Its statements.
    pub sql: String,
}

/// What applying migrations did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Migrated {
    /// The names of those that were applied now, in order.
    pub applied: Vec<String>,
    /// What they cost.
    #[serde(flatten)]
    pub counts: Counts,
    /// The database and its backups, in bytes.
    pub storage_bytes: u64,
}

/// Why a backup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupKind {
    /// Somebody asked for it.
    Manual,
    /// It is what was there before a restore.
    PreRestore,
}

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// Its number, unique in the host.
    #[serde(skip)]
    pub number: u64,
    /// When it was made.
    pub created_unix_ms: UnixMs,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Why it was made.
    pub kind: BackupKind,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn columns_of_one_name_are_told_apart() {
        let names = |names: &[&str]| distinct(names.iter().map(|&name| name.to_owned()).collect()).to_vec();
        assert_eq!(names(&["id", "name", "id", "id"]), ["id", "name", "id:2", "id:3"]);
        let tricky = names(&["id", "id:2", "id", "id:2"]);
        assert_eq!(tricky.iter().collect::<std::collections::HashSet<_>>().len(), 4, "{tricky:?}");
    }

    #[test]
    fn rows_are_objects_in_json() {
        let columns = distinct(vec!["id".to_owned(), "id".to_owned()]);
        let answer = Answer { columns, rows: Table::new(2, vec![Value::Integer(1), Value::Null]), counts: Counts::default(), last_insert_rowid: 7 };
        let json = serde_json::to_value(&answer).unwrap();
        assert_eq!(json["rows"], serde_json::json!([{"id": 1, "id:2": null}]));
        assert_eq!(json["lastInsertRowid"], 7);
        assert_eq!(json["fullscanSteps"], 0);
    }
}
