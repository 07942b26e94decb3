//! Rooms with a counter of visits and a lock that one visitor has for half a minute. Each room is a State object: its handler runs one call at a time, so
//! it needs no transactions, and its alarm takes the lock away from whoever forgets to give it back.

use std::time::Duration;

use serde::Serialize;
use tovuk::state::{Object, Ringing};
use tovuk::{DataError, Env, Error, Request, Response, Result, Router};

const LOCKED_FOR: Duration = Duration::from_secs(30);

/// What a room shows.
#[derive(Serialize)]
struct Room {
    visits: i64,
    locked_by: Option<String>,
}

/// Every request to `/rooms/<room>…` is a call of that room.
#[tovuk::handler]
fn handle(req: Request, env: Env) -> Result<Response> {
    let room = req.path().strip_prefix("/rooms/").and_then(|rest| rest.split('/').next()).filter(|room| !room.is_empty());
    let Some(room) = room.map(str::to_owned) else { return Err(Error::not_found("rooms are at /rooms/<name>")) };
    Ok(env.state("Room").object(room).fetch(req)?)
}

/// A call of one room. No other runs meanwhile, and what it writes is on disk before the visitor hears of it; an error undoes it.
#[tovuk::state]
fn room(room: Object, req: Request) -> Result<Response> {
    Router::new()
        .get("/rooms/{room}", |_| show(&room))
        .post("/rooms/{room}/visits", |_| {
            room.increment("visits", 1)?;
            show(&room)
        })
        .put("/rooms/{room}/lock", |req| lock(&room, &by(&req)?))
        .delete("/rooms/{room}/lock", |req| unlock(&room, &by(&req)?))
        .run(req)
}

/// Who asks. A real application asks for a session here.
fn by(req: &Request) -> Result<String> {
    req.query_param("by").filter(|by| !by.is_empty()).ok_or_else(|| Error::bad_request("say who you are: ?by=<name>"))
}

fn show(room: &Object) -> Result<Response> {
    let visits = room.get_text("visits")?.map_or(Ok(0), |visits| visits.parse())?;
    Response::json(&Room { visits, locked_by: room.get_text("lock")? })
}

/// Takes the lock, or keeps it for longer.
fn lock(room: &Object, who: &str) -> Result<Response> {
    if let Some(other) = room.get_text("lock")?.filter(|other| other != who) {
        return Err(Error::new(409, format!("{other} has the room")));
    }
    room.put("lock", who)?;
    room.set_alarm(LOCKED_FOR)?;
    show(room)
}

fn unlock(room: &Object, who: &str) -> Result<Response> {
    if room.get_text("lock")?.as_deref() != Some(who) {
        return Err(Error::new(409, "the room is not yours"));
    }
    room.delete("lock")?;
    room.delete_alarm()?;
    show(room)
}

/// The lock has been held for long enough.
#[tovuk::alarm]
fn release(room: Object, _: Ringing) -> Result<(), DataError> {
    room.delete("lock").map(drop)
}

#[cfg(test)]
mod tests {
    use tovuk::testing::TestEnv;

    use super::*;

    fn ask(env: &TestEnv, request: Request) -> (u16, String) {
        let answer = env.run(handle, request);
        (answer.status(), String::from_utf8_lossy(answer.body()).into_owned())
    }

    #[test]
    fn a_room_counts_its_visits_and_has_one_lock() {
        let env = TestEnv::new().state("Room").state_handler(room);
        for visits in 1..=3 {
            let shown = format!(r#"{{"visits":{visits},"locked_by":null}}"#);
            assert_eq!(ask(&env, Request::post("/rooms/blue/visits")), (200, shown));
        }
        let locked = r#"{"visits":3,"locked_by":"ada"}"#.to_owned();
        assert_eq!(ask(&env, Request::put("/rooms/blue/lock?by=ada")), (200, locked.clone()));
        assert_eq!(ask(&env, Request::put("/rooms/blue/lock?by=ada")), (200, locked.clone()));
        assert_eq!(ask(&env, Request::put("/rooms/blue/lock?by=grace")), (409, r#"{"error":"ada has the room"}"#.to_owned()));
        assert_eq!(ask(&env, Request::delete("/rooms/blue/lock?by=grace")).0, 409);
        assert_eq!(ask(&env, Request::get("/rooms/blue")), (200, locked));
        assert_eq!(ask(&env, Request::put("/rooms/green/lock?by=grace")).0, 200);
        assert_eq!(ask(&env, Request::delete("/rooms/blue/lock?by=ada")).1, r#"{"visits":3,"locked_by":null}"#);
        assert_eq!((ask(&env, Request::get("/")).0, ask(&env, Request::put("/rooms/blue/lock")).0), (404, 400));
    }

    #[test]
    fn a_forgotten_lock_is_taken_away() {
        let env = TestEnv::new().state("Room").state_handler(room);
        ask(&env, Request::put("/rooms/blue/lock?by=ada"));
        assert!(env.ring(release, "Room", "blue").is_ok());
        assert_eq!(ask(&env, Request::put("/rooms/blue/lock?by=grace")).0, 200);
    }
}
