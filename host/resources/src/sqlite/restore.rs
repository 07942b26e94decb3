//! Restores: the backup is copied and examined beside the database, and takes its place in one rename while nobody is in the file. What was there
//! before becomes a backup by the same step. Also what a deleted database leaves to remove.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::backup;
use super::confine;
use super::error::Error;
use super::link::{Link, Role, sync_folder_of};
use super::slot::{Exclusive, Slot};
use super::types::{Allowance, Backup, BackupKind};
use super::{Sqlites, run};

/// How long the examination of a backup may take.
const CHECK_TIME_MAX: Duration = Duration::from_secs(600);
/// Steps between two looks at that.
const STEPS_BETWEEN_LOOKS: i32 = 100_000;
/// What a database file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The ending of a copy that is being examined.
const UNFINISHED: &str = "restore";

impl Sqlites {
    /// Puts a backup in the place of the database. What was there becomes the backup of number `snapshot`, which is returned. Readers and writers see
    /// the one or the other; those that run end first. It is not refused for want of room for the snapshot: those of earlier restores make it.
    pub async fn restore(&self, number: u64, backup: u64, snapshot: u64, allowance: Allowance) -> Result<Backup, Error> {
        let slot = self.slot(number);
        let waiting = slot.wait()?;
        let examined = slot.clone();
        // One at a time for each database: the copy has one name.
        let unfinished = slot.path.with_extension(format!("{snapshot}.{UNFINISHED}"));
        let copy = unfinished.clone();
        let prepared = self.blocking(move || {
            if !examined.path.exists() {
                return Err(Error::NotFound);
            }
            let source = backup::find(&examined.backups, backup)?;
            if list_has(&examined, snapshot)? {
                return Err(Error::query("there is a backup of the snapshot's number"));
            }
            prepare(&source, &copy, allowance).inspect_err(|_| remove_all(&copy))
        });
        prepared.await?;
        let mut exclusive = slot.exclusive().await?;
        let created_unix_ms = self.0.clock.now_unix_ms();
        self.blocking(move || {
            let _waiting = waiting;
            let name = backup::file_name(snapshot, created_unix_ms, BackupKind::PreRestore);
            let bytes = swap(&slot, &mut exclusive, &unfinished, &name).inspect_err(|_| remove_all(&unfinished))?;
            backup::prune(&slot)?;
            backup::prune_snapshots(&slot, allowance)?;
            Ok(Backup { number: snapshot, created_unix_ms, bytes, kind: BackupKind::PreRestore })
        })
        .await
    }
}

fn list_has(slot: &Slot, number: u64) -> Result<bool, Error> {
    Ok(backup::list(&slot.backups)?.iter().any(|backup| backup.number == number))
}

fn refused(reason: impl Into<String>) -> Error {
    Error::BackupRefused(reason.into().into())
}

/// Copies the backup and examines the copy: what was examined is what will be used.
fn prepare(source: &Path, copy: &Path, allowance: Allowance) -> Result<(), Error> {
    let mut from = File::open(source)?;
    let length = from.metadata()?.len();
    check_header(&mut from, length, allowance)?;
    remove_all(copy);
    // By the length that was looked at, whatever the file does meanwhile.
    let mut to = fs::OpenOptions::new().write(true).create_new(true).open(copy)?;
    to.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(super::link::MODE))?;
    let copied = io::copy(&mut File::open(source)?.take(length), &mut to)?;
    if copied != length {
        return Err(refused("it is shorter than it was"));
    }
    drop(to);
    examine(copy)?;
    File::open(copy)?.sync_all()?;
    Ok(())
}

/// Compares what the file says of itself with its size.
fn check_header(file: &mut File, length: u64, allowance: Allowance) -> Result<(), Error> {
    let mut header = [0_u8; 100];
    file.read_exact(&mut header).map_err(|_| refused("it is no database"))?;
    let number = |at: usize, bytes: usize| header.get(at..at + bytes).unwrap_or_default().iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    if header.get(..MAGIC.len()) != Some(MAGIC.as_slice()) {
        return Err(refused("it is no database"));
    }
    let page_size = match number(16, 2) {
        1 => 65_536,
        size => size,
    };
    if !page_size.is_power_of_two() || page_size < 512 {
        return Err(refused("its pages have no valid size"));
    }
    if length > allowance.database_bytes {
        return Err(refused(format!("it has {length} bytes, and the database may have {}", allowance.database_bytes)));
    }
    // The count of pages is only good if it was written together with the last change.
    if number(24, 4) != number(92, 4) || number(28, 4).saturating_mul(page_size) != length {
        return Err(refused("its size is not what it says"));
    }
    Ok(())
}

/// Reads all of the file as a database.
fn examine(path: &Path) -> Result<(), Error> {
    let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    confine::configure(&connection)?;
    let started = Instant::now();
    connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || started.elapsed() > CHECK_TIME_MAX))?;
    let look = || -> rusqlite::Result<Option<String>> {
        connection.execute_batch("PRAGMA cell_size_check = on; PRAGMA query_only = on; PRAGMA temp_store = file;")?;
        let mut statement = connection.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND rootpage = 0")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (name, sql): (String, Option<String>) = (row.get(0)?, row.get(1)?);
            if !module_allowed(&sql.unwrap_or_default()) {
                return Ok(Some(format!("its table {name} is of a kind that is not allowed")));
            }
        }
        let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        Ok(Some(found).filter(|found| found != "ok"))
    };
    match look() {
        Ok(None) => {}
        Ok(Some(problem)) => return Err(refused(problem)),
        Err(error) => {
            return match Error::from(error) {
                Error::DiskFull => Err(Error::DiskFull),
                Error::Host(text) => Err(Error::Host(text)),
                _ => Err(refused("it is damaged, or cannot be examined in time")),
            };
        }
    }
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// Whether the virtual table that this SQL makes is of an allowed module.
fn module_allowed(sql: &str) -> bool {
    let lower = sql.to_ascii_lowercase();
    let mut words = lower.split(|c: char| c.is_whitespace() || c == '(').filter(|word| !word.is_empty());
    if run::first_word(sql).eq_ignore_ascii_case("create") && words.by_ref().any(|word| word == "using") {
        return words.next().is_some_and(|module| confine::MODULES.contains(&module));
    }
    false
}

/// The swap. Nobody has the file open but us.
fn swap(slot: &Slot, exclusive: &mut Exclusive, copy: &Path, snapshot: &str) -> Result<u64, Error> {
    // Everything into the file, so that it is whole without its log.
    let link = slot.writer(&mut exclusive.writer)?;
    let checkpoint = link.checkpoint("TRUNCATE");
    slot.give_writer(&mut exclusive.writer, link);
    checkpoint?;
    slot.close(exclusive);
    let log = beside(&slot.path, "-wal");
    if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        return Err(Error::Busy);
    }
    let bytes = fs::metadata(&slot.path)?.len();
    let (unfinished, finished) = (slot.backups.join(format!("{}{snapshot}", backup::UNFINISHED_SNAPSHOT)), slot.backups.join(snapshot));
    fs::hard_link(&slot.path, &unfinished)?;
    sync_folder_of(&unfinished)?;
    let swapped = fs::rename(copy, &slot.path).and_then(|()| sync_folder_of(&slot.path));
    if let Err(error) = swapped {
        // Whether it has happened is seen from the files.
        backup::recover(&slot.path, &slot.backups)?;
        return Err(error.into());
    }
    for left in [log, beside(&slot.path, "-shm")] {
        remove_if_there(&left)?;
    }
    fs::rename(&unfinished, &finished)?;
    sync_folder_of(&finished)?;
    // It is opened once, so that whoever comes next finds it working.
    let link = Link::open(&slot.path, Role::Writer)?;
    drop(link);
    Ok(bytes)
}

/// The name of a file that SQLite keeps beside a database.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn remove_if_there(path: &Path) -> io::Result<u64> {
    let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(bytes),
    }
}

/// Removes a copy that is of no use, as far as that works; the next start does the rest.
fn remove_all(copy: &Path) {
    for path in [copy.to_owned(), beside(copy, "-wal"), beside(copy, "-shm"), beside(copy, "-journal")] {
        let _ = remove_if_there(&path);
    }
}

/// Removes the files of a database that nobody has open, and returns how many bytes they were.
pub(super) fn remove(slot: &Slot) -> Result<u64, Error> {
    let mut bytes = remove_if_there(&slot.path)?;
    for ending in ["-wal", "-shm", "-journal"] {
        remove_if_there(&beside(&slot.path, ending))?;
    }
    for entry in backup::entries(&slot.backups)? {
        bytes = bytes.saturating_add(remove_if_there(&entry.path())?);
    }
    if slot.backups.exists() {
        fs::remove_dir(&slot.backups)?;
        sync_folder_of(&slot.backups)?;
    }
    sync_folder_of(&slot.path)?;
    Ok(bytes)
}

/// Removes what restores and backups that were cut off have left, at the start of the host.
pub(super) fn sweep(folder: &Path) -> io::Result<()> {
    for entry in backup::entries(folder)? {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.contains(&format!(".{UNFINISHED}"))) {
            fs::remove_file(entry.path())?;
        }
    }
    for database in backup::entries(&folder.join("backups"))? {
        for entry in backup::entries(&database.path())? {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with('.') && !name.starts_with(backup::UNFINISHED_SNAPSHOT) {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}
