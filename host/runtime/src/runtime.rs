//! The runtime of one host: one engine, one pool of slots, the services, and what they reach.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use http::uri::Authority;
use http::{Request, Response};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::limits::{ACCOUNT_CONCURRENCY, ADMISSION_ACCOUNT_WAITING_MAX, ADMISSION_QUEUE_MAX, ADMISSION_WAIT_MS};
use tovuk_resources::stores::Stores;
use wasmtime::Engine;

use crate::artifacts::{self, Artifacts};
use crate::body::Body;
use crate::compile::Compiler;
use crate::engine::{self, EngineConfig, Metering};
use crate::imports;
use crate::invoke::Budget;
use crate::memory::HostMemory;
use crate::meter::{self, Spent};
use crate::outbound::{self, Outbound, OutboundConfig};
use crate::record::Observer;
use crate::service::Services;
use crate::slots::Slots;
use crate::turns::Turns;

/// How a runtime is set up.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Where components and their code are kept.
    pub artifacts: PathBuf,
    /// The size of the pool.
    pub engine: EngineConfig,
    /// Memory that all guests together may have, in bytes; half of the machine's when absent.
    pub guest_memory_bytes: Option<u64>,
    /// Requests from outside of one account that run at a time.
    pub account_concurrency: u32,
    /// Requests of one account that may wait for that, or for their services.
    pub account_waiting_max: usize,
    /// Requests from outside that may wait for a slot.
    pub admission_queue_max: usize,
    /// How long they wait.
    pub admission_wait: Duration,
    /// How workers reach other hosts.
    pub outbound: OutboundConfig,
    /// Threads for guests that compute for long; as many as the machine has cores when absent.
    pub turn_threads: Option<usize>,
}

impl RuntimeConfig {
    /// The defaults, with components kept in `artifacts`.
    pub fn new(artifacts: PathBuf) -> Self {
        Self {
            artifacts,
            engine: EngineConfig::default(),
            guest_memory_bytes: None,
            account_concurrency: ACCOUNT_CONCURRENCY,
            account_waiting_max: ADMISSION_ACCOUNT_WAITING_MAX,
            admission_queue_max: ADMISSION_QUEUE_MAX,
            admission_wait: Duration::from_millis(ADMISSION_WAIT_MS),
            outbound: OutboundConfig::default(),
            turn_threads: None,
        }
    }
}

/// Why a runtime could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine refused its settings.
    #[error("the engine cannot be set up: {0:#}")]
    Engine(wasmtime::Error),
    /// The folder of components is of no use.
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
    /// Outgoing HTTP cannot be set up.
    #[error(transparent)]
    Outbound(#[from] outbound::ConfigError),
}

/// The host's own authorities, as workers reach them: dispatched in the process, with the chain that the caller has.
pub trait OwnDoor: Send + Sync + 'static {
    /// Whether this host answers for the authority.
    fn owns(&self, authority: &Authority, scheme: Option<&str>) -> bool;
    /// Answers a request to it, as it would one from outside.
    fn enter(self: Arc<Self>, request: Request<Body>, budget: Budget) -> BoxFuture<'static, Response<Body>>;
}

/// The runtime. Clones are the same runtime.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    engine: Engine,
    metering: Metering,
    artifacts: Artifacts,
    slots: Slots,
    memory: HostMemory,
    turns: Turns,
    admission_wait: Duration,
    services: Services,
    outbound: Outbound,
    clock: Clock,
    observer: Arc<dyn Observer>,
    stores: Option<Stores>,
    own_door: OnceLock<Weak<dyn OwnDoor>>,
}

impl Runtime {
    /// Sets up the engine and opens the store of components. Without `stores`, workers that ask for data are told that the host has none.
    pub fn new(config: RuntimeConfig, compiler: Compiler, clock: Clock, observer: Arc<dyn Observer>, stores: Option<Stores>) -> Result<Self, Error> {
        let pooled = engine::pooled_engine(&config.engine).map_err(Error::Engine)?;
        let linker = imports::linker(&pooled.engine).map_err(Error::Engine)?;
        let compiler = if config.engine.metering == Metering::Off { compiler.unmetered() } else { compiler };
        let artifacts = Artifacts::open(config.artifacts, pooled.engine.clone(), linker, compiler, u64::from(config.engine.components_max))?;
        let guest_memory_bytes = config.guest_memory_bytes.or_else(|| engine::ram_bytes().map(|bytes| bytes / 2)).unwrap_or(u64::MAX);
        let turn_threads = config.turn_threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
        let slots = Slots::new(pooled.slots, config.admission_queue_max);
        Ok(Self(Arc::new(Inner {
            engine: pooled.engine,
            metering: config.engine.metering,
            artifacts,
            services: Services::new(slots.clone(), config.account_concurrency, config.account_waiting_max),
            slots,
            memory: HostMemory::new(guest_memory_bytes),
            turns: Turns::new(turn_threads),
            admission_wait: config.admission_wait,
            outbound: Outbound::new(config.outbound)?,
            clock,
            observer,
            stores,
            own_door: OnceLock::new(),
        })))
    }

    /// The services of this host.
    pub fn services(&self) -> &Services {
        &self.0.services
    }

    /// The store of components.
    pub fn artifacts(&self) -> &Artifacts {
        &self.0.artifacts
    }

    /// The pool of instance slots.
    pub fn slots(&self) -> &Slots {
        &self.0.slots
    }

    /// The memory that guests share.
    pub fn memory(&self) -> &HostMemory {
        &self.0.memory
    }

    /// The line of guests that compute for long.
    pub fn turns(&self) -> &Turns {
        &self.0.turns
    }

    pub(crate) fn admission_wait(&self) -> Duration {
        self.0.admission_wait
    }

    /// The host's clock.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Says who answers for the host's own authorities. Only the first call has an effect. The door has this runtime, so it is held weakly: the
    /// two would keep each other alive for ever.
    pub fn set_own_door(&self, door: Weak<dyn OwnDoor>) {
        let _ = self.0.own_door.set(door);
    }

    pub(crate) fn own_door(&self, authority: &Authority, scheme: Option<&str>) -> Option<Arc<dyn OwnDoor>> {
        self.0.own_door.get()?.upgrade().filter(|door| door.owns(authority, scheme))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn metering(&self) -> Metering {
        self.0.metering
    }

    /// Runs a guest for a while and returns the CPU time that it used; none where nothing is metered.
    pub(crate) fn measure<R>(&self, f: impl FnOnce() -> R) -> (R, Spent) {
        match self.0.metering {
            Metering::On => meter::measure(f),
            Metering::Off => (f(), Spent::default()),
        }
    }

    /// What sends requests to other hosts.
    pub fn outbound(&self) -> &Outbound {
        &self.0.outbound
    }

    /// The data of services.
    pub(crate) fn stores(&self) -> Option<&Stores> {
        self.0.stores.as_ref()
    }

    pub(crate) fn observer(&self) -> &dyn Observer {
        &*self.0.observer
    }
}
