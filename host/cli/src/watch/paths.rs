//! Which part of a project a path belongs to. It looks at names only, and at nothing on the disk.

use std::path::{Path, PathBuf};

use tovuk_kernel::project;

use super::Changes;
use crate::env_file;
use crate::project_file::Loaded;

/// Folders that tools write and nobody edits, wherever they are.
const TOOL_FOLDERS: [&str; 12] =
    ["target", "node_modules", ".git", ".jj", ".hg", ".tovuk", ".cache", ".next", ".turbo", ".vite", "__pycache__", ".venv"];
/// Names that are output by custom. They are watched where the project file declares something in them that no build makes.
const OUTPUT_FOLDERS: [&str; 4] = ["dist", "build", "out", "pkg"];
/// Files of a project outside its services on which their builds depend.
const SHARED_EXTENSIONS: [&str; 9] = ["rs", "toml", "lock", "wit", "sql", "js", "mjs", "ts", "json"];

/// The part of a project that a path belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    /// Nobody's source: output, tools' own files, editors' temporary files.
    Ignored,
    /// A file or folder that counts.
    Source,
}

/// The folders of a project.
#[derive(Debug)]
pub(super) struct Layout {
    directory: PathBuf,
    services: Vec<ServiceFolders>,
    outputs: Vec<PathBuf>,
}

#[derive(Debug)]
struct ServiceFolders {
    name: String,
    /// Its root first, then what it has elsewhere.
    folders: Vec<PathBuf>,
    /// Static files and a component that no build of the project makes: their author puts them there, whatever the folder is called.
    edited: Vec<PathBuf>,
}

impl Layout {
    /// The layout of a project. Events have absolute paths, so all paths are made absolute.
    pub(super) fn new(loaded: &Loaded, outputs: &[PathBuf]) -> Self {
        let directory = absolute(&loaded.directory);
        let mut outputs: Vec<PathBuf> = outputs.iter().map(|output| absolute(output)).collect();
        let mut services = Vec::new();
        for (name, service) in &loaded.project.services {
            let root = absolute(&directory.join(service.root()));
            let frontend = service.frontend_build();
            let mut folders = vec![root.clone()];
            folders.extend(frontend.as_ref().map(|frontend| absolute(&directory.join(&frontend.root))));
            let mut edited = Vec::new();
            let component = service.component.as_ref().map(|component| absolute(&root.join(component)));
            if service.build.is_some() {
                outputs.extend(component)
            } else {
                edited.extend(component)
            }
            let assets = service.assets.as_ref().map(|assets| absolute(&root.join(assets)));
            // Cargo makes no static files; any other command may well make them.
            let cargo_only = |command: &str| command.split("&&").all(|step| step.trim_start().starts_with("cargo "));
            let made = match &frontend {
                Some(frontend) => frontend.command.is_some(),
                None => !service.build.as_deref().is_none_or(cargo_only),
            };
            match (made, assets) {
                (true, Some(assets)) => {
                    // A build that writes into its own source folder leaves no way to tell the two apart by path.
                    if !folders.contains(&assets) {
                        outputs.push(assets);
                    }
                }
                (_, assets) => edited.extend(assets),
            }
            folders.extend(edited.iter().cloned());
            services.push(ServiceFolders { name: name.clone(), folders, edited });
        }
        Self { directory, services, outputs }
    }

    /// The folders to watch: the project's own, which holds all others.
    pub(super) fn roots(&self) -> Vec<PathBuf> {
        let outside = self.services.iter().flat_map(|service| &service.folders).filter(|folder| !folder.starts_with(&self.directory));
        std::iter::once(self.directory.clone()).chain(outside.cloned()).collect()
    }

    pub(super) fn area(&self, path: &Path) -> Area {
        if self.outputs.iter().any(|output| path.starts_with(output)) {
            return Area::Ignored;
        }
        let inside = path.strip_prefix(&self.directory).unwrap_or(path);
        let edited = self.services.iter().flat_map(|service| &service.edited).any(|edited| path.starts_with(edited) || edited.starts_with(path));
        let ignored =
            inside.iter().filter_map(|part| part.to_str()).any(|part| TOOL_FOLDERS.contains(&part) || (!edited && OUTPUT_FOLDERS.contains(&part)));
        let temporary = path.file_name().and_then(|name| name.to_str()).is_none_or(is_temporary);
        if ignored || temporary { Area::Ignored } else { Area::Source }
    }

    /// Notes the change of one file.
    pub(super) fn add(&self, path: &Path, changes: &mut Changes) {
        if self.area(path) == Area::Ignored {
            return;
        }
        if path == self.directory.join(project::FILE_NAME) {
            changes.project_file = true;
            return;
        }
        if path == self.directory.join(env_file::FILE_NAME) {
            changes.env_file = true;
            return;
        }
        // A folder within another service's folder is its own: the outer service does not change with it.
        let depth =
            |service: &ServiceFolders| service.folders.iter().filter(|folder| path.starts_with(folder)).map(|folder| folder.iter().count()).max();
        let deepest = self.services.iter().filter_map(depth).max();
        if let Some(deepest) = deepest {
            let owners = self.services.iter().filter(|service| depth(service) == Some(deepest));
            changes.services.extend(owners.map(|service| service.name.clone()));
        } else if path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| SHARED_EXTENSIONS.contains(&extension)) {
            // A shared package, the manifest of a workspace: which services use it is for their build tools to know.
            changes.services.extend(self.services.iter().map(|service| service.name.clone()));
        }
    }

    /// Notes that anything may have changed.
    pub(super) fn everything(&self, changes: &mut Changes) {
        changes.project_file = true;
        changes.env_file = true;
        changes.services.extend(self.services.iter().map(|service| service.name.clone()));
    }
}

/// Files that editors and systems write beside the one that is edited.
fn is_temporary(name: &str) -> bool {
    let swap = name.starts_with('.') && [".swp", ".swx", ".swo"].iter().any(|end| name.ends_with(end));
    let backup = name.ends_with('~') || name.ends_with(".tmp") || name.ends_with(".bak") || name.ends_with(".orig");
    let emacs = name.starts_with(".#") || (name.starts_with('#') && name.ends_with('#'));
    let jetbrains = name.contains("___jb_");
    swap || backup || emacs || jetbrains || matches!(name, "4913" | ".DS_Store" | "Thumbs.db")
}

/// The path without links, `.` and `..`, as the system reports it in events; as far as it exists.
fn absolute(path: &Path) -> PathBuf {
    if let Ok(path) = std::fs::canonicalize(path) {
        return path;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent != path => absolute(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }).join(name),
        _ => path.to_owned(),
    }
}
