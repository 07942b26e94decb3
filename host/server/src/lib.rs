//! The host's doors: listeners, routing, the path between a socket and a worker; the control API, deploys and what else an operator's host is made of.

pub mod assets;
pub mod boot;
pub mod build;
pub mod control;
mod deliver;
pub mod deploy;
pub mod domains;
pub mod edge;
pub mod listen;
pub mod logs;
pub mod metrics;
pub mod observed;
mod stamped;
pub mod tls;
pub mod traces;
