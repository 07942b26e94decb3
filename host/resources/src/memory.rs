//! Memory that what is read counts in, so that readers together have no more of it than their host gives them.

/// Where the memory for what is read is counted, until this is dropped.
pub trait Memory: Send + Sync {
    /// Takes so many bytes, if there are so many left.
    fn take(&self, bytes: u64) -> bool;
}
