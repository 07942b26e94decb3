//! The engine: its settings, and what of them this machine can have.
//!
//! The settings that shape compiled code are the same for the process that compiles and the one that runs; the allocator is not, because a
//! pool and an address-space limit fail together. Measured reasons stand beside each setting.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

/// Whether guests are metered: by fuel in their code, and by the CPU clock around them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metering {
    /// As every host has it.
    #[default]
    On,
    /// For measuring what metering costs, and for nothing else: no limit on CPU time holds, and a guest that spins keeps its thread for ever.
    Off,
}

/// How large the pool of instances may be.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Instances that exist at a time, at the most. What the machine cannot map is left out, with a warning.
    pub slots_max: u32,
    /// Components that are loaded at a time; each takes three mappings.
    pub components_max: u32,
    /// Off only in a benchmark.
    pub metering: Metering,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { slots_max: 4_096, components_max: 4_096, metering: Metering::On }
    }
}

/// An engine, and how many instances it can hold at a time.
pub struct PooledEngine {
    /// The engine.
    pub engine: Engine,
    /// Instance slots.
    pub slots: u32,
}

/// Linear memory of one instance, at the most. The limit per service lies at or below it.
const MEMORY_BYTES_MAX: usize = 1 << 30;
/// Core instances, memories and tables that one component may have. Rust components have one to three core instances, those made from JavaScript or
/// Python a few more.
pub(crate) const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 32;
pub(crate) const MEMORIES_PER_COMPONENT_MAX: u32 = 2;
pub(crate) const TABLES_PER_COMPONENT_MAX: u32 = 8;
pub(crate) const TABLE_ELEMENTS_MAX: usize = 65_536;
/// Of each memory this much stays mapped between two uses and is reset by copying. 2 MiB measured the same and pins four times as much.
const MEMORY_KEEP_RESIDENT_BYTES: usize = 512 << 10;
const TABLE_KEEP_RESIDENT_BYTES: usize = 64 << 10;
/// Mappings that everything but instances and components needs: code, heap, thread stacks, files.
const MAPPINGS_OF_THE_PROCESS: u64 = 10_000;
/// Mappings of a live instance (memories with their guards and images, tables, stack) and of a loaded component.
const MAPPINGS_PER_SLOT: u64 = 6;
const MAPPINGS_PER_COMPONENT: u64 = 3;
/// A slot keeps memory, tables and stack warm between uses, 1 to 3 MiB of them, so a small machine gets fewer slots.
const RAM_BYTES_PER_SLOT: u64 = 8 << 20;
/// The smallest pool that is worth having; below it the on-demand allocator serves.
const SLOTS_MIN: u32 = 64;

/// Everything that shapes compiled code, and the limits of a stack.
fn base_config(metering: Metering) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    config.consume_fuel(metering == Metering::On);
    // Without it the store keeps task tables for component-model async; leaving it out saves a fifth of a small invocation.
    config.concurrency_support(false);
    config.memory_init_cow(true);
    config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
    // Each nested invocation runs on a fiber of its own, so native stacks do not add up along a chain.
    config.max_wasm_stack(512 << 10);
    config.async_stack_size(2 << 20);
    config
}

/// The engine of the process that compiles: no pool, because that process has a limit on its address space.
pub fn compiling_engine(metering: Metering) -> wasmtime::Result<Engine> {
    let mut config = base_config(metering);
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&config)
}

/// The engine that runs workers. Where the machine cannot hold the whole pool it is made smaller, and in the end left out; each step is logged
/// with its reason.
pub fn pooled_engine(config: &EngineConfig) -> wasmtime::Result<PooledEngine> {
    raise_open_files();
    let pagemap_scan = PoolingAllocationConfig::is_pagemap_scan_available();
    if !pagemap_scan {
        tracing::warn!(
            "this kernel has no PAGEMAP_SCAN (Linux 6.7 or newer): instance memory is reset by madvise, which costs about 15 µs an invocation"
        );
    }
    let mut slots = affordable_slots(config);
    while slots >= SLOTS_MIN.min(config.slots_max) && slots > 0 {
        match Engine::new(&with_pool(slots, pagemap_scan, config.metering)) {
            Ok(engine) => return Ok(PooledEngine { engine, slots }),
            Err(error) => {
                tracing::warn!(slots, "the instance pool does not fit, trying half of it: {error:#}");
                slots /= 2;
            }
        }
    }
    let slots = config.slots_max.clamp(1, SLOTS_MIN);
    tracing::warn!(
        slots,
        "no instance pool: too little address space or too few mappings; every invocation maps its memory anew, which costs about 50 µs"
    );
    let mut on_demand = base_config(config.metering);
    on_demand.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Ok(PooledEngine { engine: Engine::new(&on_demand)?, slots })
}

fn with_pool(slots: u32, pagemap_scan: bool, metering: Metering) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(CORE_INSTANCES_PER_COMPONENT_MAX))
        .total_memories(slots.saturating_mul(MEMORIES_PER_COMPONENT_MAX))
        .total_tables(slots.saturating_mul(TABLES_PER_COMPONENT_MAX))
        .total_stacks(slots)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT_MAX)
        .max_memories_per_component(MEMORIES_PER_COMPONENT_MAX)
        .max_memories_per_module(MEMORIES_PER_COMPONENT_MAX)
        .max_tables_per_component(TABLES_PER_COMPONENT_MAX)
        .max_tables_per_module(TABLES_PER_COMPONENT_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        // A slot that was used by a component is cheapest to give to the same one again, so as many stay warm as there are.
        .max_unused_warm_slots(slots);
    if pagemap_scan {
        // Only with the scan: without it the reset copies whole ranges, and measured slower than letting the kernel drop the pages.
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(MEMORY_KEEP_RESIDENT_BYTES).table_keep_resident(TABLE_KEEP_RESIDENT_BYTES);
    }
    // Stacks are not zeroed between uses: it costs 2.3 µs, and wasm cannot read a stack slot that it has not written.
    let mut config = base_config(metering);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// What this machine lacks that workers would run faster with, or more of them, each with what to do about it.
pub fn shortcomings(config: &EngineConfig) -> Vec<String> {
    let mut found = Vec::new();
    if !PoolingAllocationConfig::is_pagemap_scan_available() {
        found.push("this kernel has no PAGEMAP_SCAN, and each invocation costs about 15 µs more: use Linux 6.7 or newer".to_owned());
    }
    if let Some((slots, maps)) = slots_of_mappings(config).filter(|(slots, _)| *slots < u64::from(config.slots_max)) {
        let enough =
            MAPPINGS_OF_THE_PROCESS + MAPPINGS_PER_COMPONENT * u64::from(config.components_max) + MAPPINGS_PER_SLOT * u64::from(config.slots_max);
        let limit = config.slots_max;
        found.push(format!(
            "vm.max_map_count is {maps}, which is enough for {slots} of {limit} instances at a time: run `sysctl -w vm.max_map_count={enough}`"
        ));
    }
    found
}

/// How many slots the limit on mappings allows, and that limit.
fn slots_of_mappings(config: &EngineConfig) -> Option<(u64, u64)> {
    let maps = read_number("/proc/sys/vm/max_map_count")?;
    let taken = MAPPINGS_OF_THE_PROCESS + MAPPINGS_PER_COMPONENT * u64::from(config.components_max);
    Some((maps.saturating_sub(taken) / MAPPINGS_PER_SLOT, maps))
}

/// As many slots as were asked for and as this machine's mappings and memory allow.
fn affordable_slots(config: &EngineConfig) -> u32 {
    let mut slots = u64::from(config.slots_max);
    if let Some((for_slots, maps)) = slots_of_mappings(config).filter(|(for_slots, _)| *for_slots < slots) {
        tracing::warn!(slots = for_slots, "fewer instance slots than configured: raise vm.max_map_count, which is {maps}");
        slots = for_slots;
    }
    if let Some(ram) = ram_bytes() {
        slots = slots.min(ram / RAM_BYTES_PER_SLOT);
    }
    u32::try_from(slots).unwrap_or(u32::MAX)
}

/// The machine's memory in bytes, where it can be told.
pub fn ram_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn read_number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Each loaded component holds a file descriptor for the image of its memory, so the soft limit is raised to the hard one.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || (limit.current.is_some() && limit.maximum.is_none()) {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!("the limit on open files stays at {:?}: {error}", limit.current);
        }
    }
}
