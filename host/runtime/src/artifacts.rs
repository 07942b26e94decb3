//! Compiled components: on disk by content and engine, in memory the most recently used.
//!
//! `<sha256>.wasm` is what was deployed, `<sha256>-<compatibility>.cwasm` its code and `….json` beside it the code's digest and description. Code is
//! mapped, not read, so files are never rewritten in place: a mapped page follows its file, and a truncated one ends the process. A file appears
//! under its name only when it is whole and on disk.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use dashmap::DashSet;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tovuk_kernel::histogram::{Durations, Histogram};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use crate::compile::{self, Compiled, Compiler};
use crate::component::{Description, Refusal};
use crate::instance::Data;
use crate::worker::Worker;

/// Names a component by its content: the SHA-256 of its bytes, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArtifactId(Arc<str>);

impl ArtifactId {
    /// The name of these bytes.
    pub fn of(wasm: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(wasm)).into())
    }

    /// The hexadecimal text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A component that is compiled and stored.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Its name.
    pub id: ArtifactId,
    /// What it is.
    pub description: Description,
}

/// Why a component could not be prepared or loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The component's fault.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The host's fault.
    #[error("{path}: {source}")]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The host's fault.
    #[error("{0}")]
    Host(String),
    /// The stored code is not what was stored.
    #[error("{path} has changed since it was compiled: it is compiled again at the next deploy")]
    Corrupt {
        /// The file concerned.
        path: PathBuf,
    },
    /// There is no such artifact.
    #[error("component {0} is not stored on this host")]
    Unknown(String),
}

impl From<compile::Error> for Error {
    fn from(error: compile::Error) -> Self {
        match error {
            compile::Error::Refused(refusal) => Self::Refused(refusal),
            compile::Error::Host(text) => Self::Host(text),
        }
    }
}

/// What stands beside the code.
#[derive(Serialize, Deserialize)]
struct Manifest {
    code_sha256: String,
    description: Description,
}

/// The store of one host. What reads, writes and digests whole files happens beside the threads that serve requests.
pub struct Artifacts {
    store: Arc<Store>,
    compiler: Compiler,
    cold_loads: Histogram,
}

struct Store {
    folder: PathBuf,
    engine: Engine,
    linker: Linker<Data>,
    compatibility: String,
    loaded: Cache<ArtifactId, Arc<Worker>>,
    /// Code whose digest was checked in this process.
    checked: DashSet<ArtifactId>,
    /// Held while a component is written, alone while some are removed: none is left in halves.
    writing: RwLock<()>,
}

impl Artifacts {
    /// The store in `folder`, which is made if it is missing, readable by this user alone.
    pub fn open(folder: PathBuf, engine: Engine, linker: Linker<Data>, compiler: Compiler, loaded_max: u64) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|source| Error::Io { path: folder.clone(), source })?;
        let compatibility = compile::compatibility(&engine);
        let loaded = Cache::builder().max_capacity(loaded_max).eviction_policy(EvictionPolicy::lru()).build();
        let store = Store { folder, engine, linker, compatibility, loaded, checked: DashSet::new(), writing: RwLock::default() };
        Ok(Self { store: Arc::new(store), compiler, cold_loads: Histogram::new() })
    }

    /// Compiles a component unless its code is stored, and stores both.
    pub async fn prepare(&self, wasm: &[u8]) -> Result<Artifact, Error> {
        crate::component::sniff(wasm)?;
        let bytes: Arc<[u8]> = wasm.into();
        let known = self.beside({
            let bytes = bytes.clone();
            move |store| {
                let id = ArtifactId::of(&bytes);
                let manifest = store.manifest(&id).filter(|manifest| store.check(&id, manifest).is_ok());
                Ok(manifest.map(|manifest| Artifact { id, description: manifest.description }))
            }
        });
        if let Some(artifact) = known.await? {
            return Ok(artifact);
        }
        let compiled = self.compiler.compile(wasm, &self.store.compatibility).await?;
        self.beside(move |store| store.keep(&bytes, compiled)).await
    }

    /// What is stored under this name.
    pub fn stored(&self, id: &str) -> Result<Artifact, Error> {
        let id = ArtifactId(id.into());
        let manifest = self.store.manifest(&id).ok_or_else(|| Error::Unknown(id.as_str().to_owned()))?;
        Ok(Artifact { id, description: manifest.description })
    }

    /// Compiles a stored component anew where its code is missing, damaged, or of another engine. Its code is looked at when it is first used.
    pub async fn revive(&self, id: &str) -> Result<(), Error> {
        let id = ArtifactId(id.into());
        let wasm = self.beside(move |store| {
            if store.manifest(&id).is_some() && store.code_path(&id).is_file() {
                return Ok(None);
            }
            let path = store.path(&id, "wasm");
            let wasm = fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
            if ArtifactId::of(&wasm) == id { Ok(Some(wasm)) } else { Err(Error::Corrupt { path }) }
        });
        match wasm.await? {
            Some(wasm) => self.prepare(&wasm).await.map(drop),
            None => Ok(()),
        }
    }

    /// Removes every component but these, the code of other engines, and what a process has left that ended while it wrote. The names of components that
    /// are being prepared have to be among these.
    pub async fn remove_all_but(&self, ids: HashSet<String>) -> Result<(), Error> {
        self.beside(move |store| store.remove_all_but(&ids)).await
    }

    /// The worker of a prepared component, from memory or mapped from disk.
    pub async fn load(&self, id: &ArtifactId) -> Result<Arc<Worker>, Error> {
        if let Some(worker) = self.store.loaded.get(id) {
            return Ok(worker);
        }
        let id = id.clone();
        let started = Instant::now();
        let worker = self.beside(move |store| store.load(&id)).await;
        self.cold_loads.observe(started.elapsed());
        worker
    }

    /// How long invocations waited for components that were not loaded.
    pub fn cold_loads(&self) -> Durations {
        self.cold_loads.read()
    }

    /// How many components are loaded.
    pub fn loaded_count(&self) -> u64 {
        self.store.loaded.run_pending_tasks();
        self.store.loaded.entry_count()
    }

    /// Runs a job that reads or writes files on a thread where it holds nobody up. It goes on when nobody waits for it any more.
    async fn beside<T, F>(&self, job: F) -> Result<T, Error>
    where
        F: FnOnce(&Store) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let store = self.store.clone();
        tovuk_kernel::threads::spawn_blocking(move || job(&store)).await.unwrap_or_else(|error| Err(Error::Host(error.to_string())))
    }
}

impl Store {
    /// Stores a component with its code.
    fn keep(&self, wasm: &[u8], compiled: Compiled) -> Result<Artifact, Error> {
        let _writing = self.writing.read().unwrap_or_else(PoisonError::into_inner);
        let id = ArtifactId::of(wasm);
        let manifest = Manifest { code_sha256: hex::encode(Sha256::digest(&compiled.code)), description: compiled.description };
        let manifest_json = serde_json::to_vec(&manifest).map_err(|error| Error::Host(error.to_string()))?;
        self.write(&self.path(&id, "wasm"), wasm)?;
        self.write(&self.code_path(&id), &compiled.code)?;
        // The manifest comes last: where it stands, the code does.
        self.write(&self.manifest_path(&id), &manifest_json)?;
        self.checked.insert(id.clone());
        // The compiler has no pool and looks at no types, so whether it can run shows only here, and has to before it is promoted.
        self.load(&id).map_err(|error| Refusal::Unloadable { text: error.to_string() })?;
        Ok(Artifact { id, description: manifest.description })
    }

    fn remove_all_but(&self, ids: &HashSet<String>) -> Result<(), Error> {
        let _alone = self.writing.write().unwrap_or_else(PoisonError::into_inner);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        self.checked.retain(|id| ids.contains(id.as_str()));
        for entry in fs::read_dir(&self.folder).map_err(io(&self.folder))? {
            let path = entry.map_err(io(&self.folder))?.path();
            let is_kept = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| self.is_kept(name, ids));
            if !is_kept && path.is_file() {
                fs::remove_file(&path).map_err(io(&path))?;
            }
        }
        Ok(())
    }

    /// Whether this is the name of a file of one of these, for this engine.
    fn is_kept(&self, name: &str, ids: &HashSet<String>) -> bool {
        let Some((id, rest)) = name.find(['.', '-']).and_then(|at| name.split_at_checked(at)) else { return false };
        let code = rest.strip_prefix('-').and_then(|rest| rest.strip_prefix(self.compatibility.as_str()));
        ids.contains(id) && (rest == ".wasm" || matches!(code, Some(".cwasm" | ".json")))
    }

    /// Requests that need the same one wait for one reader.
    fn load(&self, id: &ArtifactId) -> Result<Arc<Worker>, Error> {
        self.loaded.try_get_with(id.clone(), || self.map(id).map(Arc::new)).map_err(|error: Arc<Error>| Error::Host(error.to_string()))
    }

    fn map(&self, id: &ArtifactId) -> Result<Worker, Error> {
        let manifest = self.manifest(id).ok_or_else(|| Error::Unknown(id.as_str().to_owned()))?;
        self.check(id, &manifest)?;
        let component = map_code(&self.engine, &self.code_path(id)).map_err(|error| Error::Host(format!("{error:#}")))?;
        Worker::new(&self.linker, &component, manifest.description.world).map_err(|error| Error::Host(format!("{error:#}")))
    }

    fn manifest(&self, id: &ArtifactId) -> Option<Manifest> {
        serde_json::from_slice(&fs::read(self.manifest_path(id)).ok()?).ok()
    }

    /// Compares the code on disk with its digest, once in a process.
    fn check(&self, id: &ArtifactId, manifest: &Manifest) -> Result<(), Error> {
        if self.checked.contains(id) {
            return Ok(());
        }
        let path = self.code_path(id);
        let io = |source| Error::Io { path: path.clone(), source };
        let mut file = File::open(&path).map_err(io)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer).map_err(io)? {
                0 => break,
                read => hasher.update(buffer.get(..read).unwrap_or_default()),
            }
        }
        if hex::encode(hasher.finalize()) != manifest.code_sha256 {
            return Err(Error::Corrupt { path });
        }
        self.checked.insert(id.clone());
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).map_err(io)?;
        file.write_all(bytes).map_err(io)?;
        file.as_file().sync_all().map_err(io)?;
        file.persist(path).map_err(|error| io(error.error))?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(io)
    }

    fn path(&self, id: &ArtifactId, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", id.as_str()))
    }

    fn code_path(&self, id: &ArtifactId) -> PathBuf {
        self.folder.join(format!("{}-{}.cwasm", id.as_str(), self.compatibility))
    }

    fn manifest_path(&self, id: &ArtifactId) -> PathBuf {
        self.folder.join(format!("{}-{}.json", id.as_str(), self.compatibility))
    }
}

#[expect(unsafe_code, reason = "mapping code trusts the file; only this store writes into the folder, and the digest was compared before")]
fn map_code(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file was written by `Artifacts::write` from the compiler's output, is never changed in place, and its digest was
    // checked in this process.
    unsafe { Component::deserialize_file(engine, path) }
}
