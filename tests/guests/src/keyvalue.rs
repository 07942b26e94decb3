//! Uses `wasi:keyvalue` as it is told: `POST /draft` and `POST /draft2` with a JSON list of steps run them in that version of it, in one bucket for each
//! name, and answer the list of what came.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tovuk::{Request, Response, Result, Router};

mod draft {
    wit_bindgen::generate!({
        inline: "
            package test:draft;
            world uses {
                import wasi:keyvalue/store@0.2.0-draft;
                import wasi:keyvalue/atomics@0.2.0-draft;
                import wasi:keyvalue/batch@0.2.0-draft;
            }
            package wasi:keyvalue@0.2.0-draft {
                interface store {
                    variant error { no-such-store, access-denied, other(string) }
                    record key-response { keys: list<string>, cursor: option<u64> }
                    open: func(identifier: string) -> result<bucket, error>;
                    resource bucket {
                        get: func(key: string) -> result<option<list<u8>>, error>;
                        set: func(key: string, value: list<u8>) -> result<_, error>;
                        delete: func(key: string) -> result<_, error>;
                        exists: func(key: string) -> result<bool, error>;
                        list-keys: func(cursor: option<u64>) -> result<key-response, error>;
                    }
                }
                interface atomics {
                    use store.{bucket, error};
                    increment: func(bucket: borrow<bucket>, key: string, delta: u64) -> result<u64, error>;
                }
                interface batch {
                    use store.{bucket, error};
                    get-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<list<option<tuple<string, list<u8>>>>, error>;
                    set-many: func(bucket: borrow<bucket>, key-values: list<tuple<string, list<u8>>>) -> result<_, error>;
                    delete-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<_, error>;
                }
            }
        ",
        generate_all,
    });
}

mod draft2 {
    wit_bindgen::generate!({
        inline: "
            package test:draft2;
            world uses {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }
            package wasi:keyvalue@0.2.0-draft2 {
                interface store {
                    variant error { no-such-store, access-denied, other(string) }
                    record key-response { keys: list<string>, cursor: option<string> }
                    open: func(identifier: string) -> result<bucket, error>;
                    resource bucket {
                        get: func(key: string) -> result<option<list<u8>>, error>;
                        set: func(key: string, value: list<u8>) -> result<_, error>;
                        delete: func(key: string) -> result<_, error>;
                        exists: func(key: string) -> result<bool, error>;
                        list-keys: func(cursor: option<string>) -> result<key-response, error>;
                    }
                }
                interface atomics {
                    use store.{bucket, error};
                    variant cas-error { store-error(error), cas-failed(cas) }
                    resource cas {
                        new: static func(bucket: borrow<bucket>, key: string) -> result<cas, error>;
                        current: func() -> result<option<list<u8>>, error>;
                    }
                    increment: func(bucket: borrow<bucket>, key: string, delta: s64) -> result<s64, error>;
                    swap: func(cas: cas, value: list<u8>) -> result<_, cas-error>;
                }
                interface batch {
                    use store.{bucket, error};
                    get-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<list<option<tuple<string, list<u8>>>>, error>;
                    set-many: func(bucket: borrow<bucket>, key-values: list<tuple<string, list<u8>>>) -> result<_, error>;
                    delete-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<_, error>;
                }
            }
        ",
        generate_all,
    });
}

/// One step. Which fields count depends on `op`.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Step {
    op: String,
    bucket: String,
    key: String,
    keys: Vec<String>,
    value: String,
    delta: u32,
    cursor: Value,
    /// For `race`: whether the key is written between the look and the swap.
    meanwhile: Option<String>,
}

fn text(value: Vec<u8>) -> Value {
    json!(String::from_utf8_lossy(&value))
}

/// What both drafts have, over the bindings of one.
macro_rules! run {
    ($draft:ident, $buckets:ident, $step:ident, $cursor:expr, |$bucket:ident| $more:expr) => {{
        use $draft::wasi::keyvalue::{atomics, batch, store};
        if !$buckets.contains_key(&$step.bucket) {
            match store::open(&$step.bucket) {
                Ok(bucket) => drop($buckets.insert($step.bucket.clone(), bucket)),
                Err(error) => return json!({ "error": format!("{error:?}") }),
            }
        }
        let $bucket = &$buckets[&$step.bucket];
        let step = $step.clone();
        let answer: Result<Value, store::Error> = (|| {
            Ok(match step.op.as_str() {
                "open" => Value::Null,
                "get" => $bucket.get(&step.key)?.map_or(Value::Null, text),
                "set" => json!($bucket.set(&step.key, step.value.as_bytes())?),
                "delete" => json!($bucket.delete(&step.key)?),
                "exists" => json!($bucket.exists(&step.key)?),
                "list" => {
                    let page = $bucket.list_keys($cursor)?;
                    json!({"keys": page.keys, "cursor": page.cursor})
                }
                "increment" => json!(atomics::increment($bucket, &step.key, step.delta.into())?),
                "get_many" => batch::get_many($bucket, &step.keys)?.into_iter().map(|pair| json!(pair.map(|(key, value)| (key, text(value))))).collect(),
                "set_many" => {
                    let pairs: Vec<_> = step.keys.iter().map(|key| (key.clone(), step.value.clone().into_bytes())).collect();
                    json!(batch::set_many($bucket, &pairs)?)
                }
                "delete_many" => json!(batch::delete_many($bucket, &step.keys)?),
                _ => $more,
            })
        })();
        answer.unwrap_or_else(|error| json!({ "error": format!("{error:?}") }))
    }};
}

fn run_draft(buckets: &mut HashMap<String, draft::wasi::keyvalue::store::Bucket>, step: &Step) -> Value {
    run!(draft, buckets, step, step.cursor.as_u64(), |bucket| json!("no such step"))
}

fn run_draft2(buckets: &mut HashMap<String, draft2::wasi::keyvalue::store::Bucket>, step: &Step) -> Value {
    run!(draft2, buckets, step, step.cursor.as_str(), |bucket| race(bucket, step)?)
}

/// Looks at a key, lets it be written meanwhile if so told, and swaps; once more with the handle of a swap that failed.
fn race(bucket: &draft2::wasi::keyvalue::store::Bucket, step: &Step) -> Result<Value, draft2::wasi::keyvalue::store::Error> {
    use draft2::wasi::keyvalue::atomics::{Cas, CasError, swap};
    let cas = Cas::new(bucket, &step.key)?;
    let seen = cas.current()?.map(text);
    if let Some(meanwhile) = &step.meanwhile {
        bucket.set(&step.key, meanwhile.as_bytes())?;
    }
    match swap(cas, step.value.as_bytes()) {
        Ok(()) => Ok(json!({"seen": seen, "swapped": true})),
        Err(CasError::StoreError(error)) => Err(error),
        Err(CasError::CasFailed(cas)) => {
            let found = cas.current()?.map(text);
            Ok(json!({"seen": seen, "swapped": false, "found": found, "again": swap(cas, step.value.as_bytes()).is_ok()}))
        }
    }
}

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    Router::new()
        .post("/draft", |req| {
            let mut buckets = HashMap::new();
            Response::json(&req.json::<Vec<Step>>()?.iter().map(|step| run_draft(&mut buckets, step)).collect::<Vec<_>>())
        })
        .post("/draft2", |req| {
            let mut buckets = HashMap::new();
            Response::json(&req.json::<Vec<Step>>()?.iter().map(|step| run_draft2(&mut buckets, step)).collect::<Vec<_>>())
        })
        .run(req)
}
