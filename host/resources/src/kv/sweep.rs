//! The task that removes what nobody sees any more, expired keys and dropped namespaces, and gives its space back. It goes in small steps, so that
//! whoever writes waits for one of them at the most.

use std::sync::Arc;

use super::{Error, Store, store};
use crate::database::Database;

/// Entries of one step.
const STEP_ENTRIES: usize = 512;
/// Values of one step, in bytes, unless one alone has more. The pages of each have to be read.
const STEP_BYTES: u64 = 32 << 20;
/// Pages that one step gives back to the file system.
const STEP_PAGES: u64 = 512;
/// A file with no more free pages keeps them for what comes next.
const FREE_PAGES_KEPT: u64 = 1_024;
/// Above one page in so many that is free, pages are given back ...
const FREE_BEGIN: u64 = 4;
/// ... until there is one in so many.
const FREE_END: u64 = 8;

/// Sweeps now, and then whenever the interval has passed or a namespace was dropped.
pub(super) async fn run(store: Arc<Store>) {
    loop {
        if let Err(error) = sweep(&store).await {
            tracing::warn!(%error, "expired keys of KV could not be removed; this is tried again");
        }
        tokio::select! {
            () = store.clock.sleep(store.options.sweep_every) => {}
            () = store.dropped.notified() => {}
        }
    }
}

/// Sweeps every shard until nothing is left.
pub(super) async fn sweep(store: &Store) -> Result<(), Error> {
    for database in store.shards.all() {
        while entries(store, database).await? {}
        let mut one_in = FREE_BEGIN;
        while pages(database, one_in).await? {
            one_in = FREE_END;
        }
    }
    Ok(())
}

/// Removes some entries. Returns whether there may be more.
async fn entries(store: &Store, database: &Database) -> Result<bool, Error> {
    let (cache, now_ms) = (store.cache.clone(), store.clock.now_unix_ms());
    let work = database.write(move |tx| {
        let mut entries = store::to_sweep(tx, STEP_ENTRIES, now_ms)?;
        let mut bytes = 0;
        let fitting = entries.iter().take_while(|entry| {
            bytes += entry.bytes();
            bytes <= STEP_BYTES
        });
        let fitting = fitting.count().max(1);
        entries.truncate(fitting);
        // What is cached has expired as well; but a clock that was set back must not make it come alive.
        let writing = cache.writing(entries.iter().map(|entry| (entry.namespace, entry.key.as_str())));
        store::sweep(tx, &entries)?;
        let more = !entries.is_empty() || store::forget_swept(tx)?;
        Ok::<_, Error>((more, writing))
    });
    let (more, writing) = work.await?;
    drop(writing);
    Ok(more)
}

/// Gives some pages back if more than one in so many is free. Returns whether it did.
async fn pages(database: &Database, one_in: u64) -> Result<bool, Error> {
    let work = database.write(move |tx| {
        let (pages, free) = store::pages(tx)?;
        let wanted = free > FREE_PAGES_KEPT && free.saturating_mul(one_in) > pages;
        if wanted {
            store::give_back(tx, STEP_PAGES)?;
        }
        Ok::<_, Error>(wanted)
    });
    work.await
}
