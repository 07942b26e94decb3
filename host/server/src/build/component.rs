//! Where a build leaves its component: what the project file says, else what cargo says about the package. It reads paths only; whether the file
//! is a component that can be run is found out by the engine. Asking cargo is for the caller, because it has to happen where the build happens.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tovuk_kernel::project::Service;

use super::TARGET;

/// What to run in the service's folder, for [`by_cargo`]. It compiles nothing.
pub const METADATA_COMMAND: [&str; 5] = ["cargo", "metadata", "--no-deps", "--format-version", "1"];

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// The file is not there.
    #[error("the build of `{service}` has left no component at {}. {}", .path.display(), hint(.found))]
    Missing {
        /// The service.
        service: String,
        /// The path that was looked at.
        path: PathBuf,
        /// Files that could be meant, nearest first.
        found: Vec<PathBuf>,
    },
    /// Neither the file nor cargo says where it would be.
    #[error("it is not known where the build leaves its component: there is no Cargo.toml in {}. Add component = \"…\" to the service in tovuk.toml", .directory.display())]
    Unknown {
        /// The service's folder.
        directory: PathBuf,
    },
    /// Cargo could not describe the package.
    #[error("`cargo metadata` failed in {}:\n{output}\nCorrect its Cargo.toml", .directory.display())]
    Metadata {
        /// The service's folder.
        directory: PathBuf,
        /// What cargo said.
        output: String,
    },
    /// The package makes no component, or more than one.
    #[error("{} {}", .manifest.display(), ambiguity(.candidates))]
    Targets {
        /// The package's Cargo.toml.
        manifest: PathBuf,
        /// File names of the components it makes.
        candidates: Vec<String>,
    },
}

fn hint(found: &[PathBuf]) -> String {
    match found {
        [] => "There is no other .wasm file either: correct `build`, or add `component` to the service in tovuk.toml".to_owned(),
        found => {
            let paths: Vec<String> = found.iter().map(|path| format!("\n    {}", path.display())).collect();
            format!("Set `component` of the service in tovuk.toml to the one it makes; there are{}", paths.concat())
        }
    }
}

fn ambiguity(candidates: &[String]) -> String {
    if candidates.is_empty() {
        return "makes no component: it has neither a `cdylib` library nor a binary. Add\n    [lib]\n    crate-type = [\"cdylib\"]".to_owned();
    }
    format!(
        "makes more than one component: {}. Add component = \"target/{TARGET}/release/<file>\" to the service in tovuk.toml",
        candidates.join(", ")
    )
}

/// The path that the project file names, if it names one. Otherwise cargo has to be asked, which can only help where there is a package.
pub fn declared(service: &Service, root: &Path) -> Result<Option<PathBuf>, ComponentError> {
    if let Some(component) = &service.component {
        return Ok(Some(root.join(component)));
    }
    if root.join("Cargo.toml").is_file() { Ok(None) } else { Err(ComponentError::Unknown { directory: root.to_owned() }) }
}

/// Where the component is or will be, from what [`METADATA_COMMAND`] has printed.
pub fn by_cargo(service: &Service, root: &Path, metadata: &[u8]) -> Result<PathBuf, ComponentError> {
    let metadata: Metadata =
        serde_json::from_slice(metadata).map_err(|error| ComponentError::Metadata { directory: root.to_owned(), output: error.to_string() })?;
    let build = BuildOptions::of(service.build.as_deref().unwrap_or_default());
    let target_directory = build.target_directory.map_or(metadata.target_directory.clone(), |directory| root.join(directory));
    let file = component_file(&metadata, root, run_name(service).as_deref())?;
    Ok(target_directory.join(build.target).join(build.profile).join(file))
}

/// The path, if the component is there.
pub fn existing(name: &str, path: PathBuf, root: &Path) -> Result<PathBuf, ComponentError> {
    if path.is_file() {
        return Ok(path);
    }
    let found = other_components(root, &path);
    Err(ComponentError::Missing { service: name.to_owned(), path, found })
}

/// What the published form runs: the last part of the command's program, which is the name of what the build makes.
fn run_name(service: &Service) -> Option<String> {
    let manifest = service.published.as_deref()?;
    let command = manifest.worker.command.as_deref().or(manifest.run.command.as_deref())?;
    let program = shlex::split(command)?.into_iter().next()?;
    let name = program.rsplit('/').next()?;
    Some(name.strip_suffix(".wasm").unwrap_or(name).to_owned())
}

/// What a cargo command says about where its output goes.
#[derive(Debug, PartialEq, Eq)]
struct BuildOptions {
    target: String,
    profile: String,
    target_directory: Option<String>,
}

impl BuildOptions {
    fn of(command: &str) -> Self {
        let words = shlex::split(command).unwrap_or_default();
        let option = |name: &str| {
            let separate = words.iter().zip(words.iter().skip(1)).find(|(word, _)| *word == name).map(|(_, value)| value.clone());
            let joined = || words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
            separate.or_else(joined)
        };
        let cargo = words.iter().any(|word| word == "cargo");
        let release = words.iter().any(|word| word == "--release" || word == "-r");
        // A command that is not cargo's own, such as a script, is taken to build as cargo would by default here: for release.
        let profile = option("--profile").unwrap_or_else(|| if release || !cargo { "release" } else { "debug" }.to_owned());
        let profile = if profile == "dev" { "debug".to_owned() } else { profile };
        Self { target: option("--target").unwrap_or_else(|| TARGET.to_owned()), profile, target_directory: option("--target-dir") }
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The file name of the one component that the package in `root` makes, or, when `root` is a workspace without a package, its only member. Of more
/// than one it is the one that is run, where the project file says what is run.
fn component_file(metadata: &Metadata, root: &Path, run: Option<&str>) -> Result<String, ComponentError> {
    let manifest = root.join("Cargo.toml");
    let here = std::fs::canonicalize(&manifest).unwrap_or_else(|_| manifest.clone());
    let own: Vec<&Package> = metadata.packages.iter().filter(|package| package.manifest_path == here).collect();
    let packages = if own.is_empty() { metadata.packages.iter().collect() } else { own };
    let targets = || packages.iter().flat_map(|package| &package.targets);
    let of_kind =
        |kind: &str| targets().filter(|target| target.kind.iter().any(|name| name == kind)).map(|target| target.name.as_str()).collect::<Vec<_>>();
    let libraries: Vec<String> = of_kind("cdylib").into_iter().map(|name| format!("{}.wasm", name.replace('-', "_"))).collect();
    // A library is made to be a component; a binary beside it is most often a tool.
    let mut candidates = if libraries.is_empty() { of_kind("bin").into_iter().map(|name| format!("{name}.wasm")).collect() } else { libraries };
    if let Some(run) = run.map(|run| format!("{run}.wasm")).filter(|run| candidates.contains(run)) {
        return Ok(run);
    }
    match (candidates.len(), candidates.pop()) {
        (1, Some(file)) => Ok(file),
        (_, last) => {
            candidates.extend(last);
            Err(ComponentError::Targets { manifest, candidates })
        }
    }
}

/// Other `.wasm` files of the service that could be meant: those named most like the missing one first, five at most.
fn other_components(root: &Path, missing: &Path) -> Vec<PathBuf> {
    let hidden = |name: &str| matches!(name, "node_modules" | ".git" | "deps" | "build" | "incremental" | ".fingerprint");
    let walk = walkdir::WalkDir::new(root).max_depth(6).into_iter().filter_entry(|entry| !entry.file_name().to_str().is_some_and(hidden));
    let files = walk.flatten().filter(|entry| entry.file_type().is_file() && entry.path().extension().is_some_and(|extension| extension == "wasm"));
    let mut found: Vec<PathBuf> = files.map(walkdir::DirEntry::into_path).collect();
    let similarity = |path: &PathBuf| strsim::jaro_winkler(&path.to_string_lossy(), &missing.to_string_lossy());
    found.sort_by(|a, b| similarity(b).total_cmp(&similarity(a)));
    found.truncate(5);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_command_says_where_output_goes() {
        let of = |command: &str| {
            let options = BuildOptions::of(command);
            (options.target, options.profile, options.target_directory)
        };
        let expected = |target: &str, profile: &str, directory: Option<&str>| (target.to_owned(), profile.to_owned(), directory.map(str::to_owned));
        assert_eq!(of("cargo build --release --target wasm32-wasip2"), expected("wasm32-wasip2", "release", None));
        assert_eq!(of("cargo build --target=wasm32-wasip1"), expected("wasm32-wasip1", "debug", None));
        assert_eq!(of("cargo build --profile small --target-dir out"), expected("wasm32-wasip2", "small", Some("out")));
        assert_eq!(of("make"), expected("wasm32-wasip2", "release", None));
    }

    #[test]
    fn of_several_binaries_the_one_that_the_published_form_runs_is_taken() {
        let target = |name: &str| Target { name: name.to_owned(), kind: vec!["bin".to_owned()] };
        let package = Package { manifest_path: "/x/Cargo.toml".into(), targets: vec![target("tool"), target("web-api")] };
        let metadata = Metadata { packages: vec![package], target_directory: "/x/target".into() };
        let file = |run: Option<&str>| component_file(&metadata, Path::new("/x"), run).ok();
        assert_eq!(file(Some("web-api")).as_deref(), Some("web-api.wasm"));
        assert_eq!(file(Some("other")), None);
        assert_eq!(file(None), None);
    }
}
