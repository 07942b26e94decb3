//! Migrations: scripts that are applied once each, in order. Which ones were is kept in the database itself, so that a restore takes it back with the
//! data, in a table that tenants' SQL may read and not change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::{SQLITE_MIGRATION_NAME_BYTES_MAX, SQLITE_MIGRATIONS_MAX, SQLITE_SQL_BYTES_MAX};

use super::Sqlites;
use super::charges::{self, Charges};
use super::error::{Budget, Error};
use super::hold::Gone;
use super::link::Link;
use super::raw;
use super::run::{Run, full};
use super::session::commit_failed;
use super::slot::{Slot, Waiting};
use super::types::{Allowance, Counts, Migrated, Migration};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS _tovuk_migrations (
    position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, applied_unix_ms INTEGER NOT NULL
) STRICT";

impl Sqlites {
    /// Applies those migrations that were not, each in a transaction of its own. Those that were have to be as they were, and to come before all
    /// others. Applied ones that are not in the list are left alone: it may be that of an earlier deploy. When one fails, those before it stay.
    ///
    /// It ends where it is when its caller goes away, when the database is deleted and when the host ends.
    pub async fn migrate(&self, number: u64, allowance: Allowance, migrations: Vec<Migration>) -> Result<Migrated, Error> {
        check(&migrations)?;
        let (allowance, exceeded) = self.within_caps(allowance);
        charges::explain(self.migrate_within(number, allowance, migrations).await, exceeded)
    }

    async fn migrate_within(&self, number: u64, allowance: Allowance, migrations: Vec<Migration>) -> Result<Migrated, Error> {
        let slot = self.slot(number);
        let waiting = slot.wait()?;
        let place = slot.writer.clone().lock_owned().await;
        let gone = Gone::default();
        let _guard = gone.guard();
        let (started, now) = (Instant::now(), self.0.clock.now_unix_ms());
        let until = started.checked_add(Duration::from_millis(allowance.migrate_ms)).unwrap_or(started);
        let applying = Applying { store: self.clone(), slot, place, gone, allowance, until, now, _waiting: waiting };
        let (mut applying, pending) = applying.turn(|applying, link| applying.prepare(link, migrations)).await?;
        let mut done = Migrated::default();
        for migration in pending {
            let (back, (name, counts)) = applying.turn(|applying, link| applying.apply(link, migration)).await?;
            applying = back;
            done.applied.push(name);
            done.counts.add(&counts);
        }
        let (_, storage_bytes) = applying.turn(|applying, link| applying.slot.storage(link)).await?;
        Ok(Migrated { storage_bytes, ..done })
    }

    /// Ends all migrations, and refuses more: the host ends. One that runs is rolled back; those before it stay, and the next time goes on from there.
    pub fn stop_migrations(&self) {
        self.0.closing.store(true, Ordering::Release);
        for slot in self.slots().values() {
            slot.stopping.leave();
        }
    }
}

/// The writer of a database while a list is applied. No other writer comes between two migrations; the thread is given back there, and others have it
/// first if they wait for it.
struct Applying {
    store: Sqlites,
    slot: Arc<Slot>,
    place: OwnedMutexGuard<Option<Link>>,
    gone: Gone,
    allowance: Allowance,
    /// When all of them have ended.
    until: Instant,
    now: UnixMs,
    _waiting: Waiting,
}

impl Applying {
    /// Works with the connection on one of the threads.
    async fn turn<T, F>(mut self, work: F) -> Result<(Self, T), Error>
    where
        F: FnOnce(&Self, &mut Link) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let store = self.store.clone();
        let turn = store.blocking(move || {
            self.check()?;
            let mut link = self.slot.writer(&mut self.place)?;
            self.gone.watch(&link.monitor);
            self.slot.stopping.watch(&link.monitor);
            // What is ours in it, as the list of those that were applied, has no more room than what is the tenant's.
            let result = work(&self, &mut link).map_err(|error| if matches!(error, Error::DiskFull) { full(&link, &self.allowance) } else { error });
            self.gone.end();
            self.slot.stopping.end();
            self.slot.give_writer(&mut self.place, link);
            // What was stopped would say that its time was over.
            let result = result.map_err(|error| self.check().err().unwrap_or(error))?;
            Ok((self, result))
        });
        turn.await
    }

    /// Refuses to go on where nothing of it is wanted any more.
    fn check(&self) -> Result<(), Error> {
        self.slot.check()?;
        if self.store.0.closing.load(Ordering::Acquire) { Err(Error::Closing) } else { Ok(()) }
    }

    /// Those that are to be applied.
    fn prepare(&self, link: &mut Link, migrations: Vec<Migration>) -> Result<Vec<Migration>, Error> {
        self.slot.bound(link, &self.allowance)?;
        link.run(TABLE).map_err(|error| commit_failed(&self.slot, error))?;
        pending(&link.host(applied)?, migrations)
    }

    /// Applies one. What it leaves behind when it fails is nothing.
    fn apply(&self, link: &mut Link, migration: Migration) -> Result<(String, Counts), Error> {
        let rebuilds = switches_foreign_keys_off(&migration.sql);
        if rebuilds {
            // It cannot be switched inside a transaction.
            link.run("PRAGMA foreign_keys = off")?;
            link.monitor.foreign_keys_off.store(true, Ordering::Relaxed);
        }
        let result = self.one(link, &migration);
        if rebuilds {
            link.monitor.foreign_keys_off.store(false, Ordering::Relaxed);
            link.settle();
            link.run("PRAGMA foreign_keys = on")?;
        }
        let counts = result.map_err(|error| {
            let late = matches!(error, Error::Budget(Budget::Time(_))) && Instant::now() >= self.until;
            let error = if late { Error::Budget(Budget::Migrations(self.allowance.migrate_ms)) } else { error };
            Error::MigrationFailed { name: migration.name.as_str().into(), source: Box::new(error) }
        })?;
        if let Err(error) = link.tidy() {
            tracing::warn!(%error, "the write-ahead log of a tenant's database could not be copied");
        }
        Ok((migration.name, counts))
    }

    /// The transaction of one.
    fn one(&self, link: &mut Link, migration: &Migration) -> Result<Counts, Error> {
        let bill = &self.store.1.bill;
        let mut charges = Handle::current().block_on(async { Charges::reads(bill).await?.writing().await })?;
        link.run("BEGIN IMMEDIATE")?;
        let ran = self.script(link, migration).and_then(|counts| charges.cover(&counts).map(|()| counts));
        let counts = ran.inspect_err(|_| {
            link.settle();
        })?;
        let record = link.host(|connection| {
            let sql = "INSERT INTO _tovuk_migrations (name, digest, applied_unix_ms) VALUES (?1, ?2, ?3)";
            connection.execute(sql, (&migration.name, digest(migration), i64::try_from(self.now).unwrap_or(i64::MAX)))
        });
        if let Err(error) = record.and_then(|_| link.run("COMMIT")) {
            link.settle();
            return Err(commit_failed(&self.slot, error));
        }
        charges.committed(&counts);
        Ok(counts)
    }

    /// The statements of one.
    fn script(&self, link: &mut Link, migration: &Migration) -> Result<Counts, Error> {
        let mut run = Run::begin(link, self.allowance, &self.store.0.watchdog, Some(self.until));
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
}

/// Refuses what can be refused for the list alone, before anything is stored or applied.
///
/// # Errors
/// When there are too many, or one has no fitting name, the name of another, or a script that is too long.
pub fn check(migrations: &[Migration]) -> Result<(), Error> {
    if migrations.len() > SQLITE_MIGRATIONS_MAX {
        return Err(Error::Migration(format!("there are more than {SQLITE_MIGRATIONS_MAX} migrations").into()));
    }
    let mut names = HashSet::new();
    for Migration { name, sql } in migrations {
        if name.is_empty() || name.len() > SQLITE_MIGRATION_NAME_BYTES_MAX {
            return Err(Error::Migration(format!("the name of a migration has 1 to {SQLITE_MIGRATION_NAME_BYTES_MAX} bytes").into()));
        }
        if !names.insert(name) {
            return Err(Error::Migration(format!("there are two migrations named {name}").into()));
        }
        if sql.len() > SQLITE_SQL_BYTES_MAX as usize {
            let text = format!("migration {name} has {} bytes, and may have {SQLITE_SQL_BYTES_MAX}: divide it", sql.len());
            return Err(Error::Migration(text.into()));
        }
    }
    Ok(())
}

fn digest(migration: &Migration) -> String {
    hex::encode(Sha256::digest(migration.sql.as_bytes()))
}

/// The names and digests of those that were applied.
fn applied(connection: &Connection) -> rusqlite::Result<HashMap<String, String>> {
    let mut statement = connection.prepare("SELECT name, digest FROM _tovuk_migrations")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Whether a script says `PRAGMA foreign_keys = off`, as those do that replace a table to which others refer.
fn switches_foreign_keys_off(sql: &str) -> bool {
    let lower = sql.to_ascii_lowercase();
    let words: Vec<_> = lower.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    words.windows(3).any(|words| matches!(words, ["pragma", "foreign_keys", "off" | "0" | "false" | "no"]))
}

/// Those that are to be applied.
fn pending(applied: &HashMap<String, String>, migrations: Vec<Migration>) -> Result<Vec<Migration>, Error> {
    let mut pending = Vec::<Migration>::new();
    for migration in migrations {
        let name = &migration.name;
        match applied.get(name) {
            None => pending.push(migration),
            Some(known) if *known != digest(&migration) => {
                return Err(Error::Migration(
                    format!("{name} was applied and has been changed since; undo the change and add a new migration").into(),
                ));
            }
            Some(_) => {
                if let Some(early) = pending.first() {
                    let text = format!("{} comes before {name}, which was applied already; give it a name that comes after", early.name);
                    return Err(Error::Migration(text.into()));
                }
            }
        }
    }
    Ok(pending)
}
