//! SQL in the database `DB`, or in the one that `?db=` names, through the SDK. A body is JSON: values are null, booleans, numbers, texts and arrays of bytes;
//! `params` are an array or an object. `/query {sql, params}` and `/batch [{sql, params}]` answer what the host said; `/tx {statements, end}` runs a
//! transaction that ends with `commit`, `fail` or `trap`; `/stream {sql}` counts pages and rows; `/held` opens streams until it may not; `/large` hands a
//! blob of so many `bytes` over in every way; `/linger` leaves a transaction open with a statement that takes for ever, after it has printed `begun`.

use serde::Deserialize;
use serde_json::{Value as Json, json};
use tovuk::sqlite::{self, Answer, Params, Statement, Value};
use tovuk::{DataError, Request, Response, Result};

#[derive(Deserialize)]
struct Given {
    sql: String,
    #[serde(default)]
    params: Json,
}

#[derive(Deserialize)]
struct Work {
    statements: Vec<Given>,
    end: String,
}

fn value(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => flag.into(),
        Json::Number(number) => number.as_i64().map_or_else(|| Value::Real(number.as_f64().unwrap_or(f64::NAN)), Value::Integer),
        Json::String(text) => text.into(),
        Json::Array(bytes) => Value::Blob(bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect()),
        Json::Object(_) => Value::Null,
    }
}

fn shown(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(number) => json!(number),
        Value::Real(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!(bytes),
    }
}

fn params(json: Json) -> Params {
    match json {
        Json::Object(named) => Params::Named(named.into_iter().map(|(name, json)| (name, value(json))).collect()),
        Json::Array(list) => Params::Positional(list.into_iter().map(value).collect()),
        _ => Params::Positional(Vec::new()),
    }
}

fn answer(answer: &Answer) -> Json {
    let rows: Vec<Vec<Json>> = answer.values().map(|row| row.iter().map(shown).collect()).collect();
    let counts = answer.counts();
    json!({"columns": answer.columns(), "rows": rows, "rowsRead": counts.rows_read, "rowsWritten": counts.rows_written, "vmSteps": counts.vm_steps,
        "fullscanSteps": counts.fullscan_steps, "lastInsertRowid": answer.last_insert_rowid(), "storageBytes": answer.storage_bytes(), "advice": answer.advice()})
}

fn error(error: &DataError) -> Json {
    json!({"code": error.code(), "message": error.message(), "retryable": error.is_retryable()})
}

fn told(result: Result<Json, DataError>) -> Result<Response> {
    match result {
        Ok(json) => Response::json(&json),
        Err(failed) => Ok(Response::json(&error(&failed))?.with_status(409)),
    }
}

const ENDLESS: &str = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    let name = req.query_param("db").unwrap_or_else(|| "DB".into());
    let db = sqlite::database(&name);
    match req.path() {
        "/query" => {
            let given: Given = req.json()?;
            told(db.query(&given.sql, params(given.params)).map(|found| answer(&found)))
        }
        "/batch" => {
            let given: Vec<Given> = req.json()?;
            let statements = given.into_iter().map(|given| Statement::new(given.sql, params(given.params)));
            told(db.batch(statements).map(|found| found.iter().map(answer).collect()))
        }
        "/tx" => {
            let Work { statements, end } = req.json()?;
            let mut results = Vec::new();
            let done = db.transaction(|tx| {
                for given in statements {
                    let result = tx.query(&given.sql, params(given.params));
                    results.push(result.as_ref().map_or_else(error, answer));
                }
                match end.as_str() {
                    "commit" => Ok(()),
                    "trap" => panic!("with a transaction open"),
                    _ => db.execute("not SQL", ()).map(drop),
                }
            });
            let end = done.as_ref().err().map(error);
            Response::json(&json!({"results": results, "error": end}))
        }
        "/stream" => {
            let given: Given = req.json()?;
            let (mut pages, mut rows) = (0, 0);
            let mut read = || {
                for page in db.stream(&given.sql, params(given.params.clone()))? {
                    pages += 1;
                    rows += page?.len();
                }
                Ok(())
            };
            let failed = read().as_ref().err().map(error);
            Response::json(&json!({"pages": pages, "rows": rows, "error": failed}))
        }
        "/held" => {
            let mut streams = Vec::new();
            let names: Vec<_> = (1..=8).map(|number| format!("DB{number}")).collect();
            let refused = (0..100).find_map(|turn| match sqlite::database(&names[turn % 8]).stream("select 1", ()) {
                Ok(stream) => {
                    streams.push(stream);
                    None
                }
                Err(refused) => Some(error(&refused)),
            });
            let held = streams.len();
            streams.clear();
            let again = sqlite::database("DB1").stream("select 1", ()).is_ok();
            Response::json(&json!({"held": held, "refused": refused, "again": again}))
        }
        "/large" => {
            let bytes = req.query_param("bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or_default();
            let (sql, given) = ("select length(?)", || Params::Positional(vec![Value::Blob(vec![0; bytes])]));
            let code = |result: Result<(), DataError>| result.as_ref().err().map(error);
            let named = || Params::Named([("v".to_owned(), Value::Blob(vec![0; bytes]))].into_iter().collect());
            let query = code(db.query(sql, given()).map(drop));
            let by_name = code(db.query("select length(:v)", named()).map(drop));
            let batch = code(db.batch([Statement::new(sql, given())]).map(drop));
            let stream = code(db.stream(sql, given()).map(drop));
            let tx = code(db.transaction(|tx| tx.query(sql, given()).map(drop)));
            Response::json(&json!([query, by_name, batch, stream, tx]))
        }
        "/linger" => db.transaction(|tx| {
            tx.execute("insert into t values ('linger')", ())?;
            println!("begun");
            tx.query(ENDLESS, ())?;
            Ok(Response::text("never"))
        }),
        _ => Ok(Response::empty(404)),
    }
}
