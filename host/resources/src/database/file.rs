//! From a path to connections: the file and its mode, its settings, its migrations. It runs no jobs.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{Error, Options};

/// Only the host's user may read what tenants keep. The write-ahead log and its index take over the mode of the file.
const MODE: u32 = 0o600;

/// Opens the connection that writes, and brings the file up to date.
pub(super) fn open_writer(path: &Path, migrations: &[&str], options: &Options) -> Result<Connection, Error> {
    create(path).map_err(|error| Error::file(path, error))?;
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, options).map_err(|error| Error::open(path, error))?;
    check_mark(&connection, path, migrations.len(), options)?;
    set_up_writer(&connection, options).map_err(|error| Error::open(path, error))?;
    for (index, migration) in migrations.iter().enumerate() {
        let number = index + 1;
        migrate(&mut connection, number, migration).map_err(|error| Error::Migration { path: path.to_owned(), number, source: Arc::new(error) })?;
    }
    // Not before: a migration may have to replace a table that others refer to, and this cannot be switched inside its transaction.
    connection.pragma_update(None, "foreign_keys", true).map_err(|error| Error::open(path, error))?;
    Ok(connection)
}

/// Opens a connection that reads. The one that writes has to be open, because it alone sets up the index of the write-ahead log.
pub(super) fn open_reader(path: &Path, options: &Options) -> Result<Connection, Error> {
    let open = || {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, options)?;
        set_cache(&connection, options.reader_cache_kib)?;
        Ok(connection)
    };
    open().map_err(|error| Error::open(path, error))
}

/// Makes sure that the file is there, with its mode, and that its name is on disk too.
fn create(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn connect(path: &Path, access: OpenFlags, options: &Options) -> rusqlite::Result<Connection> {
    // Each connection is used by one thread at a time, so it needs no lock of its own.
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(options.lock_wait)?;
    connection.set_prepared_statement_cache_capacity(options.statements_max);
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

fn set_cache(connection: &Connection, kib: u32) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -i64::from(kib))
}

/// Refuses a file that another store, or a later version, has written, before anything in it is changed. An empty file gets the mark.
fn check_mark(connection: &Connection, path: &Path, known: usize, options: &Options) -> Result<(), Error> {
    let expected = i32::from_be_bytes(options.application_id);
    let read = || -> rusqlite::Result<(i32, i64, bool)> {
        let found = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let empty = connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))?;
        Ok((found, version, empty))
    };
    let (found, version, empty) = read().map_err(|error| Error::open(path, error))?;
    if found == 0 && version == 0 && empty {
        return connection.pragma_update(None, "application_id", expected).map_err(|error| Error::open(path, error));
    }
    if found != expected {
        return Err(Error::Foreign { path: path.to_owned(), found, expected });
    }
    if usize::try_from(version).map_or(true, |version| version > known) {
        return Err(Error::Newer { path: path.to_owned(), found: version, known });
    }
    Ok(())
}

fn set_up_writer(connection: &Connection, options: &Options) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0)).and_then(|mode| match mode.as_str() {
        "wal" => Ok(()),
        // A file system without shared memory; without the log, readers would wait for the writer.
        _ => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(format!("its journal stays in mode {mode}")),
        )),
    })?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    // The writer copies the log itself, because SQLite keeps quiet about errors when it does so after a commit.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    set_cache(connection, options.writer_cache_kib)
}

/// Applies a migration unless the file has had it.
fn migrate(connection: &mut Connection, number: usize, migration: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Asked inside the transaction, because another process may be starting on the same file.
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    if version >= number {
        return Ok(());
    }
    transaction.execute_batch(migration)?;
    let dangling: Option<String> = {
        let mut check = transaction.prepare("PRAGMA foreign_key_check")?;
        let mut rows = check.query([])?;
        rows.next()?.map(|row| row.get(0)).transpose()?
    };
    if let Some(table) = dangling {
        let constraint = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY);
        return Err(rusqlite::Error::SqliteFailure(constraint, Some(format!("a row of {table} refers to one that is not there"))));
    }
    transaction.pragma_update(None, "user_version", number)?;
    transaction.commit()
}
