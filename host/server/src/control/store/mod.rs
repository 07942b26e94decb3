//! What the control database holds, as rows and the queries for them. Each function takes a connection, so that several make one transaction. It
//! decides nothing: who may see what is the operations' business, but for the account, which every query of an account's things is given.

pub(crate) mod accounts;
pub(crate) mod activity;
pub(crate) mod bindings;
pub(crate) mod deploys;
pub(crate) mod domains;
pub(crate) mod env;
pub(crate) mod logins;
pub(crate) mod resources;
pub(crate) mod services;
pub(crate) mod webhooks;

/// The steps that lead to today's tables.
pub(super) const MIGRATIONS: &[&str] =
    &[include_str!("schema.sql"), include_str!("resources.sql"), include_str!("removals.sql"), include_str!("webhooks.sql")];
