//! What a statement answered.

use serde::de::DeserializeOwned;

use super::decode::RowDeserializer;
use super::value::{IntoParams, Params, Value};
use crate::DataError;

/// What a statement cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that were visited in tables and indexes.
    pub rows_read: u64,
    /// Rows that were inserted, updated or deleted.
    pub rows_written: u64,
    /// Steps of SQLite's virtual machine.
    pub vm_steps: u64,
    /// Rows that were visited by going through a whole table.
    pub fullscan_steps: u64,
}

/// What a statement answered: its rows, and what they cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub(crate) columns: Vec<String>,
    pub(crate) values: Vec<Value>,
    pub(crate) counts: Counts,
    pub(crate) last_insert_rowid: i64,
    pub(crate) storage_bytes: u64,
    pub(crate) advice: Vec<String>,
}

impl Answer {
    /// An answer with these rows, for tests: `Answer::of(["id", "name"], [params![1, "Ada"]])`.
    pub fn of<C: Into<String>, R: IntoParams>(columns: impl IntoIterator<Item = C>, rows: impl IntoIterator<Item = R>) -> Self {
        let columns: Vec<String> = columns.into_iter().map(Into::into).collect();
        let row = |row: R| match row.into_params() {
            Params::Positional(values) => values,
            Params::Named(mut values) => columns.iter().map(|column| values.remove(column).unwrap_or_default()).collect(),
        };
        let values = rows.into_iter().flat_map(row).collect();
        Self { columns, values, ..Self::default() }
    }

    /// The answer to an INSERT, UPDATE or DELETE, for tests.
    pub fn written(rows: u64, last_insert_rowid: i64) -> Self {
        Self { counts: Counts { rows_written: rows, ..Counts::default() }, last_insert_rowid, ..Self::default() }
    }

    pub(super) fn page(columns: Vec<String>, values: Vec<Value>) -> Self {
        Self { columns, values, ..Self::default() }
    }

    /// The names of the columns, each different: a second `id` is `id:2`.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The rows as they are.
    pub fn values(&self) -> impl Iterator<Item = &[Value]> {
        self.values.chunks_exact(self.columns.len().max(1))
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.values().count()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All rows, each as a `T`: a struct whose fields are columns, a tuple of all columns, or the value of a single column.
    ///
    /// # Errors
    /// `sqlite_row_mismatch` when a row is no `T`.
    pub fn rows<T: DeserializeOwned>(&self) -> Result<Vec<T>, DataError> {
        self.values().map(|row| self.decode(row)).collect()
    }

    /// The first row.
    ///
    /// # Errors
    /// `sqlite_no_row` when there is none, `sqlite_row_mismatch` when it is no `T`.
    pub fn one<T: DeserializeOwned>(&self) -> Result<T, DataError> {
        self.optional()?.ok_or_else(|| DataError::new("sqlite_no_row", "the statement has no row"))
    }

    /// The first row, if there is one.
    ///
    /// # Errors
    /// `sqlite_row_mismatch` when it is no `T`.
    pub fn optional<T: DeserializeOwned>(&self) -> Result<Option<T>, DataError> {
        self.values().next().map(|row| self.decode(row)).transpose()
    }

    fn decode<T: DeserializeOwned>(&self, row: &[Value]) -> Result<T, DataError> {
        T::deserialize(RowDeserializer { columns: &self.columns, values: row })
            .map_err(|error| DataError::new("sqlite_row_mismatch", format!("a row ({}) is not what was asked for: {error}", self.columns.join(", "))))
    }

    /// What it cost.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The rowid of the last row that was inserted; of use after an INSERT only.
    pub fn last_insert_rowid(&self) -> i64 {
        self.last_insert_rowid
    }

    /// The database and its backups, in bytes.
    pub fn storage_bytes(&self) -> u64 {
        self.storage_bytes
    }

    /// What would make the statement cheaper, in words.
    pub fn advice(&self) -> &[String] {
        &self.advice
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde::Deserialize;

    use super::*;
    use crate::params;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Note,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        id: i64,
        name: Option<String>,
        done: bool,
        ratio: f64,
        kind: Kind,
        bytes: Vec<u8>,
        raw: Value,
        #[serde(default)]
        absent: u8,
    }

    #[test]
    fn rows_become_structs_tuples_and_single_values() {
        let columns = ["id", "name", "done", "ratio", "kind", "bytes", "raw", "more"];
        let rows = [
            params![i64::MAX, "Ada", true, 2, "note", vec![0_u8, 255], 1.5, 1],
            params![i64::MIN, None::<&str>, false, 0.5, "note", vec![7_u8], vec![1_u8], 2],
        ];
        let answer = Answer::of(columns, rows);
        let first = Row {
            id: i64::MAX,
            name: Some("Ada".to_owned()),
            done: true,
            ratio: 2.0,
            kind: Kind::Note,
            bytes: vec![0, 255],
            raw: Value::Real(1.5),
            absent: 0,
        };
        assert_eq!(answer.one::<Row>().unwrap(), first);
        assert_eq!(answer.rows::<Row>().unwrap()[1].raw, Value::Blob(vec![1]));
        let pairs = Answer::of(["n", "s"], [params![1, "a"], params![2, "b"]]);
        assert_eq!(pairs.rows::<(i64, String)>().unwrap(), [(1, "a".to_owned()), (2, "b".to_owned())]);
        assert_eq!(pairs.rows::<Vec<Value>>().unwrap()[1], [Value::Integer(2), "b".into()]);
        assert_eq!(pairs.rows::<std::collections::HashMap<String, Value>>().unwrap()[0]["s"], "a".into());
        let single = Answer::of(["n"], [[Some(3)], [None]]);
        assert_eq!(single.rows::<Option<i64>>().unwrap(), [Some(3), None]);
        assert_eq!((single.one::<i64>().unwrap(), single.one::<(u8,)>().unwrap()), (3, (3,)));
        let nothing = Answer::of(["n"], [(); 0]);
        assert_eq!((nothing.optional::<i64>().unwrap(), nothing.len()), (None, 0));
        assert_eq!(nothing.one::<i64>().unwrap_err().code(), "sqlite_no_row");
        for error in
            [single.rows::<i64>().unwrap_err(), pairs.one::<i64>().unwrap_err(), pairs.one::<(i64,)>().unwrap_err(), pairs.one::<Row>().unwrap_err()]
        {
            assert_eq!(error.code(), "sqlite_row_mismatch");
        }
    }
}
