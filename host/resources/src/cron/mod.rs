//! Cron: triggers that tick at times that an expression names. Doors (delivery to workers, the API, the command line) call the operations of [`Crons`].
//!
//! - **A tick is a row.** It is known by its trigger and time, so it is made once, and one that has succeeded is not delivered again. What was
//!   being delivered when the process died is delivered again.
//! - **Missed times make one tick.** After downtime a trigger ticks once, for the last of the times that it has missed.
//! - **Nobody polls.** Triggers lie in the order of their next times. [`Crons::next_due`] says when to ask, and [`Crons::changed`] when that may have changed.
//! - **A clock that was ahead does no harm for long.** Where it has gone back, also while the host was down, times that are further away than they can be are
//!   computed anew.
//! - **Failed ticks are tried again** after 1, 2 and 4 minutes. What the host itself refuses does not count ([`Tick::hold`], or dropping it); of ticks that
//!   no worker has seen and that wait because they were refused, the last one stays.

mod error;
mod expression;
mod rows;
mod types;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tovuk_kernel::clock::{Clock, UnixMs};
use tovuk_kernel::limits::{CRON_NEXT_SHOWN, CRON_RUNS_KEPT};

pub use error::Error;
pub use expression::Expression;
pub use types::{Outcome, Run, Service, Trigger, TriggerNumber};

use crate::database::{self, Database};
use rows::{Due, End};

/// Marks the file.
const APPLICATION_ID: [u8; 4] = *b"tvcr";

/// The open store. Clones share it.
#[derive(Clone)]
pub struct Crons(Arc<Store>);

struct Store {
    database: Database,
    clock: Clock,
    /// Told when something may be due sooner than before.
    changed: Notify,
    /// Ticks that came back undelivered.
    released: Mutex<Vec<i64>>,
    /// The latest time at which ticks were taken. Where it is later than now, the clock has been set back.
    latest_ms: AtomicU64,
}

/// A tick that is being delivered. When it is dropped, nothing has happened: it is delivered again, and this has not counted.
pub struct Tick {
    store: Arc<Store>,
    due: Due,
    started_ms: UnixMs,
    ended: bool,
}

impl Crons {
    /// Opens the store's file, which is created if need be. What was being delivered when it was last open is due again.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn open(path: &Path, clock: Clock) -> Result<Self, Error> {
        Self::open_with(path, clock, None).await
    }

    /// The same with a moment at which the store dies, for tests.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn open_with(path: &Path, clock: Clock, fuse: Option<database::Fuse>) -> Result<Self, Error> {
        let (path, options) = (path.to_owned(), database::Options { fuse, ..database::Options::new(APPLICATION_ID) });
        let opening = tovuk_kernel::threads::spawn_blocking(move || Database::open(&path, rows::MIGRATIONS, options));
        // Opening does not panic; what is left is a runtime that is shutting down.
        let database = opening.await.unwrap_or(Err(database::Error::Closed))?;
        let now = clock.now_unix_ms();
        let recover = move |tx: &database::rusqlite::Transaction<'_>| {
            rows::recover(tx, now)?;
            rows::set_back(tx, now)
        };
        database.write(recover).await?;
        let latest_ms = AtomicU64::new(now);
        Ok(Self(Arc::new(Store { database, clock, changed: Notify::new(), released: Mutex::default(), latest_ms })))
    }

    /// Writes what is queued and closes the file. Whoever comes later gets an error.
    ///
    /// # Errors
    /// When the file could not be brought up to date; then nothing is lost, and the next start does it.
    pub async fn close(&self) -> Result<(), Error> {
        Ok(self.0.database.close().await?)
    }

    /// Makes a trigger of a service. If it is there already, its expression is changed, so whoever does not know whether an earlier call has come through may
    /// repeat it.
    ///
    /// # Errors
    /// When the expression will not do, or the trigger was dropped.
    pub async fn create(&self, service: Service, number: TriggerNumber, name: &str, expression: &str) -> Result<Trigger, Error> {
        let expression = Expression::parse(expression)?;
        let (name, clock) = (name.to_owned(), self.0.clock.clone());
        self.change(move |tx| {
            let found = rows::find(tx, number)?;
            if found.as_ref().is_some_and(|trigger| trigger.service != service) {
                return Err(Error::Dropped);
            }
            let made = Trigger { number, service, name, expression: String::new(), enabled: true, next_ms: None };
            Ok(scheduled(found.unwrap_or(made), &expression, clock.now_unix_ms()))
        })
        .await
    }

    /// Changes when a trigger ticks. Ticks that wait to be tried again still are.
    ///
    /// # Errors
    /// When the expression will not do, or there is no such trigger.
    pub async fn update(&self, number: TriggerNumber, expression: &str) -> Result<Trigger, Error> {
        let (expression, clock) = (Expression::parse(expression)?, self.0.clock.clone());
        self.change(move |tx| Ok(scheduled(rows::get(tx, number)?, &expression, clock.now_unix_ms()))).await
    }

    /// Enables or disables a trigger. Ticks of a disabled one that wait are canceled; when it is enabled again, what it has missed is not made up for.
    ///
    /// # Errors
    /// When there is no such trigger.
    pub async fn enable(&self, number: TriggerNumber, enabled: bool) -> Result<Trigger, Error> {
        let clock = self.0.clock.clone();
        self.change(move |tx| {
            let (trigger, now) = (rows::get(tx, number)?, clock.now_unix_ms());
            if trigger.enabled == enabled {
                return Ok(trigger);
            }
            if !enabled {
                rows::cancel(tx, number, now)?;
            }
            let expression = Expression::parse(&trigger.expression)?;
            Ok(scheduled(Trigger { enabled, ..trigger }, &expression, now))
        })
        .await
    }

    /// Drops a trigger with its history. Afterwards every operation on it fails with [`Error::Dropped`], but for this one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn drop_trigger(&self, service: Service, number: TriggerNumber) -> Result<(), Error> {
        self.0.database.write(move |tx| rows::drop_trigger(tx, service, number)).await
    }

    /// Makes a trigger tick once, now, also if it is disabled. Returns the id of the run.
    ///
    /// # Errors
    /// When 100 ticks of the trigger wait or run already, or there is no such trigger.
    pub async fn run_now(&self, number: TriggerNumber) -> Result<i64, Error> {
        let store = self.0.clone();
        let work = self.0.database.write(move |tx| {
            let trigger = rows::get(tx, number)?;
            let id = rows::run_now(tx, trigger.number, store.clock.now_unix_ms())?;
            Ok::<_, Error>((id, Changed(store)))
        });
        Ok(work.await?.0)
    }

    /// Makes what the host itself has refused due at once: what it was refused for may be over.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn retry_held(&self) -> Result<(), Error> {
        let store = self.0.clone();
        let work = self.0.database.write(move |tx| Ok::<_, Error>((rows::retry_held(tx, store.clock.now_unix_ms())?, Changed(store))));
        work.await.map(drop)
    }

    /// All triggers, and whose they are.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn all(&self) -> Result<Vec<(Service, TriggerNumber)>, Error> {
        self.0.database.read(rows::all).await
    }

    /// The highest number that a trigger has ever had; 0 if there was none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn highest(&self) -> Result<i64, Error> {
        self.0.database.read(rows::highest).await
    }

    /// The highest number of a service that has ever had a trigger, dropped ones included; 0 if there was none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn highest_service(&self) -> Result<i64, Error> {
        self.0.database.read(rows::highest_service).await
    }

    /// A trigger.
    ///
    /// # Errors
    /// When there is no such trigger.
    pub async fn get(&self, number: TriggerNumber) -> Result<Trigger, Error> {
        self.0.database.read(move |connection| rows::get(connection, number)).await
    }

    /// Those of these triggers that there are.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn several(&self, numbers: Vec<TriggerNumber>) -> Result<HashMap<TriggerNumber, Trigger>, Error> {
        self.0.database.read(move |connection| rows::several(connection, &numbers)).await
    }

    /// The triggers of a service.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, service: Service) -> Result<Vec<Trigger>, Error> {
        self.0.database.read(move |connection| rows::of_service(connection, service)).await
    }

    /// The next five times of a trigger, as if it were enabled.
    ///
    /// # Errors
    /// When there is no such trigger.
    pub async fn next_times(&self, number: TriggerNumber) -> Result<Vec<UnixMs>, Error> {
        let expression = Expression::parse(&self.get(number).await?.expression)?;
        Ok(expression.times_after(self.0.clock.now_unix_ms(), CRON_NEXT_SHOWN))
    }

    /// The latest 100 runs of a trigger, newest first.
    ///
    /// # Errors
    /// When there is no such trigger.
    pub async fn history(&self, number: TriggerNumber) -> Result<Vec<Run>, Error> {
        let most = usize::try_from(CRON_RUNS_KEPT).unwrap_or(usize::MAX);
        self.0.database.read(move |connection| rows::history(connection, number, most)).await
    }

    /// Takes ticks that are due, at most so many: what came back, then what was made or failed before, then what the clock has made. Whoever gets as many as they
    /// asked for should ask again.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn due(&self, most: usize) -> Result<Vec<Tick>, Error> {
        let store = self.0.clone();
        // A task of its own, so that what was taken comes back when the caller has gone.
        tokio::spawn(async move { store.take(most).await }).await.unwrap_or(Err(Error::Database(database::Error::Closed)))
    }

    /// When something is due next; that can have passed. None if there is nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next_due(&self) -> Result<Option<UnixMs>, Error> {
        let next = self.0.database.read(rows::next).await?;
        let came_back = !self.0.released.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        Ok(if came_back { Some(0) } else { next })
    }

    /// Waits until something may be due sooner than [`Crons::next_due`] has said. What happened since the last call counts. For one waiter.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Writes what a job makes of a trigger.
    async fn change<F>(&self, job: F) -> Result<Trigger, Error>
    where
        F: FnOnce(&database::rusqlite::Transaction<'_>) -> Result<Trigger, Error> + Send + 'static,
    {
        let store = self.0.clone();
        let work = self.0.database.write(move |tx| {
            let trigger = job(tx)?;
            rows::put(tx, &trigger)?;
            Ok::<_, Error>((trigger, Changed(store)))
        });
        Ok(work.await?.0)
    }
}

/// The trigger with an expression, and its next time from now on. One that has the expression already keeps its next time, which may have come.
fn scheduled(trigger: Trigger, expression: &Expression, now: UnixMs) -> Trigger {
    if trigger.enabled && trigger.next_ms.is_some() && trigger.expression == expression.as_str() {
        return trigger;
    }
    let next_ms = if trigger.enabled { expression.next_after(now) } else { None };
    Trigger { expression: expression.as_str().to_owned(), next_ms, ..trigger }
}

/// Something was written. It is dropped when that is committed, whether or not somebody waits for it.
struct Changed(Arc<Store>);

impl Drop for Changed {
    fn drop(&mut self) {
        self.0.changed.notify_one();
    }
}

impl Store {
    fn release(&self, ids: impl IntoIterator<Item = i64>) {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
        self.changed.notify_one();
    }

    async fn take(self: Arc<Self>, most: usize) -> Result<Vec<Tick>, Error> {
        let released: Vec<i64> = {
            let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = released.len().saturating_sub(most);
            released.split_off(kept)
        };
        let (store, again) = (self.clone(), released.clone());
        let work = self.database.write(move |tx| {
            let now = store.clock.now_unix_ms();
            if store.latest_ms.swap(now, Ordering::Relaxed) > now {
                rows::set_back(tx, now)?;
            }
            let mut due = rows::taken(tx, &again)?;
            let room = most.saturating_sub(due.len());
            due.extend(rows::take(tx, now, room)?);
            let room = most.saturating_sub(due.len());
            if room > 0 && rows::tick(tx, now, room)? > 0 {
                due.extend(rows::take(tx, now, room)?);
            }
            Ok::<_, Error>((due, now))
        });
        match work.await {
            Ok((due, started_ms)) => Ok(due.into_iter().map(|due| Tick { store: self.clone(), due, started_ms, ended: false }).collect()),
            Err(error) => {
                self.release(released);
                Err(error)
            }
        }
    }
}

impl Tick {
    /// The trigger, as it was when this was taken.
    pub fn trigger(&self) -> &Trigger {
        &self.due.trigger
    }

    /// The id of the run, as in the history.
    pub fn run(&self) -> i64 {
        self.due.id
    }

    /// The time that the expression names, or at which somebody has asked for this.
    pub fn scheduled_ms(&self) -> UnixMs {
        self.due.scheduled_ms
    }

    /// Whether somebody has asked for this.
    pub fn is_manual(&self) -> bool {
        self.due.manual
    }

    /// Which delivery this is, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.due.attempts.saturating_add(1)
    }

    /// Whether it may still be delivered: its trigger has been neither dropped nor disabled since, but for a tick that somebody has asked for, which comes
    /// also when it is disabled. One that may not is canceled by [`Tick::hold`].
    ///
    /// # Errors
    /// When the store fails.
    pub async fn is_wanted(&self) -> Result<bool, Error> {
        let (id, number) = (self.due.id, self.due.trigger.number);
        self.store.database.read(move |connection| rows::is_wanted(connection, id, number)).await
    }

    /// It has succeeded and is not delivered again. `detail` is for the history.
    ///
    /// # Errors
    /// When the store fails; then it is delivered again.
    pub async fn succeeded(self, detail: Option<String>) -> Result<(), Error> {
        self.end(detail, |tx, due, end| rows::succeed(tx, due.0, due.1, end)).await
    }

    /// It has failed. Returns when it is delivered again; none if this was the last time.
    ///
    /// # Errors
    /// When the store fails; then it is delivered again.
    pub async fn failed(self, detail: Option<String>) -> Result<Option<UnixMs>, Error> {
        self.end(detail, |tx, due, end| rows::fail(tx, due.0, due.1, end)).await
    }

    /// The host itself has refused it: it is delivered again after 1 s, twice as long each time up to a minute, or after [`Crons::retry_held`], and this has
    /// not counted. Returns when. None if it is not delivered again, because its trigger was disabled meanwhile or a later tick that was refused has taken
    /// its place.
    ///
    /// # Errors
    /// When the store fails; then it is delivered again at once.
    pub async fn hold(self, detail: Option<String>) -> Result<Option<UnixMs>, Error> {
        self.end(detail, |tx, due, end| rows::hold(tx, due.0, due.1, end)).await
    }

    async fn end<T, F>(self, detail: Option<String>, job: F) -> Result<T, Error>
    where
        F: FnOnce(&database::rusqlite::Transaction<'_>, (i64, TriggerNumber), &End) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        // A task of its own, so that the tick is not delivered again because the caller has gone.
        let work = tokio::spawn(async move {
            let mut tick = self;
            let (store, due, started_ms) = (tick.store.clone(), (tick.due.id, tick.due.trigger.number), tick.started_ms);
            let write = tick.store.database.write(move |tx| {
                let end = End { started_ms, now: store.clock.now_unix_ms(), detail };
                Ok::<_, Error>((job(tx, due, &end)?, Changed(store)))
            });
            let result = write.await;
            tick.ended = result.is_ok();
            Ok(result?.0)
        });
        work.await.unwrap_or(Err(Error::Database(database::Error::Closed)))
    }
}

impl Drop for Tick {
    fn drop(&mut self) {
        if !self.ended {
            self.store.release([self.due.id]);
        }
    }
}
