//! What `tovuk deploy` sends.

pub mod archive;
