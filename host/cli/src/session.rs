//! Which host the client speaks to, and as whom: `--api` and `--token`, the environment, the session file.

/// The API of a host on this machine.
pub const DEFAULT_API: &str = "http://127.0.0.1:8788";
