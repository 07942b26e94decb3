//! The front door. Read in the order of a request: `request` finds the service and asks the runtime, `respond` turns the answer
//! into HTTP; `routes` says who answers where, and `files` and `objects` serve what is not computed.

mod api;
mod charged;
pub(crate) mod files;
mod objects;
pub mod redirect;
mod request;
mod respond;
pub mod routes;

pub use crate::listen::{ListenConfig, Listening};
pub use api::Api;
pub use redirect::Redirect;
pub use request::Edge;
pub use respond::Audience;
