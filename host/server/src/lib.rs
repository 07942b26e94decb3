//! The host's doors: listeners, routing, and the path between a socket and a worker.

pub mod edge;
pub mod listen;
pub mod tls;
