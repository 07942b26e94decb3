//! What was uploaded, on disk until its build has ended, and folders that nothing refers to any more.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::control::store::deploys;
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
    /// [`super::migrations::Migrations`] as JSON.
    pub migrations: Option<Vec<u8>>,
}

impl Upload {
    /// What it takes on disk.
    pub fn bytes(&self) -> u64 {
        [&self.component, &self.assets, &self.source, &self.migrations].into_iter().flatten().map(|bytes| bytes.len() as u64).sum()
    }
}

/// The file of an uploaded component.
pub(super) const COMPONENT: &str = "component.wasm";
/// The file of uploaded static files.
pub(super) const ASSETS: &str = "assets.tar.gz";
/// The file of uploaded source.
pub(super) const SOURCE: &str = "source.tar.gz";
/// The file of uploaded migrations.
pub(super) const MIGRATIONS: &str = "migrations.json";

/// What the names of folders begin with that are being removed.
const GONE: &str = "gone-";

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
    for (name, bytes) in [(COMPONENT, &upload.component), (ASSETS, &upload.assets), (SOURCE, &upload.source), (MIGRATIONS, &upload.migrations)] {
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

/// How large these uploads are together. Blocks.
pub(super) fn bytes(data: &Path, names: &[String]) -> u64 {
    let files = names.iter().flat_map(|name| [COMPONENT, ASSETS, SOURCE, MIGRATIONS].map(|file| folder(data, name).join(file)));
    files.filter_map(|file| fs::metadata(file).ok()).map(|metadata| metadata.len()).sum()
}

/// The folder in which an upload is unpacked and built. It is removed with the upload.
pub(super) fn workspace(data: &Path, name: &str) -> PathBuf {
    folder(data, name).join("work")
}

/// Removes what an earlier attempt to build an upload has left. Blocks.
pub(super) fn clear_workspace(data: &Path, name: &str) -> io::Result<()> {
    unless_absent(fs::remove_dir_all(workspace(data, name)))
}

/// Removes an upload whose build has ended. One that cannot be removed now is swept later. Blocks.
pub(super) fn remove(data: &Path, name: &str) {
    let folder = folder(data, name);
    let _ = fs::remove_dir_all(take_away(&folder).unwrap_or(folder));
}

/// Renames a folder that is going to be removed; where it is now. What still uses it, such as a job of a cancelled build, finds all of it or nothing.
fn take_away(folder: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(GONE);
    name.push(folder.file_name().unwrap_or_default());
    let gone = folder.with_file_name(name);
    fs::rename(folder, &gone).is_ok().then_some(gone)
}

/// Removes uploads, components and static files that no deploy refers to and none that is under way keeps.
pub(crate) async fn sweep(control: &Control) {
    let own = control.clone();
    match control.builds().to_the_end(async move { take_away_unused(&own).await }).await {
        // The slow part, for which nobody has to wait who has files under way.
        Ok(gone) => {
            drop(tovuk_kernel::threads::spawn_blocking(move || gone.iter().for_each(|folder| warn(folder, fs::remove_dir_all(folder)))).await)
        }
        Err(refusal) => tracing::warn!("what is no longer used could not be removed: {refusal}"),
    }
}

/// Takes everything away that is not used; the folders that are left to be removed.
async fn take_away_unused(control: &Control) -> Result<Vec<PathBuf>, Refusal> {
    let Some(mut sweep) = control.builds().sweep().await else { return Ok(Vec::new()) };
    let mut used = std::mem::take(&mut sweep.names);
    used.extend(control.read(|conn| Ok([deploys::open_uploads(conn, None)?, deploys::referenced(conn)?].concat())).await?);
    let (data, names) = (control.config().data.clone(), used.clone());
    let gone = tovuk_kernel::threads::spawn_blocking(move || {
        let mut gone = Vec::new();
        for home in ["uploads", "assets"].map(|home| data.join(home)) {
            warn(&home, unless_absent(each_unused(&home, &names, &mut gone)));
        }
        gone
    });
    let gone = gone.await.map_err(Refusal::internal)?;
    if let Err(error) = control.runtime().artifacts().remove_all_but(used).await {
        tracing::warn!("components that are no longer used could not be removed: {error}");
    }
    Ok(gone)
}

fn each_unused(home: &Path, used: &HashSet<String>, gone: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(home)? {
        let path = entry?.path();
        // `upload-<number>`, `<digest>` and `<digest>.index.json`.
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next());
        match name {
            Some(name) if used.contains(name) => {}
            // A sweep that was cut short has left it.
            Some(name) if name.starts_with(GONE) => gone.push(path),
            _ if path.is_dir() => match take_away(&path) {
                Some(path) => gone.push(path),
                None => warn(&path, fs::remove_dir_all(&path)),
            },
            _ => warn(&path, fs::remove_file(&path)),
        }
    }
    Ok(())
}

fn unless_absent(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn warn(path: &Path, result: io::Result<()>) {
    if let Err(error) = unless_absent(result) {
        tracing::warn!("{} is no longer used and could not be removed: {error}", path.display());
    }
}

/// A failure to store an upload, for whoever sent it.
pub(super) fn not_stored(error: io::Error) -> Refusal {
    tracing::error!("an upload could not be stored: {error}");
    Refusal::new(&tovuk_kernel::codes::STORAGE_FAILED, tovuk_kernel::codes::STORAGE_FAILED.message)
}
