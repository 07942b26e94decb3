//! The queue of builds: how many run at a time, in which order, and how one is stopped. What a build does is in `run`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tovuk_kernel::codes;

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
    /// One build, restart or rollback of a service at a time, in the order in which they were asked for.
    turns: DashMap<i64, Arc<Mutex<()>>>,
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

    /// Waits for the turn of a service.
    pub async fn turn(&self, service: i64) -> OwnedMutexGuard<()> {
        let turn = self.turns.entry(service).or_default().clone();
        turn.lock_owned().await
    }

    /// Forgets a service that was deleted.
    pub fn forget(&self, service: i64) {
        self.turns.remove(&service);
    }

    /// Begins the build of a deploy as soon as there is a place.
    pub fn begin(&self, control: &Control, service: i64, deploy: i64) {
        let cancel = self.stopping.child_token();
        self.cancels.insert(deploy, cancel.clone());
        self.open.fetch_add(1, Ordering::AcqRel);
        let done = Done { deploy, open: self.open.clone(), cancels: self.cancels.clone(), ended: self.ended.clone() };
        let turn = self.turns.entry(service).or_default().clone();
        let (control, places) = (control.clone(), self.places.clone());
        self.tasks.spawn(async move {
            let _done = done;
            let _turn = turn.lock_owned().await;
            let _place = places.acquire_owned().await;
            super::run::build(&control, deploy, cancel).await;
        });
    }

    /// Stops the build of a deploy, wherever it is.
    pub fn cancel(&self, deploy: i64) {
        if let Some(cancel) = self.cancels.get(&deploy) {
            cancel.cancel();
        }
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
