//! Resource kinds, one folder each, and the layer over SQLite that their stores share. A kind knows nothing of the engine, of HTTP servers or of
//! the other kinds.

pub mod bindings;
pub mod conditional;
pub mod cron;
pub mod database;
#[cfg(test)]
mod killing;
pub mod kv;
mod ledger;
pub mod memory;
pub mod meters;
pub mod objects;
pub mod queue;
pub mod shares;
pub mod sqlite;
pub mod state;
pub mod stores;
