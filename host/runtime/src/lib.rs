//! The engine room: compiles, loads and invokes workers. The only crate that knows wasmtime.
//!
//! Everything that starts a worker comes through [`Runtime::invoke`](runtime::Runtime::invoke). It knows no sockets and no routes.

pub mod artifacts;
pub mod body;
pub mod calls;
pub mod compile;
pub mod component;
mod data_bindings;
pub mod engine;
pub mod failure;
mod flow;
mod having;
mod headers;
mod imports;
mod instance;
mod invocation;
pub mod invoke;
mod lean_bindings;
pub mod lines;
pub mod memory;
pub mod meter;
mod metered;
mod object_bindings;
pub mod objects;
pub mod outbound;
mod places;
pub mod record;
mod run;
pub mod runtime;
pub mod service;
pub mod slots;
mod spans;
pub mod trace;
mod trap;
pub mod turns;
mod usage;
mod worker;
