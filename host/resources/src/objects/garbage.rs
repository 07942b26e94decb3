//! Names of bytes that nothing refers to: given out before the first byte is written, and removed with their bytes when nothing came of it or when
//! nothing refers to them any more.
//!
//! A name is *held* while somebody may still write under it or refer to it; that is known in memory only, so after a start none is. Names are
//! reserved many at a time, so that an upload pays for no commit of its own.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::params;
use tokio::sync::Notify;

use super::blobs::{Blobs, Name};
use super::pins::Pins;
use super::{Error, database};
use crate::database::Database;

/// Names that one commit reserves.
const RESERVED: usize = 64;
/// Names that are looked at in one step.
const BATCH: i64 = 500;

/// The names that are held.
#[derive(Clone)]
pub(super) struct Names(Arc<Shared>);

struct Shared {
    held: Mutex<HashSet<Name>>,
    reserved: tokio::sync::Mutex<Vec<Arc<Held>>>,
    /// Told when a name is let go.
    work: Arc<Notify>,
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, HashSet<Name>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that is held until this is gone.
pub(super) struct Held {
    name: Name,
    /// Whether something refers to it now, so that there is nothing to remove.
    kept: AtomicBool,
    names: std::sync::Weak<Shared>,
}

impl Held {
    pub fn name(&self) -> Name {
        self.name
    }

    /// Says that a commit refers to the name.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(names) = self.names.upgrade() {
            names.held().remove(&self.name);
            if !self.kept.load(Ordering::Relaxed) {
                names.work.notify_one();
            }
        }
    }
}

impl Names {
    pub fn new(work: Arc<Notify>) -> Self {
        Self(Arc::new(Shared { held: Mutex::default(), reserved: tokio::sync::Mutex::default(), work }))
    }

    /// A name that is on disk as garbage, so that nothing under it can be forgotten.
    pub async fn hold(&self, database: &Database) -> Result<Arc<Held>, Error> {
        let mut reserved = self.0.reserved.lock().await;
        if let Some(held) = reserved.pop() {
            return Ok(held);
        }
        let mut fresh = Vec::with_capacity(RESERVED);
        for _ in 0..RESERVED {
            let name = Name::random()?;
            self.0.held().insert(name);
            fresh.push(Arc::new(Held { name, kept: AtomicBool::new(false), names: Arc::downgrade(&self.0) }));
        }
        let names: Vec<Name> = fresh.iter().map(|held| held.name).collect();
        let written: Result<(), Error> = database
            .write(move |tx| {
                let mut insert = tx.prepare_cached("INSERT INTO garbage (blob) VALUES (?1)")?;
                names.iter().try_for_each(|name| insert.execute([name.0]).map(drop))?;
                Ok(())
            })
            .await;
        written?;
        *reserved = fresh;
        reserved.pop().ok_or(Error::Random)
    }
}

/// Removes the bytes that nothing refers to and nobody reads, with their names. Returns how many names were removed.
pub(super) async fn collect(database: &Database, blobs: &Blobs, names: &Names, pins: &Pins) -> Result<u64, Error> {
    let mut removed = 0;
    let mut after = Vec::new();
    loop {
        let from = after.clone();
        let held = names.clone();
        // Doomed before its bytes are touched: whoever comes later to refer to a name finds that he is too late.
        let batch: Vec<(Name, Option<i64>, bool)> = database.write(move |tx| doom(tx, &from, &held.0.held()).map_err(Error::from)).await?;
        let Some((last, _, _)) = batch.last() else { return Ok(removed) };
        after = last.0.to_vec();
        pins.settle().await;
        let gone: Vec<Name> = batch.iter().filter(|(_, version, doomed)| *doomed && !pins.keeps(*version)).map(|(name, _, _)| *name).collect();
        if gone.is_empty() {
            continue;
        }
        blobs.remove(&gone).await?;
        removed += gone.len() as u64;
        let forget = move |tx: &rusqlite::Transaction<'_>| -> Result<(), database::Error> {
            let mut delete = tx.prepare_cached("DELETE FROM garbage WHERE blob = ?1")?;
            gone.iter().try_for_each(|name| delete.execute([name.0]).map(drop))?;
            Ok(())
        };
        database.write(forget).await?;
    }
}

/// The next names, and which of them are doomed, now or since an earlier attempt.
fn doom(tx: &rusqlite::Transaction<'_>, after: &[u8], held: &HashSet<Name>) -> rusqlite::Result<Vec<(Name, Option<i64>, bool)>> {
    let mut select = tx.prepare_cached("SELECT blob, version, doomed FROM garbage WHERE blob > ?1 ORDER BY blob LIMIT ?2")?;
    let rows = select.query_map(params![after, BATCH], |row| Ok((Name(row.get(0)?), row.get(1)?, row.get(2)?)))?;
    let mut batch: Vec<(Name, Option<i64>, bool)> = rows.collect::<rusqlite::Result<_>>()?;
    let mut update = tx.prepare_cached("UPDATE garbage SET doomed = 1 WHERE blob = ?1")?;
    for (name, _, doomed) in batch.iter_mut().filter(|(name, _, doomed)| !doomed && !held.contains(name)) {
        update.execute([name.0])?;
        *doomed = true;
    }
    Ok(batch)
}
