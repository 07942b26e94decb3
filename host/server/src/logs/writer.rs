//! The task between the queue and the database: collects lines for a moment, writes them together, and says what was lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot};
use tovuk_kernel::ids::AccountId;

use super::Store;
use super::charge;
use super::line::{Line, Stream};
use super::sink::{Message, ServiceState, Waiting, queued_bytes};
use super::store::Row;

/// Lines of one transaction. More would hold up readers of what is acknowledged, and deletions.
const BATCH_LINES_MAX: usize = 2_048;
/// Bytes of one transaction.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What is written next.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    bytes: usize,
    /// Who has lost lines.
    dropped: Vec<(Arc<ServiceState>, AccountId)>,
    /// Who waits for this.
    waiters: Vec<oneshot::Sender<()>>,
    close: bool,
}

impl Batch {
    fn take(&mut self, message: Message) {
        match message {
            Message::Line(row) => {
                self.bytes += queued_bytes(&row);
                self.rows.push(row);
            }
            Message::Dropped(state, account) => self.dropped.push((state, account)),
            Message::Flush(waiter) => self.waiters.push(waiter),
            Message::Close(waiter) => {
                self.waiters.push(waiter);
                self.close = true;
            }
        }
    }

    fn is_due(&self) -> bool {
        self.rows.len() >= BATCH_LINES_MAX || self.bytes >= BATCH_BYTES_MAX || !self.waiters.is_empty()
    }
}

/// Writes until it is told to close or the last sink is gone.
pub(super) async fn run(store: Store, mut queue: mpsc::UnboundedReceiver<Message>, waiting: Arc<Waiting>) {
    // Services whose losses could not be written either.
    let mut owed = Vec::new();
    while let Some(first) = queue.recv().await {
        let mut batch = Batch { dropped: std::mem::take(&mut owed), ..Batch::default() };
        batch.take(first);
        collect(&store, &mut queue, &mut batch).await;
        let close = batch.close;
        owed = write(&store, batch, &waiting).await;
        if close {
            return;
        }
    }
}

/// Takes what comes within a moment, until it is enough.
async fn collect(store: &Store, queue: &mut mpsc::UnboundedReceiver<Message>, batch: &mut Batch) {
    let moment = store.clock.sleep(store.config.batch_wait);
    tokio::pin!(moment);
    while !batch.is_due() {
        tokio::select! {
            biased;
            message = queue.recv() => match message {
                Some(message) => batch.take(message),
                None => return,
            },
            () = &mut moment => return,
        }
    }
}

/// Writes a batch. Returns whose losses are still to be told.
async fn write(store: &Store, batch: Batch, waiting: &Waiting) -> Vec<(Arc<ServiceState>, AccountId)> {
    let room: Vec<_> = batch.rows.iter().map(|row| (row.state.clone(), row.line.account.clone(), queued_bytes(row))).collect();
    let losses: Vec<_> = batch.dropped.into_iter().map(|(state, account)| (state.dropped.swap(0, Ordering::Relaxed), state, account)).collect();
    let (mut rows, charged) = charge::charge(store.meters.get(), batch.rows).await.split();
    rows.extend(losses.iter().filter(|(lost, ..)| *lost > 0).map(|(lost, state, account)| notice(store, *lost, state, account)));
    let written = if rows.is_empty() { Ok(()) } else { store.insert(rows).await };
    for (state, _, bytes) in &room {
        state.waiting.give_back(*bytes);
        waiting.give_back(*bytes);
    }
    let mut owed = Vec::new();
    if written.is_ok() {
        charged.settle();
    }
    if let Err(error) = written {
        let failures = store.failures.fetch_add(1, Ordering::Relaxed) + 1;
        // A full disk fails every batch. Its beginning and powers of two tell enough.
        if failures.is_power_of_two() {
            tracing::error!(%error, failures, "lines of workers' logs could not be written and are dropped");
        }
        let lines = room.into_iter().map(|(state, account, _)| (1, state, account));
        for (lost, state, account) in losses.into_iter().chain(lines) {
            // If there are losses already, whoever counted the first of them has sent word of it, or is in this list.
            if lost > 0 && state.dropped.fetch_add(lost, Ordering::Relaxed) == 0 {
                owed.push((state, account));
            }
        }
    }
    for waiter in batch.waiters {
        let _ = waiter.send(());
    }
    owed
}

/// The line that says how many were lost.
fn notice(store: &Store, lost: u64, state: &Arc<ServiceState>, account: &AccountId) -> Row {
    let lines = if lost == 1 { "1 line was" } else { &format!("{lost} lines were") };
    let message = format!("{lines} dropped: more came than could be written");
    let line = Line::new(state.service.clone(), account.clone(), Stream::System, message);
    Row { line, at_ms: store.clock.now_unix_ms(), state: state.clone() }
}
