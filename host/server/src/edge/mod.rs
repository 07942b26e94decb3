//! The front door. Read in the order of a request: `request` finds the service and asks the runtime, `respond` turns the answer
//! into HTTP; `routes` says who answers where, and `files` serves what is not computed.

mod api;
pub(crate) mod files;
pub mod redirect;
mod request;
mod respond;
pub mod routes;

pub use crate::listen::{ListenConfig, Listening};
pub use api::Api;
pub use redirect::Redirect;
pub use request::Edge;
pub use respond::Audience;
