//! The statements of the catalogue about alarms. An alarm has a number, its generation: what is reported about the delivery of one says nothing about
//! another that was set meanwhile.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::{STATE_ALARM_RETRIES_MAX, STATE_ALARM_RETRY_MS};

use super::file::{AlarmNote, signed, unsigned};
use super::{AlarmInfo, DueAlarm, Error, Namespace, Outcome, Settled, rows};
use crate::database::rusqlite;

/// Sets or removes an alarm, unless a later change has been heard of. The namespace has been looked at before.
pub(super) fn apply(tx: &Transaction<'_>, namespace: Namespace, object: &str, note: AlarmNote) -> Result<(), Error> {
    let at = params![namespace.0, object.as_bytes(), note.generation, note.due.map(signed)];
    let sql = if note.due.is_some() {
        "INSERT INTO objects (namespace, key, generation, scheduled, next) VALUES (?1, ?2, ?3, ?4, ?4)
         ON CONFLICT (namespace, key) DO UPDATE SET generation = ?3, scheduled = ?4, next = ?4, retries = 0 WHERE generation < ?3"
    } else {
        "UPDATE objects SET generation = ?3, scheduled = ?4, next = ?4, retries = 0 WHERE namespace = ?1 AND key = ?2 AND generation < ?3"
    };
    tx.prepare_cached(sql)?.execute(at)?;
    if note.due.is_none() {
        rows::vacate(tx, namespace, object)?;
    }
    Ok(())
}

/// The alarm of an object. One that is being delivered is none, unless it was set anew.
pub(super) fn get(connection: &Connection, namespace: Namespace, object: &str) -> Result<Option<AlarmInfo>, Error> {
    let sql = "SELECT scheduled, next, retries FROM objects
        WHERE namespace = ?1 AND key = ?2 AND next IS NOT NULL AND delivering IS NOT generation";
    let row = |row: &Row<'_>| Ok(AlarmInfo { scheduled_at: row.get(0).map(unsigned)?, next_at: row.get(1).map(unsigned)?, retry_count: row.get(2)? });
    Ok(connection.prepare_cached(sql)?.query_row(params![namespace.0, object.as_bytes()], row).optional()?)
}

/// Takes alarms that are due, the longest overdue first. Those of dropped namespaces are forgotten, and count.
pub(super) fn take(tx: &Transaction<'_>, now: UnixMs, alarms_max: usize) -> Result<Vec<DueAlarm>, Error> {
    let sql = "SELECT namespace, key, generation, scheduled, retries, EXISTS (SELECT 1 FROM dropping WHERE number = namespace)
        FROM objects WHERE next <= ?1 AND next IS NOT NULL AND delivering IS NULL ORDER BY next LIMIT ?2";
    let row = |row: &Row<'_>| {
        let object = String::from_utf8_lossy(&row.get::<_, Vec<u8>>(1)?).into_owned();
        let retry_count: u32 = row.get(4)?;
        let alarm = DueAlarm {
            namespace: Namespace(row.get(0)?),
            object: object.into(),
            scheduled_at: row.get(3).map(unsigned)?,
            retry_count,
            is_retry: retry_count > 0,
            generation: row.get(2)?,
        };
        Ok((alarm, row.get::<_, bool>(5)?))
    };
    let limit = i64::try_from(alarms_max).unwrap_or(i64::MAX);
    let found: Vec<_> = tx.prepare_cached(sql)?.query_map(params![signed(now), limit], row)?.collect::<Result<_, _>>()?;
    let mut taken = Vec::with_capacity(found.len());
    for (alarm, dropped) in found {
        let sql = if dropped {
            "UPDATE objects SET next = NULL WHERE namespace = ?1 AND key = ?2"
        } else {
            "UPDATE objects SET delivering = generation WHERE namespace = ?1 AND key = ?2"
        };
        tx.prepare_cached(sql)?.execute(params![alarm.namespace.0, alarm.object.as_bytes()])?;
        if !dropped {
            taken.push(alarm);
        }
    }
    Ok(taken)
}

/// Whether an alarm that was taken is still the one that is set.
pub(super) fn stands(connection: &Connection, alarm: &DueAlarm) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM objects WHERE namespace = ?1 AND key = ?2 AND generation = ?3 AND delivering = ?3 AND next IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM dropping WHERE number = ?1)";
    let at = params![alarm.namespace.0, alarm.object.as_bytes(), alarm.generation];
    Ok(connection.prepare_cached(sql)?.query_row(at, |row| row.get(0))?)
}

/// Writes down how a delivery went.
pub(super) fn settle(tx: &Transaction<'_>, alarm: &DueAlarm, outcome: Outcome, now: UnixMs) -> Result<Settled, Error> {
    let sql = "SELECT generation, delivering, retries FROM objects WHERE namespace = ?1 AND key = ?2";
    let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, u32>(2)?));
    let at = params![alarm.namespace.0, alarm.object.as_bytes()];
    let found = tx.prepare_cached(sql)?.query_row(at, row).optional()?;
    let Some((generation, delivering, retries)) = found else { return Ok(Settled::Superseded) };
    if delivering != Some(alarm.generation) {
        return Ok(Settled::Superseded);
    }
    let (next, retries, settled) = match outcome {
        _ if generation != alarm.generation => {
            // It was set anew or removed meanwhile, which stands whatever became of this one.
            let sql = "UPDATE objects SET delivering = NULL WHERE namespace = ?1 AND key = ?2";
            tx.prepare_cached(sql)?.execute(at)?;
            rows::vacate(tx, alarm.namespace, &alarm.object)?;
            return Ok(Settled::Superseded);
        }
        Outcome::Delivered => (None, 0, Settled::Done),
        Outcome::Failed if retries >= STATE_ALARM_RETRIES_MAX => (None, 0, Settled::Cleared),
        Outcome::Failed => {
            let at = now.saturating_add(STATE_ALARM_RETRY_MS << retries);
            (Some(at), retries + 1, Settled::Retry { at })
        }
        Outcome::Refused { retry_at } => (Some(retry_at), retries, Settled::Retry { at: retry_at }),
    };
    let sql = "UPDATE objects SET delivering = NULL, next = ?3, retries = ?4, scheduled = CASE WHEN ?3 IS NOT NULL THEN scheduled END
        WHERE namespace = ?1 AND key = ?2";
    tx.prepare_cached(sql)?.execute(params![alarm.namespace.0, alarm.object.as_bytes(), next.map(signed), retries])?;
    if next.is_none() {
        rows::vacate(tx, alarm.namespace, &alarm.object)?;
    }
    Ok(settled)
}
