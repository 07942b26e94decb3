//! From an upload to files that can be deployed: archives are unpacked, and source is compiled in a confined child process. What a build command
//! means and where it leaves its component is here for the command line as well. Nothing here knows HTTP, the control database, or what a deploy is.

pub mod archive;
pub mod command;
pub mod component;
pub mod sandbox;
mod source;
mod sync;

pub use self::source::{Built, Job, build_source, probe};
pub use self::sync::sync_tree;

/// The target that workers are built for.
pub const TARGET: &str = "wasm32-wasip2";

/// The build command of a service with a `Cargo.toml` that declares none.
pub const DEFAULT_BUILD: &str = tovuk_kernel::project::DEFAULT_WORKER_BUILD;
