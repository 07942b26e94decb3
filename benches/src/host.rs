//! The host as it is measured: a runtime with all limits, metering and records on, the measured services, and for `bench host` an edge and a socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::limits::{ACCOUNT_CONCURRENCY, Plan, WorkerLimits};
use tovuk_kernel::meters::{Meter, Period};
use tovuk_kernel::outbound::Allowlist;
use tovuk_kernel::project::Kind;
use tovuk_kernel::resource::{Grants, Owner};
use tovuk_resources::bindings::{Binding, Bindings};
use tovuk_resources::meters::{CapKey, Meters, Setting};
use tovuk_runtime::compile::Compiler;
use tovuk_runtime::engine::Metering;
use tovuk_runtime::failure::Failure;
use tovuk_runtime::record::{Identity, LogLine, Observer, Record};
use tovuk_runtime::runtime::{Runtime, RuntimeConfig};
use tovuk_runtime::service::{Deployment, Service};
use tovuk_runtime::trace::TraceId;
use tovuk_server::edge::routes::{Placement, Routes, Site};
use tovuk_server::edge::{Audience, Edge, ListenConfig, Listening};

use crate::guests;
use crate::machine;

/// A measured service.
struct Measured {
    name: &'static str,
    guest: &'static str,
    account: i64,
    plan: Plan,
    /// Requests that run at a time, where they are not those of the plan.
    concurrency: Option<u64>,
}

const fn measured(name: &'static str, guest: &'static str, account: i64) -> Measured {
    Measured { name, guest, account, plan: Plan::Pro, concurrency: None }
}

/// The account whose requests and CPU time have caps, neither of which is reached.
const CAPPED: i64 = 2;
const CAP: Setting = Setting { value: 100_000_000, notify_at_percent: 80 };
/// The services. Those of account 1 are measured by themselves, those from account 3 on beside one another, as tenants of one host are.
const SERVICES: [Measured; 10] = [
    measured("hello", "hello", 1),
    measured("hello-p2", "hello_p2", 1),
    measured("chain", "chain", 1),
    measured("chain-raw", "chain_raw", 1),
    measured("chain-p2", "chain_p2", 1),
    measured("hello-capped", "hello", CAPPED),
    measured("quiet", "hello", 3),
    // A small plan, so that its requests end and others begin, and as many at a time as the account may have.
    Measured { name: "loop", guest: "spin", account: 4, plan: Plan::Free, concurrency: Some(ACCOUNT_CONCURRENCY as u64) },
    measured("flood", "hello", 5),
    measured("deep", "chain", 6),
];
/// The binding by which a chain calls itself.
const NEXT: &str = "NEXT";

const REFUSALS_PRINTED: u64 = 20;

/// Counts what the host says of its invocations. Whatever else an observer does is not measured here.
#[derive(Default)]
pub struct Tally {
    records: AtomicU64,
    cpu_ns: AtomicU64,
    fuel: AtomicU64,
    refused: AtomicU64,
}

/// What was counted until now, or between two points in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Invocations that ended.
    pub records: u64,
    /// CPU time of their records, in ns.
    pub cpu_ns: u64,
    /// Fuel of their records.
    pub fuel: u64,
    /// Requests that were turned away.
    pub refused: u64,
}

impl Tally {
    /// Everything until now.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts { records: read(&self.records), cpu_ns: read(&self.cpu_ns), fuel: read(&self.fuel), refused: read(&self.refused) }
    }
}

impl Counts {
    /// What was counted since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            records: self.records - earlier.records,
            cpu_ns: self.cpu_ns - earlier.cpu_ns,
            fuel: self.fuel - earlier.fuel,
            refused: self.refused - earlier.refused,
        }
    }
}

impl Observer for Tally {
    fn invocation(&self, record: Record) {
        self.records.fetch_add(1, Ordering::Relaxed);
        self.cpu_ns.fetch_add(record.cpu_ns, Ordering::Relaxed);
        self.fuel.fetch_add(record.fuel, Ordering::Relaxed);
    }

    fn log(&self, line: LogLine) {
        eprintln!("{}: {}", line.service.name, line.message);
    }

    fn refused(&self, service: &Identity, _trace: TraceId, failure: &Failure) {
        // The first are enough to see why, and printing thousands would be work of another kind.
        if self.refused.fetch_add(1, Ordering::Relaxed) < REFUSALS_PRINTED {
            eprintln!("{}: {}", service.name, failure.message);
        }
    }
}

/// A host with the measured services.
pub struct Host {
    /// Its runtime.
    pub runtime: Runtime,
    /// What it has said.
    pub tally: Arc<Tally>,
    /// What it charges, as an operator's host does; nothing where it does not meter.
    meters: Option<Meters>,
    sites: Vec<Placement>,
}

impl Host {
    /// Compiles the guests, unless that was done before, and deploys them. `slots` as in [`tovuk_runtime::engine::EngineConfig`].
    pub async fn start(slots: Option<u32>) -> anyhow::Result<Self> {
        let folder = guests::repository().join("target/bench/meters");
        std::fs::create_dir_all(&folder)?;
        let meters = Meters::open(&folder.join(format!("{}.db", std::process::id())), Clock::system()).await?;
        for meter in [Meter::WorkerRequests, Meter::WorkerCpuMs] {
            meters.set_cap(CapKey { account: CAPPED, service: None, meter, period: Period::Month }, CAP).await?;
        }
        Self::deployed(slots, Some(meters)).await
    }

    /// The same without fuel, CPU clock, meters and caps; all else is done as ever, records included. What those cost is measured beside it.
    pub async fn unmetered(slots: Option<u32>) -> anyhow::Result<Self> {
        Self::deployed(slots, None).await
    }

    async fn deployed(slots: Option<u32>, meters: Option<Meters>) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let tally = Arc::new(Tally::default());
        let mut config = RuntimeConfig::new(guests::repository().join("target/bench/artifacts"));
        if let Some(slots) = slots {
            config.engine.slots_max = slots;
        }
        let compiler = Compiler::this_program(clock.clone()).context("this program's own path is unknown")?;
        if meters.is_none() {
            config.engine.metering = Metering::Off;
        }
        let runtime = Runtime::new(config, compiler, clock, tally.clone(), None)?;
        let mut host = Self { runtime, tally, meters, sites: Vec::new() };
        for (number, service) in (1..).zip(&SERVICES) {
            host.deploy(number, service).await.with_context(|| format!("the guest `{}` cannot be deployed", service.guest))?;
        }
        Ok(host)
    }

    /// The CPU time that was billed this month, in ms.
    pub fn billed_cpu_ms(&self) -> u64 {
        self.meters.as_ref().map_or(0, |meters| meters.usage(1, None).of(Meter::WorkerCpuMs, Period::Month))
    }

    async fn deploy(&mut self, number: i64, service: &Measured) -> anyhow::Result<()> {
        let Measured { name, guest, account, plan, concurrency } = *service;
        let wasm = std::fs::read(guests::path(guest)?)?;
        let artifact = self.runtime.artifacts().prepare(&wasm).await?;
        let mut limits = WorkerLimits::for_plan(plan);
        limits.concurrency = concurrency.unwrap_or(limits.concurrency);
        let id = service_id(name);
        let identity = Identity { id: id.clone(), name: name.into(), slug: name.into(), account: format!("account_{account}").into() };
        let service = self.runtime.services().add(identity, &limits);
        // Each service is bound to itself, by name and by URL, as a chain needs it.
        let next = Binding { name: Some(NEXT.to_owned()), target: id.clone(), target_name: name.to_owned(), url_env: Some("NEXT_URL".to_owned()) };
        let bindings = Bindings::new(&[next]);
        let mut env = vec![("TOVUK_SERVICE_ID".to_owned(), id.to_string())];
        env.extend_from_slice(bindings.env());
        let grants = Grants::new(Owner { account, service: number, plan });
        let bill = self.meters.as_ref().map(|meters| meters.bill(account, number)).unwrap_or_default();
        service.promote(Arc::new(Deployment {
            id: "deploy_bench".into(),
            artifact,
            limits,
            env,
            bindings,
            outbound: Allowlist::default(),
            grants,
            bill,
        }));
        let site = Site::new(id.clone(), Kind::RustWorker, &["/*".to_owned()], None);
        self.sites.push((id, vec![format!("{name}.localhost")], Some(site)));
        Ok(())
    }

    /// A deployed service.
    pub fn service(&self, name: &str) -> anyhow::Result<Arc<Service>> {
        self.runtime.services().get(&service_id(name)).with_context(|| format!("there is no service `{name}`"))
    }
}

fn service_id(name: &str) -> ServiceId {
    format!("service_{name}").into()
}

/// Serves the measured services until the process is ended.
pub fn serve(address: SocketAddr, threads: usize, slots: Option<u32>) -> anyhow::Result<()> {
    machine::multi_thread(threads)?.block_on(async {
        let host = Host::start(slots).await?;
        let routes = Routes::default();
        routes.set_all(host.sites.clone())?;
        let listener = Listening::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
        let edge = Edge::new(host.runtime.clone(), routes, Audience::Public, format!("localhost:{}", address.port()));
        let _listening = Listening::serve(listener, edge, ListenConfig::default())?;
        std::future::pending::<()>().await;
        Ok(())
    })
}
