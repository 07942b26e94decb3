//! The `tovuk` command.

pub mod build;
pub mod env_file;
pub mod project_file;
pub mod toolchain;
pub mod watch;

use std::process::ExitCode;

/// Instances make many small allocations on many threads, for which the system's allocator measured 5% slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Before anything else: a compiler process has limits to set and nothing to start.
    if let Some(code) = tovuk_runtime::compile::child_main() {
        return code;
    }
    ExitCode::SUCCESS
}
