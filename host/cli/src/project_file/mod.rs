//! Finds and reads `tovuk.toml`, and fills in what only the file system knows. What the file may say is decided in `kernel::project`, how its problems
//! are told in `report`; nothing is built or started here.

mod report;

use std::path::{Path, PathBuf};

use tovuk_kernel::project::{self, DEFAULT_WORKER_BUILD, FILE_NAME, Kind, Parsed, Problem, Project, Service, Severity};
use tovuk_resources::cron::Expression;

pub use self::report::Style;
use self::report::{count, render_problems};

/// A project file that can be used, with its defaults filled in.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The project's folder: the one with the file in it, as it was given.
    pub directory: PathBuf,
    /// The file.
    pub path: PathBuf,
    /// Its text, for showing problems.
    pub text: String,
    /// What it says, with `kind` and `build` of every service filled in where the folder decides them.
    pub project: Project,
    /// What its author should look at.
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// The folder of a service.
    pub fn service_directory(&self, service: &Service) -> PathBuf {
        service_directory(&self.directory, service)
    }

    /// The warnings as text, empty when there are none.
    pub fn render_warnings(&self, style: Style) -> String {
        render_problems(&self.path, &self.text, &self.warnings, style)
    }
}

/// The folder of a service of the project in `project`.
pub fn service_directory(project: &Path, service: &Service) -> PathBuf {
    // Joining `.` would leave it in every path that is shown.
    match service.root() {
        "." => project.to_owned(),
        root => project.join(root),
    }
}

/// Why there is no usable project file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The folder has none.
    #[error("there is no {FILE_NAME} in `{}`", .directory.display())]
    Missing {
        /// The folder.
        directory: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It has problems.
    #[error("{} has {}", .path.display(), count(.problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
        /// All of them, at least one of which is an error.
        problems: Vec<Problem>,
    },
}

/// Reads the project file of a folder. The folder may also be given as the path of the file itself.
pub fn load(directory: &Path) -> Result<Loaded, LoadError> {
    let directory = match directory.file_name() {
        Some(name) if name == FILE_NAME => directory.parent().unwrap_or(Path::new("")),
        _ => directory,
    };
    // An empty path is what `parent` gives for a bare file name; as a folder it is the current one.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let path = directory.join(FILE_NAME);
    let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => LoadError::Missing { directory: directory.to_owned() },
        _ => LoadError::Unreadable { path: path.clone(), source },
    })?;
    let invalid = |problems| LoadError::Invalid { path: path.clone(), text: text.clone(), problems };
    let Parsed { mut project, mut warnings, spans } = project::parse(&text).map_err(invalid)?;
    let mut errors = Vec::new();
    for (name, service) in &mut project.services {
        let folder = service_directory(directory, service);
        fill_in(service, &folder, directory);
        let missing = missing_parts(name, service, &folder).into_iter().map(|(key, message, help)| (key.to_owned(), message, help));
        errors.extend(missing.chain(wrong_crons(service)).map(|(key, message, help)| {
            // A service in the published form has no table of its own to point at.
            let path = if service.published.is_some() { key } else { format!("services.{name}.{key}") };
            let path = path.trim_end_matches('.').to_owned();
            let span = spans.value(&path).or_else(|| spans.value(&format!("services.{name}"))).or(Some(0..0));
            Problem { severity: Severity::Error, message, help: Some(help), span, path }
        }));
    }
    if errors.is_empty() {
        return Ok(Loaded { directory: directory.to_owned(), path, text, project, warnings });
    }
    warnings.extend(errors);
    warnings.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
    Err(LoadError::Invalid { path, text, problems: warnings })
}

/// Fills in the defaults that depend on what lies in the service's folder.
fn fill_in(service: &mut Service, folder: &Path, project: &Path) {
    let cargo = folder.join("Cargo.toml").is_file();
    if service.kind.is_none() {
        service.kind = Some(if cargo && service.assets.is_some() { Kind::Fullstack } else { service.kind() });
    }
    if service.build.is_none() && service.kind().has_worker() && cargo {
        service.build = Some(DEFAULT_WORKER_BUILD.to_owned());
    }
    let Some(manifest) = service.published.as_deref() else { return };
    // The published form builds a frontend by its package manager, and a plain folder of files not at all.
    if manifest.kind == Kind::StaticFrontend {
        let plain = !folder.join("package.json").is_file();
        if plain && manifest.build.output.is_none() {
            service.assets = Some(".".to_owned());
        }
        service.build = service.build.take().or_else(|| default_frontend_build(folder));
    }
    if let Some(frontend) = service.frontend_build()
        && frontend.command.is_none()
        && let Some(manifest) = service.published.as_deref_mut()
    {
        manifest.frontend.build = default_frontend_build(&project.join(frontend.root));
    }
}

/// The build of a frontend that declares none; nothing without a `package.json`.
fn default_frontend_build(folder: &Path) -> Option<String> {
    let has = |name: &str| folder.join(name).is_file();
    has("package.json").then(|| if has("bun.lock") || has("bun.lockb") { "bun run build" } else { "npm run build" }.to_owned())
}

/// What the file relies on and the folder lacks: the key at fault within the service (empty for the service itself), the message and the help.
fn missing_parts(name: &str, service: &Service, folder: &Path) -> Vec<(&'static str, String, String)> {
    if !folder.is_dir() {
        let message = format!("the folder of the service `{name}` does not exist: {}", folder.display());
        return vec![("root", message, "correct `root`, or make the folder".to_owned())];
    }
    let mut missing = Vec::new();
    let has_worker = service.build.is_some() || service.component.as_ref().is_some_and(|component| folder.join(component).is_file());
    if service.kind().has_worker() && !has_worker {
        let key = if service.routes.is_empty() { "" } else { "routes" };
        missing.push(match (&service.component, folder.join("package.json").is_file()) {
            (Some(component), _) => (
                "component",
                format!("the service `{name}` has no build command, and its component does not exist: {}", folder.join(component).display()),
                "add the command that makes it, for example build = \"npm run build\"".to_owned(),
            ),
            (None, true) => (
                key,
                format!("the service `{name}` does not say how it is built"),
                "add build = \"npm run build\" and component = \"dist/worker.wasm\"".to_owned(),
            ),
            (None, false) => (
                key,
                format!("the service `{name}` has neither a worker nor static files: there is no Cargo.toml in {}", folder.display()),
                "set `root` to the folder of a Rust package, or declare `build` and `component`, or `assets`".to_owned(),
            ),
        });
    }
    for (database, settings) in &service.sqlite {
        let Some(migrations) = &settings.migrations else { continue };
        if !folder.join(migrations).is_dir() {
            let message = format!("the folder of migrations of the database `{database}` does not exist: {}", folder.join(migrations).display());
            missing.push(("sqlite", message, format!("make it with `mkdir -p {}`", folder.join(migrations).display())));
        }
    }
    missing
}

/// Cron expressions that name no time, told likewise.
fn wrong_crons(service: &Service) -> impl Iterator<Item = (String, String, String)> {
    service.crons.iter().filter_map(|(trigger, expression)| {
        let error = Expression::parse(expression).err()?;
        Some((format!("crons.{trigger}"), error.to_string(), "write for example \"0 0 * * *\", which is every midnight in UTC".to_owned()))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

    use std::fs;

    use super::*;

    fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    fn render(directory: &tempfile::TempDir) -> String {
        let shown = load(directory.path()).map(|loaded| loaded.render_warnings(Style::Plain)).unwrap_or_else(|error| error.render(Style::Plain));
        shown.replace(directory.path().to_str().unwrap(), "DIR")
    }

    #[test]
    fn problems_are_shown_with_file_line_and_column() {
        let directory = project(&[("tovuk.toml", "[services.api]\nroot = \".\"\nrout = [\"/*\"]\n")]);
        insta::assert_snapshot!(render(&directory), @r#"
          x error: unknown key `rout`
           ,-[DIR/tovuk.toml:3:1]
         2 | root = "."
         3 | rout = ["/*"]
           : ^^^^
           `----
          help: did you mean `routes`?

        DIR/tovuk.toml has 1 error
        "#);
    }

    #[test]
    fn a_missing_file_is_told_with_the_next_command() {
        insta::assert_snapshot!(render(&project(&[])), @r#"
        error: there is no tovuk.toml in `DIR`
          help: make a project with `tovuk new <dir>`, or name the folder that has one, as in `tovuk dev <dir>`
        "#);
    }

    #[test]
    fn a_rust_folder_has_the_default_build_and_kind() {
        let directory = project(&[
            ("tovuk.toml", "[services.api]\nroot = \"api\"\nassets = \"../web\"\n[services.auth]\nroot = \"auth\"\n"),
            ("api/Cargo.toml", ""),
            ("auth/Cargo.toml", ""),
        ]);
        let loaded = load(directory.path()).unwrap();
        let api = &loaded.project.services["api"];
        assert_eq!((api.kind, api.build.as_deref()), (Some(Kind::Fullstack), Some(DEFAULT_WORKER_BUILD)));
        assert_eq!(loaded.project.services["auth"].kind, Some(Kind::RustWorker));
    }

    #[test]
    fn what_the_folder_lacks_is_told_at_its_key() {
        let toml = "[services.a]\nroot = \"nowhere\"\n[services.b]\nroutes = [\"/*\"]\n[services.c]\nroot = \"js\"\nroutes = [\"/*\"]\n\
            [services.d]\ncomponent = \"d.wasm\"\n[services.e]\nroot = \"rust\"\nsqlite = { DB = { migrations = \"migrations\" } }\n";
        let directory = project(&[("tovuk.toml", toml), ("js/package.json", "{}"), ("rust/Cargo.toml", "")]);
        insta::assert_snapshot!(render(&directory), @r#"
          x error: the folder of the service `a` does not exist: DIR/nowhere
           ,-[DIR/tovuk.toml:2:8]
         1 | [services.a]
         2 | root = "nowhere"
           :        ^^^^^^^^^
         3 | [services.b]
           `----
          help: correct `root`, or make the folder

          x error: the service `b` has neither a worker nor static files: there is no Cargo.toml in DIR
           ,-[DIR/tovuk.toml:4:10]
         3 | [services.b]
         4 | routes = ["/*"]
           :          ^^^^^^
         5 | [services.c]
           `----
          help: set `root` to the folder of a Rust package, or declare `build` and `component`, or `assets`

          x error: the service `c` does not say how it is built
           ,-[DIR/tovuk.toml:7:10]
         6 | root = "js"
         7 | routes = ["/*"]
           :          ^^^^^^
         8 | [services.d]
           `----
          help: add build = "npm run build" and component = "dist/worker.wasm"

          x error: the service `d` has no build command, and its component does not exist: DIR/d.wasm
            ,-[DIR/tovuk.toml:9:13]
          8 | [services.d]
          9 | component = "d.wasm"
            :             ^^^^^^^^
         10 | [services.e]
            `----
          help: add the command that makes it, for example build = "npm run build"

          x error: the folder of migrations of the database `DB` does not exist: DIR/rust/migrations
            ,-[DIR/tovuk.toml:12:10]
         11 | root = "rust"
         12 | sqlite = { DB = { migrations = "migrations" } }
            :          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
            `----
          help: make it with `mkdir -p DIR/rust/migrations`

        DIR/tovuk.toml has 5 errors
        "#);
    }

    #[test]
    fn a_published_static_folder_is_served_as_it_lies() {
        let capabilities = [
            ("static_frontend", true),
            ("worker", false),
            ("sqlite", false),
            ("object_storage", false),
            ("kv", false),
            ("state", false),
            ("queue", false),
            ("cron", false),
            ("service_bindings", false),
            ("secrets", false),
            ("custom_domains", false),
            ("logs", true),
            ("builds", true),
            ("usage_caps", true),
            ("billing", true),
            ("support", true),
            ("abuse", true),
        ];
        let flags: String = capabilities.iter().map(|(name, on)| format!("{name} = {on}\n")).collect();
        let toml = format!("name = \"site\"\nkind = \"static_frontend\"\n[capabilities]\n{flags}");
        let plain = load(project(&[("tovuk.toml", &toml), ("index.html", "")]).path()).unwrap();
        let site = &plain.project.services["site"];
        assert_eq!((site.assets.as_deref(), site.build.as_deref()), (Some("."), None));
        let packaged = load(project(&[("tovuk.toml", &toml), ("package.json", "{}"), ("bun.lock", "")]).path()).unwrap();
        let site = &packaged.project.services["site"];
        assert_eq!((site.assets.as_deref(), site.build.as_deref()), (Some("dist"), Some("bun run build")));
    }
}
