//! The file of one object: its name, making it, and reading and writing its values on the one connection that it ever has. Callers hold the object's
//! lock meanwhile.

use std::fs::{DirBuilder, File as Plain, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use sha2::{Digest, Sha256};
use tovuk_kernel::clock::UnixMs;

use super::{Counts, Error, Listed, Namespace};
use crate::database::{Error as DatabaseError, rusqlite};

/// Marks the files.
const APPLICATION_ID: [u8; 4] = *b"tvso";
/// Pages of the write-ahead log from which it is copied into the file.
const CHECKPOINT_PAGES: i64 = 1_000;
/// Pages of the log that stay in it when the file is closed. Copying syncs twice, and a log that is there already saves whoever opens the file next the
/// sync of its folder: with many objects that take turns, that is most of what they cost.
const LOG_PAGES_KEPT: i64 = 16;
/// A file with no more free pages keeps them for what comes next.
const FREE_PAGES_KEPT: i64 = 64;
/// Above one page in so many that is free, pages are given back when the file is closed.
const FREE_ONE_IN: i64 = 4;
/// Statements that a connection keeps prepared.
const STATEMENTS_KEPT: usize = 8;

/// The last change of an alarm that was committed together with values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AlarmNote {
    pub generation: i64,
    /// When it is due; none if it was removed.
    pub due: Option<UnixMs>,
}

/// What a file says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub counts: Counts,
    pub alarm: AlarmNote,
}

/// The name of an object's file below the folder of the store. The key is not part of it but for its hash, because it can be longer than a name may be.
pub(super) fn path_of(folder: &Path, namespace: Namespace, object: &str, incarnation: i64) -> PathBuf {
    let hash = hex::encode(Sha256::digest(object.as_bytes()));
    let short: String = hash.chars().take(2).collect();
    folder.join(namespace.to_string()).join(short).join(format!("{hash}-{incarnation:x}.db"))
}

/// An empty file of an object, byte by byte. Copying it costs less than having SQLite make one.
pub(super) fn template(folder: &Path) -> Result<Arc<[u8]>, Error> {
    let path = folder.join("template");
    remove(&path)?;
    let connection = Connection::open(&path)?;
    connection.execute_batch("PRAGMA page_size = 4096; PRAGMA auto_vacuum = incremental;")?;
    connection.pragma_update(None, "application_id", i32::from_be_bytes(APPLICATION_ID))?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.execute_batch(include_str!("object.sql"))?;
    connection.close().map_err(|(_, error)| error)?;
    let bytes = std::fs::read(&path).map_err(|error| Error::file(&path, error))?;
    remove(&path)?;
    Ok(bytes.into())
}

/// Removes a file that nobody has open, with its log. It is no error if it is not there.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    for suffix in ["", "-wal", ".new"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::file(path, error)),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the file if it is not there. Its name is on disk once the first commit is: syncing a new log syncs the folder too.
pub(super) fn create(path: &Path, template: &[u8]) -> Result<(), Error> {
    if path.exists() {
        return Ok(());
    }
    let make = || {
        if let Some(folder) = path.parent() {
            create_folder(folder)?;
        }
        // Whole or not there at all: without the rename, half a file would be found after a loss of power.
        let new = path.with_extension("db.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(template)?;
        file.sync_data()?;
        std::fs::rename(&new, path)
    };
    make().map_err(|error| Error::file(path, error))
}

/// Makes a folder, and its name durable.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(parent) = folder.parent() else { return Ok(()) };
    create_folder(parent)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        // Another object has made it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    Plain::open(parent)?.sync_all()
}

/// An open file.
pub(super) struct File {
    pub incarnation: i64,
    connection: Connection,
}

/// What is to be committed.
pub(super) struct Batch<'a> {
    pub namespace: Namespace,
    pub object: &'a str,
    pub changes: &'a [(Arc<str>, Option<Bytes>)],
    /// What the object has afterwards.
    pub counts: Counts,
    pub alarm: Option<AlarmNote>,
}

impl File {
    /// Opens a file that exists.
    pub fn open(path: &Path, incarnation: i64) -> Result<Self, Error> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        // Nobody else opens the file, so the index of the log can be in memory of its own and no lock is taken for each transaction.
        connection.pragma_update_and_check(None, "locking_mode", "exclusive", |_| Ok(()))?;
        // Checkpoints are made here: SQLite keeps quiet about their errors when it makes them after a commit.
        connection.execute_batch("PRAGMA cache_size = -64; PRAGMA temp_store = memory; PRAGMA synchronous = full; PRAGMA cell_size_check = on;")?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
        let found: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let expected = i32::from_be_bytes(APPLICATION_ID);
        if found != expected {
            return Err(DatabaseError::Foreign { path: path.to_owned(), found, expected }.into());
        }
        Ok(Self { incarnation, connection })
    }

    /// What the file says of itself.
    pub fn about(&self) -> Result<About, Error> {
        let row = |row: &rusqlite::Row<'_>| {
            let counts = Counts { values: unsigned(row.get(0)?), bytes: unsigned(row.get(1)?) };
            Ok(About { counts, alarm: AlarmNote { generation: row.get(2)?, due: row.get::<_, Option<i64>>(3)?.map(unsigned) } })
        };
        Ok(self.connection.query_row("SELECT vals, bytes, alarm_generation, alarm_due FROM about", [], row)?)
    }

    /// The value under a key.
    pub fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        let mut select = self.connection.prepare_cached("SELECT value FROM entries WHERE key = ?1")?;
        Ok(select.query_row([key.as_bytes()], |row| row.get::<_, Vec<u8>>(0)).optional()?.map(Bytes::from))
    }

    /// The length of the value under a key, in bytes. Its pages are not read.
    pub fn length(&self, key: &str) -> Result<Option<u64>, Error> {
        let mut select = self.connection.prepare_cached("SELECT length(value) FROM entries WHERE key = ?1")?;
        Ok(select.query_row([key.as_bytes()], |row| row.get(0).map(unsigned)).optional()?)
    }

    /// At most so many keys from `start` on that begin with `prefix`.
    pub fn list(&self, start: &str, prefix: &str, keys_max: usize) -> Result<Vec<Listed>, Error> {
        let mut select = self.connection.prepare_cached("SELECT key, length(value) FROM entries WHERE key >= ?1 ORDER BY key LIMIT ?2")?;
        let mut rows = select.query(params![start.as_bytes(), i64::try_from(keys_max).unwrap_or(i64::MAX)])?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            // Keys came in as strings, so nothing is lost here.
            let name = String::from_utf8_lossy(&row.get::<_, Vec<u8>>(0)?).into_owned();
            if !name.starts_with(prefix) {
                break;
            }
            keys.push(Listed { name, value_bytes: unsigned(row.get(1)?) });
        }
        Ok(keys)
    }

    /// Commits a batch. After an error nothing of it stands, unless that error leaves open what is on disk.
    pub fn commit(&mut self, batch: &Batch<'_>) -> Result<(), rusqlite::Error> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (key, value) in batch.changes {
            match value {
                Some(value) => {
                    let sql = "INSERT INTO entries (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
                    transaction.prepare_cached(sql)?.execute(params![key.as_bytes(), &**value])?;
                }
                None => {
                    transaction.prepare_cached("DELETE FROM entries WHERE key = ?1")?.execute([key.as_bytes()])?;
                }
            }
        }
        let (values, bytes) = (signed(batch.counts.values), signed(batch.counts.bytes));
        // Most batches replace values by others of their length, and this row lies on a page of its own.
        let sql = "UPDATE about SET namespace = ?1, object = ?2, vals = ?3, bytes = ?4 WHERE vals != ?3 OR bytes != ?4 OR namespace IS NULL";
        transaction.prepare_cached(sql)?.execute(params![batch.namespace.0, batch.object.as_bytes(), values, bytes])?;
        if let Some(alarm) = batch.alarm {
            let mut update = transaction.prepare_cached("UPDATE about SET alarm_generation = ?1, alarm_due = ?2")?;
            update.execute(params![alarm.generation, alarm.due.map(signed)])?;
        }
        transaction.commit()
    }

    /// Copies the log into the file when it has grown.
    pub fn tidy(&self) -> Result<(), rusqlite::Error> {
        let (pages, _) = self.checkpoint("NOOP")?;
        if pages >= CHECKPOINT_PAGES {
            self.checkpoint("PASSIVE")?;
        }
        Ok(())
    }

    /// Closes the file. What is in its log stays there, unless it is much.
    pub fn close(self) -> Result<(), rusqlite::Error> {
        let finished = self.finish();
        // Nothing is left to be copied, or it is not known to be whole. The next one who opens the file reads from the log what is.
        self.abandon();
        finished
    }

    fn finish(&self) -> Result<(), rusqlite::Error> {
        let pragma = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let free = pragma("freelist_count")?;
        let much_is_free = free > FREE_PAGES_KEPT && free.saturating_mul(FREE_ONE_IN) > pragma("page_count")?;
        if much_is_free {
            let mut vacuum = self.connection.prepare("PRAGMA incremental_vacuum")?;
            let mut rows = vacuum.query([])?;
            // Each step frees one page.
            while rows.next()?.is_some() {}
        }
        let (pages, _) = self.checkpoint("NOOP")?;
        if much_is_free || pages > LOG_PAGES_KEPT { self.checkpoint("TRUNCATE").map(drop) } else { Ok(()) }
    }

    /// Closes the file and leaves the log beside it.
    pub fn abandon(self) {
        let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }

    /// The pages in the log, and how many of them are in the file.
    fn checkpoint(&self, mode: &str) -> Result<(i64, i64), rusqlite::Error> {
        let mut statement = self.connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
        statement.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
    }
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
