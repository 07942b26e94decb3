//! Random operations, side by side with a plain model: ticks come when and as often as they should, also after a restart.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Each ticks at every so many minutes.
const EVERY: [(i64, u64); 3] = [(1, 1), (2, 5), (3, 30)];

#[derive(Clone, Debug)]
enum Step {
    Advance {
        seconds: u64,
    },
    Take,
    /// The oldest that is held: it succeeds, fails, is held, or comes back.
    Settle(u8),
    Enable(usize, bool),
    RunNow(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..400_u64).prop_map(|seconds| Step::Advance { seconds }),
        6 => Just(Step::Take),
        9 => (0..4_u8).prop_map(Step::Settle),
        1 => (0..3_usize, any::<bool>()).prop_map(|(at, enabled)| Step::Enable(at, enabled)),
        1 => (0..3_usize).prop_map(Step::RunNow),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    /// Deliveries that have failed and when the next is due at the earliest, by run; none due when it has ended.
    runs: BTreeMap<i64, (u32, Option<u64>)>,
    /// The last tick of the schedule of each trigger.
    last: BTreeMap<i64, u64>,
    enabled: [bool; 3],
}

struct World {
    folder: TempDir,
    clock: Clock,
    crons: Crons,
    model: Model,
    held: Vec<Tick>,
}

impl World {
    async fn take(&mut self) {
        let before = self.clock.now_unix_ms();
        let ticks = self.crons.due(100).await.unwrap();
        let after = self.clock.now_unix_ms();
        for tick in ticks {
            let (number, scheduled) = (tick.trigger().number.0, tick.scheduled_ms());
            let known = self.model.runs.get(&tick.run()).copied();
            assert!(!self.held.iter().any(|held| held.run() == tick.run()), "a tick is given out once at a time");
            let (failed, due) = known.unwrap_or((0, Some(scheduled)));
            assert!(due.expect("what has ended does not come again") <= after, "not before its time");
            assert_eq!(tick.attempt(), failed + 1);
            if known.is_none() && !tick.is_manual() {
                let every = EVERY.iter().find(|(found, _)| *found == number).unwrap().1 * 60_000;
                assert!(scheduled.is_multiple_of(every) && scheduled <= after);
                // The last of the times that were missed, as far as the clock went on meanwhile.
                assert!(scheduled + every > before, "one tick for all that were missed");
                assert!(self.model.last.insert(number, scheduled).is_none_or(|last| last < scheduled), "each time ticks once");
            }
            self.model.runs.insert(tick.run(), (failed, due));
            self.held.push(tick);
        }
        for (at, (number, every)) in EVERY.iter().enumerate() {
            let latest = before - before % (every * 60_000);
            let last = self.model.last.get(number).copied().unwrap_or(START);
            assert!(!self.model.enabled[at] || latest <= START || last >= latest || self.resumed(*number, latest).await, "{number} has ticked");
        }
    }

    /// Whether the trigger was paused at that time.
    async fn resumed(&self, number: i64, latest: u64) -> bool {
        self.crons.get(TriggerNumber(number)).await.unwrap().next_ms.is_some_and(|next| next > latest)
    }

    async fn settle(&mut self, how: u8) {
        if self.held.is_empty() {
            return;
        }
        let tick = self.held.remove(0);
        let id = tick.run();
        let enabled = EVERY.iter().position(|(number, _)| *number == tick.trigger().number.0).is_some_and(|at| self.model.enabled[at]);
        let (failed, _) = self.model.runs[&id];
        let manual = tick.is_manual();
        let next = match how {
            0 => {
                tick.succeeded(None).await.unwrap();
                (failed, None)
            }
            1 => {
                let due = tick.failed(None).await.unwrap();
                assert_eq!(due.is_some(), failed < 3 && (enabled || manual));
                (failed + 1, due)
            }
            2 => {
                let before = self.clock.now_unix_ms();
                let due = tick.hold(None).await.unwrap();
                assert!(due.is_none_or(|due| due >= before + 1_000));
                (failed, due)
            }
            _ => (failed, Some(0)),
        };
        self.model.runs.insert(id, next);
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Advance { seconds } => drop(self.clock.advance(Duration::from_secs(seconds))),
            Step::Take => self.take().await,
            Step::Settle(how) => self.settle(how).await,
            Step::Enable(at, enabled) => {
                self.crons.enable(TriggerNumber(EVERY[at].0), enabled).await.unwrap();
                self.model.enabled[at] = enabled;
            }
            Step::RunNow(at) => drop(self.crons.run_now(TriggerNumber(EVERY[at].0)).await.unwrap()),
            Step::Reopen => {
                self.held.clear();
                self.crons.close().await.unwrap();
                self.crons = open(&self.folder, &self.clock).await;
            }
        }
    }
}

async fn run(steps: Vec<Step>) {
    let (folder, clock, crons) = fresh().await;
    for (number, every) in EVERY {
        crons.create(SERVICE, TriggerNumber(number), "every", &format!("*/{every} * * * *")).await.unwrap();
    }
    let mut world = World { folder, clock, crons, model: Model { enabled: [true; 3], ..Model::default() }, held: Vec::new() };
    for step in steps {
        world.step(step).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn triggers_tick_like_a_plain_model(steps in prop::collection::vec(step(), 1..80)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
