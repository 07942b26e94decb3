//! Kinds of data, each measured on an operator's host: in a worker and over the API.

pub mod sqlite;
