//! The vocabulary of the host: ids, names, clock, limits, error codes, project files. It knows no engine, no HTTP server, no command line and
//! no SQL, and does no input or output of its own.

pub mod archive;
pub mod clock;
pub mod codes;
pub mod error;
pub mod histogram;
pub mod ids;
pub mod limits;
pub mod meters;
pub mod names;
pub mod operation;
pub mod outbound;
pub mod paths;
pub mod pricing;
pub mod project;
pub mod resource;
pub mod threads;
