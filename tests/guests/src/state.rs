//! Uses State as it is told: `POST /` with a JSON list of steps runs them one after the other and answers the list of what came; a step `call` calls the
//! handler of an object with the steps in it. `POST /at-once` makes all calls of its list at once. Alarms come as requests: `POST /.tovuk/…` tells the
//! object `Log`/`alarms` what came and answers with the status that it finds there under `answer`. `GET /increment/<object>`, `/get/<object>` and
//! `/call/<object>` do one thing and answer `hello`: they are measured.
//!
//! The handler of objects runs the steps of its body and answers what came. Steps `fail`, `answer`, `trap`, `spin` and `gate` end or hold the call.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tovuk::state::{Change, Object};
use tovuk::{CallError, DataError, Error, Request, Response, Result, Router};

/// One step. Which fields count depends on `op`.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Step {
    op: String,
    class: Option<String>,
    object: Option<String>,
    key: String,
    value: Option<String>,
    /// A value of so many bytes, instead.
    bytes: usize,
    expected: Option<String>,
    delta: i64,
    prefix: String,
    limit: Option<u32>,
    cursor: Option<String>,
    seconds: u64,
    at: u64,
    status: u16,
    url: String,
    changes: Vec<(String, String, Option<String>)>,
    /// So many changes.
    count: usize,
    steps: Value,
}

/// Why the steps end.
enum End {
    Data(DataError),
    Call(CallError),
    With(Error),
}

impl From<DataError> for End {
    fn from(error: DataError) -> Self {
        Self::Data(error)
    }
}

fn shown(value: &[u8]) -> Value {
    if value.len() > 1_000 { json!(value.len()) } else { json!(String::from_utf8_lossy(value)) }
}

impl Step {
    /// The object that is meant: the call's own unless the step names another.
    fn object(&self, own: &Object) -> Object {
        let class = self.class.as_deref().unwrap_or(own.class());
        tovuk::state(class).object(self.object.as_deref().unwrap_or(own.key()))
    }

    fn value(&self) -> Vec<u8> {
        self.value.clone().map_or_else(|| vec![b'x'; self.bytes], String::into_bytes)
    }

    fn changes(&self) -> Vec<Change> {
        let listed = self.changes.iter().map(|(what, key, value)| match (what.as_str(), value) {
            ("put", value) => Change::put(key, value.clone().unwrap_or_default()),
            ("delete", _) => Change::delete(key),
            (_, Some(value)) => Change::expect(key, value.clone()),
            (_, None) => Change::expect_none(key),
        });
        listed.chain((0..self.count).map(|number| Change::put(format!("{}{number}", self.key), self.value()))).collect()
    }

    fn run(&self, own: &Object) -> Result<Value, End> {
        let object = self.object(own);
        Ok(match self.op.as_str() {
            "get" => object.get(&self.key)?.map_or(Value::Null, |value| shown(&value)),
            "put" => json!(object.put(&self.key, self.value())?),
            "delete" => json!(object.delete(&self.key)?),
            "cas" => {
                let swapped = object.compare_and_set(&self.key, self.expected.as_deref().map(str::as_bytes), self.value.clone().map(Into::into))?;
                json!([swapped.swapped, swapped.found.map(|found| shown(&found))])
            }
            "increment" => json!(object.increment(&self.key, self.delta)?),
            "write" => json!(object.write(self.changes())?),
            "keys" => object
                .keys(&*self.prefix)
                .map(|key| Ok(json!([key.as_ref().map_err(Clone::clone)?.name, key?.value_bytes])))
                .collect::<Result<_, DataError>>()?,
            "page" => {
                let page = object.page(&self.prefix, self.limit.unwrap_or(1_000), self.cursor.as_deref())?;
                json!({"keys": page.keys.iter().map(|key| &key.name).collect::<Vec<_>>(), "cursor": page.cursor})
            }
            "objects" => {
                let objects = tovuk::state(object.class()).objects(&*self.prefix).collect::<Result<Vec<_>, _>>()?;
                objects.iter().map(|object| json!([object.name, object.values, object.bytes, object.alarm_ms])).collect()
            }
            "alarm" => object.alarm()?.map_or(Value::Null, |alarm| json!([alarm.scheduled_ms, alarm.next_ms, alarm.retry_count])),
            "set_alarm" if self.at > 0 => json!(object.set_alarm_at(self.at)?),
            "set_alarm" => json!(object.set_alarm(Duration::from_secs(self.seconds))?),
            "delete_alarm" => json!(object.delete_alarm()?),
            "call" => called(object.fetch(self.request())),
            "pass" => match object.fetch(self.request()) {
                Ok(response) => shown(response.body()),
                Err(error) => return Err(End::Call(error)),
            },
            "service" => called(tovuk::Env.service("NEXT").fetch(self.request())),
            "own_api" => {
                let url = format!("{}{}", tovuk::Env.var("TOVUK_API_BASE_URL").unwrap_or_default(), self.url);
                let token = tovuk::Env.var("TOVUK_RUNTIME_TOKEN").unwrap_or_default();
                called(tovuk::fetch(Request::get(url).with_bearer_token(&token)))
            }
            "gate" => json!(tovuk::fetch(Request::get(&self.url)).map_or(0, |response| response.status())),
            "fail" => return Err(End::With(Error::new(self.status, "on purpose"))),
            "trap" => std::process::abort(),
            "spin" => loop {
                std::hint::spin_loop();
            },
            _ => json!("no such step"),
        })
    }

    fn request(&self) -> Request {
        Request::post("/steps?of=a-step").with_body(self.steps.to_string())
    }
}

fn called(answer: Result<Response, CallError>) -> Value {
    match answer {
        Ok(response) => {
            let text = String::from_utf8_lossy(response.body());
            json!({"status": response.status(), "body": serde_json::from_str(&text).unwrap_or_else(|_| json!(text))})
        }
        Err(error) => json!({"error": error.code(), "message": error.to_string()}),
    }
}

/// Runs steps; an error of data is the answer to its step.
fn run(steps: &[Step], own: &Object) -> Result<Response> {
    let mut answers = Vec::new();
    let mut status = 200;
    for step in steps {
        if step.op == "answer" {
            status = step.status;
            continue;
        }
        answers.push(match step.run(own) {
            Ok(answer) => answer,
            Err(End::Data(error)) => json!({"error": error.code(), "message": error.message(), "retryable": error.is_retryable()}),
            Err(End::Call(error)) => return Err(error.into()),
            Err(End::With(error)) => return Err(error),
        });
    }
    Ok(Response::json(&answers)?.with_status(status))
}

#[tovuk::state]
fn object(object: Object, req: Request) -> Result<Response> {
    match req.path() {
        "/count" => Ok(Response::text(object.increment("n", 1)?.to_string())),
        "/headers" => {
            let header = |name| req.header(name).map(str::to_owned);
            Response::json(&json!([
                req.method(),
                req.uri(),
                header("x-tovuk-caller"),
                header("x-tovuk-invocation"),
                header("x-tovuk-event"),
                header("host")
            ]))
        }
        _ => run(&req.json::<Vec<Step>>()?, &object),
    }
}

fn steps(req: Request) -> Result<Response> {
    run(&req.json::<Vec<Step>>()?, &tovuk::state("Room").object("room"))
}

fn at_once(req: Request) -> Result<Response> {
    let own = tovuk::state("Room").object("room");
    let calls = req.json::<Vec<Step>>()?;
    let answers = tovuk::state::fetch_all(calls.iter().map(|step| (step.object(&own), step.request())));
    Response::json(&answers.into_iter().map(called).collect::<Vec<_>>())
}

fn alarm(req: &Request) -> Result<Response> {
    let log = tovuk::state("Log").object("alarms");
    let number = log.increment("count", 1)?;
    let line = json!({"path": req.path(), "event": req.header("x-tovuk-event"), "body": req.json::<Value>()?});
    log.put_json(&format!("alarm-{number:06}"), &line)?;
    let status = log.get_text("answer")?.and_then(|text| text.parse().ok()).unwrap_or(200);
    Ok(Response::empty(status))
}

fn hello() -> Result<Response> {
    Ok(Response::text("hello"))
}

fn named(req: &Request) -> Result<Object> {
    Ok(tovuk::state("Room").object(req.param::<String>("object")?))
}

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    if req.path().starts_with("/.tovuk/") {
        return alarm(&req);
    }
    Router::new()
        .post("/", steps)
        .post("/at-once", at_once)
        .get("/increment/{object}", |req| {
            named(&req)?.increment("n", 1)?;
            hello()
        })
        .get("/get/{object}", |req| {
            std::hint::black_box(named(&req)?.get("n")?);
            hello()
        })
        .get("/put/{object}", |req| {
            named(&req)?.put("value", format!("{:256}", req.query_param("n").unwrap_or_default()))?;
            hello()
        })
        .get("/call/{object}", |req| {
            named(&req)?.fetch(Request::get("/count"))?;
            hello()
        })
        .get("/headers/{object}", |req| Ok(named(&req)?.fetch(Request::put("/headers?q=1").with_header("x-tovuk-caller", "service_9"))?))
        .run(req)
}
