//! Alarms: setting them, and delivering those that are due. Whoever delivers waits for [`State::next_due`] and [`State::rung`], takes what is due and
//! reports how each delivery went; nothing is asked at intervals. An alarm that was taken and not reported is due again after the next start.

use std::sync::Arc;
use std::time::Duration;

use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::STATE_ALARM_UNIX_MS_MAX;

use super::view::View;
use super::{Answer, Error, Namespace, Schedule, State, Target, ringing};

/// An alarm that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmInfo {
    /// When it was scheduled for, in ms since the UNIX epoch.
    pub scheduled_at: UnixMs,
    /// When it is delivered next, in ms since the UNIX epoch.
    pub next_at: UnixMs,
    /// Deliveries of it that have failed.
    pub retry_count: u32,
}

/// An alarm that is to be delivered now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueAlarm {
    /// The namespace of its object.
    pub namespace: Namespace,
    /// The key of its object.
    pub object: Arc<str>,
    /// When it was scheduled for, in ms since the UNIX epoch.
    pub scheduled_at: UnixMs,
    /// Deliveries of it that have failed.
    pub retry_count: u32,
    /// Whether there were any.
    pub is_retry: bool,
    /// Tells it from others of the same object.
    pub(super) generation: i64,
}

/// How a delivery went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handler has done its work.
    Delivered,
    /// The handler has failed. That counts as an attempt.
    Failed,
    /// The host itself did not deliver it, which counts as none.
    Refused {
        /// When to try again, in ms since the UNIX epoch.
        retry_at: UnixMs,
    },
}

/// What becomes of an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is done.
    Done,
    /// It is delivered again.
    Retry {
        /// When, in ms since the UNIX epoch.
        at: UnixMs,
    },
    /// It has failed for the last time and was cleared.
    Cleared,
    /// It was set anew or removed meanwhile, or its object was deleted, which stands.
    Superseded,
}

impl State {
    /// Sets the alarm of an object, in place of one that is set. Returns when it is due, in ms since the UNIX epoch.
    pub async fn set_alarm(&self, target: &Target, schedule: Schedule) -> Result<Answer<UnixMs>, Error> {
        let due = self.due(schedule)?;
        self.call(target, move |view| {
            view.set_alarm(Some(due));
            Ok(due)
        })
        .await
    }

    /// The alarm of an object, if one is set that is not being delivered.
    pub async fn alarm(&self, target: &Target) -> Result<Answer<Option<AlarmInfo>>, Error> {
        self.call(target, View::alarm).await
    }

    /// Removes the alarm of an object. Returns whether one was set. One that is being delivered is not tried again.
    pub async fn delete_alarm(&self, target: &Target) -> Result<Answer<bool>, Error> {
        self.call(target, View::delete_alarm).await
    }

    /// When an alarm rings that is set now.
    pub(super) fn due(&self, schedule: Schedule) -> Result<UnixMs, Error> {
        let due = match schedule {
            Schedule::InSeconds(seconds) => self.0.shared.clock.now_unix_ms().saturating_add(u64::from(seconds) * 1_000),
            Schedule::At(at) => at,
        };
        if due <= STATE_ALARM_UNIX_MS_MAX { Ok(due) } else { Err(Error::AlarmTooLate) }
    }

    /// When the next alarm is due that is not being delivered, in ms since the UNIX epoch. It can be earlier than that, but not later.
    pub fn next_due(&self) -> Option<UnixMs> {
        self.0.shared.catalogue.next_due()
    }

    /// Returns once an alarm may be due earlier than [`State::next_due`] has said before. For one caller at a time.
    pub async fn rung(&self) {
        self.0.shared.catalogue.rung.notified().await;
    }

    /// Waits until an alarm is due, on the clock. For one caller at a time.
    pub async fn wait_due(&self) {
        let clock = &self.0.shared.clock;
        loop {
            let now = clock.now_unix_ms();
            match self.next_due() {
                Some(due) if due <= now => return,
                Some(due) => drop(clock.timeout(Duration::from_millis(due - now), self.rung()).await),
                None => self.rung().await,
            }
        }
    }

    /// Takes alarms that are due, at most so many, of each shard the longest overdue first. A shard that fails keeps its own, and is an error when no other
    /// has any: so whoever asks again after an error waits a little before. Each is to be reported with [`State::settle`]; until then no other alarm of its object is taken.
    pub async fn take_due(&self, alarms_max: usize) -> Result<Vec<DueAlarm>, Error> {
        let now = self.0.shared.clock.now_unix_ms();
        let (mut taken, mut failed) = (Vec::new(), None);
        for shard in self.0.shared.catalogue.all_in_turn() {
            while taken.len() < alarms_max && shard.due.at().is_some_and(|due| due <= now) {
                let (due, wanted) = (shard.due.clone(), alarms_max - taken.len());
                let found = shard.database.write(move |tx| {
                    let found = ringing::take(tx, now, wanted)?;
                    due.update(tx)?;
                    Ok::<_, Error>(found)
                });
                match found.await {
                    // What is nobody's rings when it is somebody's again, which is after another start.
                    Ok(found) => taken.extend(found.into_iter().filter(|alarm| !self.0.shared.ledger.is_orphan(alarm.namespace))),
                    Err(error) => {
                        shard.due.unknown();
                        // Those of other shards ring nevertheless.
                        tracing::warn!(%error, "alarms that are due could not be taken from a file of the catalogue of State");
                        failed = Some(error);
                        break;
                    }
                }
            }
        }
        failed.filter(|_| taken.is_empty()).map_or(Ok(taken), Err)
    }

    /// Whether an alarm that was taken is still to be delivered: it was neither set anew nor removed meanwhile.
    pub async fn stands(&self, alarm: &DueAlarm) -> Result<bool, Error> {
        let Some(shard) = self.0.shared.catalogue.existing(alarm.namespace) else { return Ok(false) };
        let alarm = alarm.clone();
        shard.database.read(move |connection| ringing::stands(connection, &alarm)).await
    }

    /// Reports how the delivery of an alarm went, and says what becomes of it. After an error it can be reported again.
    pub async fn settle(&self, alarm: &DueAlarm, outcome: Outcome) -> Result<Settled, Error> {
        let (alarm, now) = (alarm.clone(), self.0.shared.clock.now_unix_ms());
        let namespace = alarm.namespace;
        let settled = self.0.shared.catalogue.write(namespace, move |tx, shard| {
            let settled = ringing::settle(tx, &alarm, outcome, now)?;
            shard.due.update(tx)?;
            Ok(settled)
        });
        let settled = settled.await;
        if settled.is_err()
            && let Some(shard) = self.0.shared.catalogue.existing(namespace)
        {
            shard.due.unknown();
        }
        settled
    }
}
