//! The kinds of data, each measured in a worker and over the API of an operator's host; where it says so, as a store on its own.

pub mod cron;
pub mod kv;
mod kv_store;
pub mod objects;
pub mod queue;
pub mod sqlite;
pub mod state;
mod state_store;
