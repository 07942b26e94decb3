//! Prints each tick that it gets, `tick <name> <expression> <time> <x-tovuk-event>`, and answers as the trigger's name says: `status-<n>` with that status,
//! `large` with 2 MiB, `traps` with a trap, `absent` is no route, any other with 204. Everything else is answered `up`.

use tovuk::cron::Tick;
use tovuk::{Request, Response, Result, Router};

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    let event = req.header("x-tovuk-event").unwrap_or("none").to_owned();
    if req.path() == "/.tovuk/cron/absent" {
        return Router::new().get("/", |_| Ok(Response::text("up"))).run(req);
    }
    if let Some(status) = req.path().strip_prefix("/.tovuk/cron/status-") {
        let status = status.parse().unwrap_or(500);
        print(&Tick::of(&req)?, &event);
        return Ok(Response::empty(status));
    }
    if req.path() == "/.tovuk/cron/large" {
        print(&Tick::of(&req)?, &event);
        return Ok(Response::text("x".repeat(2 << 20)));
    }
    Router::new()
        .cron("traps", |tick| {
            print(&tick, &event);
            std::process::abort()
        })
        .cron("{name}", |tick| {
            print(&tick, &event);
            Ok(())
        })
        .any("/{*rest}", |_| Ok(Response::text("up")))
        .any("/", |_| Ok(Response::text("up")))
        .run(req)
}

fn print(tick: &Tick, event: &str) {
    println!("tick {} {} {} {event}", tick.name(), tick.cron_expression(), tick.scheduled_time_ms());
}
