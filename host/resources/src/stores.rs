//! The stores of one host, opened and closed together. Each is in its own folder and knows nothing of the others; the worker's imports and the control
//! API get the same handles.

use std::io;
use std::path::Path;

use tovuk_kernel::clock::Clock;

use crate::kv::{self, Kv};
use crate::objects::{self, Objects, Place};
use crate::sqlite::Sqlites;

/// Why the stores cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// KV.
    #[error("KV: {0}")]
    Kv(#[from] kv::Error),
    /// Tenants' databases.
    #[error("the databases of services: {0}")]
    Sqlite(#[source] io::Error),
    /// Object storage.
    #[error("object storage: {0}")]
    Objects(#[from] objects::Error),
}

/// The stores of all kinds. Clones share them.
#[derive(Clone)]
pub struct Stores {
    /// KV namespaces.
    pub kv: Kv,
    /// SQLite databases.
    pub sqlite: Sqlites,
    /// Objects.
    pub objects: Objects,
}

impl Stores {
    /// Opens all of them in the data folder. `place` says where the bytes of objects are. Must run inside the async runtime; for the start of the host.
    ///
    /// # Errors
    /// When a folder or a file cannot be used, or the objects of this data folder are elsewhere.
    pub async fn open(data: &Path, place: &Place, clock: &Clock) -> Result<Self, OpenError> {
        Ok(Self {
            kv: Kv::open(&data.join("kv"), clock.clone()).await?,
            sqlite: Sqlites::open(data, clock.clone()).map_err(OpenError::Sqlite)?,
            objects: Objects::open(data.join("objects.db"), place, clock.clone()).await?,
        })
    }

    /// Writes what is queued and closes the files. Whoever comes later gets an error.
    pub async fn close(&self) {
        if let Err(error) = self.kv.close().await {
            tracing::warn!("KV was not closed cleanly: {error}");
        }
        self.sqlite.close().await;
        if let Err(error) = self.objects.close().await {
            tracing::warn!("object storage was not closed cleanly: {error}");
        }
    }
}
