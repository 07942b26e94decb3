//! What was uploaded, unpacked: static files into the folder that is named after them, source into a build.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tovuk_kernel::codes;
use tovuk_kernel::limits::ARCHIVE_GZIP_BYTES;

use super::accept::is_plain;
use super::live::Version;
use super::log::BuildLog;
use super::uploads;
use crate::assets::{AssetIndex, IndexError};
use crate::build::archive::{self, ArchiveLimits, Kind};
use crate::build::{Job, build_source, sync_tree};
use crate::control::{Control, Refusal};

/// Static files, packed or in a folder that goes with them.
pub(super) enum Files {
    /// As they were uploaded.
    Archive(Vec<u8>),
    /// As a build has left them, with the folder that is removed afterwards.
    Folder { path: PathBuf, _remove: tempfile::TempDir },
}

/// Puts static files into the folder that is named after their content; its name. They are on disk when this returns.
pub(super) async fn store(data: &Path, files: Files, log: &BuildLog, cancel: &CancellationToken) -> Result<String, Refusal> {
    let home = data.join("assets");
    let stored = blocking(cancel, move |cancelled| {
        fs::create_dir_all(&home).map_err(uploads::not_stored)?;
        let temporary = tempfile::Builder::new().prefix("new-").tempdir_in(&home).map_err(uploads::not_stored)?;
        let into = temporary.path().join("files");
        let folder = match &files {
            Files::Folder { path, .. } => path.clone(),
            Files::Archive(bytes) => {
                unpack(bytes, &into, Kind::Assets, cancelled)?;
                into
            }
        };
        let index = AssetIndex::of(&folder).map_err(|error| match error {
            IndexError::Io { .. } => Refusal::internal(error),
            refused => Refusal::new(&codes::ARCHIVE_REFUSED, refused.to_string()),
        })?;
        let digest = hex::encode(Sha256::digest(serde_json::to_vec(&index).map_err(Refusal::internal)?));
        let name = home.join(&digest);
        if !name.is_dir() {
            sync_tree(&folder).map_err(uploads::not_stored)?;
            match fs::rename(&folder, &name) {
                // Another deploy of the same files was faster.
                Err(_) if name.is_dir() => {}
                result => result.map_err(uploads::not_stored)?,
            }
        }
        // Last, and synced with the folder's name: where the index stands, the files do.
        index.save(&name).map_err(uploads::not_stored)?;
        Ok((digest, index.files(), index.bytes()))
    });
    let (digest, count, bytes) = stored.await?;
    log.line(&format!("{count} static files with {bytes} bytes"));
    Ok(digest)
}

/// What source becomes: a component, static files, or both.
pub(super) async fn of_source(
    control: &Control,
    version: &Version,
    source: Vec<u8>,
    log: &BuildLog,
    cancel: &CancellationToken,
) -> Result<(Option<Vec<u8>>, Option<Files>), Refusal> {
    let folder = tempfile::Builder::new().prefix("build-").tempdir_in(control.config().data.join("uploads")).map_err(uploads::not_stored)?;
    let unpacked = folder.path().join("source");
    let into = unpacked.clone();
    blocking(cancel, move |cancelled| unpack(&source, &into, Kind::Source, cancelled)).await?;
    let declared = &version.declared.service;
    if is_plain(declared) {
        let assets = declared.assets.as_deref().unwrap_or(".");
        let absent = || Refusal::new(&codes::ARCHIVE_REFUSED, format!("the archive has no folder `{assets}`"));
        // Without `.` and `..`, because a path that ends in one of them cannot be renamed; and never outside, whatever was checked before.
        let unpacked = unpacked.canonicalize().map_err(uploads::not_stored)?;
        let root = unpacked.join(declared.root()).join(assets).canonicalize().map_err(|_| absent())?;
        if !root.is_dir() || !root.starts_with(&unpacked) {
            return Err(absent());
        }
        return Ok((None, Some(Files::Folder { path: root, _remove: folder })));
    }
    control.builds().check_remote(&version.service.name)?;
    let Some(sandbox) = control.builds().remote() else { return Err(Refusal::internal("no sandbox")) };
    log.line("building from source");
    let output = folder.path().join("output");
    let job = Job { name: &version.service.name, service: declared, source: &unpacked, output: &output };
    let built = build_source(sandbox, job, |line| log.line(line), cancel).await;
    let built = built.map_err(|error| match error.code() {
        Some(code) => Refusal::new(code, error.to_string()),
        None => Refusal::internal(error),
    })?;
    let component = built.component.map(fs::read).transpose().map_err(Refusal::internal)?;
    Ok((component, built.assets.map(|assets| Files::Folder { path: assets, _remove: folder })))
}

/// Unpacks an archive, or says what is wrong with it.
fn unpack(bytes: &[u8], into: &Path, kind: Kind, cancelled: &AtomicBool) -> Result<(), Refusal> {
    if bytes.len() as u64 > ARCHIVE_GZIP_BYTES {
        return Err(Refusal::new(&codes::ARCHIVE_TOO_LARGE, format!("the archive has {} bytes; {ARCHIVE_GZIP_BYTES} are allowed", bytes.len())));
    }
    fs::create_dir_all(into).map_err(uploads::not_stored)?;
    let unpacked = archive::unpack(bytes, into, &ArchiveLimits::default(), kind, cancelled);
    unpacked.map(drop).map_err(|error| match error.code() {
        Some(code) => Refusal::new(code, error.to_string()),
        None => Refusal::internal(error),
    })
}

/// Runs a job that blocks, and tells it when nobody waits for it any more.
async fn blocking<T, F>(cancel: &CancellationToken, job: F) -> Result<T, Refusal>
where
    F: FnOnce(&AtomicBool) -> Result<T, Refusal> + Send + 'static,
    T: Send + 'static,
{
    let cancelled = Arc::new(AtomicBool::new(cancel.is_cancelled()));
    let _tell = Tell(cancelled.clone());
    tokio::task::spawn_blocking(move || job(&cancelled)).await.map_err(Refusal::internal)?
}

struct Tell(Arc<AtomicBool>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
