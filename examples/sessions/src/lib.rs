//! Sessions by cookie. What a session knows is in KV under `<user>/<id>`, for an hour: nobody has to clean up, and the keys of one user stand together.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tovuk::kv::{Item, Kv};
use tovuk::{Error, Request, Response, Result, Router, kv};

const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Deserialize)]
struct Login {
    user: String,
}

#[derive(Serialize, Deserialize)]
struct Session {
    user: String,
}

fn sessions() -> Kv<'static> {
    kv("SESSIONS")
}

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    Router::new().post("/login", login).get("/", home).get("/sessions", list).post("/logout", logout).post("/logout-everywhere", everywhere).run(req)
}

/// `user=<name>` as a form. A real application asks for a password here.
fn login(req: Request) -> Result<Response> {
    let Login { user } = req.form()?;
    if !(1..=32).contains(&user.len()) || !user.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Error::bad_request("a user has 1 to 32 letters and digits"));
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(Error::internal)?;
    let mut key = format!("{user}/");
    for byte in random {
        write!(key, "{byte:02x}")?;
    }
    // Metadata has at most 1,024 bytes.
    let program: String = req.header("user-agent").unwrap_or("unknown").chars().take(200).collect();
    sessions().put_item(Item::json(&*key, &Session { user })?.with_ttl(HOUR).with_metadata(&program)?)?;
    Ok(Response::redirect("/").with_header("set-cookie", format!("session={key}; Max-Age={}; Path=/; HttpOnly; SameSite=Lax", HOUR.as_secs())))
}

/// The key in the request's cookie and the session behind it.
fn current(req: &Request) -> Result<(String, Session)> {
    let cookies = req.header("cookie").unwrap_or_default().split(';');
    let key = cookies.filter_map(|cookie| cookie.trim().strip_prefix("session=")).find(|key| key.contains('/') && key.len() <= 100);
    let session = key.map(|key| Ok::<_, Error>(sessions().get_json(key)?.map(|session| (key.to_owned(), session)))).transpose()?.flatten();
    session.ok_or_else(|| Error::unauthorized("POST user=<name> to /login first"))
}

fn home(req: Request) -> Result<Response> {
    Ok(Response::text(format!("hello {}\n", current(&req)?.1.user)))
}

/// From which programs the user is logged in, without reading a single session: metadata is in the list.
fn list(req: Request) -> Result<Response> {
    let (_, session) = current(&req)?;
    let keys = sessions().keys(format!("{}/", session.user));
    let programs = keys.map(|key| Ok(key?.metadata::<String>()?.unwrap_or_default())).collect::<Result<Vec<_>>>()?;
    Response::json(&programs)
}

fn logout(req: Request) -> Result<Response> {
    sessions().delete(&current(&req)?.0)?;
    Ok(forgotten())
}

fn everywhere(req: Request) -> Result<Response> {
    let (_, session) = current(&req)?;
    let keys = sessions().keys(format!("{}/", session.user)).map(|key| Ok(key?.name)).collect::<Result<Vec<_>>>()?;
    // One call takes at most 10,000.
    for some in keys.chunks(10_000) {
        sessions().delete_many(some.to_vec())?;
    }
    Ok(forgotten())
}

fn forgotten() -> Response {
    Response::redirect("/").with_header("set-cookie", "session=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax")
}

#[cfg(test)]
mod tests {
    use tovuk::testing::TestEnv;

    use super::*;

    fn cookie_of(env: &TestEnv, user: &str) -> String {
        let login = Request::post("/login").with_header("content-type", "application/x-www-form-urlencoded").with_body(format!("user={user}"));
        let cookie = env.run(handle, login).header("set-cookie").unwrap_or_default().to_owned();
        cookie.split(';').next().unwrap_or_default().to_owned()
    }

    fn status(env: &TestEnv, request: Request, cookie: &str) -> u16 {
        env.run(handle, request.with_header("cookie", cookie)).status()
    }

    #[test]
    fn a_session_lasts_an_hour_or_until_its_user_logs_out() {
        let env = TestEnv::new().kv("SESSIONS");
        let (first, second, other) = (cookie_of(&env, "ada"), cookie_of(&env, "ada"), cookie_of(&env, "grace"));
        assert_eq!(env.run(handle, Request::get("/").with_header("cookie", &first)).body(), b"hello ada\n");
        assert_eq!(env.run(handle, Request::get("/sessions").with_header("cookie", &first)).body(), br#"["unknown","unknown"]"#);
        assert_eq!(status(&env, Request::post("/logout"), &first), 303);
        assert_eq!((status(&env, Request::get("/"), &first), status(&env, Request::get("/"), &second)), (401, 200));
        assert_eq!(status(&env, Request::post("/logout-everywhere"), &second), 303);
        assert_eq!((status(&env, Request::get("/"), &second), status(&env, Request::get("/"), &other)), (401, 200));
        env.advance(HOUR + Duration::from_secs(1));
        assert_eq!(status(&env, Request::get("/"), &other), 401);
    }

    #[test]
    fn what_is_no_session_is_refused() {
        let env = TestEnv::new().kv("SESSIONS");
        for cookie in ["", "session=", "session=ada/0", "session=..", "other=ada/0"] {
            assert_eq!(status(&env, Request::get("/"), cookie), 401, "{cookie}");
        }
        assert_eq!(cookie_of(&env, "a%2Fb"), "");
    }
}
