//! The task that removes what nobody sees any more, expired keys and dropped namespaces, and gives its space back. It goes in small steps, so that
//! whoever writes waits for one of them at the most.

use std::sync::Arc;

use super::{Error, Store, store};
use crate::database::{Database, shards};

/// Entries of one step.
const STEP_ENTRIES: usize = 512;
/// Values of one step, in bytes, unless one alone has more. The pages of each have to be read.
const STEP_BYTES: u64 = 32 << 20;

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
        shards::give_back(database).await?;
    }
    Ok(())
}

/// Removes some entries. Returns whether there may be more.
async fn entries(store: &Store, database: &Database) -> Result<bool, Error> {
    let (cache, ledger, now_ms) = (store.cache.clone(), store.ledger.clone(), store.clock.now_unix_ms());
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
        for (namespace, usage) in store::sweep(tx, &entries)? {
            ledger.set(namespace.0, usage.bytes);
        }
        let more = !entries.is_empty() || store::forget_swept(tx)?;
        Ok::<_, Error>((more, writing))
    });
    let (more, writing) = work.await?;
    drop(writing);
    Ok(more)
}
