//! Backups of SQLite databases: made while others read and write, and put back with what was there before kept as one more.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::ids;
use tovuk_kernel::meters::Meter;
use tovuk_kernel::operation::{Argument, Command, Method, Operation, Request};
use tovuk_resources::sqlite;

use super::sqlite::{DATABASE, Database};
use super::{note, timestamp};
use crate::control::handler::Handler;
use crate::control::store::resources as rows;
use crate::control::{Caller, Control, Refusal};

/// What ids of backups begin with.
const PREFIX: &str = "sqlite_backup";

/// Why a backup was made.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "SqliteBackupKind")]
pub enum BackupKind {
    /// Somebody asked for it.
    Manual,
    /// It is what was there before a restore.
    PreRestore,
}

/// A backup.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SqliteBackup")]
pub struct BackupEntry {
    /// Its id.
    pub id: String,
    /// Why it was made.
    pub kind: BackupKind,
    /// Its size, in bytes.
    pub bytes: u64,
    /// When it was made.
    pub created_at: String,
}

impl From<sqlite::Backup> for BackupEntry {
    fn from(backup: sqlite::Backup) -> Self {
        let kind = match backup.kind {
            sqlite::BackupKind::Manual => BackupKind::Manual,
            sqlite::BackupKind::PreRestore => BackupKind::PreRestore,
        };
        let created_at = timestamp(i64::try_from(backup.created_unix_ms).unwrap_or(i64::MAX));
        Self { id: format!("{PREFIX}_{}", backup.number), kind, bytes: backup.bytes, created_at }
    }
}

/// A number for a new backup.
async fn next(control: &Control) -> Result<u64, Refusal> {
    control.write(|conn| Ok(rows::next_number(conn, PREFIX)?.cast_unsigned())).await
}

/// Lists the backups of a database.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// The service.
    pub service: String,
    /// The database, by name or id.
    pub database: String,
}

/// The backups of a database.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SqliteBackups")]
pub struct Backups {
    /// The newest first.
    pub backups: Vec<BackupEntry>,
    /// False: it is the whole list.
    pub has_more: bool,
    /// Nothing.
    pub next_cursor: Option<String>,
}

impl Request for List {
    const OPERATION: Operation =
        Operation::new("sqlite.backup.list", Method::Get, "/v1/services/{service}/sqlite/{database}/backups", "List the backups of a database")
            .errors(&[&codes::RESOURCE_NOT_FOUND])
            .commands(&[Command::new("sqlite backup list")
                .aliases(&["sqlite backup"])
                .arguments(&[DATABASE])
                .examples(&["tovuk sqlite backup list --service service_1 DB"])]);
    type Response = Backups;
}

impl Handler for List {
    async fn run(self, control: Control, caller: Caller) -> Result<Backups, Refusal> {
        let database = Database::find(&control, &caller, self.service, self.database).await?;
        let backups = database.store(&control).backups(database.number()).await?;
        Ok(Backups { backups: backups.into_iter().map(BackupEntry::from).collect(), has_more: false, next_cursor: None })
    }
}

/// Makes a backup.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Create {
    /// The service.
    pub service: String,
    /// The database, by name or id.
    pub database: String,
}

/// A backup that was made.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SqliteBackupCreated")]
pub struct Created {
    /// The backup.
    pub backup: BackupEntry,
}

impl Request for Create {
    const OPERATION: Operation =
        Operation::new("sqlite.backup.create", Method::Post, "/v1/services/{service}/sqlite/{database}/backups", "Make a backup of a database")
            .described(
                "It is one state of the database, taken while others read and write. The newest 30 are kept, and count as the database's storage: \
                 one that does not fit into what the plan has for the database and its backups is refused.",
            )
            .status(201)
            .errors(&[&codes::RESOURCE_NOT_FOUND, &codes::SQLITE_STORAGE_FULL, &codes::SQLITE_BUSY, &codes::STORAGE_FAILED])
            .meters(&[Meter::SqliteStorageBytes])
            .commands(&[Command::new("sqlite backup create")
                .arguments(&[DATABASE])
                .examples(&["tovuk sqlite backup create --service service_1 DB"])]);
    type Response = Created;
}

impl Handler for Create {
    async fn run(self, control: Control, caller: Caller) -> Result<Created, Refusal> {
        let database = Database::find(&control, &caller, self.service, self.database).await?;
        let backup: BackupEntry = database.store(&control).backup(database.number(), next(&control).await?, database.allowance()).await?.into();
        let (now, subject) = (control.now_ms(), format!("{}: {}", database.row.name, backup.id));
        control.write(move |conn| note(conn, &caller, Self::OPERATION.name, Some(database.service.id), &subject, now)).await?;
        Ok(Created { backup })
    }
}

/// Deletes a backup.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// The service.
    pub service: String,
    /// The database, by name or id.
    pub database: String,
    /// The backup's id.
    pub backup: String,
}

/// What was deleted.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SqliteBackupDeleted")]
pub struct Deleted {
    /// The id of the backup that is gone.
    pub deleted: String,
    /// The bytes that it had.
    pub bytes: u64,
}

impl Request for Delete {
    const OPERATION: Operation = Operation::new(
        "sqlite.backup.delete",
        Method::Delete,
        "/v1/services/{service}/sqlite/{database}/backups/{backup}",
        "Delete a backup of a database",
    )
    .described("It makes room for others. The database itself is not touched.")
    .errors(&[&codes::RESOURCE_NOT_FOUND, &codes::SQLITE_BACKUP_NOT_FOUND, &codes::SQLITE_BUSY, &codes::STORAGE_FAILED])
    .commands(&[Command::new("sqlite backup delete")
        .arguments(&[DATABASE, Argument::positional("backup", "The backup's id")])
        .examples(&["tovuk sqlite backup delete --service service_1 DB sqlite_backup_1"])]);
    type Response = Deleted;
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<Deleted, Refusal> {
        let database = Database::find(&control, &caller, self.service, self.database).await?;
        let Some(number) = ids::number(&self.backup, PREFIX) else { return Err(sqlite::Error::BackupNotFound.into()) };
        let bytes = database.store(&control).delete_backup(database.number(), number.cast_unsigned()).await?;
        let (now, subject) = (control.now_ms(), format!("{}: {}", database.row.name, self.backup));
        control.write(move |conn| note(conn, &caller, Self::OPERATION.name, Some(database.service.id), &subject, now)).await?;
        Ok(Deleted { deleted: self.backup, bytes })
    }
}

/// Puts a backup in the place of the database.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Restore {
    /// The service.
    pub service: String,
    /// The database, by name or id.
    pub database: String,
    /// The backup's id.
    pub backup: String,
}

/// What a restore did.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SqliteRestored")]
pub struct Restored {
    /// The id of the backup that is the database now.
    pub restored: String,
    /// What was there before.
    pub pre_restore_backup: BackupEntry,
    /// How to go back.
    pub next_actions: Vec<String>,
}

impl Request for Restore {
    const OPERATION: Operation = Operation::new(
        "sqlite.backup.restore",
        Method::Post,
        "/v1/services/{service}/sqlite/{database}/backups/{backup}/restore",
        "Put a backup in the place of a database",
    )
    .described(
        "The backup is examined first. What is there now becomes one more backup by the same step, and readers and writers see the one or the other. \
         Queries that run end before. Where there is no room for it, such backups of earlier restores are removed, the oldest first: it is not refused for a cap on \
         `sqlite_storage_bytes`, in which all of them count.",
    )
    .errors(&[
        &codes::RESOURCE_NOT_FOUND,
        &codes::SQLITE_BACKUP_NOT_FOUND,
        &codes::SQLITE_BACKUP_REFUSED,
        &codes::SQLITE_BUSY,
        &codes::STORAGE_FAILED,
    ])
    .commands(&[Command::new("sqlite backup restore")
        .aliases(&["sqlite restore"])
        .arguments(&[DATABASE, Argument::positional("backup", "The backup's id")])
        .examples(&["tovuk sqlite backup restore --service service_1 DB sqlite_backup_1"])]);
    type Response = Restored;
}

impl Handler for Restore {
    async fn run(self, control: Control, caller: Caller) -> Result<Restored, Refusal> {
        let service = self.service.clone();
        let database = Database::find(&control, &caller, self.service, self.database).await?;
        let Some(number) = ids::number(&self.backup, PREFIX) else { return Err(sqlite::Error::BackupNotFound.into()) };
        let snapshot = next(&control).await?;
        let before = database.store(&control).restore(database.number(), number.cast_unsigned(), snapshot, database.allowance()).await?;
        let before = BackupEntry::from(before);
        let name = &database.row.name;
        let back = format!("Run `tovuk sqlite backup restore --service {service} {name} {}` to go back to what was there before.", before.id);
        let (now, subject) = (control.now_ms(), format!("{name}: {}", self.backup));
        control.write(move |conn| note(conn, &caller, Self::OPERATION.name, Some(database.service.id), &subject, now)).await?;
        Ok(Restored { restored: self.backup, pre_restore_backup: before, next_actions: vec![back] })
    }
}
