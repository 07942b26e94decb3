//! What the rows of the control database and the stores of data owe each other: rows come before data and go before it, so what a host that dies leaves
//! half done is completed later, at the latest after its next start.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt;
use tovuk_kernel::resource::Kind;
use tovuk_resources::{cron, kv, queue, state};

use super::store::resources::Removal;
use super::{Control, Refusal, store};

/// How long an operation that deletes waits for the data to be gone. What takes longer goes on by itself.
const WAIT: Duration = Duration::from_secs(10);
/// Removals of one call that go on at a time.
const AT_A_TIME: usize = 4;

/// What an operation says whose data is not gone yet.
pub(crate) const STILL_REMOVING: &str = "What was deleted cannot be reached any more; its data is still being removed.";

impl Control {
    /// Makes the files of databases whose rows were committed before the host ended, and says whose data is whose. Where the control database is older than the data, as after it was
    /// restored alone, no number of data that is there is given out again: a new owner must not find another one's.
    pub(super) async fn settle_data(&self) -> Result<(), Refusal> {
        let (databases, namespaces) = (self.sqlite().highest().await?.cast_signed(), self.kv().highest().await?);
        let services = [self.objects().highest_service().await?, self.queues().highest_service().await?, self.crons().highest_service().await?];
        let (services, classes) = (services.into_iter().fold(0, i64::max), self.state().highest().await?);
        let (queues, triggers) = (self.queues().highest().await?, self.crons().highest().await?);
        self.write(move |conn| {
            store::resources::skip_numbers(conn, Kind::State.as_str(), classes)?;
            store::resources::skip_numbers(conn, Kind::Sqlite.as_str(), databases)?;
            store::resources::skip_numbers(conn, Kind::Kv.as_str(), namespaces)?;
            store::resources::skip_numbers(conn, Kind::Queue.as_str(), queues)?;
            store::resources::skip_numbers(conn, Kind::Cron.as_str(), triggers)?;
            Ok(store::services::skip_numbers(conn, services)?)
        })
        .await?;
        let owners = async |kind| self.read(move |conn| Ok(store::resources::owners(conn, kind)?)).await;
        let (databases, namespaces) = (owners(Kind::Sqlite).await?, owners(Kind::Kv).await?);
        self.sqlite().own(databases.into_iter().map(|(number, account, service)| (number.cast_unsigned(), account, service)).collect()).await?;
        self.kv().own(namespaces.into_iter().map(|(number, account, service)| (kv::Namespace(number), account, service)).collect()).await?;
        let numbers = self.read(|conn| Ok(store::resources::numbers(conn, Kind::Sqlite)?)).await?;
        for number in self.sqlite().missing(numbers.into_iter().map(i64::cast_unsigned).collect()).await? {
            tracing::warn!("the database sqlite_{number} has no file: an empty one is made");
            self.sqlite().create(number).await?;
        }
        self.settle_state().await?;
        self.settle_queues().await?;
        self.settle_crons().await
    }

    /// Says whose classes of State objects there are, and deletes the rows of those that are deleted in the store already.
    async fn settle_state(&self) -> Result<(), Refusal> {
        let owners = self.read(|conn| Ok(store::resources::owners(conn, Kind::State)?)).await?;
        let owners = owners.into_iter().map(|(number, account, service)| (state::Namespace(number), account, service)).collect();
        for namespace in self.state().own(owners).await? {
            tracing::warn!("state_{namespace} has been deleted: so is its row");
            self.write(move |conn| Ok(store::resources::delete(conn, Kind::State, namespace.0)?)).await?;
        }
        Ok(())
    }

    /// Takes rows of cron triggers back that were committed before the host ended and have no trigger: whoever asked for them was not answered, and a
    /// deploy that declares them makes them again. Triggers without a row are those of a control database that is older than they: nobody reaches them.
    async fn settle_crons(&self) -> Result<(), Refusal> {
        let triggers: HashMap<_, _> = self.crons().all().await?.into_iter().map(|(service, number)| (number.0, service)).collect();
        let known: HashSet<i64> = triggers.keys().copied().collect();
        let rows = self.write(move |conn| {
            let rows = store::resources::numbers(conn, Kind::Cron)?;
            for &number in rows.iter().filter(|number| !known.contains(number)) {
                tracing::warn!("the cron trigger cron_{number} was never made: its row is taken back");
                store::resources::delete(conn, Kind::Cron, number)?;
            }
            Ok(rows)
        });
        let rows: HashSet<i64> = rows.await?.into_iter().collect();
        for number in triggers.keys().filter(|number| !rows.contains(number)) {
            tracing::warn!("the cron trigger cron_{number} is unknown to the control database: it ticks for nobody");
        }
        Ok(())
    }

    /// Makes queues whose rows were committed before the host ended. Those without a row are kept as well: whoever starts with a control database that
    /// is too old, or with none, must not lose what lies in them.
    async fn settle_queues(&self) -> Result<(), Refusal> {
        let rows = self.read(|conn| Ok(store::resources::all_of(conn, Kind::Queue)?)).await?;
        let mut known: HashMap<i64, queue::Service> = self.queues().all().into_iter().map(|(service, queue)| (queue.0, service)).collect();
        for (service, row) in rows {
            if known.remove(&row.number).is_some() {
                continue;
            }
            match self.queues().create(queue::Service(service), queue::Queue(row.number), queue::PolicyChange::default()).await {
                Ok(_) => tracing::warn!("{} was not made: it is now, with the default settings unless a deploy says otherwise", row.id()),
                Err(queue::Error::Dropped) => {
                    tracing::warn!("{} has been deleted: so is its row", row.id());
                    self.write(move |conn| Ok(store::resources::delete(conn, Kind::Queue, row.number)?)).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        for number in known.keys() {
            tracing::warn!("queue_{number} is unknown to the control database: nobody reaches it");
        }
        Ok(())
    }

    /// Removes the data that nothing names any more and nobody is removing already. Says whether all of that is gone; what is not, because it takes long or
    /// cannot be removed now, is tried again, at the latest after the next start.
    ///
    /// What others are removing is not waited for: one account's work must not hold up another's.
    pub(crate) async fn remove_data(&self) -> bool {
        let found = match self.read(|conn| Ok(store::resources::removals(conn)?)).await {
            Ok(found) => found,
            Err(refusal) => {
                tracing::warn!("what is to be removed cannot be read: {refusal}");
                return false;
            }
        };
        let mine: Vec<Removal> = found.into_iter().filter(|removal| self.removing().insert(removal.clone())).collect();
        if mine.is_empty() {
            return true;
        }
        let control = self.clone();
        let removed = tokio::spawn(async move {
            let each = futures::stream::iter(mine).map(async |removal| {
                let gone = control.remove(&removal).await;
                control.removing().remove(&removal);
                gone
            });
            each.buffer_unordered(AT_A_TIME).all(async |gone| gone).await
        });
        self.clock().timeout(WAIT, removed).await.is_some_and(|removed| removed.unwrap_or(false))
    }

    /// Removes one, and its note once it is gone.
    async fn remove(&self, removal: &Removal) -> bool {
        let (kind, number) = (&removal.kind, removal.number);
        let work = async {
            match Kind::named(kind) {
                Some(Kind::Kv) => drop(self.kv().drop_namespace(kv::Namespace(number)).await?),
                Some(Kind::Sqlite) => drop(self.sqlite().delete(number.cast_unsigned()).await?),
                Some(Kind::Queue) => drop(self.queues().drop_queue(queue::Service(removal.service), queue::Queue(number)).await?),
                Some(Kind::Cron) => self.crons().drop_trigger(cron::Service(removal.service), cron::TriggerNumber(number)).await?,
                Some(Kind::State) => drop(self.state().drop_namespace(state::Namespace(number)).await?),
                None if kind == store::resources::OBJECTS => drop(self.objects().remove_service(number).await?),
                // Of a kind that a later version of the host knows.
                None => return Ok(()),
            }
            let removal = removal.clone();
            self.write(move |conn| Ok(store::resources::removed(conn, &removal)?)).await
        };
        let result: Result<(), Refusal> = work.await;
        result.inspect_err(|refusal| tracing::warn!("{kind} {number} was deleted and its data is still there: {refusal}")).is_ok()
    }
}
