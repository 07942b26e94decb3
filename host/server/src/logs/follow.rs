//! Following a log: lines as they are written. Whoever follows reads the store like everybody else and is woken when it has been written to, so a slow
//! client holds up nobody and loses nothing that is still kept.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::limits::{LOG_FOLLOWERS_ACCOUNT_MAX, LOG_FOLLOWERS_MAX, PAGE_MAX};
use tovuk_resources::shares::Shares;

use super::page::{self, Entry, From, Query, Range, Subject};
use super::{Error, Logs};

/// Lines from before that are shown first, when nothing is said.
const LINES_BEFORE: u32 = 10;

/// Who follows which service.
pub(super) struct Followers {
    by_service: DashMap<ServiceId, watch::Sender<()>>,
    all: Arc<Semaphore>,
    accounts: Shares,
}

impl Followers {
    pub fn new() -> Self {
        Self { by_service: DashMap::new(), all: Arc::new(Semaphore::new(LOG_FOLLOWERS_MAX)), accounts: Shares::new(LOG_FOLLOWERS_ACCOUNT_MAX) }
    }

    /// Lines of these services were written, or will be no more.
    pub fn wake<'a>(&self, services: impl Iterator<Item = &'a ServiceId>) {
        if self.by_service.is_empty() {
            return;
        }
        for service in services {
            if let Some(follower) = self.by_service.get(service) {
                follower.send_replace(());
            }
        }
    }

    pub fn count(&self) -> usize {
        LOG_FOLLOWERS_MAX.saturating_sub(self.all.available_permits())
    }

    fn subscribe(&self, service: &ServiceId) -> watch::Receiver<()> {
        self.by_service.entry(service.clone()).or_default().subscribe()
    }
}

/// A log that somebody follows.
pub struct Following {
    logs: Logs,
    subject: Subject,
    range: Range,
    /// What was there before, until it is read.
    before: Option<Range>,
    changed: Option<watch::Receiver<()>>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Following {
    /// Follows for this account. A `limit` says how many lines from before come first, 0 being none; a cursor, after which line to begin.
    pub(super) fn new(logs: &Logs, account: i64, subject: Subject, query: &Query) -> Result<Self, Error> {
        let followers = &logs.0.store.followers;
        let permit = |semaphore: Arc<Semaphore>| semaphore.try_acquire_owned().map_err(|_| Error::TooManyFollowers);
        let permits = [permit(followers.accounts.of(account))?, permit(followers.all.clone())?];
        let lines_before = query.limit.unwrap_or(LINES_BEFORE);
        let wanted = Query { limit: Some(lines_before.max(1)), ..query.clone() };
        let before = wanted.range()?;
        if let (From::Before(_), Some(cursor)) = (&before.from, &query.cursor) {
            return Err(Error::Backwards(cursor.clone()));
        }
        let mut range = Range { lines_max: PAGE_MAX, ..before };
        let before = match before.from {
            From::After(_) => None,
            From::Before(_) => {
                range.from = From::After(0);
                Some(Range { lines_max: lines_before, ..before })
            }
        };
        let changed = Some(followers.subscribe(subject.service()));
        Ok(Self { logs: logs.clone(), subject, range, before, changed, _permits: permits })
    }

    /// The lines that are there now, at least those from before; `None` when the service has been deleted.
    pub async fn now(&mut self) -> Result<Option<Vec<Entry>>, Error> {
        Ok(self.read().await?.map(|(lines, _)| lines))
    }

    /// The next lines, once there are some; `None` when the service has been deleted. Dropping the future loses none.
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>, Error> {
        loop {
            if let Some(changed) = &mut self.changed {
                changed.mark_unchanged();
            }
            let Some((lines, has_more)) = self.read().await? else { return Ok(None) };
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
            if !has_more && let Some(changed) = &mut self.changed {
                // The sender lives in the store, which this handle keeps.
                let _ = changed.changed().await;
            }
        }
    }

    /// What is there, and whether there is more.
    async fn read(&mut self) -> Result<Option<(Vec<Entry>, bool)>, Error> {
        if self.logs.0.sink.is_deleted(self.subject.service()) {
            return Ok(None);
        }
        // At least one line is looked at, to know where new ones begin.
        let range = self.before.map_or(self.range, |before| Range { lines_max: before.lines_max.max(1), ..before });
        let subject = self.subject.clone();
        let found = self.logs.0.store.database.read(move |connection| page::read(connection, &subject, range)).await?;
        let before = self.before.take();
        self.range.from = From::After(found.newest);
        let lines = if before.is_some_and(|before| before.lines_max == 0) { Vec::new() } else { found.lines };
        let told = |(id, line): (i64, Entry)| Entry { cursor: Some(page::after(id)), ..line };
        Ok(Some((lines.into_iter().map(told).collect(), before.is_none() && found.has_more)))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.changed.take());
        self.logs.0.store.followers.by_service.remove_if(self.subject.service(), |_, sender| sender.receiver_count() == 0);
    }
}
