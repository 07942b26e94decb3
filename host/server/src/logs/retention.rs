//! The task that removes what is too old or too much. It goes in small steps, so that whoever writes waits for one of them at the most.

use std::sync::atomic::Ordering;

use tovuk_resources::database::{self, rusqlite};

use super::store::{remove_before, remove_oldest, signed};
use super::{Error, Store};
use crate::stamped::first_id_at;

/// Lines of one step. More than the writer adds in one of its own, so that removing keeps up with a flood.
const STEP_LINES: i64 = 4_096;
/// What is left of what may be kept, in percent, once something had to be removed.
const LEFT_PERCENT: i64 = 90;

/// Prunes now and then, and when there is more than may be kept.
pub(super) async fn run(store: Store) {
    loop {
        // One pass at the start: a host that was down for a week begins with a week too much.
        if let Err(error) = prune(&store).await {
            tracing::warn!(%error, "old log lines could not be removed; this is tried again");
            store.clock.sleep(store.config.prune_every).await;
            continue;
        }
        tokio::select! {
            () = store.clock.sleep(store.config.prune_every) => {}
            () = store.grown.notified() => {}
        }
    }
}

pub(super) async fn prune(store: &Store) -> Result<(), Error> {
    let keep_ms = u64::try_from(store.config.retention.as_millis()).unwrap_or(u64::MAX);
    let oldest = first_id_at(store.clock.now_unix_ms().saturating_sub(keep_ms));
    while step(store, move |tx| remove_before(tx, oldest, STEP_LINES)).await? {}

    let service_max = signed(store.config.service_bytes_max);
    // A deleted service, which has no name, keeps nothing.
    let over = numbers(store, "SELECT number, service IS NULL FROM services WHERE service IS NULL OR bytes > ?1", service_max).await?;
    for (number, deleted) in over {
        let left = if deleted { 0 } else { percent(service_max) };
        while step(store, move |tx| remove_oldest(tx, number, left, STEP_LINES)).await? {}
    }

    let total_max = signed(store.config.total_bytes_max);
    if store.total_bytes.load(Ordering::Relaxed) <= total_max {
        return Ok(());
    }
    while store.total_bytes.load(Ordering::Relaxed) > percent(total_max) {
        // Of whoever has most: services that write little keep what they have.
        let largest = numbers(store, "SELECT number, 0 FROM services WHERE bytes > ?1 ORDER BY bytes DESC LIMIT 1", 0).await?;
        let Some((number, _)) = largest.first().copied() else { return Ok(()) };
        step(store, move |tx| remove_oldest(tx, number, 0, STEP_LINES)).await?;
    }
    Ok(())
}

/// One step. Returns whether there is more to do.
async fn step<F>(store: &Store, remove: F) -> Result<bool, Error>
where
    F: FnOnce(&rusqlite::Transaction<'_>) -> Result<(i64, bool), database::Error> + Send + 'static,
{
    let (bytes, more) = store.database.write(remove).await?;
    store.total_bytes.fetch_sub(bytes, Ordering::Relaxed);
    Ok(more)
}

async fn numbers(store: &Store, sql: &'static str, bytes: i64) -> Result<Vec<(i64, bool)>, Error> {
    let read = move |connection: &rusqlite::Connection| -> Result<Vec<(i64, bool)>, database::Error> {
        let mut statement = connection.prepare_cached(sql)?;
        let with_parameter = statement.query_map([bytes], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(with_parameter.collect::<Result<_, _>>()?)
    };
    Ok(store.database.read(read).await?)
}

fn percent(bytes: i64) -> i64 {
    bytes / 100 * LEFT_PERCENT
}
