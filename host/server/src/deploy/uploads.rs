//! What was uploaded, on disk until its build has ended, and folders that nothing refers to any more.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::control::{Control, Refusal};

/// What came with a deploy.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    /// A component.
    pub component: Option<Vec<u8>>,
    /// An archive of static files.
    pub assets: Option<Vec<u8>>,
    /// An archive of source.
    pub source: Option<Vec<u8>>,
}

/// The file of an uploaded component.
pub(super) const COMPONENT: &str = "component.wasm";
/// The file of uploaded static files.
pub(super) const ASSETS: &str = "assets.tar.gz";
/// The file of uploaded source.
pub(super) const SOURCE: &str = "source.tar.gz";

/// The folder with this upload.
pub(super) fn folder(data: &Path, name: &str) -> PathBuf {
    data.join("uploads").join(name)
}

/// The folder with the static files of this content.
pub(crate) fn assets_folder(data: &Path, digest: &str) -> PathBuf {
    data.join("assets").join(digest)
}

/// Writes an upload down; on disk when this returns. Blocks.
pub(super) fn store(data: &Path, name: &str, upload: &Upload) -> io::Result<()> {
    let folder = folder(data, name);
    fs::create_dir_all(&folder)?;
    for (name, bytes) in [(COMPONENT, &upload.component), (ASSETS, &upload.assets), (SOURCE, &upload.source)] {
        if let Some(bytes) = bytes {
            let mut file = File::create_new(folder.join(name))?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
    }
    File::open(&folder)?.sync_all()?;
    File::open(data.join("uploads"))?.sync_all()
}

/// A file of an upload, if it was part of it.
pub(super) fn read(data: &Path, name: &str, file: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(folder(data, name).join(file)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes an upload whose build has ended. One that cannot be removed now is swept later.
pub(super) fn remove(data: &Path, name: &str) {
    let _ = fs::remove_dir_all(folder(data, name));
}

/// Removes uploads, components and static files that no deploy refers to. Left to the next time while deploys come in or builds run, because what is
/// theirs is not referred to yet.
pub(crate) async fn sweep(control: &Control) {
    let Some(_alone) = control.builds().sweep_files() else { return };
    let referenced = control.read(|conn| {
        let uploads: Vec<String> = conn
            .prepare(
                "select d.upload from deploys d join builds b on b.deploy_id = d.id where b.status in ('queued', 'running') and d.upload is not null",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok((uploads, crate::control::store::deploys::referenced(conn)?))
    });
    let data = control.config().data.clone();
    let result = match referenced.await {
        Ok((uploads, contents)) => tokio::task::spawn_blocking(move || remove_all_but(&data, &uploads, contents)).await,
        Err(refusal) => return tracing::warn!("what is no longer used could not be found out: {refusal}"),
    };
    if let Ok(Err(error)) = result {
        tracing::warn!("what is no longer used could not be removed: {error}");
    }
}

fn remove_all_but(data: &Path, uploads: &[String], contents: Vec<String>) -> io::Result<()> {
    let uploads: HashSet<_> = uploads.iter().cloned().collect();
    let contents: HashSet<_> = contents.into_iter().collect();
    each(&data.join("uploads"), |name, path| if uploads.contains(name) { Ok(()) } else { fs::remove_dir_all(path) })?;
    each(&data.join("assets"), |name, path| match contents.contains(name.split('.').next().unwrap_or_default()) {
        true => Ok(()),
        false if path.is_dir() => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    })?;
    // `<sha256>.wasm`, `<sha256>-<compatibility>.cwasm` and `….json`.
    each(&data.join("artifacts"), |name, path| {
        let id = name.split(['.', '-']).next().unwrap_or_default();
        if id.len() != 64 || contents.contains(id) || !path.is_file() { Ok(()) } else { fs::remove_file(path) }
    })
}

fn each(folder: &Path, mut act: impl FnMut(&str, &Path) -> io::Result<()>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str() {
            match act(name, &entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// A failure to store an upload, for whoever sent it.
pub(super) fn not_stored(error: io::Error) -> Refusal {
    tracing::error!("an upload could not be stored: {error}");
    Refusal::new(&tovuk_kernel::codes::STORAGE_FAILED, tovuk_kernel::codes::STORAGE_FAILED.message)
}
