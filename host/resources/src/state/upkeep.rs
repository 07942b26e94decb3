//! What happens at the start and in the background: reading files that were being written when the host ended, and removing what was deleted, in small
//! steps.

use std::fs::remove_dir_all;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tovuk_kernel::clock::Clock;

use super::catalogue::{Catalogue, Shard};
use super::file::{self, About, File};
use super::ledger::Ledger;
use super::objects::{Id, Shared};
use super::pool::Pool;
use super::rows::{self, Of};
use super::{Error, Options};
use crate::database::shards::give_back;

/// Objects or files of one step.
const STEP: u32 = 64;
/// How long to wait before what could not be removed is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// Opens everything, and brings the catalogue up to date.
pub(super) async fn open(folder: &Path, clock: Clock, options: Options) -> Result<Shared, Error> {
    let catalogue = Catalogue::open(folder, options.fuse.clone()).await?;
    let ledger = Ledger::default();
    for shard in catalogue.all() {
        recover(folder, shard).await?;
        for (namespace, held) in shard.database.read(rows::namespaces).await? {
            match held {
                Some((account, bytes)) => ledger.add(namespace, account, bytes),
                None => ledger.drop_namespace(namespace),
            }
        }
    }
    let path = folder.to_owned();
    let template = blocking(move || file::template(&path)).await?;
    let pool = Pool::start(options.threads).map_err(|error| Error::file(folder, error))?;
    Ok(Shared::new(folder.to_owned(), catalogue, ledger, pool, clock, options, template))
}

/// Runs something that waits for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    // It does not panic; what is left is a runtime that is shutting down.
    tovuk_kernel::threads::spawn_blocking(work).await.unwrap_or_else(|_| Err(Error::closed()))
}

/// Reads the files that were being written when the host ended: there are no more of them than were open, more or less.
async fn recover(folder: &Path, shard: &Shard) -> Result<(), Error> {
    let mut marked = shard.database.read(rows::marked).await?;
    while !marked.is_empty() {
        let rest = marked.split_off(marked.len().min(STEP as usize));
        let step = std::mem::replace(&mut marked, rest);
        let folder = folder.to_owned();
        let read = blocking(move || {
            let read = |of: Of| about(&folder, &of).map(|about| (of, about));
            step.into_iter().map(read).collect::<Result<Vec<_>, _>>()
        });
        let read = read.await?;
        let due = shard.due.clone();
        let written = shard.database.write(move |tx| {
            for (of, about) in &read {
                rows::recover(tx, of, about.as_ref())?;
            }
            Ok::<_, Error>(due.update(tx)?)
        });
        written.await?;
    }
    Ok(())
}

/// What an object's file says of itself. None when it was not made yet.
fn about(folder: &Path, of: &Of) -> Result<Option<About>, Error> {
    let Some(incarnation) = of.incarnation else { return Ok(None) };
    let path = file::path_of(folder, of.namespace, &of.object, incarnation);
    if !path.exists() {
        return Ok(None);
    }
    let file = File::open(&path, incarnation)?;
    let about = file.about()?;
    file.close()?;
    Ok(Some(about))
}

/// Removes what was deleted, now and whenever something is.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let done = shared.to_remove.notified();
        match remove(&shared).await {
            Ok(()) => done.await,
            Err(error) => {
                tracing::warn!(%error, "deleted State objects could not be removed; this is tried again");
                let _ = shared.clock.timeout(RETRY, done).await;
            }
        }
    }
}

/// Removes all that was deleted.
pub(super) async fn remove(shared: &Arc<Shared>) -> Result<(), Error> {
    for shard in shared.catalogue.all() {
        while namespaces(shared, shard).await? {}
        while files(shared, shard).await? {}
        give_back(&shard.database).await?;
    }
    Ok(())
}

/// Removes some objects of a dropped namespace. Returns whether there may be more.
async fn namespaces(shared: &Arc<Shared>, shard: &Shard) -> Result<bool, Error> {
    let Some((namespace, objects)) = shard.database.read(|connection| rows::to_drop(connection, STEP)).await? else { return Ok(false) };
    let due = shard.due.clone();
    if objects.is_empty() {
        let folder = shared.folder.join(namespace.to_string());
        let removing = blocking(move || match remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(&folder, error)),
            _ => Ok(()),
        });
        removing.await?;
        shard.database.write(move |tx| rows::all_dropped(tx, namespace)).await?;
        return Ok(true);
    }
    let removing = shared.clone();
    let removed = blocking(move || {
        for of in &objects {
            // Whoever has it now does not get any further.
            let handle = removing.handle(Id { namespace, object: of.object.as_str().into() }, 0);
            handle.remove(of.incarnation, Error::Dropped)?;
        }
        Ok(objects)
    });
    let removed = removed.await?;
    let written = shard.database.write(move |tx| {
        rows::dropped(tx, &removed)?;
        Ok::<_, Error>(due.update(tx)?)
    });
    written.await?;
    Ok(true)
}

/// Removes some files that belong to no object any more. Returns whether there may be more.
async fn files(shared: &Arc<Shared>, shard: &Shard) -> Result<bool, Error> {
    let removed = shard.database.read(|connection| rows::removed(connection, STEP)).await?;
    if removed.is_empty() {
        return Ok(false);
    }
    let folder = shared.folder.clone();
    let gone = blocking(move || {
        for of in &removed {
            if let Some(incarnation) = of.incarnation {
                file::remove(&file::path_of(&folder, of.namespace, &of.object, incarnation))?;
            }
        }
        Ok(removed)
    });
    let gone = gone.await?;
    shard.database.write(move |tx| rows::forget_removed(tx, &gone)).await?;
    Ok(true)
}
