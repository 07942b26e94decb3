//! The task that removes what has expired and what was in dropped queues, and gives the space back. It goes in small steps, so that whoever writes waits for
//! one of them at the most.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

use super::live::Live;
use super::rows::{self, Change};
use super::{Error, Store, messages};
use crate::database::{Database, shards};

/// Messages of one step.
const STEP_MESSAGES: usize = 512;
/// Bodies of one step, in bytes, unless one alone has more. The pages of each have to be read.
const STEP_BYTES: i64 = 16 << 20;

/// Sweeps now, and then whenever the interval has passed or a queue was dropped.
pub(super) async fn run(store: Weak<Store>) {
    while let Some(store) = store.upgrade() {
        if let Err(error) = sweep(&store).await {
            tracing::warn!(%error, "expired messages of queues could not be removed; this is tried again");
        }
        tokio::select! {
            () = store.clock.sleep(store.options.sweep_every) => {}
            () = store.dropped.notified() => {}
        }
    }
}

/// Sweeps every queue until nothing is left.
pub(super) async fn sweep(store: &Arc<Store>) -> Result<(), Error> {
    for database in store.shards.all() {
        while dropped(database).await? {}
    }
    let queues: Vec<_> = store.queues.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    for live in queues {
        while expired(store, &live).await? {}
    }
    for database in store.shards.all() {
        shards::give_back(database).await?;
    }
    Ok(())
}

/// Removes some messages of dropped queues. Returns whether there may be more.
async fn dropped(database: &Database) -> Result<bool, Error> {
    let Some(local) = database.read(rows::dropping).await? else { return Ok(false) };
    let work = database.write(move |tx| {
        let (_, _, more) = messages::sweep(tx, local, i64::MAX, STEP_MESSAGES, STEP_BYTES)?;
        if !more {
            rows::forget(tx, local)?;
        }
        Ok::<_, Error>(true)
    });
    work.await
}

/// Removes some of the oldest messages of a queue, if they have expired. Returns whether there may be more.
async fn expired(store: &Arc<Store>, live: &Live) -> Result<bool, Error> {
    let expired = store.expired(live, store.now());
    if live.head_ms.load(Ordering::Relaxed) > expired {
        return Ok(false);
    }
    let database = store.database(live)?;
    let (local, now) = (live.local, store.now());
    let head = database.read(move |connection| messages::head(connection, local)).await?;
    // In an empty queue the next message will have come after this look.
    live.head_ms.store(head.unwrap_or(now), Ordering::Relaxed);
    if head.is_none_or(|head| head > expired) {
        return Ok(false);
    }
    let work = database.write(move |tx| {
        let (messages, bytes, more) = messages::sweep(tx, local, expired, STEP_MESSAGES, STEP_BYTES)?;
        rows::count(tx, local, &Change { messages: -messages, bytes: -bytes, expired: messages, ..Change::default() })?;
        Ok::<_, Error>(more)
    });
    let more = work.await?;
    live.head_ms.store(0, Ordering::Relaxed);
    Ok(more)
}
