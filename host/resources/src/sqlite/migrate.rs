//! Migrations: scripts that are applied once each, in order. Which ones were is kept in the database itself, so that a restore takes it back with the
//! data, in a table that tenants' SQL may read and not change.

use std::sync::atomic::Ordering;

use rusqlite::Connection;
use sha2::{Digest, Sha256};
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::{SQLITE_MIGRATION_NAME_BYTES_MAX, SQLITE_MIGRATIONS_MAX};

use super::Sqlites;
use super::error::Error;
use super::link::Link;
use super::raw;
use super::run::Run;
use super::session::commit_failed;
use super::slot::Slot;
use super::types::{Allowance, Counts, Migrated, Migration};
use super::watchdog::Watchdog;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS _tovuk_migrations (
    position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, applied_unix_ms INTEGER NOT NULL
) STRICT";

impl Sqlites {
    /// Applies those migrations that were not, each in a transaction of its own. Those that were have to be as they were, and to come before all
    /// others. Applied ones that are not in the list are left alone: it may be that of an earlier deploy. When one fails, those before it stay.
    pub async fn migrate(&self, number: u64, allowance: Allowance, migrations: Vec<Migration>) -> Result<Migrated, Error> {
        check(&migrations)?;
        let slot = self.slot(number);
        let waiting = slot.wait()?;
        let mut place = slot.writer.clone().lock_owned().await;
        let (store, now) = (self.clone(), self.0.clock.now_unix_ms());
        let work = move || {
            let _waiting = waiting;
            let mut link = slot.writer(&mut place)?;
            let result = apply(&slot, &mut link, &store.0.watchdog, allowance, &migrations, now);
            slot.give_writer(&mut place, link);
            result
        };
        self.blocking(work).await
    }
}

/// What the list alone can be refused for.
fn check(migrations: &[Migration]) -> Result<(), Error> {
    if migrations.len() > SQLITE_MIGRATIONS_MAX {
        return Err(Error::Migration(format!("there are more than {SQLITE_MIGRATIONS_MAX} migrations").into()));
    }
    let mut names = std::collections::HashSet::new();
    for Migration { name, .. } in migrations {
        if name.is_empty() || name.len() > SQLITE_MIGRATION_NAME_BYTES_MAX {
            return Err(Error::Migration(format!("the name of a migration has 1 to {SQLITE_MIGRATION_NAME_BYTES_MAX} bytes").into()));
        }
        if !names.insert(name) {
            return Err(Error::Migration(format!("there are two migrations named {name}").into()));
        }
    }
    Ok(())
}

fn digest(migration: &Migration) -> String {
    hex::encode(Sha256::digest(migration.sql.as_bytes()))
}

/// The names and digests of those that were applied.
fn applied(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = connection.prepare("SELECT name, digest FROM _tovuk_migrations ORDER BY position")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn apply(slot: &Slot, link: &mut Link, watchdog: &Watchdog, allowance: Allowance, migrations: &[Migration], now: UnixMs) -> Result<Migrated, Error> {
    link.bound(allowance.database_bytes)?;
    link.run(TABLE).map_err(|error| commit_failed(slot, error))?;
    let pending = pending(&link.host(applied)?, migrations)?;
    let mut done = Migrated::default();
    for migration in pending {
        let failed = |error: Error| Error::MigrationFailed { name: migration.name.as_str().into(), source: Box::new(error) };
        let rebuilds = switches_foreign_keys_off(&migration.sql);
        if rebuilds {
            // It cannot be switched inside a transaction.
            link.run("PRAGMA foreign_keys = off")?;
            link.monitor.foreign_keys_off.store(true, Ordering::Relaxed);
        }
        let result = one(slot, link, watchdog, allowance, migration, now);
        if rebuilds {
            link.monitor.foreign_keys_off.store(false, Ordering::Relaxed);
            link.settle();
            link.run("PRAGMA foreign_keys = on")?;
        }
        let counts = result.map_err(failed)?;
        done.applied.push(migration.name.clone());
        done.counts.add(&counts);
    }
    if let Err(error) = link.tidy() {
        tracing::warn!(%error, "the write-ahead log of a tenant's database could not be copied");
    }
    done.storage_bytes = slot.storage(link)?;
    Ok(done)
}

/// Applies one migration, or leaves everything as it was.
fn one(slot: &Slot, link: &mut Link, watchdog: &Watchdog, allowance: Allowance, migration: &Migration, now: UnixMs) -> Result<Counts, Error> {
    link.run("BEGIN IMMEDIATE")?;
    let counts = script(link, watchdog, allowance, migration).inspect_err(|_| {
        link.settle();
    })?;
    let record = link.host(|connection| {
        let sql = "INSERT INTO _tovuk_migrations (name, digest, applied_unix_ms) VALUES (?1, ?2, ?3)";
        connection.execute(sql, (&migration.name, digest(migration), i64::try_from(now).unwrap_or(i64::MAX)))
    });
    if let Err(error) = record.and_then(|_| link.run("COMMIT")) {
        link.settle();
        return Err(commit_failed(slot, error));
    }
    Ok(counts)
}

/// Whether a script says `PRAGMA foreign_keys = off`, as those do that replace a table to which others refer.
fn switches_foreign_keys_off(sql: &str) -> bool {
    let lower = sql.to_ascii_lowercase();
    let words: Vec<_> = lower.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    words.windows(3).any(|words| matches!(words, ["pragma", "foreign_keys", "off" | "0" | "false" | "no"]))
}

/// Those that are to be applied.
fn pending<'a>(applied: &[(String, String)], migrations: &'a [Migration]) -> Result<Vec<&'a Migration>, Error> {
    let mut pending = Vec::<&Migration>::new();
    for migration in migrations {
        match applied.iter().find(|(name, _)| *name == migration.name) {
            None => pending.push(migration),
            Some((name, known)) if *known != digest(migration) => {
                return Err(Error::Migration(
                    format!("{name} was applied and has been changed since; undo the change and add a new migration").into(),
                ));
            }
            Some((name, _)) => {
                if let Some(early) = pending.first() {
                    let text = format!("{} comes before {name}, which was applied already; give it a name that comes after", early.name);
                    return Err(Error::Migration(text.into()));
                }
            }
        }
    }
    Ok(pending)
}

/// Runs the statements of one migration.
fn script(link: &mut Link, watchdog: &Watchdog, allowance: Allowance, migration: &Migration) -> Result<Counts, Error> {
    let mut run = Run::begin(link, allowance, watchdog, None);
    run.script(link, &migration.sql)?;
    if link.monitor.foreign_keys_off.load(Ordering::Relaxed) {
        let dangling = link.host(|connection| {
            let mut check = connection.prepare("PRAGMA foreign_key_check")?;
            let mut rows = check.query([])?;
            rows.next()?.map(|row| row.get::<_, String>(0)).transpose()
        });
        if let Some(table) = dangling.map_err(|error| run.explain(link, error))? {
            return Err(Error::Constraint(format!("FOREIGN KEY constraint failed: a row of {table} refers to one that is not there").into()));
        }
    }
    link.monitor.end();
    if raw::deferred_constraints(link.connection()) {
        return Err(Error::Constraint("FOREIGN KEY constraint failed".into()));
    }
    Ok(run.counts)
}
