//! The files of KV: which one a namespace is in, how a file is set up, and opening it. What is in them is not looked at here.
//!
//! A shard is one file with one thread that writes. A namespace lives in one shard, so that all that one request changes is one transaction.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::OnceCell;

use super::{Namespace, store};
use crate::database::{self, Database, Options, rusqlite};

/// Into how many files namespaces are spread. Never to be changed: it says which file a namespace is in.
const SHARDS: u8 = 16;
const SHARDS_I64: i64 = SHARDS as i64;
/// Marks the files.
const APPLICATION_ID: [u8; 4] = *b"tvkv";
/// Size of a page, in bytes. Smaller ones make the log shorter, but the file system writes whole blocks of this size when it is copied into the file.
const PAGE_BYTES: u32 = 4_096;
/// What the write-ahead log is cut to when it has grown beyond and begins anew, in bytes.
const LOG_BYTES_KEPT: u32 = 16 << 20;

/// All files. Those that exist are open; the others come when first written to.
pub(super) struct Shards(Vec<Shard>);

struct Shard {
    path: PathBuf,
    database: OnceCell<Database>,
}

impl Shards {
    /// Opens the files that are in the folder, so that one that cannot be used is found at the start, and so that all of them are swept.
    pub async fn open(folder: &Path) -> Result<Self, database::Error> {
        let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        created.map_err(|error| file_error(folder, error))?;
        let shards = (0..SHARDS).map(|number| Shard { path: folder.join(format!("{number:02}.db")), database: OnceCell::new() });
        let shards = Self(shards.collect());
        for shard in &shards.0 {
            if shard.path.exists() {
                shard.opened().await?;
            }
        }
        Ok(shards)
    }

    /// The file that a namespace is in, if there is one yet.
    pub fn existing(&self, namespace: Namespace) -> Option<&Database> {
        self.shard(namespace)?.database.get()
    }

    /// The file that a namespace is in. It is created if need be.
    pub async fn of(&self, namespace: Namespace) -> Result<&Database, database::Error> {
        match self.shard(namespace) {
            Some(shard) => shard.opened().await,
            None => Err(database::Error::Closed),
        }
    }

    /// All files that are there.
    pub fn all(&self) -> impl Iterator<Item = &Database> {
        self.0.iter().filter_map(|shard| shard.database.get())
    }

    fn shard(&self, namespace: Namespace) -> Option<&Shard> {
        let index = usize::try_from(namespace.0.rem_euclid(SHARDS_I64)).ok()?;
        self.0.get(index)
    }
}

impl Shard {
    async fn opened(&self) -> Result<&Database, database::Error> {
        let open = async || {
            let path = self.path.clone();
            let opening = tokio::task::spawn_blocking(move || {
                prepare(&path)?;
                Database::open(&path, store::MIGRATIONS, options())
            });
            // Opening does not panic; what is left is a runtime that is shutting down.
            let database = opening.await.unwrap_or(Err(database::Error::Closed))?;
            database
                .write(|tx| Ok::<_, database::Error>(tx.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_KEPT, |_| Ok(()))?))
                .await?;
            Ok(database)
        };
        self.database.get_or_try_init(open).await
    }
}

fn options() -> Options {
    // Few requests read the files, because hot keys are in memory; what is cached is mostly for the writer.
    Options { queue_max: 8_192, group_jobs_max: 4_096, writer_cache_kib: 16_384, readers: 4, checkpoint_pages: 4_000, ..Options::new(APPLICATION_ID) }
}

/// Settles what can only be settled before the first page is written: the size of pages, and that free ones can be given back step by step.
fn prepare(path: &Path) -> Result<(), database::Error> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(|error| file_error(path, error))?;
    if file.metadata().map_err(|error| file_error(path, error))?.len() > 0 {
        return Ok(());
    }
    let set_up = || {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
        connection.pragma_update(None, "application_id", i32::from_be_bytes(APPLICATION_ID))
    };
    set_up().map_err(|error| database::Error::Open { path: path.to_owned(), source: Arc::new(error) })
}

fn file_error(path: &Path, error: std::io::Error) -> database::Error {
    database::Error::File { path: path.to_owned(), source: Arc::new(error) }
}
