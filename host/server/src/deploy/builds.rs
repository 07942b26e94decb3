//! The queue of builds: how many run at a time, in which order, and how one is stopped. What a build does is in `run`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use futures::FutureExt;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tovuk_kernel::codes;
use tovuk_kernel::limits::BUILDS_RUNNING_ACCOUNT_MAX;

use super::kept::{Kept, Names, Sweep};
use crate::build::sandbox::SandboxConfig;
use crate::control::{Control, Refusal};

/// How builds run.
#[derive(Clone)]
pub struct BuildConfig {
    /// Builds at a time. The compiler runs one at a time in any case; more let checks and health requests overlap.
    pub concurrent: usize,
    /// How source is compiled; `None` where the operator has not allowed it.
    pub remote: Option<SandboxConfig>,
}

impl Default for BuildConfig {
    fn default() -> Self {
        Self { concurrent: 4, remote: None }
    }
}

/// The builds that wait and run.
pub(crate) struct Builds {
    config: BuildConfig,
    places: Arc<Semaphore>,
    /// One build of a service at a time, in the order in which they were asked for.
    turns: DashMap<i64, Arc<Mutex<()>>>,
    /// Whoever has many services does not keep the places from others.
    accounts: DashMap<i64, Arc<Semaphore>>,
    /// What is on disk and no row refers to yet.
    names: Names,
    cancels: Arc<DashMap<i64, CancellationToken>>,
    open: Arc<AtomicU64>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    ended: watch::Sender<()>,
}

impl Builds {
    pub fn new(config: BuildConfig) -> Self {
        Self {
            places: Arc::new(Semaphore::new(config.concurrent.max(1))),
            config,
            turns: DashMap::new(),
            accounts: DashMap::new(),
            names: Names::default(),
            cancels: Arc::default(),
            open: Arc::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            ended: watch::Sender::new(()),
        }
    }

    /// Refuses to build from source where that cannot be done.
    pub fn check_remote(&self, service: &str) -> Result<(), Refusal> {
        if self.config.remote.is_some() {
            return Ok(());
        }
        let text = format!("this host compiles no source, so `{service}` has to be built before it is uploaded");
        Err(Refusal::new(&codes::REMOTE_BUILD_DISABLED, text))
    }

    pub fn remote(&self) -> Option<&SandboxConfig> {
        self.config.remote.as_ref()
    }

    /// Builds that wait or run.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    /// Keeps the files of this name from being swept while no row refers to them. Has to be there before the files are, or are looked for.
    pub async fn keep(&self, name: &str) -> Kept {
        self.names.keep(name).await
    }

    /// Begins to remove files that no row refers to.
    pub(super) async fn sweep(&self) -> Option<Sweep<'_>> {
        self.names.sweep().await
    }

    /// Forgets a service that was deleted.
    pub fn forget(&self, service: i64) {
        self.turns.remove(&service);
    }

    /// Begins the build of a deploy as soon as there is a place.
    pub fn begin(&self, control: &Control, account: i64, service: i64, deploy: i64) {
        let cancel = self.stopping.child_token();
        self.cancels.insert(deploy, cancel.clone());
        self.open.fetch_add(1, Ordering::AcqRel);
        let done = Done { deploy, open: self.open.clone(), cancels: self.cancels.clone(), ended: self.ended.clone() };
        // Asked for here, because tasks may begin in another order than they were made in.
        let mut turn = Box::pin(self.turns.entry(service).or_default().clone().lock_owned());
        let first = turn.as_mut().now_or_never();
        let own_places = self.accounts.entry(account).or_insert_with(|| Arc::new(Semaphore::new(BUILDS_RUNNING_ACCOUNT_MAX))).clone();
        let (control, places) = (control.clone(), self.places.clone());
        self.tasks.spawn(async move {
            let _done = done;
            let begin = async {
                let turn = match first {
                    Some(turn) => turn,
                    None => turn.await,
                };
                (turn, own_places.acquire_owned().await, places.acquire_owned().await)
            };
            let _held = cancel.run_until_cancelled(begin).await;
            super::run::build(&control, deploy, &cancel).await;
        });
    }

    /// Stops the build of a deploy, wherever it is.
    pub fn cancel(&self, deploy: i64) {
        if let Some(cancel) = self.cancels.get(&deploy) {
            cancel.cancel();
        }
    }

    /// Does something to its end, also when nobody waits for it any more; the host waits for it when it ends.
    pub(super) async fn to_the_end<T: Send + 'static>(&self, job: impl Future<Output = Result<T, Refusal>> + Send + 'static) -> Result<T, Refusal> {
        self.tasks.spawn(job).await.unwrap_or_else(|error| Err(Refusal::internal(error)))
    }

    /// Stops all builds. What has not ended is begun again at the next start.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Tells of each build that ends.
    pub fn ended(&self) -> watch::Receiver<()> {
        self.ended.subscribe()
    }

    /// Waits until nothing of a build that has succeeded is left to do. Its end is stored before its version serves, and whoever is told of the one has to
    /// meet the other.
    pub async fn settled(&self, deploy: i64) {
        let mut ended = self.ended.subscribe();
        while self.cancels.contains_key(&deploy) && ended.changed().await.is_ok() {}
    }

    /// Whether all builds are being stopped.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }
}

/// Counts a build as ended, however it ended.
struct Done {
    deploy: i64,
    open: Arc<AtomicU64>,
    cancels: Arc<DashMap<i64, CancellationToken>>,
    ended: watch::Sender<()>,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.cancels.remove(&self.deploy);
        self.open.fetch_sub(1, Ordering::AcqRel);
        self.ended.send_replace(());
    }
}
