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
        return cpu_exceeded(invocation);
    }
    // The first line says which trap; the rest is the backtrace, which only the service's own log may have.
    let cause = error.root_cause().to_string();
    let failure = if invocation.memory_refused.load(Ordering::Relaxed) {
        let limit = invocation.deployment.limits.memory_mb;
        let text = format!("{name} was refused memory, of which it may have {limit} MiB, and ended: {cause}");
        Failure::new(&codes::WORKER_MEMORY_EXCEEDED, Outcome::Memory, text)
    } else {
        Failure::new(&codes::WORKER_TRAPPED, Outcome::Trap, format!("{name} trapped: {cause}"))
    };
    let detail = format!("{}\n{error:?}", failure.message);
    failure.with_detail(detail)
}

/// The guest has used up its CPU time, by its fuel or by the clock.
pub(crate) fn cpu_exceeded(invocation: &Invocation) -> Failure {
    let text = format!("{} used more than {} ms of CPU time", invocation.target.name, invocation.deployment.limits.cpu_ms);
    Failure::new(&codes::WORKER_CPU_EXCEEDED, Outcome::Cpu, text)
}
