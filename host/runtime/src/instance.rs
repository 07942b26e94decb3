//! What an instance has on the host's side: its store with its limits, and the slot it occupies.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tovuk_kernel::limits::KV_CALL_BYTES_MAX;
use wasmtime::component::ResourceTable;
use wasmtime::{CallHook, Store, StoreContextMut};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wasmtime_wasi_io::IoView;

use crate::engine::Metering;
use crate::imports::objects::OpenObjects;
use crate::imports::state::OwnObject;
use crate::imports::stdio::LogStdio;
use crate::imports::wasi_http::Hooks;
use crate::invocation::Invocation;
use crate::memory::MemoryLimiter;
use crate::meter;
use crate::record::LogStream;
use crate::slots::Permit;

/// Fuel units that the fastest code burns in a millisecond, as measured: 0.009 ns a unit. Twice that over the CPU limit is the backstop for code that
/// never lets the clock be read; the clock is the limit.
const FUEL_PER_CPU_MS: u64 = 2 * 111_000_000;
/// Fuel between two yields, about a millisecond of ordinary code. Yielding every 10,000 units doubled the cost of computing.
const FUEL_PER_YIELD: u64 = 1_000_000;
/// Fuel between two yields of a guest whose host calls have taken [`SLOW_CALLS_NS`] of one poll: they burn next to no fuel, however long they take.
const FUEL_PER_YIELD_OF_SLOW_CALLS: u64 = 10_000;
/// CPU time of one poll, in ns, after which a guest that calls the host has to yield soon.
const SLOW_CALLS_NS: u64 = 10_000_000;
/// After so many host calls the clock is looked at.
const CALLS_PER_LOOK: u32 = 16;
/// What one call may make the host allocate: the most that a call to KV can carry and the records around ten thousand values, so that a little more
/// than may be is refused with an error and only much more is a trap. A worker whose bodies may be larger gets as much as they need.
const HOSTCALL_BYTES_MAX: u64 = KV_CALL_BYTES_MAX as u64 + (2 << 20);
const COMPONENT_HANDLES_MAX: usize = 4_096;
const RESOURCES_MAX: usize = 1_024;
const FIELDS_BYTES_MAX: usize = 64 << 10;
const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// The host's side of one instance.
pub struct Data {
    pub(crate) invocation: Arc<Invocation>,
    pub(crate) limiter: MemoryLimiter,
    pub(crate) table: ResourceTable,
    /// Shared with each transaction and stream that the guest holds, whose number is known by it.
    pub(crate) sqlite_held: Arc<()>,
    pub(crate) open_objects: OpenObjects,
    /// The State object that the invocation is a call of.
    pub(crate) own_object: Option<OwnObject>,
    /// Calls of the host since the clock was looked at, and whether the guest has to yield soon.
    calls: u32,
    is_slow: bool,
    http: WasiHttpCtx,
    hooks: Hooks,
    /// Made when something of WASI is first used: drawing its random seeds and boxing its streams costs more than many a worker does.
    wasi: Option<WasiCtx>,
}

impl Data {
    fn new(invocation: Arc<Invocation>) -> Self {
        let memory_bytes = invocation.deployment.limits.memory_mb << 20;
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELDS_BYTES_MAX);
        let limiter = MemoryLimiter::new(invocation.runtime.memory().clone(), memory_bytes);
        Self {
            invocation,
            limiter,
            table,
            sqlite_held: Arc::default(),
            open_objects: OpenObjects::default(),
            own_object: None,
            calls: 0,
            is_slow: false,
            http,
            hooks: Hooks,
            wasi: None,
        }
    }
}

impl WasiView for Data {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let invocation = &self.invocation;
        let ctx = self.wasi.get_or_insert_with(|| {
            let stdio = |stream| LogStdio::new(invocation.clone(), stream);
            WasiCtx::builder()
                .stdout(stdio(LogStream::Stdout))
                .stderr(stdio(LogStream::Stderr))
                .allow_tcp(false)
                .allow_udp(false)
                .max_random_size(RANDOM_BYTES_MAX)
                .build()
        });
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl IoView for Data {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiHttpView for Data {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

/// An instance's store and slot. When it goes, the invocation learns what the instance used.
pub(crate) struct Instance {
    /// Dropped before the permit, so that a slot is free only when its memory is.
    pub store: Store<Data>,
    fuel: u64,
    returned: bool,
    _permit: Permit,
}

impl Instance {
    pub fn new(invocation: Arc<Invocation>, permit: Permit) -> wasmtime::Result<Self> {
        let limits = &invocation.deployment.limits;
        let fuel = limits.cpu_ms.saturating_mul(FUEL_PER_CPU_MS);
        let hostcall_bytes = HOSTCALL_BYTES_MAX.max((limits.body_mb << 20) + (1 << 20));
        let engine = invocation.runtime.engine().clone();
        let metering = invocation.runtime.metering();
        let mut store = Store::new(&engine, Data::new(invocation));
        store.limiter(|data| &mut data.limiter);
        if metering == Metering::On {
            store.set_fuel(fuel)?;
            store.fuel_async_yield_interval(Some(FUEL_PER_YIELD))?;
            store.call_hook(after_host_call);
        }
        store.set_hostcall_fuel(usize::try_from(hostcall_bytes).unwrap_or(usize::MAX));
        store.set_max_component_handles(COMPONENT_HANDLES_MAX);
        Ok(Self { store, fuel, returned: false, _permit: permit })
    }

    /// The guest has returned, so what it streamed is as it meant it.
    pub fn returned(&mut self) {
        self.returned = true;
    }
}

/// Has a guest yield whose host calls have taken long.
fn after_host_call(mut store: StoreContextMut<'_, Data>, hook: CallHook) -> wasmtime::Result<()> {
    if !matches!(hook, CallHook::ReturningFromHost) {
        return Ok(());
    }
    let data = store.data_mut();
    data.calls += 1;
    if data.calls < CALLS_PER_LOOK && !data.is_slow {
        return Ok(());
    }
    data.calls = 0;
    let is_slow = meter::spent_in_this_poll_ns() > SLOW_CALLS_NS;
    if std::mem::replace(&mut data.is_slow, is_slow) == is_slow {
        return Ok(());
    }
    store.fuel_async_yield_interval(Some(if is_slow { FUEL_PER_YIELD_OF_SLOW_CALLS } else { FUEL_PER_YIELD }))
}

impl Drop for Instance {
    fn drop(&mut self) {
        let fuel = self.store.get_fuel().map_or(0, |left| self.fuel.saturating_sub(left));
        let data = self.store.data();
        let invocation = &data.invocation;
        invocation.fuel.store(fuel, Ordering::Relaxed);
        invocation.memory_peak_bytes.store(data.limiter.peak_bytes(), Ordering::Relaxed);
        invocation.memory_refused.store(data.limiter.refused(), Ordering::Relaxed);
        if !self.returned {
            // Said before the store drops its end of the body, so that whoever reads that body cannot take the end for a whole one.
            invocation.set_broken();
        }
    }
}
