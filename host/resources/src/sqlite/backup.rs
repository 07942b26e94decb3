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

use super::charges;
use super::error::Error;
use super::link::{Link, MODE, sync_folder_of};
use super::slot::Slot;
use super::types::{Allowance, Backup, BackupKind};
use super::{FOLDER_MODE, Sqlites};

/// Pages that are copied between two looks at whether to go on.
const PAGES_AT_A_TIME: i32 = 1_024;
/// The beginning of the name that a snapshot before a restore has until the restore is done.
pub(super) const UNFINISHED_SNAPSHOT: &str = ".pre-";

impl Sqlites {
    /// Makes a backup of the database as it is now, under a number that has not been used, and returns it once it is on disk. Of the backups the
    /// newest [`SQLITE_BACKUPS_KEPT`] stay. One that does not fit beside the database and the others is refused.
    pub async fn backup(&self, number: u64, backup: u64, allowance: Allowance) -> Result<Backup, Error> {
        let created_unix_ms = self.0.clock.now_unix_ms();
        let slot = self.slot(number);
        let _waiting = slot.wait()?;
        let (allowance, exceeded) = self.within_caps(allowance);
        // One after the other, so that each sees the room that the one before it has taken.
        let turn = slot.backing.clone().lock_owned().await;
        let work = move |slot: &Slot, link: &mut Link| {
            let _turn = turn;
            create(slot, link, backup, created_unix_ms, allowance)
        };
        charges::explain(self.read(number, work).await, exceeded)
    }

    /// Removes a backup, and returns how many bytes it had.
    pub async fn delete_backup(&self, number: u64, backup: u64) -> Result<u64, Error> {
        let slot = self.slot(number);
        let _waiting = slot.wait()?;
        let turn = slot.backing.clone().lock_owned().await;
        self.blocking(move || {
            let _turn = turn;
            let path = find(&slot.backups, backup)?;
            let bytes = fs::metadata(&path)?.len();
            fs::remove_file(&path)?;
            sync_folder_of(&path)?;
            slot.count_backups();
            Ok(bytes)
        })
        .await
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

fn create(slot: &Slot, link: &mut Link, number: u64, created_unix_ms: UnixMs, allowance: Allowance) -> Result<Backup, Error> {
    make_folder(&slot.backups)?;
    let others = list(&slot.backups)?;
    if others.iter().any(|backup| backup.number == number) {
        return Err(Error::query("there is a backup of that number"));
    }
    let name = file_name(number, created_unix_ms, BackupKind::Manual);
    let (unfinished, path) = (slot.backups.join(format!(".{name}")), slot.backups.join(name));
    // The oldest goes when there is one too many.
    let kept = others.iter().take(SQLITE_BACKUPS_KEPT.saturating_sub(1)).fold(0_u64, |sum, backup| sum.saturating_add(backup.bytes));
    let room = |bytes: u64| {
        let needed = kept.saturating_add(bytes.saturating_mul(2));
        if needed > allowance.storage_bytes {
            return Err(Error::BackupsFull { needed, allowed: allowance.storage_bytes });
        }
        let goes = slot.backup_bytes().saturating_sub(kept);
        if bytes.saturating_sub(goes) > slot.account_room(&allowance) { Err(Error::AccountFull(allowance.account_bytes)) } else { Ok(()) }
    };
    let copied = copy(slot, link, &unfinished, room).and_then(|()| {
        File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, &path)?;
        sync_folder_of(&path)?;
        Ok(fs::metadata(&path)?.len())
    });
    let bytes = copied.inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
    prune(slot)?;
    Ok(Backup { number, created_unix_ms, bytes, kind: BackupKind::Manual })
}

/// Copies one state of the database, page by page, if there is room for its bytes.
fn copy(slot: &Slot, link: &Link, path: &Path, room: impl Fn(u64) -> Result<(), Error>) -> Result<(), Error> {
    drop(OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?);
    let mut to = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // The file is synced when it is whole, and gone if it never is.
    to.execute_batch("PRAGMA journal_mode = off; PRAGMA synchronous = off;")?;
    // Without a transaction that reads, each write of somebody else would begin the copy anew.
    link.run("BEGIN")?;
    link.run("SELECT 1 FROM sqlite_schema LIMIT 1")?;
    room(link.bytes()?)?;
    let copy = Copy::new(link.connection(), &mut to)?;
    loop {
        match copy.step(PAGES_AT_A_TIME)? {
            StepResult::Done => break,
            StepResult::More => {}
            _ => return Err(Error::Busy),
        }
        slot.check()?;
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

/// Removes snapshots of earlier restores, the oldest first, until the database and its backups have no more bytes than they may. The newest stays, so
/// that a restore can be taken back whatever there is room for; what somebody has asked for stays too.
pub(super) fn prune_snapshots(slot: &Slot, allowance: Allowance) -> Result<(), Error> {
    let mut bytes = slot.count_backups().saturating_add(fs::metadata(&slot.path)?.len());
    let snapshots: Vec<_> = list(&slot.backups)?.into_iter().filter(|backup| backup.kind == BackupKind::PreRestore).skip(1).collect();
    for old in snapshots.into_iter().rev() {
        if bytes <= allowance.storage_bytes {
            break;
        }
        fs::remove_file(slot.backups.join(file_name(old.number, old.created_unix_ms, old.kind)))?;
        bytes = bytes.saturating_sub(old.bytes);
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
