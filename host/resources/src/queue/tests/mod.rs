//! What queues promise: what was answered is there and delivered, nothing beyond a limit comes in, and failing messages end where they should.
#![allow(clippy::unwrap_used)]

mod concurrent;
mod deliver;
mod killed;
mod limits;
mod measured;
mod model;
mod pulled;
mod settings;
mod space;

use std::path::Path;

use tempfile::TempDir;
use tovuk_kernel::clock::Clock;

use super::*;
use crate::database::rusqlite::Connection;

const SERVICE: Service = Service(3);
const JOBS: Queue = Queue(7);
const FAILED: Queue = Queue(8);

async fn open(folder: &TempDir, clock: &Clock) -> Queues {
    Queues::open(&folder.path().join("queue"), clock.clone()).await.unwrap()
}

/// A store with two queues of one service, the first of which is set like this, and its clock.
async fn fresh(change: PolicyChange) -> (TempDir, Clock, Queues) {
    let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable());
    let queues = open(&folder, &clock).await;
    queues.create(SERVICE, FAILED, PolicyChange::default()).await.unwrap();
    queues.create(SERVICE, JOBS, change).await.unwrap();
    (folder, clock, queues)
}

/// Settings with dead letters, and that many retries.
fn retries(max_retries: u32) -> PolicyChange {
    PolicyChange { max_retries: Some(max_retries), dead_letter_queue: Some(Some(FAILED)), ..PolicyChange::default() }
}

fn text(body: impl Into<String>) -> Send {
    Send { body: body.into().into(), ..Send::default() }
}

fn delayed(body: &str, seconds: u32) -> Send {
    Send { delay_seconds: Some(seconds), ..text(body) }
}

async fn send(queues: &Queues, bodies: &[&str]) -> Vec<MessageId> {
    queues.send(JOBS, bodies.iter().map(|body| text(*body)).collect()).await.unwrap().ids
}

/// Sends, and lets time pass where messages come too fast.
async fn send_patiently(queues: &Queues, queue: Queue, sends: Vec<Send>) -> Vec<MessageId> {
    loop {
        match queues.send(queue, sends.clone()).await {
            Err(Error::Rate { wait_ms }) => assert!(queues.store.clock.advance(Duration::from_millis(wait_ms))),
            sent => return sent.unwrap().ids,
        }
    }
}

async fn take(queues: &Queues, queue: Queue, messages: usize) -> Batch {
    queues.take(queue, Take { messages, bytes: usize::MAX }).await.unwrap()
}

fn bodies(batch: &Batch) -> Vec<String> {
    batch.messages().iter().map(Message::text).collect()
}

/// The bodies of the next batch, whose messages are then done.
async fn acked(queues: &Queues, queue: Queue, messages: usize) -> Vec<String> {
    let batch = take(queues, queue, messages).await;
    let found = bodies(&batch);
    batch.settle(Verdict::all(Rest::Ack)).await.unwrap();
    found
}

fn ids(batch: &Batch) -> Vec<MessageId> {
    batch.messages().iter().map(|message| message.id).collect()
}

/// Checks the files of a closed store: whether each counts what is in it. Returns how many messages there are.
fn counted(folder: &Path) -> i64 {
    let mut messages = 0;
    for file in std::fs::read_dir(folder.join("queue")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "db") {
            continue;
        }
        let connection = Connection::open(&path).unwrap();
        let one = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
        let wrong = "SELECT count(*) FROM queues WHERE dropped = 0 AND (messages <> (SELECT count(*) FROM messages WHERE queue = local)
            OR bytes <> (SELECT coalesce(sum(length(body)), 0) FROM messages WHERE queue = local))";
        assert_eq!(one(wrong), 0, "{}", path.display());
        let orphans = "SELECT count(*) FROM messages WHERE id >> 42 <> queue OR queue NOT IN (SELECT local FROM queues WHERE dropped = 0
            UNION SELECT local FROM dropping)";
        assert_eq!(one(orphans), 0, "{}", path.display());
        messages += one("SELECT count(*) FROM messages");
    }
    messages
}
