//! What an error that ended a guest means.

use std::sync::atomic::Ordering;

use wasmtime::Trap;

use tovuk_kernel::codes;

use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::record::Outcome;

/// The failure behind an error of the engine. Its message has the wasm backtrace, with function names where the component has them.
pub(crate) fn classify(invocation: &Invocation, error: &wasmtime::Error) -> Failure {
    let name = &invocation.target.name;
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return Failure::new(&codes::WORKER_FAILED, Outcome::Failed, format!("{name} exited with status {}", exit.0));
    }
    if let Some(Trap::OutOfFuel) = error.downcast_ref::<Trap>() {
        return Failure::new(&codes::WORKER_CPU_EXCEEDED, Outcome::Cpu, format!("{name} used more than {} ms of CPU time", invocation.deployment.limits.cpu_ms));
    }
    if invocation.memory_refused.load(Ordering::Relaxed) {
        let limit = invocation.deployment.limits.memory_mb;
        return Failure::new(&codes::WORKER_MEMORY_EXCEEDED, Outcome::Memory, format!("{name} was refused memory, of which it may have {limit} MiB, and trapped: {error:?}"));
    }
    Failure::new(&codes::WORKER_TRAPPED, Outcome::Trap, format!("{name} trapped: {error:?}"))
}
