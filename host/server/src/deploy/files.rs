//! What was uploaded, unpacked: static files into the folder that is named after them, source into a build.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;
use tovuk_kernel::codes;
use tovuk_kernel::limits::ARCHIVE_GZIP_BYTES;

use super::accept::is_plain;
use super::kept::Kept;
use super::live::Version;
use super::log::BuildLog;
use super::uploads;
use crate::assets::{AssetIndex, IndexError};
use crate::build::archive::{self, ArchiveLimits, Kind};
use crate::build::{Job, build_source, sync_tree};
use crate::control::{Control, Refusal};

/// Static files, packed or in a folder of the upload's workspace.
pub(super) enum Files {
    /// As they were uploaded.
    Archive(Vec<u8>),
    /// As a build has left them.
    Folder(PathBuf),
}

/// Puts static files into the folder that is named after their content; its name, which is kept until a row refers to it. They are on disk when this
/// returns.
pub(super) async fn store(
    control: &Control,
    workspace: PathBuf,
    files: Files,
    log: &BuildLog,
    cancel: &CancellationToken,
) -> Result<(String, Kept), Refusal> {
    let draft = workspace.join("index.json");
    let read = blocking(cancel, move |cancelled| {
        let folder = match files {
            Files::Folder(path) => path,
            Files::Archive(bytes) => {
                let into = workspace.join("files");
                unpack(&bytes, &into, Kind::Assets, cancelled)?;
                into
            }
        };
        let index = AssetIndex::of(&folder).map_err(|error| match error {
            IndexError::Io { .. } => Refusal::internal(error),
            refused => Refusal::new(&codes::ARCHIVE_REFUSED, refused.to_string()),
        })?;
        Ok((folder, index))
    });
    let (folder, index) = read.await?;
    let digest = index.digest();
    let kept = control.builds().keep(&digest).await;
    let line = format!("{} static files with {} bytes", index.files(), index.bytes());
    let (name, held) = (uploads::assets_folder(&control.config().data, &digest), kept.clone());
    let placed = blocking(cancel, move |cancelled| {
        // As long as this runs, which may be longer than anybody waits for it.
        let _held = held;
        place(&folder, &name, cancelled)?;
        // Last, and synced with the folder's name: where the index stands, the files do.
        index.save(&name, &draft).map_err(uploads::not_stored)
    });
    placed.await?;
    log.line(&line);
    Ok((digest, kept))
}

/// Puts a folder of static files where it belongs, unless the same files are there.
fn place(folder: &Path, name: &Path, cancelled: &AtomicBool) -> Result<(), Refusal> {
    if name.is_dir() {
        return Ok(());
    }
    sync_tree(folder).map_err(uploads::not_stored)?;
    if cancelled.load(Ordering::Relaxed) {
        // No row will refer to it.
        return Err(Refusal::new(&codes::BUILD_FAILED, "the deploy was cancelled"));
    }
    match fs::rename(folder, name) {
        // Another deploy of the same files was faster.
        Err(_) if name.is_dir() => Ok(()),
        result => result.map_err(uploads::not_stored),
    }
}

/// What source becomes: a component, static files, or both.
pub(super) async fn of_source(
    control: &Control,
    version: &Version,
    workspace: &Path,
    source: Vec<u8>,
    log: &BuildLog,
    cancel: &CancellationToken,
) -> Result<(Option<Vec<u8>>, Option<Files>), Refusal> {
    let unpacked = workspace.join("source");
    let into = unpacked.clone();
    blocking(cancel, move |cancelled| unpack(&source, &into, Kind::Source, cancelled)).await?;
    let declared = &version.declared.service;
    if is_plain(declared) {
        let (root, assets) = (unpacked.join(declared.root()), declared.assets.clone().unwrap_or_else(|| ".".to_owned()));
        return blocking(cancel, move |_| Ok((None, Some(Files::Folder(plain(&unpacked, &root, &assets)?))))).await;
    }
    control.builds().check_remote(&version.service.name)?;
    let Some(sandbox) = control.builds().remote() else { return Err(Refusal::internal("no sandbox")) };
    log.line("building from source");
    let output = workspace.join("output");
    let job = Job { name: &version.service.name, service: declared, source: &unpacked, output: &output };
    let built = build_source(sandbox, job, |line| log.line(line), cancel).await;
    let built = built.map_err(|error| match error.code() {
        Some(code) => Refusal::new(code, error.to_string()),
        None => Refusal::internal(error),
    })?;
    let component = match built.component {
        Some(component) => Some(tokio::fs::read(component).await.map_err(Refusal::internal)?),
        None => None,
    };
    Ok((component, built.assets.map(Files::Folder)))
}

/// The folder of static files in source that needs no build.
fn plain(unpacked: &Path, root: &Path, assets: &str) -> Result<PathBuf, Refusal> {
    let absent = || Refusal::new(&codes::ARCHIVE_REFUSED, format!("the archive has no folder `{assets}`"));
    // Without `.` and `..`, because a path that ends in one of them cannot be renamed; and never outside, whatever was checked before.
    let unpacked = unpacked.canonicalize().map_err(uploads::not_stored)?;
    let folder = root.join(assets).canonicalize().map_err(|_| absent())?;
    if folder.is_dir() && folder.starts_with(&unpacked) { Ok(folder) } else { Err(absent()) }
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
    tovuk_kernel::threads::spawn_blocking(move || job(&cancelled)).await.map_err(Refusal::internal)?
}

struct Tell(Arc<AtomicBool>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
