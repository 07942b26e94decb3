//! A guestbook: entries are signed, listed page by page, searched by their words and deleted.

use serde::{Deserialize, Serialize};
use tovuk::sqlite::{self, Database, params};
use tovuk::{DataError, Error, Request, Response, Result, Router};

/// Entries of one page.
const PAGE: i64 = 20;

#[derive(Serialize, Deserialize)]
struct Entry {
    id: i64,
    name: String,
    body: String,
    created_at: String,
}

#[derive(Deserialize)]
struct Signed {
    name: String,
    body: String,
}

fn db() -> Database<'static> {
    sqlite::database("DB")
}

#[tovuk::handler]
pub fn handle(req: Request) -> Result<Response> {
    Router::new().get("/entries", |req| list(&req)).post("/entries", |req| sign(&req)).delete("/entries/{id}", |req| delete(&req)).run(req)
}

/// The newest entries, or with `?q=` those with these words, or with `?before=` those before an entry.
fn list(req: &Request) -> Result<Response> {
    let entries: Vec<Entry> = match req.query_param("q") {
        Some(words) => {
            // In quotes, what visitors write is words and no query of its own.
            let phrase = format!("\"{}\"", words.replace('"', "\"\""));
            let sql = "select e.* from words join entries e on e.id = words.rowid where words match ? order by rank limit ?";
            db().query(sql, params![phrase, PAGE])?.rows()?
        }
        None => {
            let before: i64 = req.query_param("before").and_then(|id| id.parse().ok()).unwrap_or(i64::MAX);
            db().query("select * from entries where id < ? order by id desc limit ?", params![before, PAGE])?.rows()?
        }
    };
    Response::json(&entries)
}

/// Adds an entry, unless the same visitor has just said the same.
fn sign(req: &Request) -> Result<Response> {
    let Signed { name, body } = req.json()?;
    let entry: Entry = db().transaction(|tx| {
        let last: Option<(String, String)> = tx.query("select name, body from entries order by id desc limit 1", ())?.optional()?;
        if last.is_some_and(|last| last == (name.clone(), body.clone())) {
            return Err(Error::new(409, "you have said that"));
        }
        let signed = tx.query("insert into entries (name, body) values (?, ?) returning *", params![name, body]).map_err(refused)?;
        Ok(signed.one()?)
    })?;
    Ok(Response::json(&entry)?.with_status(201))
}

/// What the table does not take is the visitor's fault.
fn refused(error: DataError) -> Error {
    if error.code() == "sqlite_constraint" { Error::bad_request("a name has 1 to 100 letters, and an entry 1 to 2000") } else { error.into() }
}

fn delete(req: &Request) -> Result<Response> {
    let id: i64 = req.param("id")?;
    match db().execute("delete from entries where id = ?", params![id])? {
        0 => Err(Error::not_found("there is no such entry")),
        _ => Ok(Response::empty(204)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tovuk::sqlite::Answer;
    use tovuk::testing::TestEnv;

    #[test]
    fn what_was_just_said_is_not_said_again() {
        let env = TestEnv::new().sqlite("DB", |statement| {
            if statement.sql.starts_with("insert") {
                return Ok(Answer::of(["id", "name", "body", "created_at"], [params![1, "Ada", "hello", "2026-05-31T00:00:00Z"]]));
            }
            Ok(Answer::of(["name", "body"], [params!["Grace", "hello"]]))
        });
        let sign = |name: &str| env.run(handle, Request::post("/entries").with_body(format!("{{\"name\":\"{name}\",\"body\":\"hello\"}}")));
        assert_eq!(sign("Grace").status(), 409);
        assert_eq!(sign("Ada").status(), 201);
    }
}
