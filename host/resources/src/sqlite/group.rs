//! Queries that write: those that wait are committed as one group, so that they share the cost of one sync, and answered after it. Each but the first
//! runs in a savepoint. When one of them makes SQLite undo the whole transaction, the others are run again, each by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;
use tokio::sync::oneshot;

use super::billing::{self, Payer};
use super::charges::Charges;
use super::error::{Error, poisons};
use super::hold::Gone;
use super::link::Link;
use super::raw;
use super::run::{Run, first_word};
use super::slot::Slot;
use super::types::{Allowance, Answer, Counts, Outcome, Statement};
use super::watchdog::Watchdog;

/// Queries of one commit.
const GROUP_MAX: usize = 64;
/// How long a group takes in further queries.
const GROUP_TIME: Duration = Duration::from_millis(10);

/// A query or batch that writes, and who waits for it.
pub(super) struct Job {
    pub statements: Vec<Statement>,
    pub allowance: Allowance,
    pub answer: oneshot::Sender<Result<Outcome, Error>>,
    /// Stops it when nobody waits any more.
    pub gone: Gone,
    /// Who pays for its part of the work.
    pub payer: Option<Arc<dyn Payer>>,
    /// What it is charged.
    pub charges: Charges,
    /// What it has used.
    pub counts: Counts,
}

/// Writes a group of what waits, with a connection that is in no transaction.
pub(super) fn write(slot: &Slot, link: &mut Link, watchdog: &Watchdog) {
    let Some(first) = next(slot) else { return };
    let group = Group { slot, link, watchdog, done: Vec::new() };
    for job in group.run(first, true) {
        let alone = Group { slot, link, watchdog, done: Vec::new() };
        // It is the only one, so there is nothing to run again.
        alone.run(job, false);
    }
    if let Err(error) = link.tidy() {
        if poisons(&error) {
            slot.poison();
        }
        tracing::warn!(%error, "the write-ahead log of a tenant's database could not be copied");
    }
}

/// Answers all that wait with an error.
pub(super) fn refuse(slot: &Slot, error: &Error) {
    let jobs = std::mem::take(&mut *slot.queue());
    for job in jobs {
        answer(job, Err(error.clone()));
    }
}

/// The next query whose caller is still there.
fn next(slot: &Slot) -> Option<Job> {
    let mut queue = slot.queue();
    loop {
        let job = queue.pop_front()?;
        if !job.answer.is_closed() {
            return Some(job);
        }
    }
}

fn answer(job: Job, result: Result<Outcome, Error>) {
    match &result {
        Ok(_) => job.charges.committed(&job.counts),
        Err(_) => job.charges.undone(&job.counts),
    }
    // The caller may have gone; what was committed stays.
    let _ = job.answer.send(result);
}

/// Whether a statement leaves a mark on the transaction that the next query of the group would feel.
fn marks(job: &Job) -> bool {
    job.statements.iter().any(|statement| first_word(&statement.sql).eq_ignore_ascii_case("pragma"))
}

struct Group<'a> {
    slot: &'a Slot,
    link: &'a mut Link,
    watchdog: &'a Watchdog,
    done: Vec<(Job, Outcome)>,
}

impl Group<'_> {
    /// Runs the job, and what waits behind it if `more`; returns those that have to run again.
    fn run(mut self, first: Job, more: bool) -> Vec<Job> {
        let started = Instant::now();
        let mut next_job = Some(first);
        while let Some(job) = next_job.take() {
            if let Err(again) = self.one(job) {
                return again;
            }
            let last = self.done.last().is_some_and(|(job, _)| marks(job));
            if more && !last && self.done.len() < GROUP_MAX && started.elapsed() < GROUP_TIME {
                next_job = next(self.slot);
            }
        }
        self.commit()
    }

    /// Runs one job. Fails when that ended the transaction, with those whose changes are gone with it.
    fn one(&mut self, mut job: Job) -> Result<(), Vec<Job>> {
        let alone = self.done.is_empty();
        let began = self.slot.bound(self.link, &job.allowance).and_then(|()| self.begin(alone));
        if let Err(error) = began {
            answer(job, Err(error.into()));
            return if self.link.connection().is_autocommit() { Err(self.again()) } else { Ok(()) };
        }
        job.gone.watch(&self.link.monitor);
        let payer = job.payer.clone();
        let result = billing::paid(payer.as_ref(), || self.work(&mut job));
        job.gone.end();
        self.link.monitor.end();
        if self.link.connection().is_autocommit() {
            // SQLite has undone everything, which it does after some errors only.
            let error = result.err().unwrap_or_else(|| Error::query("the transaction was undone"));
            answer(job, Err(error));
            return Err(self.again());
        }
        match result {
            Ok(outcome) => {
                let released = if alone { Ok(()) } else { self.link.run("RELEASE job") };
                match released {
                    Ok(()) => self.done.push((job, outcome)),
                    Err(error) => {
                        answer(job, Err(error.into()));
                        return Err(self.undo());
                    }
                }
            }
            Err(error) => {
                let undone =
                    if alone { self.link.run("ROLLBACK") } else { self.link.run("ROLLBACK TO job").and_then(|()| self.link.run("RELEASE job")) };
                answer(job, Err(error));
                if undone.is_err() {
                    return Err(self.undo());
                }
            }
        }
        Ok(())
    }

    fn begin(&self, alone: bool) -> rusqlite::Result<()> {
        if !alone {
            return self.link.run("SAVEPOINT job");
        }
        if self.link.connection().is_autocommit() { self.link.run("BEGIN IMMEDIATE") } else { Ok(()) }
    }

    fn work(&mut self, job: &mut Job) -> Result<Outcome, Error> {
        let mut run = Run::begin(self.link, job.allowance, self.watchdog, None);
        let results = self.answers(&mut run, &job.statements);
        job.counts = run.counts;
        let results = results?;
        self.link.monitor.end();
        // Left to the commit, it would fail the others of the group too.
        if raw::deferred_constraints(self.link.connection()) {
            return Err(Error::Constraint("FOREIGN KEY constraint failed".into()));
        }
        job.charges.cover(&run.counts)?;
        let storage_bytes = self.slot.count(self.link)?;
        Ok(Outcome { results, counts: run.counts, storage_bytes, duration_ms: run.duration_ms(), next_actions: run.advice })
    }

    fn answers(&mut self, run: &mut Run, statements: &[Statement]) -> Result<Vec<Answer>, Error> {
        let mut results = Vec::with_capacity(statements.len());
        for statement in statements {
            let answer = run.statement(self.link, statement).map_err(|error| locate(error, results.len(), statements.len()))?;
            results.push(answer);
        }
        Ok(results)
    }

    /// Commits and answers.
    fn commit(mut self) -> Vec<Job> {
        self.link.monitor.end();
        if self.link.connection().is_autocommit() {
            return Vec::new();
        }
        let Err(error) = self.link.run("COMMIT") else {
            for (job, outcome) in self.done {
                answer(job, Ok(outcome));
            }
            return Vec::new();
        };
        if poisons(&error) {
            self.slot.poison();
        }
        let full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
        let several = self.done.len() > 1;
        let again = self.undo();
        if several && !full {
            return again;
        }
        let error = Error::from(error);
        for job in again {
            answer(job, Err(error.clone()));
        }
        Vec::new()
    }

    /// Rolls everything back.
    fn undo(&mut self) -> Vec<Job> {
        self.link.settle();
        self.again()
    }

    fn again(&mut self) -> Vec<Job> {
        self.link.monitor.end();
        std::mem::take(&mut self.done).into_iter().map(|(job, _)| job).collect()
    }
}

/// Says which statement of a batch an error is about.
pub(super) fn locate(error: Error, index: usize, of: usize) -> Error {
    if of < 2 {
        return error;
    }
    let number = index + 1;
    match error {
        Error::Query(text) => Error::query(format!("statement {number}: {text}")),
        Error::Constraint(text) => Error::Constraint(format!("statement {number}: {text}").into()),
        Error::Forbidden(text) => Error::forbidden(format!("statement {number}: {text}")),
        other => other,
    }
}
