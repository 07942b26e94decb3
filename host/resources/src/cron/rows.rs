//! The statements of cron, on one connection: triggers, their ticks, and what has become of them.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::{CRON_HOLD_SECONDS_MAX, CRON_RETRIES_MAX, CRON_RETRY_SECONDS, CRON_RUNS_KEPT};

use super::{Error, Expression, Outcome, Run, Service, Trigger, TriggerNumber};
use crate::database::rusqlite;

/// The tables of the file.
pub(super) const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];
/// The columns of [`trigger`], in their order.
const TRIGGER: &str = "number, service, name, expression, enabled, next";

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn trigger(row: &Row<'_>) -> rusqlite::Result<Trigger> {
    Ok(Trigger {
        number: TriggerNumber(row.get(0)?),
        service: Service(row.get(1)?),
        name: row.get(2)?,
        expression: row.get(3)?,
        enabled: row.get(4)?,
        next_ms: row.get::<_, Option<i64>>(5)?.map(unsigned),
    })
}

/// A trigger; none if there has never been one of that number.
pub(super) fn find(connection: &Connection, number: TriggerNumber) -> Result<Option<Trigger>, Error> {
    let mut select = connection.prepare_cached(&format!("SELECT {TRIGGER}, dropped FROM triggers WHERE number = ?1"))?;
    match select.query_row([number.0], |row| Ok((trigger(row)?, row.get(6)?))).optional()? {
        Some((_, true)) => Err(Error::Dropped),
        found => Ok(found.map(|(trigger, _)| trigger)),
    }
}

/// The same, where it has to be there.
pub(super) fn get(connection: &Connection, number: TriggerNumber) -> Result<Trigger, Error> {
    find(connection, number)?.ok_or(Error::Dropped)
}

/// Those of these triggers that there are.
pub(super) fn several(connection: &Connection, numbers: &[TriggerNumber]) -> Result<HashMap<TriggerNumber, Trigger>, Error> {
    let mut select = connection.prepare_cached(&format!("SELECT {TRIGGER} FROM triggers WHERE number = ?1 AND dropped = 0"))?;
    let mut found = HashMap::with_capacity(numbers.len());
    for &number in numbers {
        found.extend(select.query_row([number.0], trigger).optional()?.map(|trigger| (number, trigger)));
    }
    Ok(found)
}

/// The triggers of a service, in the order of their numbers.
pub(super) fn of_service(connection: &Connection, service: Service) -> Result<Vec<Trigger>, Error> {
    let mut select = connection.prepare_cached(&format!("SELECT {TRIGGER} FROM triggers WHERE service = ?1 AND dropped = 0 ORDER BY number"))?;
    Ok(select.query_map([service.0], trigger)?.collect::<Result<_, _>>()?)
}

/// Writes a trigger.
pub(super) fn put(tx: &Transaction<'_>, trigger: &Trigger) -> Result<(), Error> {
    tx.prepare_cached(
        "INSERT INTO triggers (number, service, name, expression, enabled, next) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (number) DO UPDATE SET expression = ?4, enabled = ?5, next = ?6",
    )?
    .execute(params![trigger.number.0, trigger.service.0, trigger.name, trigger.expression, trigger.enabled, trigger.next_ms.map(signed)])?;
    Ok(())
}

/// Ticks that wait are not delivered any more.
pub(super) fn cancel(tx: &Transaction<'_>, number: TriggerNumber, now: UnixMs) -> Result<(), Error> {
    tx.prepare_cached("UPDATE runs SET due = NULL, outcome = ?2, ended = ?3 WHERE trigger = ?1 AND due IS NOT NULL")?.execute(params![
        number.0,
        Outcome::Canceled.number(),
        signed(now)
    ])?;
    Ok(())
}

/// Marks a trigger as dropped and removes its runs, of which there are few.
pub(super) fn drop_trigger(tx: &Transaction<'_>, service: Service, number: TriggerNumber) -> Result<(), Error> {
    tx.prepare_cached(
        "INSERT INTO triggers (number, service, name, expression, enabled, dropped) VALUES (?1, ?2, '', '', 0, 1)
         ON CONFLICT (number) DO UPDATE SET enabled = 0, next = NULL, dropped = 1",
    )?
    .execute([number.0, service.0])?;
    tx.prepare_cached("DELETE FROM runs WHERE trigger = ?1")?.execute([number.0])?;
    Ok(())
}

/// A tick that is to be delivered.
pub(super) struct Due {
    pub id: i64,
    pub trigger: Trigger,
    pub scheduled_ms: UnixMs,
    pub manual: bool,
    pub attempts: u32,
}

/// Makes the ticks of triggers whose time has come, at most so many, and gives each its next time. All times that were missed make one tick, that of the
/// last of them.
pub(super) fn tick(tx: &Transaction<'_>, now: UnixMs, most: usize) -> Result<usize, Error> {
    let triggers: Vec<Trigger> = {
        let mut select = tx.prepare_cached(&format!("SELECT {TRIGGER} FROM triggers WHERE next <= ?1 ORDER BY next, number LIMIT ?2"))?;
        select.query_map([signed(now), i64::try_from(most).unwrap_or(i64::MAX)], trigger)?.collect::<Result<_, _>>()?
    };
    let count = triggers.len();
    for trigger in triggers {
        let expression = Expression::read(trigger.expression).ok();
        let next = expression.as_ref().and_then(|expression| expression.next_after(now));
        let missed = expression.and_then(|expression| expression.last_until(now));
        let scheduled = trigger.next_ms.max(missed).unwrap_or(now);
        tx.prepare_cached("UPDATE triggers SET next = ?2 WHERE number = ?1")?.execute(params![trigger.number.0, next.map(signed)])?;
        // A tick that is there already, because a clock was set back, is not made again.
        tx.prepare_cached("INSERT OR IGNORE INTO runs (trigger, scheduled, manual, due) VALUES (?1, ?2, 0, ?2)")?
            .execute([trigger.number.0, signed(scheduled)])?;
    }
    Ok(count)
}

/// Makes a tick that is due at once, unless too many of the trigger wait or run already.
pub(super) fn run_now(tx: &Transaction<'_>, number: TriggerNumber, now: UnixMs) -> Result<i64, Error> {
    let open = "SELECT count(*) FROM runs WHERE trigger = ?1 AND ended IS NULL";
    let open = tx.prepare_cached(open)?.query_row([number.0], |row| row.get(0)).map(unsigned)?;
    if open >= CRON_RUNS_KEPT {
        return Err(Error::TooMany);
    }
    tx.prepare_cached("INSERT INTO runs (trigger, scheduled, manual, due) VALUES (?1, ?2, 1, ?2)")?.execute([number.0, signed(now)])?;
    Ok(tx.last_insert_rowid())
}

/// Takes ticks that are due, at most so many.
pub(super) fn take(tx: &Transaction<'_>, now: UnixMs, most: usize) -> Result<Vec<Due>, Error> {
    let ids: Vec<i64> = {
        let mut select = tx.prepare_cached("SELECT id FROM runs WHERE due <= ?1 ORDER BY due, id LIMIT ?2")?;
        select.query_map([signed(now), i64::try_from(most).unwrap_or(i64::MAX)], |row| row.get(0))?.collect::<Result<_, _>>()?
    };
    for id in &ids {
        tx.prepare_cached("UPDATE runs SET due = NULL, taken = 1 WHERE id = ?1")?.execute([id])?;
    }
    taken(tx, &ids)
}

/// Ticks that are being delivered. Those of dropped triggers are not there.
pub(super) fn taken(connection: &Connection, ids: &[i64]) -> Result<Vec<Due>, Error> {
    let mut select = connection.prepare_cached("SELECT trigger, scheduled, manual, attempts FROM runs WHERE id = ?1 AND taken = 1")?;
    let mut found = Vec::with_capacity(ids.len());
    for &id in ids {
        let row = |row: &Row<'_>| Ok((TriggerNumber(row.get(0)?), unsigned(row.get(1)?), row.get(2)?, row.get(3)?));
        let Some((number, scheduled_ms, manual, attempts)) = select.query_row([id], row).optional()? else { continue };
        if let Some(trigger) = find(connection, number)? {
            found.push(Due { id, trigger, scheduled_ms, manual, attempts });
        }
    }
    Ok(found)
}

/// After a start: what was being delivered is to be delivered again.
pub(super) fn recover(tx: &Transaction<'_>, now: UnixMs) -> Result<usize, Error> {
    Ok(tx.execute("UPDATE runs SET due = min(scheduled, ?1), taken = 0, held = 0 WHERE taken = 1", [signed(now)])?)
}

/// Nothing waits longer than it can, after a clock that was ahead has come back: triggers for their next time from now on, ticks for the longest of their waits.
pub(super) fn set_back(tx: &Transaction<'_>, now: UnixMs) -> Result<(), Error> {
    let triggers: Vec<Trigger> = {
        let mut select = tx.prepare(&format!("SELECT {TRIGGER} FROM triggers WHERE next > ?1"))?;
        select.query_map([signed(now)], trigger)?.collect::<Result<_, _>>()?
    };
    for Trigger { number, expression, next_ms, .. } in triggers {
        let Some(next) = Expression::read(expression).ok().and_then(|expression| expression.next_after(now)) else { continue };
        if next_ms > Some(next) {
            tx.prepare_cached("UPDATE triggers SET next = ?2 WHERE number = ?1")?.execute([number.0, signed(next)])?;
        }
    }
    let longest = (CRON_RETRY_SECONDS << CRON_RETRIES_MAX.saturating_sub(1)).max(CRON_HOLD_SECONDS_MAX).saturating_mul(1_000);
    tx.execute("UPDATE runs SET due = ?1 WHERE due > ?1", [signed(now.saturating_add(longest))])?;
    Ok(())
}

/// How a delivery ended, for its row.
pub(super) struct End {
    pub started_ms: UnixMs,
    pub now: UnixMs,
    pub detail: Option<String>,
}

/// Writes that a tick has succeeded, or failed for the last time.
fn end(tx: &Transaction<'_>, id: i64, number: TriggerNumber, outcome: Outcome, end: &End) -> Result<(), Error> {
    tx.prepare_cached(
        "UPDATE runs SET due = NULL, taken = 0, attempts = attempts + 1, outcome = ?2, started = ?3, ended = ?4, detail = ?5 WHERE id = ?1",
    )?
    .execute(params![id, outcome.number(), signed(end.started_ms), signed(end.now), end.detail])?;
    prune(tx, number)
}

/// Removes what the history of a trigger does not keep.
fn prune(tx: &Transaction<'_>, number: TriggerNumber) -> Result<(), Error> {
    let sql = "DELETE FROM runs WHERE trigger = ?1 AND ended IS NOT NULL
        AND id < (SELECT id FROM runs WHERE trigger = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    tx.prepare_cached(sql)?.execute([number.0, signed(CRON_RUNS_KEPT - 1)])?;
    Ok(())
}

/// A tick has succeeded: it is not delivered again.
pub(super) fn succeed(tx: &Transaction<'_>, id: i64, number: TriggerNumber, ended: &End) -> Result<(), Error> {
    end(tx, id, number, Outcome::Ok, ended)
}

/// A tick has failed. Returns when it is tried again, unless it was for the last time, or its trigger is disabled.
pub(super) fn fail(tx: &Transaction<'_>, id: i64, number: TriggerNumber, ended: &End) -> Result<Option<UnixMs>, Error> {
    let attempts: Option<u32> = tx.prepare_cached("SELECT attempts FROM runs WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()?;
    let Some(attempts) = attempts else { return Ok(None) };
    if attempts >= CRON_RETRIES_MAX || !is_wanted(tx, id, number)? {
        end(tx, id, number, Outcome::Failed, ended)?;
        return Ok(None);
    }
    let wait = CRON_RETRY_SECONDS.saturating_mul(1_000).saturating_mul(1 << attempts.min(16));
    let due = ended.now.saturating_add(wait);
    tx.prepare_cached("UPDATE runs SET due = ?2, taken = 0, attempts = attempts + 1, held = 0, started = ?3, detail = ?4 WHERE id = ?1")?
        .execute(params![id, signed(due), signed(ended.started_ms), ended.detail])?;
    Ok(Some(due))
}

/// Whether a tick may still be delivered: its trigger is enabled, or somebody has asked for it.
pub(super) fn is_wanted(connection: &Connection, id: i64, number: TriggerNumber) -> Result<bool, Error> {
    let sql = "SELECT enabled OR manual FROM triggers, runs WHERE number = ?1 AND id = ?2";
    Ok(connection.prepare_cached(sql)?.query_row([number.0, id], |row| row.get(0)).optional()?.unwrap_or(false))
}

/// Writes that a tick is not delivered any more.
fn cancel_run(tx: &Transaction<'_>, id: i64, number: TriggerNumber, now: UnixMs, detail: Option<&str>) -> Result<(), Error> {
    tx.prepare_cached("UPDATE runs SET due = NULL, taken = 0, outcome = ?2, ended = ?3, detail = ?4 WHERE id = ?1")?.execute(params![
        id,
        Outcome::Canceled.number(),
        signed(now),
        detail
    ])?;
    prune(tx, number)
}

/// The host itself has refused a tick: it is delivered again after a second, then two, and so on, and this has not counted. Returns when; none if it is
/// not any more, because its trigger was disabled meanwhile or a later tick waits as well.
pub(super) fn hold(tx: &Transaction<'_>, id: i64, number: TriggerNumber, ended: &End) -> Result<Option<UnixMs>, Error> {
    if !is_wanted(tx, id, number)? {
        cancel_run(tx, id, number, ended.now, ended.detail.as_deref())?;
        return Ok(None);
    }
    let sql = "SELECT scheduled, held, attempts = 0 AND manual = 0 FROM runs WHERE id = ?1";
    let (scheduled, mut held, unseen): (i64, u32, bool) =
        tx.prepare_cached(sql)?.query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if unseen {
        // Times that could not be delivered make one tick, that of the last of them, as those do that were missed. It goes on waiting as long as they did.
        let sql = "SELECT id, scheduled, held FROM runs WHERE trigger = ?1 AND due IS NOT NULL AND held > 0 AND attempts = 0 AND manual = 0";
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let others: Vec<(i64, i64, u32)> = tx.prepare_cached(sql)?.query_map([number.0], row)?.collect::<Result<_, _>>()?;
        let replaced = Some("a later tick has taken its place");
        for (other, time, times) in others {
            if time > scheduled {
                cancel_run(tx, id, number, ended.now, replaced)?;
                return Ok(None);
            }
            cancel_run(tx, other, number, ended.now, replaced)?;
            held = held.max(times);
        }
    }
    let wait = (1_000_u64 << held.min(16)).min(CRON_HOLD_SECONDS_MAX.saturating_mul(1_000));
    let due = ended.now.saturating_add(wait);
    tx.prepare_cached("UPDATE runs SET due = ?2, taken = 0, held = ?3, detail = ?4 WHERE id = ?1")?.execute(params![
        id,
        signed(due),
        held.saturating_add(1),
        ended.detail
    ])?;
    Ok(Some(due))
}

/// What the host has refused is due at once.
pub(super) fn retry_held(tx: &Transaction<'_>, now: UnixMs) -> Result<usize, Error> {
    Ok(tx.execute("UPDATE runs SET due = ?1 WHERE held > 0 AND due > ?1", [signed(now)])?)
}

/// All triggers, and whose they are.
pub(super) fn all(connection: &Connection) -> Result<Vec<(Service, TriggerNumber)>, Error> {
    let mut select = connection.prepare_cached("SELECT service, number FROM triggers WHERE dropped = 0")?;
    Ok(select.query_map([], |row| Ok((Service(row.get(0)?), TriggerNumber(row.get(1)?))))?.collect::<Result<_, _>>()?)
}

/// The highest number that a trigger has ever had.
pub(super) fn highest(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.query_row("SELECT coalesce(max(number), 0) FROM triggers", [], |row| row.get(0))?)
}

/// The highest number of a service that has ever had a trigger.
pub(super) fn highest_service(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.query_row("SELECT coalesce(max(service), 0) FROM triggers", [], |row| row.get(0))?)
}

/// The next time at which something is due.
pub(super) fn next(connection: &Connection) -> Result<Option<UnixMs>, Error> {
    let sql = "SELECT min(least) FROM (SELECT min(next) AS least FROM triggers WHERE next IS NOT NULL
        UNION ALL SELECT min(due) FROM runs WHERE due IS NOT NULL)";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, Option<i64>>(0))?.map(unsigned))
}

/// The latest runs of a trigger, newest first.
pub(super) fn history(connection: &Connection, number: TriggerNumber, most: usize) -> Result<Vec<Run>, Error> {
    get(connection, number)?;
    let mut select = connection.prepare_cached(
        "SELECT id, scheduled, manual, due, attempts, outcome, taken, started, ended, detail FROM runs WHERE trigger = ?1 ORDER BY id DESC LIMIT ?2",
    )?;
    let run = |row: &Row<'_>| {
        let time = |at| row.get::<_, Option<i64>>(at).map(|time| time.map(unsigned));
        let taken: bool = row.get(6)?;
        Ok(Run {
            id: row.get(0)?,
            scheduled_ms: unsigned(row.get(1)?),
            manual: row.get(2)?,
            due_ms: time(3)?,
            attempts: row.get(4)?,
            outcome: if taken { Outcome::Running } else { Outcome::stored(row.get(5)?) },
            started_ms: time(7)?,
            ended_ms: time(8)?,
            detail: row.get(9)?,
        })
    };
    Ok(select.query_map([number.0, i64::try_from(most).unwrap_or(i64::MAX)], run)?.collect::<Result<_, _>>()?)
}
