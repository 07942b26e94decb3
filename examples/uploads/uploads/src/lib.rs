//! Files of visitors in object storage: the worker gives out URLs and keeps the list, the bytes go past it.

use serde::Deserialize;
use serde_json::json;
use tovuk::objects::{NewObject, Object};
use tovuk::{Error, Request, Response, Result, Router, objects};

/// The largest file, in bytes.
const LARGEST: u64 = 1 << 30;
/// What a browser does: asks for a URL, sends the file there, says that it was sent.
const PAGE: &str = include_str!("page.html");

#[derive(Deserialize)]
struct Announced {
    name: String,
    size: u64,
}

/// Where the file of this name is kept. Names with slashes are none.
fn path_of(name: &str) -> Result<String> {
    if name.is_empty() || name.contains('/') {
        return Err(Error::bad_request("a file has a name without slashes"));
    }
    Ok(format!("files/{name}"))
}

fn announce(req: &Request) -> Result<Response> {
    let Announced { name, size } = req.query()?;
    if size > LARGEST {
        return Err(Error::bad_request("files have at most 1 GiB"));
    }
    let upload = objects().upload_url(NewObject::new(path_of(&name)?), size)?;
    Response::json(&json!({"name": name, "url": upload.url}))
}

/// Makes what was sent the file; a browser that asks too early is told.
fn complete(path: &str) -> Result<Object> {
    objects().complete(path).map_err(|error| match error.code() {
        "upload_incomplete" | "upload_not_found" => Error::new(409, "the file has not arrived"),
        _ => error.into(),
    })
}

fn list() -> Result<Response> {
    let mut files = Vec::new();
    for object in objects().list("files/") {
        let object = object?;
        files.push(json!({"name": object.path.trim_start_matches("files/"), "size": object.size}));
    }
    Response::json(&json!({ "files": files }))
}

fn fetch(name: &str) -> Result<Response> {
    let path = path_of(name)?;
    if objects().head(&path)?.is_none() {
        return Err(Error::not_found("there is no such file"));
    }
    Ok(Response::redirect(&objects().download_url(&path)?))
}

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    Router::new()
        .get("/", |_| Ok(Response::html(PAGE)))
        .post("/files", |req| announce(&req))
        .get("/files", |_| list())
        .post("/files/{name}/complete", |req| {
            let object = complete(&path_of(&req.param::<String>("name")?)?)?;
            Response::json(&json!({"size": object.size}))
        })
        .get("/files/{name}", |req| fetch(&req.param::<String>("name")?))
        .delete("/files/{name}", |req| {
            let deleted = objects().delete(&path_of(&req.param::<String>("name")?)?)?;
            Response::json(&json!({ "deleted": deleted }))
        })
        .run(req)
}

#[cfg(test)]
mod tests {
    use super::handle;
    use tovuk::{Request, testing::TestEnv};

    #[test]
    fn files_are_announced_listed_and_fetched_by_url() {
        let env = TestEnv::new().with_object("files/a.txt", "hello").with_object("other", "x");
        let announced = env.run(handle, Request::post("/files?name=b.txt&size=5"));
        assert!(announced.body_text().unwrap().contains("\"url\":\"http://"));
        assert_eq!(env.run(handle, Request::get("/files")).body_text().unwrap(), r#"{"files":[{"name":"a.txt","size":5}]}"#);
        let fetched = env.run(handle, Request::get("/files/a.txt"));
        assert!((300..400).contains(&fetched.status()));
        assert_eq!(env.run(handle, Request::get("/files/none")).status(), 404);
        assert_eq!(env.run(handle, Request::post("/files?name=x&size=9999999999")).status(), 400);
        assert_eq!(env.run(handle, Request::delete("/files/a.txt")).body_text().unwrap(), r#"{"deleted":true}"#);
        assert!(env.object("files/a.txt").is_none() && env.object("other").is_some());
    }
}
