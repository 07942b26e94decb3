//! Random operations, side by side with a plain list: nothing is lost, nothing comes too early or twice, failing messages end where they should, also after
//! time has passed, after a sweep and after a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const QUEUES: [Queue; 3] = [JOBS, FAILED, Queue(23)];
const RETENTION: u32 = 600;
/// How much later than the model an operation may look at the clock, in ms.
const TOLERANCE: i64 = 5_000;

#[derive(Clone, Debug)]
enum Step {
    Send {
        delays: Vec<Option<u32>>,
    },
    Take {
        messages: usize,
    },
    /// The oldest batch that is held: which of its messages are done, which fail, and what becomes of the rest.
    Settle {
        verdicts: Vec<u8>,
        delay: u32,
        rest: u8,
    },
    Release,
    Retries(u32),
    DeadLetters(bool),
    Advance {
        ms: u64,
    },
    Sweep,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let delay = prop_oneof![3 => Just(None), 1 => Just(Some(0)), 2 => (1..60_u32).prop_map(Some)];
    prop_oneof![
        6 => prop::collection::vec(delay, 1..6).prop_map(|delays| Step::Send { delays }),
        8 => (1..8_usize).prop_map(|messages| Step::Take { messages }),
        8 => (prop::collection::vec(0..3_u8, 8), 0..20_u32, 0..3_u8).prop_map(|(verdicts, delay, rest)| Step::Settle { verdicts, delay, rest }),
        2 => Just(Step::Release),
        1 => (0..3_u32).prop_map(Step::Retries),
        1 => any::<bool>().prop_map(Step::DeadLetters),
        5 => prop_oneof![Just(1_u64), 1_000..40_000_u64, 200_000..400_000_u64].prop_map(|ms| Step::Advance { ms }),
        1 => Just(Step::Sweep),
        1 => Just(Step::Reopen),
    ]
}

/// What should be known of a message.
#[derive(Clone, Debug)]
struct Expected {
    body: String,
    sent: i64,
    due: Option<i64>,
    attempts: u32,
    taken: bool,
}

#[derive(Default)]
struct Expectation {
    messages: BTreeMap<i64, Expected>,
    retries: u32,
    dead_letters: bool,
}

struct Run {
    folder: TempDir,
    clock: Clock,
    queues: Queues,
    model: BTreeMap<Queue, Expectation>,
    batches: Vec<Batch>,
    numbered: u32,
}

impl Run {
    async fn new() -> Self {
        let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable());
        let queues = open(&folder, &clock).await;
        let mut model = BTreeMap::new();
        for queue in QUEUES {
            let change = PolicyChange { retention_seconds: Some(RETENTION), max_retries: Some(1), ..PolicyChange::default() };
            // The last is in another file.
            queues.create(Service(if queue.0 == 23 { 4 } else { SERVICE.0 }), queue, change).await.unwrap();
            model.insert(queue, Expectation { retries: 1, ..Expectation::default() });
        }
        Self { folder, clock, queues, model, batches: Vec::new(), numbered: 0 }
    }

    async fn send(&mut self, queue: Queue, delays: Vec<Option<u32>>) {
        let sends: Vec<_> = delays
            .iter()
            .map(|delay| {
                self.numbered += 1;
                Send { delay_seconds: *delay, ..text(self.numbered.to_string()) }
            })
            .collect();
        let before = self.queues.store.now();
        let sent = self.queues.send(queue, sends.clone()).await.unwrap();
        for (id, send) in sent.ids.iter().zip(sends) {
            let due = send.delay_seconds.filter(|delay| *delay > 0).map(|delay| before + i64::from(delay) * 1_000);
            let body = String::from_utf8(send.body.to_vec()).unwrap();
            let expected = Expected { body, sent: before, due, attempts: 0, taken: false };
            assert!(self.model.get_mut(&queue).unwrap().messages.insert(id.sequence, expected).is_none(), "ids are new");
        }
    }

    /// Compares with a tolerance, because the store looks at the clock a moment later than this does.
    async fn take(&mut self, queue: Queue, messages: usize) {
        let before = self.queues.store.now();
        let batch = take(&self.queues, queue, messages).await;
        let after = self.queues.store.now();
        let expected = &mut self.model.get_mut(&queue).unwrap().messages;
        let expired = |sent: i64, now: i64| sent + i64::from(RETENTION) * 1_000 <= now;
        let surely = expected
            .values()
            .filter(|message| !message.taken && !expired(message.sent, after + TOLERANCE) && message.due.is_none_or(|due| due + TOLERANCE <= before));
        assert!(batch.messages().len() >= surely.count().min(messages), "everything that can be taken is");
        let mut last = 0;
        for message in batch.messages() {
            let expected = expected.get_mut(&message.id.sequence).expect("what was settled does not come back");
            assert!(!expected.taken, "a message is given out once at a time");
            assert!(expected.due.is_none_or(|due| due <= after), "not before its time");
            assert!(!expired(expected.sent + TOLERANCE, before), "not after its time");
            assert_eq!((message.text(), message.attempts), (expected.body.clone(), expected.attempts + 1));
            assert!(message.id.sequence > last);
            last = message.id.sequence;
            expected.taken = true;
        }
        // Ready ones leave in their order: none stays behind that came before.
        let ready = |message: &Expected| message.due.is_none() && message.attempts == 0;
        let last_ready = batch.messages().iter().map(|message| message.id.sequence).filter(|id| ready(&expected[id])).max();
        if let Some(last) = last_ready {
            let behind = expected.range(..last).filter(|(_, message)| !message.taken && ready(message) && !expired(message.sent, after + TOLERANCE));
            assert_eq!(behind.count(), 0, "in the order in which they came");
        }
        self.batches.push(batch);
    }

    async fn settle(&mut self, verdicts: &[u8], delay: u32, rest: u8) {
        if self.batches.is_empty() {
            return;
        }
        let batch = self.batches.remove(0);
        let queue = batch.queue();
        let ids = ids(&batch);
        let rest = [Rest::Ack, Rest::Retry(delay), Rest::Release][usize::from(rest)];
        let mut verdict = Verdict { ack: Vec::new(), retry: Vec::new(), rest };
        for (id, named) in ids.iter().zip(verdicts) {
            match named {
                0 => verdict.ack.push(*id),
                1 => verdict.retry.push(Retry { what: *id, delay_seconds: Some(delay) }),
                _ => {}
            }
        }
        let fate = |at: usize| match (verdicts.get(at), rest) {
            (Some(0), _) => Rest::Ack,
            (Some(1), _) => Rest::Retry(delay),
            _ => rest,
        };
        let fates: Vec<_> = ids.iter().enumerate().map(|(at, id)| (*id, fate(at))).collect();
        let now = self.queues.store.now();
        let settled = batch.settle(verdict).await.unwrap();
        let mut acked = 0;
        for (id, fate) in fates {
            let here = self.model.get_mut(&queue).unwrap();
            let (retries, dead_letters) = (here.retries, here.dead_letters);
            let Some(message) = here.messages.get_mut(&id.sequence) else { continue };
            message.taken = false;
            if settled.gone.contains(&id) {
                here.messages.remove(&id.sequence);
                continue;
            }
            match fate {
                Rest::Release => {}
                Rest::Ack => {
                    here.messages.remove(&id.sequence);
                    acked += 1;
                }
                Rest::Retry(delay) => {
                    message.attempts += 1;
                    message.due = Some(now + i64::from(delay) * 1_000);
                    let body = message.body.clone();
                    let exhausted = message.attempts > retries;
                    let moved = settled.dead_lettered.iter().find(|(from, _)| *from == id).map(|(_, to)| *to);
                    assert_eq!(moved.is_some(), exhausted && dead_letters, "dead letters are exact");
                    assert_eq!(settled.discarded.contains(&id), exhausted && !dead_letters);
                    if exhausted {
                        here.messages.remove(&id.sequence);
                    }
                    if let Some(moved) = moved {
                        let expected = Expected { body, sent: now, due: None, attempts: 0, taken: false };
                        assert!(self.model.get_mut(&FAILED).unwrap().messages.insert(moved.sequence, expected).is_none());
                    }
                }
            }
        }
        assert_eq!(settled.acked, acked);
    }

    fn release(&mut self) {
        if let Some(batch) = self.batches.pop() {
            let messages = &mut self.model.get_mut(&batch.queue()).unwrap().messages;
            for message in batch.messages() {
                if let Some(expected) = messages.get_mut(&message.id.sequence) {
                    expected.taken = false;
                }
            }
        }
    }

    async fn sweep(&mut self) {
        let now = self.queues.store.now();
        sweep::sweep(&self.queues.store).await.unwrap();
        let kept = |message: &Expected, now: i64| message.sent + i64::from(RETENTION) * 1_000 > now;
        for (queue, expectation) in &mut self.model {
            expectation.messages.retain(|_, message| kept(message, now - TOLERANCE));
            let metrics = self.queues.metrics(*queue).await.unwrap();
            let least = expectation.messages.values().filter(|message| kept(message, now + TOLERANCE)).count();
            assert!((least..=expectation.messages.len()).contains(&(metrics.backlog.messages as usize)), "{queue}: {metrics:?}");
        }
    }

    async fn reopen(&mut self) {
        while !self.batches.is_empty() {
            self.release();
        }
        self.queues.close().await.unwrap();
        self.queues = open(&self.folder, &self.clock).await;
    }

    async fn step(&mut self, queue: Queue, step: Step) {
        match step {
            Step::Send { delays } => self.send(queue, delays).await,
            Step::Take { messages } => self.take(queue, messages).await,
            Step::Settle { verdicts, delay, rest } => self.settle(&verdicts, delay, rest).await,
            Step::Release => self.release(),
            Step::Retries(max_retries) => {
                self.queues.update(queue, PolicyChange { max_retries: Some(max_retries), ..PolicyChange::default() }).await.unwrap();
                self.model.get_mut(&queue).unwrap().retries = max_retries;
            }
            Step::DeadLetters(wanted) => {
                let target = wanted.then_some(FAILED);
                self.queues.update(JOBS, PolicyChange { dead_letter_queue: Some(target), ..PolicyChange::default() }).await.unwrap();
                self.model.get_mut(&JOBS).unwrap().dead_letters = wanted;
            }
            Step::Advance { ms } => drop(self.clock.advance(Duration::from_millis(ms))),
            Step::Sweep => self.sweep().await,
            Step::Reopen => self.reopen().await,
        }
    }
}

async fn run(steps: Vec<(usize, Step)>) {
    let mut run = Run::new().await;
    for (queue, step) in steps {
        run.step(QUEUES[queue], step).await;
    }
    while !run.batches.is_empty() {
        run.release();
    }
    // Whatever is still there comes out.
    run.clock.advance(Duration::from_secs(61));
    for queue in QUEUES {
        loop {
            run.take(queue, 100).await;
            if run.batches[0].is_empty() {
                run.batches.clear();
                break;
            }
            run.settle(&[], 0, 0).await;
        }
    }
    run.queues.close().await.unwrap();
    counted(run.folder.path());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn queues_deliver_like_a_plain_list(steps in prop::collection::vec((0..QUEUES.len(), step()), 1..80)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
