//! Queues, cron and alarms under random work, by a clock that is moved ahead, with deaths at random moments between two commits or between a commit and its
//! answer. A plain model says what may be seen after each step: nothing that was acknowledged is lost, nothing that is done comes again, nothing comes before
//! its time or stays away after it, waits are as long as promised, dead letters are exact, and what always fails keeps nothing else waiting.
//!
//! Of what had not been answered when the stores died, the model keeps both possibilities until one of them is seen.
//!
//! A seed that fails says so and is run again alone by `TOVUK_SEED=<seed>`. With `TOVUK_SOAK` there are 10,000.

mod alarms;
mod crons;
mod queues;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use futures::{StreamExt, stream};
use tempfile::TempDir;
use tovuk_kernel::clock::{Clock, UnixMs};
use tovuk_resources::cron::Crons;
use tovuk_resources::database::Fuse;
use tovuk_resources::queue::{self, Queues};
use tovuk_resources::state::{self, State};

/// 31 May 2026, 12:00:30 UTC.
const START_UNIX_MS: u64 = 1_780_228_830_000;
/// What is told of a seed that fails: its last steps.
const STEPS_TOLD: usize = 40;
const STEPS: u32 = 100;

/// The stores have died.
struct Died;

/// What a step returns.
type Done = Result<(), Died>;

/// The stores as long as they live.
struct Stores {
    queues: Queues,
    crons: Crons,
    state: State,
}

/// Everything but the models.
struct World {
    seed: u64,
    rng: Rng,
    clock: Clock,
    fuse: Fuse,
    stores: Stores,
    folder: TempDir,
    told: VecDeque<String>,
    deaths: u32,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let told: Vec<_> = self.told.iter().map(String::as_str).collect();
            eprintln!("seed {} fails; run it alone with TOVUK_SEED={}. Its last steps:\n{}", self.seed, self.seed, told.join("\n"));
        }
    }
}

/// Opens the stores; none when they die meanwhile.
async fn open(folder: &Path, clock: &Clock, fuse: &Fuse) -> Option<Stores> {
    let options = queue::Options { fuse: Some(fuse.clone()), ..queue::Options::default() };
    // Fewer files than objects, so that they are closed and opened too.
    let of_state = state::Options { open_max: 3, threads: 2, fuse: Some(fuse.clone()), ..state::Options::default() };
    let living = |text: String| assert!(fuse.is_out(), "the stores cannot be opened: {text}");
    let queues = Queues::open_with(&folder.join("queues"), clock.clone(), options).await.map_err(|error| living(error.to_string())).ok()?;
    let crons = Crons::open_with(&folder.join("cron.db"), clock.clone(), Some(fuse.clone())).await.map_err(|error| living(error.to_string()));
    let state = State::open_with(&folder.join("state"), clock.clone(), of_state).await.map_err(|error| living(error.to_string()));
    match (crons, state) {
        (Ok(crons), Ok(state)) => Some(Stores { queues, crons, state }),
        (crons, state) => {
            let _ = queues.close().await;
            if let Ok(crons) = crons {
                let _ = crons.close().await;
            }
            if let Ok(state) = state {
                let _ = state.close().await;
            }
            None
        }
    }
}

impl World {
    async fn new(seed: u64) -> Self {
        // Syncing costs nothing there; nothing is lost with power here.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let (clock, fuse) = (Clock::advanceable_at(START_UNIX_MS), Fuse::of(u32::MAX));
        let stores = open(folder.path(), &clock, &fuse).await.unwrap();
        Self { seed, rng: Rng::with_seed(seed), clock, fuse, stores, folder, told: VecDeque::new(), deaths: 0 }
    }

    fn now(&self) -> UnixMs {
        self.clock.now_unix_ms()
    }

    /// Notes what is done, for whoever looks for the reason of a failure.
    fn tell(&mut self, text: String) {
        self.told.push_back(format!("  {} {text}", self.now() - START_UNIX_MS));
        if self.told.len() > STEPS_TOLD {
            self.told.pop_front();
        }
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.rng.u32(..count) == 0
    }

    /// What an operation has answered. Only the dead give no answer.
    fn said<T, E: Debug>(&self, answer: Result<T, E>) -> Result<T, Died> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(_) if self.fuse.is_out() => Err(Died),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Opens the stores again after their death, or without one; they die once more after so many moments.
    async fn reopen(&mut self, mut moments: u32) {
        self.deaths += u32::from(self.fuse.is_out());
        let Stores { queues, crons, state } = &self.stores;
        // The dead write nothing more; what is waited for is that they let go of their files.
        let _ = (queues.close().await, crons.close().await, state.close().await);
        let down = if self.one_in(3) { self.rng.u64(..7_200_000) } else { self.rng.u64(..10_000) };
        self.clock.advance(Duration::from_millis(down));
        loop {
            self.fuse = Fuse::of(moments);
            self.tell(format!("the stores are opened and live for {moments} moments"));
            if let Some(stores) = open(self.folder.path(), &self.clock, &self.fuse).await {
                self.stores = stores;
                return;
            }
            self.deaths += 1;
            moments = moments.saturating_mul(2).max(8);
        }
    }
}

/// The models of all kinds.
struct Models {
    queues: queues::Model,
    crons: crons::Model,
    alarms: alarms::Model,
}

impl Models {
    async fn step(&mut self, world: &mut World) -> Done {
        match world.rng.u32(..100) {
            0..38 => self.queues.step(world).await,
            38..68 => self.crons.step(world).await,
            68..94 => self.alarms.step(world).await,
            _ => {
                let most = if world.one_in(4) { 5_400_000 } else { 90_000 };
                let by = world.rng.u64(..most);
                world.tell(format!("time goes on by {by} ms"));
                world.clock.advance(Duration::from_millis(by));
                Ok(())
            }
        }
    }

    /// Lets the stores die, or end, and live again until they are whole.
    async fn reopen(&mut self, world: &mut World, for_good: bool) {
        self.queues.died();
        self.crons.died();
        self.alarms.died();
        loop {
            let moments = if for_good || world.one_in(5) { u32::MAX } else { world.rng.u32(1..70) };
            world.reopen(moments).await;
            let looked = match self.crons.reopened(world).await {
                Ok(()) => self.queues.reopened(world).and(self.alarms.reopened(world).await),
                died => died,
            };
            if looked.is_ok() {
                return;
            }
        }
    }
}

/// How often the stores have died.
async fn simulate(seed: u64) -> u32 {
    let mut world = World::new(seed).await;
    let queues = queues::Model::new(&world).await;
    let (crons, alarms) = (crons::Model::new(&world).await, alarms::Model::new());
    let mut models = Models { queues, crons, alarms };
    models.reopen(&mut world, false).await;
    for _ in 0..STEPS {
        let done = models.step(&mut world).await;
        if done.is_err() || world.fuse.is_out() || world.one_in(60) {
            models.reopen(&mut world, false).await;
        }
    }
    models.reopen(&mut world, true).await;
    let ended = async {
        models.queues.end(&mut world).await?;
        models.crons.end(&mut world).await?;
        models.alarms.end(&mut world).await
    };
    assert!(ended.await.is_ok(), "nothing dies any more");
    let Stores { queues, crons, state } = &world.stores;
    queues.close().await.unwrap();
    crons.close().await.unwrap();
    state.close().await.unwrap();
    world.deaths
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_queues_cron_and_alarms_promise_holds_under_random_work_and_deaths() {
    let seeds = match std::env::var("TOVUK_SEED") {
        Ok(seed) => seed.parse().map(|seed| seed..seed + 1).unwrap(),
        Err(_) if tovuk_tests::full_size() => 0..10_000,
        Err(_) => 0..200_u64,
    };
    let mut running = stream::iter(seeds).map(|seed| tokio::spawn(simulate(seed))).buffer_unordered(2);
    let (mut ended, mut deaths) = (0, 0);
    while let Some(died) = running.next().await {
        (ended, deaths) = (ended + 1, deaths + died.unwrap());
    }
    println!("{ended} seeds, {deaths} deaths");
    assert!(ended == 1 || deaths > ended, "the stores have to die");
}

/// Of what is possible, what fits to what was seen. Something has to.
fn seen<T: Clone + Debug>(possible: &mut Vec<T>, what: &str, fits: impl Fn(&T) -> bool) -> T {
    let fitting: Vec<T> = possible.iter().filter(|state| fits(state)).cloned().collect();
    let first = fitting.first().cloned().unwrap_or_else(|| panic!("{what} was seen, and what could be is {possible:?}"));
    *possible = fitting;
    first
}
