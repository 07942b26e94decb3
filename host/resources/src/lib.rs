//! Resource kinds, one folder each. A kind knows nothing of the engine, of HTTP servers or of the other kinds.

pub mod bindings;
