//! Uses the objects of its service: each path is one operation on the object `?path=`, answered with JSON of what came back, or with the status 422 and the
//! error's code.

use std::io::{Read, Write};

use serde_json::{Value, json};
use tovuk::objects::{Fetched, GetOptions, NewObject, Object, Range};
use tovuk::{DataError, Request, Response, Result};

fn shown(object: &Object) -> Value {
    json!({"path": object.path, "size": object.size, "type": object.content_type, "etag": object.etag, "public_url": object.public_url})
}

fn number(req: &Request, name: &str) -> Option<u64> {
    req.query_param(name)?.parse().ok()
}

fn new(req: &Request) -> NewObject {
    let mut new = NewObject::new(req.query_param("path").unwrap_or_default());
    if let Some(content_type) = req.query_param("type") {
        new = new.content_type(content_type);
    }
    if let Some(size) = number(req, "size") {
        new = new.size(size);
    }
    if req.query_param("public").is_some() { new.public() } else { new }
}

/// An error of a stream, as it was before it became one.
fn of_io(error: std::io::Error) -> DataError {
    error.get_ref().and_then(|inner| inner.downcast_ref::<DataError>()).unwrap().clone()
}

fn get(path: &str, req: &Request) -> Result<Value, DataError> {
    let range = match (number(req, "from"), number(req, "to"), number(req, "last")) {
        (Some(from), Some(to), _) => Range::Between(from, to),
        (Some(from), None, _) => Range::From(from),
        (None, _, Some(last)) => Range::Last(last),
        _ => Range::Whole,
    };
    let options = GetOptions { range, if_match: req.query_param("if_match"), if_none_match: req.query_param("if_none_match") };
    Ok(match tovuk::objects().get_with(path, &options)? {
        Fetched::Missing => json!("missing"),
        Fetched::NotModified(object) => json!({"not_modified": object.etag}),
        Fetched::Found(mut reader) => {
            // A few bytes at a time, and then the rest.
            let mut first = [0; 3];
            let read = reader.read(&mut first).map_err(of_io)?;
            let mut text = String::from_utf8_lossy(&first[..read]).into_owned();
            let (start, length) = (reader.start(), reader.length());
            reader.read_to_string(&mut text).map_err(of_io)?;
            json!({"text": text, "start": start, "length": length})
        }
    })
}

/// Writes `?mib=` of `x`, in pieces.
fn write(req: &Request) -> Result<tovuk::objects::Writer, DataError> {
    let mut writer = tovuk::objects().writer(new(req))?;
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..number(req, "mib").unwrap_or(1) {
        writer.write_all(&piece).map_err(of_io)?;
    }
    Ok(writer)
}

fn operate(req: &Request) -> Result<Value, DataError> {
    let (objects, path) = (tovuk::objects(), req.query_param("path").unwrap_or_default());
    Ok(match req.path() {
        "/head" => objects.head(&path)?.as_ref().map_or(Value::Null, shown),
        "/get" => get(&path, req)?,
        "/put" => shown(&objects.put(new(req), req.body())?),
        "/write" => shown(&write(req)?.finish()?),
        "/abandon" => {
            drop(write(req)?);
            json!("abandoned")
        }
        // Holds what it has written until it is stopped.
        "/hang" => {
            let _writer = write(req)?;
            objects.put("hanging", "")?;
            loop {
                std::thread::sleep(std::time::Duration::from_secs(3_600));
            }
        }
        "/trap" => {
            let _writer = write(req)?;
            std::process::abort()
        }
        "/readers" => {
            let readers: Vec<_> = (0..20).map_while(|_| objects.get(&path).ok().flatten()).collect();
            let open = readers.len();
            drop(readers);
            json!({"open": open, "again": objects.get(&path)?.is_some()})
        }
        "/writers" => {
            let writers: Vec<_> = (0..20).map_while(|number| objects.writer(format!("w{number}")).ok()).collect();
            let open = writers.len();
            drop(writers);
            json!({"open": open, "again": objects.writer("again").is_ok()})
        }
        "/list" => objects.list(&path).map(|object| object.map(|object| object.path)).collect::<Result<Value, _>>()?,
        "/delete" => json!(objects.delete(&path)?),
        "/download-url" => json!(objects.download_url(&path)?),
        "/upload-url" => json!(objects.upload_url(new(req), number(req, "bytes").unwrap_or(0))?.url),
        "/complete" => shown(&objects.complete(&path)?),
        _ => json!("nothing here"),
    })
}

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    match operate(&req) {
        Ok(value) => Response::json(&value),
        Err(error) => {
            Ok(Response::json(&json!({"code": error.code(), "message": error.message(), "retryable": error.is_retryable()}))?.with_status(422))
        }
    }
}
