//! The stores of one host, opened and closed together. Each is in its own folder and knows nothing of the others; the worker's imports and the control
//! API get the same handles.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tovuk_kernel::clock::Clock;
use tovuk_kernel::meters::Meter;

use crate::cron::{self, Crons};
use crate::kv::{self, Kv};
use crate::meters::{self, Levels, Meters};
use crate::objects::{self, Objects, Place};
use crate::queue::{self, Queues};
use crate::sqlite::Sqlites;
use crate::state::{self, State};

/// Why the stores cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// KV.
    #[error("KV: {0}")]
    Kv(#[from] kv::Error),
    /// Tenants' databases.
    #[error("the databases of services: {0}")]
    Sqlite(#[source] io::Error),
    /// Usage and caps.
    #[error("usage: {0}")]
    Meters(#[from] meters::Error),
    /// Object storage.
    #[error("object storage: {0}")]
    Objects(#[from] objects::Error),
    /// Queues.
    #[error("queues: {0}")]
    Queues(#[from] queue::Error),
    /// Cron triggers.
    #[error("cron triggers: {0}")]
    Crons(#[from] cron::Error),
    /// State.
    #[error("State: {0}")]
    State(#[from] state::Error),
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
    /// Queues.
    pub queues: Queues,
    /// Cron triggers.
    pub crons: Crons,
    /// State.
    pub state: State,
    /// What services use, and caps.
    pub meters: Meters,
}

/// What is stored, for caps and for those who ask what is used.
struct Stored {
    kv: Kv,
    sqlite: Sqlites,
    state: State,
    objects: Objects,
}

impl Levels for Stored {
    fn level(&self, account: i64, service: Option<i64>, meter: Meter) -> u64 {
        match meter {
            Meter::KvStorageBytes => self.kv.stored_bytes(account, service),
            Meter::SqliteStorageBytes => self.sqlite.stored_bytes(account, service),
            Meter::ObjectStorageBytes => self.objects.stored_bytes(account, service),
            Meter::StateSqliteStorageBytes => self.state.stored_bytes(account, service),
            _ => 0,
        }
    }
}

impl Stores {
    /// Opens all of them in the data folder. `place` says where the bytes of objects are. Must run inside the async runtime; for the start of the host.
    ///
    /// # Errors
    /// When a folder or a file cannot be used, or the objects of this data folder are elsewhere.
    pub async fn open(data: &Path, place: &Place, clock: &Clock) -> Result<Self, OpenError> {
        let stores = Self {
            meters: Meters::open(&data.join("meters.db"), clock.clone()).await?,
            kv: Kv::open(&data.join("kv"), clock.clone()).await?,
            sqlite: Sqlites::open(data, clock.clone()).map_err(OpenError::Sqlite)?,
            objects: Objects::open(data.join("objects.db"), place, clock.clone()).await?,
            queues: Queues::open(&data.join("queues"), clock.clone()).await?,
            crons: Crons::open(&data.join("cron.db"), clock.clone()).await?,
            state: State::open(&data.join("state"), clock.clone()).await?,
        };
        stores.meters.set_levels(Arc::new(Stored {
            kv: stores.kv.clone(),
            sqlite: stores.sqlite.clone(),
            state: stores.state.clone(),
            objects: stores.objects.clone(),
        }));
        Ok(stores)
    }

    /// Writes what is queued and closes the files. Whoever comes later gets an error.
    pub async fn close(&self) {
        closed("KV", self.kv.close().await);
        self.sqlite.close().await;
        closed("object storage", self.objects.close().await);
        closed("queues", self.queues.close().await);
        closed("cron triggers", self.crons.close().await);
        closed("State", self.state.close().await);
        // Last, with what all of them have charged.
        closed("usage", self.meters.close().await);
    }
}

fn closed(what: &str, result: Result<(), impl Display>) {
    if let Err(error) = result {
        tracing::warn!("not closed cleanly: {what}: {error}");
    }
}
