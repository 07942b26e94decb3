//! Parameters of SQL from JSON. A `1,` of two bytes becomes a value of many, so what a request's parameters will take is counted as host
//! memory before they are read.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use tovuk_kernel::codes;
use tovuk_kernel::limits::{SQLITE_BATCH_STATEMENTS_MAX, SQLITE_PARAMS_MAX};
use tovuk_resources::sqlite::{Params, Statement, Value};
use tovuk_runtime::memory::Reservation;

use crate::control::Refusal;
use crate::control::decode::{bounded, with_strings};

/// What one value takes besides its text, in bytes: itself, in a list that has grown to twice its length, or in a map with its name.
const VALUE_BYTES: usize = 5 * size_of::<Value>();

/// One statement of a batch.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "SqliteStatement")]
pub struct StatementEntry {
    /// The SQL: exactly one statement.
    pub sql: String,
    /// Its parameters: an array for `?`, an object for `:name`. A blob is `{"base64": "..."}`, an integer beyond 2^53 `{"integer": "..."}`.
    #[schemars(with = "Option<serde_json::Value>")]
    pub params: Option<Box<RawValue>>,
}

/// The statements of a batch.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Statements(#[serde(deserialize_with = "bounded::<_, _, SQLITE_BATCH_STATEMENTS_MAX>")] pub Vec<StatementEntry>);

impl StatementEntry {
    /// The statement, if there is memory for it.
    pub(super) fn read(self, memory: &Reservation) -> Result<Statement, Refusal> {
        let Some(text) = self.params else { return Ok(Statement { sql: self.sql, params: Params::default() }) };
        let text = text.get();
        let values = values(text);
        if values > SQLITE_PARAMS_MAX as usize {
            return Err(Refusal::new(&codes::INVALID_REQUEST, format!("a statement has at most {SQLITE_PARAMS_MAX} parameters")));
        }
        if !memory.grow(values.saturating_mul(VALUE_BYTES).saturating_add(2 * text.len()) as u64) {
            return Err(Refusal::new(
                &codes::HOST_BUSY,
                "the host has no memory left for these parameters; try again shortly, or send fewer at a time",
            ));
        }
        let params = serde_json::from_str(text).map_err(|error| Refusal::new(&codes::INVALID_REQUEST, format!("`params`: {error}")))?;
        Ok(Statement { sql: self.sql, params })
    }
}

/// How many values there are in a text at the most.
fn values(json: &str) -> usize {
    1 + with_strings(json).filter(|(char, in_string)| *char == ',' && !in_string).count()
}

#[cfg(test)]
mod tests {
    use tovuk_runtime::memory::HostMemory;

    use super::*;

    fn read(params: &str, memory: &HostMemory) -> Result<Statement, &'static str> {
        let params = RawValue::from_string(params.to_owned()).ok();
        StatementEntry { sql: String::new(), params }.read(&memory.reserve()).map_err(|refusal| refusal.code.code)
    }

    #[test]
    fn parameters_are_counted_before_they_are_read_and_commas_in_texts_are_none() {
        let memory = HostMemory::new(64 << 10);
        for (text, count) in [("[]", 1), ("[1, 2]", 2), (r#"{"a": ",,", "b\\\"": 1, "c": "\\"}"#, 3), (r#"["\",", ","]"#, 2)] {
            assert_eq!(values(text), count, "{text}");
            assert!(read(text, &memory).is_ok());
        }
        let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert!(read(&list(200), &memory).is_ok());
        assert_eq!(read(&list(1_000), &memory), Err("host_busy"));
        let large = HostMemory::new(u64::MAX);
        assert!(read(&list(SQLITE_PARAMS_MAX as usize), &large).is_ok());
        assert_eq!(read(&list(SQLITE_PARAMS_MAX as usize + 1), &large), Err("invalid_request"));
        assert_eq!(read("[[1]]", &large), Err("invalid_request"));
        assert_eq!((memory.used_bytes(), large.used_bytes()), (0, 0));
    }
}
