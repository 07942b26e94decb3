//! Sends what a build has left to the host, as a tar: the component, and the static files. Links inside are followed only to the component, and only within
//! the source; the host checks everything again, because it trusts none of this.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tar::{Builder, HeaderMode};

use super::run::Runner;
use super::{SOURCE, SandboxError, frames};

/// The name of the component in the tar.
pub(in crate::build) const COMPONENT: &str = "component.wasm";
/// The folder of the static files in the tar.
pub(in crate::build) const ASSETS: &str = "assets";

/// Sends both, and the end of the tar.
pub(super) fn send(component: Option<&Path>, assets: Option<&Path>, runner: &mut Runner, output: &Arc<Mutex<File>>) -> Result<(), SandboxError> {
    let component = component.map(|path| within_source(path, "component")).transpose()?;
    let assets = assets.map(|path| within_source(path, "assets")).transpose()?;
    if let Some(path) = assets.as_ref().filter(|path| !path.is_dir()) {
        let text = format!(
            "the build has left no static files: {} is not a folder. Correct `assets` in tovuk.toml, or what the build writes",
            path.display()
        );
        return Err(SandboxError::Missing { text });
    }
    let files = assets.as_deref().map(|folder| static_files(folder, runner)).unwrap_or_default();
    let mut output = output.lock().map_err(|_| SandboxError::Host { text: "the output is gone".to_owned() })?;
    let mut tar = Builder::new(frames::PiecesOut { to: &mut *output, kind: frames::OUTPUT });
    tar.mode(HeaderMode::Deterministic);
    let written = (|| {
        if let Some(path) = component {
            append(&mut tar, Path::new(COMPONENT), &path)?;
        }
        for (name, path) in files {
            append(&mut tar, &name, &path)?;
        }
        tar.into_inner()
    })();
    let written = written.and_then(|pieces| frames::write(pieces.to, frames::END, &[]));
    written.map_err(|error| SandboxError::Host { text: format!("sending what was built: {error}") })
}

fn append(tar: &mut Builder<impl io::Write>, name: &Path, path: &Path) -> io::Result<()> {
    tar.append_file(name, &mut File::open(path)?)
}

/// The path with all links followed, if it is still within the source.
fn within_source(path: &Path, key: &str) -> Result<PathBuf, SandboxError> {
    let missing =
        |why: String| SandboxError::Missing { text: format!("{} {why}. Correct `{key}` in tovuk.toml, or what the build writes", path.display()) };
    let real = fs::canonicalize(path).map_err(|error| missing(format!("is not there: {error}")))?;
    if real.starts_with(SOURCE) { Ok(real) } else { Err(missing("leads out of the project".to_owned())) }
}

/// The regular files of a folder with their names in the tar. What else is there is named and left out.
fn static_files(folder: &Path, runner: &mut Runner) -> Vec<(PathBuf, PathBuf)> {
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().flatten() {
        let kind = entry.file_type();
        if kind.is_file() {
            let name = entry.path().strip_prefix(folder).unwrap_or(entry.path());
            files.push((Path::new(ASSETS).join(name), entry.into_path()));
        } else if !kind.is_dir() {
            runner.say(&format!("{} is not a regular file and is left out of the static files", entry.path().display()));
        }
    }
    files
}
