//! The front door. Read in the order of a request: `listen` accepts a connection, `request` finds the service and asks the runtime, `respond` turns the answer
//! into HTTP; `routes` says who answers where, and `files` serves what is not computed.

mod files;
mod listen;
mod request;
mod respond;
pub mod routes;
mod timer;

pub use listen::{ListenConfig, Listening};
pub use request::Edge;
pub use respond::Audience;
