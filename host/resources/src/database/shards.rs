//! A store that is spread over several files, each with a thread of its own that writes: which file a number is in, how a file is set up, opening it, and
//! giving space back. What is in the files is the business of the store.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::OnceCell;

use super::{Database, Error, Options};

/// Size of a page, in bytes. Smaller ones make the log shorter, but the file system writes whole blocks of this size when it is copied into the file.
const PAGE_BYTES: u32 = 4_096;
/// What the write-ahead log is cut to when it has grown beyond and begins anew, in bytes.
const LOG_BYTES_KEPT: u32 = 16 << 20;
/// Pages that one step gives back to the file system.
const STEP_PAGES: u64 = 512;
/// A file with no more free pages keeps them for what comes next.
const FREE_PAGES_KEPT: u64 = 1_024;
/// Above one page in so many that is free, pages are given back ...
const FREE_BEGIN: u64 = 4;
/// ... until there is one in so many.
const FREE_END: u64 = 8;

/// All files. Those that exist are open; the others come when first written to.
pub struct Shards {
    shards: Vec<Shard>,
    migrations: &'static [&'static str],
    options: Options,
}

struct Shard {
    path: PathBuf,
    database: OnceCell<Database>,
}

impl Shards {
    /// Opens the files that are in the folder, so that one that cannot be used is found at the start. `count` is in how many files numbers are spread; it
    /// must never change, because it says which file a number is in.
    ///
    /// # Errors
    /// When the folder or one of the files cannot be used.
    pub async fn open(folder: &Path, count: u8, migrations: &'static [&'static str], options: Options) -> Result<Self, Error> {
        let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        created.map_err(|error| Error::file(folder, error))?;
        let shards = (0..count.max(1)).map(|number| Shard { path: folder.join(format!("{number:02}.db")), database: OnceCell::new() });
        let shards = Self { shards: shards.collect(), migrations, options };
        for shard in &shards.shards {
            if shard.path.exists() {
                shards.opened(shard).await?;
            }
        }
        Ok(shards)
    }

    /// The file that a number is in, if there is one yet.
    pub fn existing(&self, number: i64) -> Option<&Database> {
        self.shard(number)?.database.get()
    }

    /// The file that a number is in. It is created if need be.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn of(&self, number: i64) -> Result<&Database, Error> {
        match self.shard(number) {
            Some(shard) => self.opened(shard).await,
            None => Err(Error::Closed),
        }
    }

    /// All files that are there.
    pub fn all(&self) -> impl Iterator<Item = &Database> {
        self.shards.iter().filter_map(|shard| shard.database.get())
    }

    /// The highest number in all files, as `of` reads it from one; 0 when there is none.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn highest<E: From<Error> + Send + 'static>(&self, of: fn(&Connection) -> Result<i64, E>) -> Result<i64, E> {
        let mut highest = 0;
        for database in self.all() {
            highest = highest.max(database.read(of).await?);
        }
        Ok(highest)
    }

    fn shard(&self, number: i64) -> Option<&Shard> {
        let count = i64::try_from(self.shards.len()).ok()?;
        self.shards.get(usize::try_from(number.checked_rem_euclid(count)?).ok()?)
    }

    async fn opened<'a>(&self, shard: &'a Shard) -> Result<&'a Database, Error> {
        let open = async || {
            let (path, migrations, options) = (shard.path.clone(), self.migrations, self.options.clone());
            let opening = tovuk_kernel::threads::spawn_blocking(move || {
                prepare(&path, options.application_id)?;
                Database::open(&path, migrations, options)
            });
            // Opening does not panic; what is left is a runtime that is shutting down.
            let database = opening.await.unwrap_or(Err(Error::Closed))?;
            database.write(|tx| Ok::<_, Error>(tx.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_KEPT, |_| Ok(()))?)).await?;
            Ok(database)
        };
        shard.database.get_or_try_init(open).await
    }
}

/// Gives pages that hold nothing back to the file system when there are many, in small steps, so that whoever writes waits for one of them at the most, and
/// makes the file shorter.
///
/// # Errors
/// When the file cannot be read or written.
pub async fn give_back(database: &Database) -> Result<(), Error> {
    let mut one_in = FREE_BEGIN;
    while give_back_some(database, one_in).await? {
        one_in = FREE_END;
    }
    database.shrink(one_in == FREE_END).await
}

async fn give_back_some(database: &Database, one_in: u64) -> Result<bool, Error> {
    let work = database.write(move |tx| {
        let (pages, free) = pages(tx)?;
        let wanted = free > FREE_PAGES_KEPT && free.saturating_mul(one_in) > pages;
        if wanted {
            let mut vacuum = tx.prepare(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
            let mut rows = vacuum.query([])?;
            // Each step frees one page.
            while rows.next()?.is_some() {}
        }
        Ok::<_, Error>(wanted)
    });
    work.await
}

/// Pages of a file, and how many of them hold nothing.
///
/// # Errors
/// When the file cannot be read.
pub fn pages(connection: &Connection) -> Result<(u64, u64), Error> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map(|count| u64::try_from(count).unwrap_or_default());
    Ok((pragma("page_count")?, pragma("freelist_count")?))
}

/// Settles what can only be settled before the first page is written: the size of pages, and that free ones can be given back step by step.
fn prepare(path: &Path, application_id: [u8; 4]) -> Result<(), Error> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = opened.map_err(|error| Error::file(path, error))?;
    if file.metadata().map_err(|error| Error::file(path, error))?.len() > 0 {
        return Ok(());
    }
    let set_up = || {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
        connection.pragma_update(None, "application_id", i32::from_be_bytes(application_id))
    };
    set_up().map_err(|error| Error::Open { path: path.to_owned(), source: Arc::new(error) })
}
