//! Uses KV as it is told: `POST /` with a JSON list of steps runs them one after the other and answers the list of what came. `GET /hello`, `/get/<key>`,
//! `/put/<key>?n=<n>`, `/many/<key>` and `/list` do one thing with the namespace `CACHE` and answer `hello`: they are measured.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tovuk::__private::bindings::tovuk::kv::store as raw;
use tovuk::kv::{Entry, Item};
use tovuk::{DataError, Request, Response, Result, Router};

/// One step. Which fields count depends on `op`.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Step {
    op: String,
    namespace: Option<String>,
    key: String,
    keys: Vec<String>,
    value: Option<String>,
    /// A value of so many bytes, instead.
    bytes: usize,
    /// So many keys: their number follows `key`.
    count: Option<usize>,
    metadata: Option<Value>,
    ttl: Option<u64>,
    expiration: Option<u64>,
    delta: i64,
    prefix: String,
    limit: Option<u32>,
    cursor: Option<String>,
}

impl Step {
    fn item(&self, key: String) -> Result<Item, DataError> {
        let value = self.value.clone().map_or_else(|| vec![b'x'; self.bytes], String::into_bytes);
        let mut item = Item::new(key, value);
        if let Some(metadata) = &self.metadata {
            item = item.with_metadata(metadata)?;
        }
        if let Some(ttl) = self.ttl {
            item = item.with_ttl(Duration::from_secs(ttl));
        }
        Ok(self.expiration.into_iter().fold(item, Item::with_expiration))
    }

    fn many(&self) -> Vec<String> {
        match self.count {
            Some(count) => (0..count).map(|number| format!("{}{number}", self.key)).collect(),
            None => self.keys.clone(),
        }
    }

    fn run(&self) -> Result<Value, DataError> {
        let name = self.namespace.as_deref().unwrap_or("CACHE");
        let kv = tovuk::kv(name);
        Ok(match self.op.as_str() {
            "get" => kv.get(&self.key)?.as_ref().map_or(Value::Null, shown),
            "get_many" => kv.get_many(self.many())?.iter().map(|entry| entry.as_ref().map_or(Value::Null, shown)).collect(),
            "put" => json!(kv.put_item(self.item(self.key.clone())?)?),
            "put_many" => json!(kv.put_many(self.many().into_iter().map(|key| self.item(key)).collect::<Result<Vec<_>, _>>()?)?),
            // Past what the SDK looks at.
            "put_raw" => {
                let item = raw::Item { key: self.key.clone(), value: vec![0; self.bytes], metadata: None, ttl: None, expiration: None };
                json!(raw::put_many(name, &[item]).map_err(DataError::from)?)
            }
            "delete" => json!(kv.delete(&self.key)?),
            "delete_many" => json!(kv.delete_many(self.many())?),
            "increment" => json!(kv.increment(&self.key, self.delta)?),
            "page" => {
                let page = kv.page(&self.prefix, self.limit.unwrap_or(1_000), self.cursor.as_deref())?;
                json!({"keys": page.keys.iter().map(|key| &key.name).collect::<Vec<_>>(), "cursor": page.cursor})
            }
            "keys" => {
                let keys = kv.keys(&*self.prefix).collect::<Result<Vec<_>, _>>()?;
                keys.iter().map(|key| Ok(json!([key.name, key.metadata::<Value>()?, key.expiration]))).collect::<Result<Value, DataError>>()?
            }
            _ => json!("no such step"),
        })
    }
}

/// Large values by their length.
fn shown(entry: &Entry) -> Value {
    let value = if entry.value.len() > 1_000 { json!(entry.value.len()) } else { json!(String::from_utf8_lossy(&entry.value)) };
    json!({"value": value, "metadata": entry.metadata::<Value>().unwrap_or_default(), "expiration": entry.expiration})
}

fn steps(req: Request) -> Result<Response> {
    let run =
        |step: Step| step.run().unwrap_or_else(|error| json!({"error": error.code(), "message": error.message(), "retryable": error.is_retryable()}));
    let answers: Vec<Value> = req.json::<Vec<Step>>()?.into_iter().map(run).collect();
    Response::json(&answers)
}

fn hello() -> Response {
    Response::text("hello")
}

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    Router::new()
        .post("/", steps)
        .get("/hello", |_| Ok(hello()))
        .get("/get/{key}", |req| {
            std::hint::black_box(tovuk::kv("CACHE").get(&req.param::<String>("key")?)?);
            Ok(hello())
        })
        .get("/put/{key}", |req| {
            // Another value each time: writing what is there already costs no disk.
            let value = format!("{:256}", req.query_param("n").unwrap_or_default());
            tovuk::kv("CACHE").put(req.param::<String>("key")?, value)?;
            Ok(hello())
        })
        .get("/many/{key}", |req| {
            let key = req.param::<String>("key")?;
            std::hint::black_box(tovuk::kv("CACHE").get_many((0..10).map(|number| format!("{key}-{number}")))?);
            Ok(hello())
        })
        .get("/list", |_| {
            std::hint::black_box(tovuk::kv("CACHE").page("", 100, None)?);
            Ok(hello())
        })
        .run(req)
}
