//! Backups: whole files beside the database, made with the online backup API while others read and write. A file's name says what it is:
//! `<number>-<created>-<kind>.db`. What is not finished begins with a dot.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup as Copy, StepResult};
use rusqlite::{Connection, OpenFlags};
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::SQLITE_BACKUPS_KEPT;

use super::error::Error;
use super::link::{Link, MODE, sync_folder_of};
use super::slot::Slot;
use super::types::{Backup, BackupKind};
use super::{FOLDER_MODE, Sqlites};

/// Pages that are copied between two looks at whether to go on.
const PAGES_AT_A_TIME: i32 = 1_024;
/// The beginning of the name that a snapshot before a restore has until the restore is done.
pub(super) const UNFINISHED_SNAPSHOT: &str = ".pre-";

impl Sqlites {
    /// Makes a backup of the database as it is now, under a number that has not been used, and returns it once it is on disk. Of the backups the
    /// newest [`SQLITE_BACKUPS_KEPT`] stay.
    pub async fn backup(&self, number: u64, backup: u64) -> Result<Backup, Error> {
        let created_unix_ms = self.0.clock.now_unix_ms();
        self.slot(number).wait().map(drop)?;
        self.read(number, move |slot, link| create(slot, link, backup, created_unix_ms)).await
    }

    /// The backups of a database, the newest first.
    pub async fn backups(&self, number: u64) -> Result<Vec<Backup>, Error> {
        let slot = self.slot(number);
        self.blocking(move || {
            if !slot.path.exists() {
                return Err(Error::NotFound);
            }
            Ok(list(&slot.backups)?)
        })
        .await
    }
}

fn word(kind: BackupKind) -> &'static str {
    match kind {
        BackupKind::Manual => "manual",
        BackupKind::PreRestore => "prerestore",
    }
}

/// The name of a backup's file.
pub(super) fn file_name(number: u64, created_unix_ms: UnixMs, kind: BackupKind) -> String {
    format!("{number}-{created_unix_ms}-{}.db", word(kind))
}

fn parse(name: &str) -> Option<(u64, UnixMs, BackupKind)> {
    let mut parts = name.strip_suffix(".db")?.split('-');
    let (number, created, kind) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
    let kind = [BackupKind::Manual, BackupKind::PreRestore].into_iter().find(|known| word(*known) == kind)?;
    parts.next().is_none().then_some((number, created, kind))
}

/// The entries of a folder, of which there may be none.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The backups in a folder, the newest first.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Backup>> {
    let mut backups = Vec::new();
    for entry in entries(folder)? {
        let Some((number, created_unix_ms, kind)) = entry.file_name().to_str().and_then(parse) else { continue };
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            backups.push(Backup { number, created_unix_ms, bytes: metadata.len(), kind });
        }
    }
    backups.sort_unstable_by_key(|backup| std::cmp::Reverse(backup.number));
    Ok(backups)
}

/// The file of a backup.
pub(super) fn find(folder: &Path, number: u64) -> Result<PathBuf, Error> {
    let found = list(folder)?.into_iter().find(|backup| backup.number == number).ok_or(Error::BackupNotFound)?;
    Ok(folder.join(file_name(found.number, found.created_unix_ms, found.kind)))
}

/// Makes the folder, durably.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        sync_folder_of(folder)?;
    }
    Ok(())
}

fn create(slot: &Slot, link: &mut Link, number: u64, created_unix_ms: UnixMs) -> Result<Backup, Error> {
    make_folder(&slot.backups)?;
    if list(&slot.backups)?.iter().any(|backup| backup.number == number) {
        return Err(Error::query("there is a backup of that number"));
    }
    let name = file_name(number, created_unix_ms, BackupKind::Manual);
    let (unfinished, path) = (slot.backups.join(format!(".{name}")), slot.backups.join(name));
    let copied = copy(link, &unfinished).and_then(|()| {
        File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, &path)?;
        sync_folder_of(&path)?;
        Ok(fs::metadata(&path)?.len())
    });
    let bytes = copied.inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
    prune(slot)?;
    Ok(Backup { number, created_unix_ms, bytes, kind: BackupKind::Manual })
}

/// Copies one state of the database, page by page.
fn copy(link: &Link, path: &Path) -> Result<(), Error> {
    drop(OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?);
    let mut to = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // The file is synced when it is whole, and gone if it never is.
    to.execute_batch("PRAGMA journal_mode = off; PRAGMA synchronous = off;")?;
    // Without a transaction that reads, each write of somebody else would begin the copy anew.
    link.run("BEGIN")?;
    link.run("SELECT 1 FROM sqlite_schema LIMIT 1")?;
    let copy = Copy::new(link.connection(), &mut to)?;
    loop {
        match copy.step(PAGES_AT_A_TIME)? {
            StepResult::Done => break,
            StepResult::More => {}
            _ => return Err(Error::Busy),
        }
        if link.monitor.gone.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::Ended("whoever asked for the backup is gone"));
        }
    }
    drop(copy);
    link.run("COMMIT")?;
    to.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// Removes the oldest backups, and counts what is left.
pub(super) fn prune(slot: &Slot) -> Result<(), Error> {
    for old in list(&slot.backups)?.into_iter().skip(SQLITE_BACKUPS_KEPT) {
        fs::remove_file(slot.backups.join(file_name(old.number, old.created_unix_ms, old.kind)))?;
    }
    slot.count_backups();
    Ok(())
}

/// Ends what a restore, or a backup, that was cut off has left. Called before a database is opened, and only while nobody has it open otherwise.
pub(super) fn recover(path: &Path, folder: &Path) -> io::Result<()> {
    for entry in entries(folder)? {
        let name = entry.file_name();
        let Some(finished) = name.to_str().and_then(|name| name.strip_prefix(UNFINISHED_SNAPSHOT)) else { continue };
        let database = fs::metadata(path)?;
        if entry.metadata()?.ino() == database.ino() {
            // The restore had not happened: the snapshot is the database itself, by another name.
            fs::remove_file(entry.path())?;
        } else {
            fs::rename(entry.path(), folder.join(finished))?;
        }
        sync_folder_of(&entry.path())?;
    }
    Ok(())
}
