//! The tables of usage and caps.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use tovuk_kernel::meters::{METERS, Meter, Period};

use super::caps::{CapKey, Setting, Stored};
use super::counters::Figures;
use super::window::{Window, first_of_month};
use super::{Error, Notice};
use crate::database::rusqlite;

pub(super) const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// What one service has used: today, and on the earlier days of the month.
pub(super) struct Used {
    pub account: i64,
    pub today: Figures,
    pub before: Figures,
}

/// A cap as it is stored.
pub(super) struct StoredCap {
    pub key: CapKey,
    pub setting: Setting,
    pub stored: Stored,
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// What does not fit into the file is as much as does.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What the services have used in the month that this day is in.
pub(super) fn used(conn: &Connection, day: u32) -> Result<HashMap<i64, Used>, Error> {
    let mut statement = conn.prepare("select account, service, day, meter, used from days where day between ?1 and ?2")?;
    let mut rows = statement.query(params![first_of_month(day), day])?;
    let mut services: HashMap<i64, Used> = HashMap::new();
    while let Some(row) = rows.next()? {
        // A meter that a later version of the host has.
        let Some(meter) = Meter::named(row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?) else { continue };
        let used = services.entry(row.get(1)?).or_insert(Used { account: row.get(0)?, today: [0; METERS], before: [0; METERS] });
        let figures = if row.get::<_, u32>(2)? == day { &mut used.today } else { &mut used.before };
        if let Some(figure) = figures.get_mut(meter.index()) {
            *figure = figure.saturating_add(unsigned(row.get(4)?));
        }
    }
    Ok(services)
}

/// The last day on which anything was used.
pub(super) fn last_day(conn: &Connection) -> Result<Option<u32>, Error> {
    Ok(conn.query_row("select max(day) from days", [], |row| row.get(0))?)
}

/// Writes what a service has used on a day.
pub(super) fn write_day(conn: &Connection, (account, service, day): (i64, i64, u32), changed: &[(Meter, u64)]) -> Result<(), Error> {
    let sql = "insert into days (account, service, day, meter, used) values (?1, ?2, ?3, ?4, ?5) on conflict do update set used = excluded.used";
    let mut statement = conn.prepare_cached(sql)?;
    for (meter, used) in changed {
        statement.execute(params![account, service, day, meter.as_str(), signed(*used)])?;
    }
    Ok(())
}

/// Forgets days before this one.
pub(super) fn prune(conn: &Connection, before: u32) -> Result<(), Error> {
    conn.prepare_cached("delete from days where day < ?1")?.execute([before])?;
    Ok(())
}

/// All caps.
pub(super) fn caps(conn: &Connection) -> Result<Vec<StoredCap>, Error> {
    let mut statement = conn.prepare("select account, service, meter, period, cap, notify_at_percent, window, leased, notified from caps")?;
    let caps = statement.query_map([], |row| {
        let stored = Stored { window: Window(row.get(6)?), leased: unsigned(row.get(7)?), notified: row.get(8)? };
        let setting = Setting { value: unsigned(row.get(4)?), notify_at_percent: row.get(5)? };
        Ok(key(row)?.map(|key| StoredCap { key, setting, stored }))
    })?;
    Ok(caps.filter_map(Result::transpose).collect::<Result<_, _>>()?)
}

fn key(row: &Row<'_>) -> rusqlite::Result<Option<CapKey>> {
    let service = row.get::<_, i64>("service")?;
    let (meter, period) = (row.get::<_, String>("meter")?, row.get::<_, String>("period")?);
    let both = Meter::named(&meter).zip(Period::named(&period));
    let account = row.get("account")?;
    Ok(both.map(|(meter, period)| CapKey { account, service: (service != 0).then_some(service), meter, period }))
}

/// Sets a cap.
pub(super) fn put_cap(conn: &Connection, cap: &StoredCap) -> Result<(), Error> {
    let StoredCap { key, setting, stored } = cap;
    let sql = "insert into caps (account, service, meter, period, cap, notify_at_percent, window, leased, notified) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
        on conflict do update set cap = excluded.cap, notify_at_percent = excluded.notify_at_percent, window = max(window, excluded.window),
            leased = case when window = excluded.window then max(leased, excluded.leased) when window > excluded.window then leased else excluded.leased end,
            notified = excluded.notified";
    conn.prepare_cached(sql)?.execute(params![
        key.account,
        key.service.unwrap_or_default(),
        key.meter.as_str(),
        key.period.as_str(),
        signed(setting.value),
        setting.notify_at_percent,
        stored.window.0,
        signed(stored.leased),
        stored.notified
    ])?;
    Ok(())
}

/// Writes down what is leased of a cap, if it is still there. What is on disk of the same period is never made less, nor is an earlier one brought back: whoever
/// writes may have looked before somebody else wrote.
pub(super) fn lease(conn: &Connection, key: &CapKey, stored: &Stored) -> Result<(), Error> {
    let sql = "update caps set window = ?5, notified = ?7, leased = case when window = ?5 then max(leased, ?6) else ?6 end
        where account = ?1 and service = ?2 and meter = ?3 and period = ?4 and window <= ?5";
    write_lease(conn, sql, key, stored)
}

/// Gives back what is leased and not used, when nobody leases any more.
pub(super) fn give_back(conn: &Connection, key: &CapKey, stored: &Stored) -> Result<(), Error> {
    let sql = "update caps set window = ?5, notified = ?7, leased = ?6 where account = ?1 and service = ?2 and meter = ?3 and period = ?4";
    write_lease(conn, sql, key, stored)
}

fn write_lease(conn: &Connection, sql: &str, key: &CapKey, stored: &Stored) -> Result<(), Error> {
    conn.prepare_cached(sql)?.execute(params![
        key.account,
        key.service.unwrap_or_default(),
        key.meter.as_str(),
        key.period.as_str(),
        stored.window.0,
        signed(stored.leased),
        stored.notified
    ])?;
    Ok(())
}

/// Removes a cap. Whether it was there.
pub(super) fn delete_cap(conn: &Connection, key: &CapKey) -> Result<bool, Error> {
    let sql = "delete from caps where account = ?1 and service = ?2 and meter = ?3 and period = ?4";
    let deleted =
        conn.prepare_cached(sql)?.execute(params![key.account, key.service.unwrap_or_default(), key.meter.as_str(), key.period.as_str()])?;
    Ok(deleted > 0)
}

/// Removes the caps of a service that is gone, or of an account with all of its services.
pub(super) fn delete_caps(conn: &Connection, account: i64, service: Option<i64>) -> Result<(), Error> {
    conn.prepare_cached("delete from caps where account = ?1 and (?2 is null or service = ?2)")?.execute(params![account, service])?;
    Ok(())
}

/// Writes down that an account is to be told.
pub(super) fn add_notice(conn: &Connection, key: &CapKey, window: Window, used: u64, setting: Setting) -> Result<(), Error> {
    let sql = "insert into notices (account, service, meter, period, window, used, cap, at_percent) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    conn.prepare_cached(sql)?.execute(params![
        key.account,
        key.service.unwrap_or_default(),
        key.meter.as_str(),
        key.period.as_str(),
        window.0,
        signed(used),
        signed(setting.value),
        setting.notify_at_percent
    ])?;
    Ok(())
}

/// The oldest notice that is still to be told.
pub(super) fn next_notice(conn: &Connection, after: i64) -> Result<Option<Notice>, Error> {
    let sql = "select id, account, service, meter, period, used, cap, at_percent, written from notices where id > ?1 order by id limit 1";
    let notice = conn.prepare_cached(sql)?.query_row([after], |row| {
        let setting = Setting { value: unsigned(row.get("cap")?), notify_at_percent: row.get("at_percent")? };
        let (id, used, is_written) = (row.get("id")?, unsigned(row.get("used")?), row.get("written")?);
        Ok(key(row)?.map(|key| Notice { id, key, used, setting, is_written }))
    });
    Ok(notice.optional()?.flatten())
}

/// A notice stands in the account's activity.
pub(super) fn mark_written(conn: &Connection, id: i64) -> Result<(), Error> {
    conn.prepare_cached("update notices set written = 1 where id = ?1")?.execute([id])?;
    Ok(())
}

/// Forgets a notice.
pub(super) fn delete_notice(conn: &Connection, id: i64) -> Result<(), Error> {
    conn.prepare_cached("delete from notices where id = ?1")?.execute([id])?;
    Ok(())
}
