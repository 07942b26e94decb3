//! What there is to deploy: the project files at or below a folder, and their services in the order in which they go live. It reads files and asks nobody.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;
use tovuk_kernel::codes;
use tovuk_kernel::project::{FILE_NAME, Kind, Service};
use walkdir::WalkDir;

use crate::failure::Failure;
use crate::project_file::{self, Loaded};

/// Folders in which no project is looked for.
const SKIPPED: [&str; 20] = [
    ".git",
    "target",
    "node_modules",
    ".tovuk",
    ".terraform",
    ".docker",
    ".gnupg",
    ".ssh",
    ".aws",
    ".azure",
    ".kube",
    ".pulumi",
    ".cache",
    ".next",
    ".turbo",
    "build",
    "coverage",
    "dist",
    "out",
    "vendor",
];

/// A service that is to be deployed.
#[derive(Clone, Debug)]
pub struct Target {
    /// The folder of its project file.
    pub project: PathBuf,
    /// Its name.
    pub name: String,
    /// What it declares.
    pub service: Service,
}

impl Target {
    /// What it declares, as a deploy sends it.
    pub fn config(&self) -> Result<Value, Failure> {
        let config = match &self.service.published {
            Some(manifest) => serde_json::to_value(manifest),
            None => serde_json::to_value(&self.service),
        };
        config.map_err(|error| Failure::local("internal_error", error.to_string()))
    }

    /// The same as the host keeps it.
    pub fn kept_config(&self) -> Result<Value, Failure> {
        let config = self.config()?;
        Ok(if self.service.published.is_some() { config } else { json!({"services": {&self.name: config}}) })
    }
}

/// The projects at this path: the one in the folder itself, or all that are below it.
pub fn projects(path: &Path) -> anyhow::Result<Vec<Loaded>> {
    let named = path.file_name().is_some_and(|name| name == FILE_NAME);
    let here = if named { path.to_owned() } else { path.join(FILE_NAME) };
    let files = if here.is_file() { vec![here] } else { below(path) };
    if files.is_empty() {
        let missing = Failure::local("missing_project", format!("there is no {FILE_NAME} in `{}` or below it", path.display()));
        let instruction = "Make a project with `tovuk new <folder>`, or name the folder that has one, as in `tovuk deploy <folder>`.";
        return Err(missing.instruct(instruction).into());
    }
    Ok(files.iter().map(|file| project_file::load(file)).collect::<Result<_, _>>()?)
}

fn below(path: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut walk = WalkDir::new(path).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let Ok(entry) = entry else { continue };
        if !entry.file_type().is_dir() {
            continue;
        }
        let skipped = entry.depth() > 0 && entry.file_name().to_str().is_some_and(|name| SKIPPED.contains(&name));
        let file = entry.path().join(FILE_NAME);
        if file.is_file() {
            files.push(file);
            walk.skip_current_dir();
        } else if skipped {
            walk.skip_current_dir();
        }
    }
    files
}

/// The services of these projects, those that others are bound to first: a service that goes live finds what it calls.
pub fn targets(projects: &[Loaded]) -> Result<Vec<Target>, Failure> {
    let mut targets: Vec<Target> = Vec::new();
    for project in projects {
        for (name, service) in &project.project.services {
            if let Some(other) = targets.iter().find(|target| target.name == *name) {
                let text = format!("two projects declare the service `{name}`: {} and {}", other.project.display(), project.directory.display());
                return Err(Failure::of(&codes::INVALID_CONFIG, text).instruct("Give one of them another name, or deploy one folder at a time."));
            }
            targets.push(Target { project: project.directory.clone(), name: name.clone(), service: service.clone() });
        }
    }
    let rank = |kind: Kind| match kind {
        Kind::RustWorker => 0,
        Kind::Fullstack => 1,
        Kind::StaticFrontend => 2,
    };
    targets.sort_by_key(|target| rank(target.service.kind()));
    Ok(in_order(targets))
}

fn in_order(targets: Vec<Target>) -> Vec<Target> {
    let mut waiting = targets;
    let mut ordered: Vec<Target> = Vec::new();
    while !waiting.is_empty() {
        let is_free = |target: &Target| {
            let mut bound = target.service.bindings.iter().map(|binding| &binding.service);
            bound.all(|name| *name == target.name || !waiting.iter().any(|other| other.name == *name))
        };
        // In a cycle nobody can be first; whoever stands first then is.
        let next = waiting.iter().position(is_free).unwrap_or(0);
        ordered.push(waiting.remove(next));
    }
    ordered
}

/// The commit that a folder is at, if everything in it is committed.
pub async fn commit(folder: &Path) -> Option<String> {
    let changes = git(folder, &["status", "--porcelain"]).await?;
    if !changes.is_empty() {
        return None;
    }
    git(folder, &["rev-parse", "HEAD"]).await
}

async fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    let output = command.args(arguments).current_dir(folder).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tovuk_kernel::project::parse;

    fn order(text: &str) -> Vec<String> {
        let targets = parse(text).unwrap().project.services.into_iter();
        in_order(targets.map(|(name, service)| Target { project: PathBuf::new(), name, service }).collect())
            .into_iter()
            .map(|target| target.name)
            .collect()
    }

    fn bound(name: &str, to: &str) -> String {
        format!("[services.{name}]\nbuild = \"make\"\n[[services.{name}.bindings]]\ntype = \"service\"\nservice = \"{to}\"\nname = \"X\"\n")
    }

    #[test]
    fn what_is_called_goes_live_before_what_calls_it() {
        assert_eq!(order(&[bound("a", "b"), bound("b", "c"), bound("c", "c")].concat()), ["c", "b", "a"]);
        assert_eq!(order(&[bound("a", "b"), bound("b", "a"), bound("c", "a")].concat()), ["a", "b", "c"]);
    }

    #[test]
    fn projects_are_found_below_a_folder_and_not_within_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = "[services.NAME]\nassets = \".\"\n";
        for (path, name) in [("b", "b"), ("a/deep", "a"), ("a/deep/inner", "inner"), ("node_modules/x", "x")] {
            std::fs::create_dir_all(folder.path().join(path)).unwrap();
            std::fs::write(folder.path().join(path).join(FILE_NAME), manifest.replace("NAME", name)).unwrap();
        }
        let names: Vec<_> = targets(&projects(folder.path()).unwrap()).unwrap().into_iter().map(|target| target.name).collect();
        assert_eq!(names, ["a", "b"]);
        let missing = projects(&folder.path().join("node_modules/none")).unwrap_err();
        assert_eq!(Failure::from(&missing).code, "missing_project");
    }
}
