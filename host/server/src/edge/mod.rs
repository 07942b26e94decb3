//! The front door. Read in the order of a request: `request` finds the service and asks the runtime, `respond` turns the answer
//! into HTTP; `routes` says who answers where, and `files` serves what is not computed.

mod files;
mod request;
mod respond;
pub mod routes;

pub use crate::listen::{ListenConfig, Listening};
pub use request::Edge;
pub use respond::Audience;
