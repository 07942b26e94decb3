//! Visits are counted under one key. At midnight the count goes to a key with the time of that midnight, which is what makes a tick that comes twice harmless.

use jiff::Timestamp;
use tovuk::cron::Tick;
use tovuk::kv::Kv;
use tovuk::{Error, Request, Response, Result, Router, kv};

const COUNT: &str = "count";
const REPORTS: &str = "report/";

fn visits() -> Kv<'static> {
    kv("VISITS")
}

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    Router::new().get("/", visit).get("/reports", reports).cron("nightly", report).run(req)
}

fn visit(_: Request) -> Result<Response> {
    Ok(Response::text(format!("visit {}\n", visits().increment(COUNT, 1)?)))
}

/// What the host delivers at midnight. An error makes it come again after a minute.
fn report(tick: Tick) -> Result<()> {
    let time = Timestamp::try_from(tick.scheduled()).map_err(Error::internal)?;
    let key = format!("{REPORTS}{time}");
    if visits().get(&key)?.is_none() {
        let count = visits().get_text(COUNT)?.unwrap_or_else(|| "0".to_owned());
        tovuk::log::info!("{count} visits until {time}");
        visits().put(&key, count)?;
    }
    Ok(())
}

fn reports(_: Request) -> Result<Response> {
    let mut reports = std::collections::BTreeMap::new();
    for key in visits().keys(REPORTS) {
        let name = key?.name;
        let count: u64 = visits().get_text(&name)?.unwrap_or_default().parse()?;
        reports.insert(name.trim_start_matches(REPORTS).to_owned(), count);
    }
    Response::json(&reports)
}

#[cfg(test)]
mod tests {
    use tovuk::testing::TestEnv;

    use super::*;

    /// Midnight before the 1st of June 2026.
    const MIDNIGHT: u64 = 1_780_272_000_000;

    #[test]
    fn a_night_has_one_report_however_often_its_tick_comes() -> Result<()> {
        let env = TestEnv::new().kv("VISITS");
        let tick = |time| Tick::new("nightly", "0 0 * * *", time).to_request();
        assert_eq!(env.run(handle, Request::get("/")).body(), b"visit 1\n");
        for _ in 0..2 {
            assert_eq!(env.run(handle, tick(MIDNIGHT)?).status(), 204);
            env.run(handle, Request::get("/"));
        }
        env.run(handle, tick(MIDNIGHT + 86_400_000)?);
        assert_eq!(env.run(handle, Request::get("/reports")).body(), br#"{"2026-06-01T00:00:00Z":1,"2026-06-02T00:00:00Z":3}"#);
        Ok(())
    }
}
