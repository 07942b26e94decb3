//! `tovuk new`: writes the files of a template, or for a folder that has sources already only a project file. It overwrites nothing, runs nothing
//! and needs no network.

mod infer;
mod templates;

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tovuk_kernel::names::{SERVICE_NAME_CHARS_MAX, allocate_slug, check_service_name};
use tovuk_kernel::project;

use crate::failure::Failure;

pub use self::templates::{NAMES, Template};

/// The environment variable that says where the source of the crate `tovuk` is.
pub const SDK_PATH_VARIABLE: &str = "TOVUK_SDK_PATH";

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Created {
    /// The folder.
    pub directory: PathBuf,
    /// The template; absent when only a project file was written.
    pub template: Option<&'static str>,
    /// The service's name.
    pub service: String,
    /// The files, relative to the folder.
    pub files: Vec<PathBuf>,
    /// The commands to run next.
    pub next: Vec<String>,
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.template {
            Some(template) => writeln!(f, "Created {} from the template `{template}`:", self.directory.display())?,
            None => writeln!(f, "Created a project file for what is in {}:", self.directory.display())?,
        }
        for file in &self.files {
            writeln!(f, "  {}", file.display())?;
        }
        writeln!(f, "\nNext:")?;
        for command in &self.next {
            writeln!(f, "  {command}")?;
        }
        Ok(())
    }
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// There is no such template.
    #[error("there is no template `{name}`{}", did_you_mean(.name))]
    UnknownTemplate {
        /// The name that was given.
        name: String,
    },
    /// Files are there already.
    #[error("{} already has {}", .directory.display(), list(.files))]
    FileExists {
        /// The folder.
        directory: PathBuf,
        /// The files that would have been overwritten.
        files: Vec<PathBuf>,
    },
    /// The source of the crate `tovuk` is not known.
    #[error("the template `{template}` needs the source of the crate `tovuk`, which is not where this program was built")]
    NoSdk {
        /// The template.
        template: &'static str,
    },
    /// The folder that was named as the crate's source is none.
    #[error("{SDK_PATH_VARIABLE} is {}, where there is no Cargo.toml", .path.display())]
    BadSdk {
        /// The folder.
        path: PathBuf,
    },
    /// The sources in the folder are of one half of a full-stack project.
    #[error("{} has {found} but no {missing}", .directory.display())]
    HalfMissing {
        /// The folder.
        directory: PathBuf,
        /// What is there.
        found: String,
        /// What is not.
        missing: &'static str,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl NewError {
    /// The code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownTemplate { .. } => "invalid_template",
            Self::FileExists { .. } => "file_exists",
            Self::HalfMissing { .. } => "fullstack_roots_missing",
            Self::NoSdk { .. } | Self::BadSdk { .. } => "missing_sdk",
            Self::Write { .. } => "internal_error",
        }
    }

    /// What to do.
    fn instruction(&self) -> String {
        match self {
            Self::UnknownTemplate { .. } => format!("Name one of {}.", NAMES.join(", ")),
            Self::FileExists { files, .. } => {
                format!("Choose another folder, or move {} away.", if files.len() == 1 { "the file" } else { "the files" })
            }
            Self::HalfMissing { .. } => "Add the other half, or name a template with `--template`.".to_owned(),
            Self::NoSdk { .. } | Self::BadSdk { .. } => format!(
                "Set {SDK_PATH_VARIABLE} to the folder `guest-sdk` of the source of tovuk, or use `--template rust-wasi-http`, which needs no crate of tovuk."
            ),
            Self::Write { .. } => "Make the folder writable, or choose another.".to_owned(),
        }
    }
}

impl From<&NewError> for Failure {
    fn from(error: &NewError) -> Self {
        Self::local(error.code(), error.to_string()).instruct(error.instruction())
    }
}

fn did_you_mean(name: &str) -> String {
    tovuk_kernel::names::nearest(name, NAMES).map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default()
}

fn list(files: &[PathBuf]) -> String {
    files.iter().map(|file| format!("`{}`", file.display())).collect::<Vec<_>>().join(", ")
}

/// Writes a project into `directory`, which is made when it does not exist. Without a template, a folder with sources gets a project file for them
/// and any other the template `rust`.
pub fn create(directory: &Path, template: Option<&str>) -> Result<Created, NewError> {
    create_with(directory, template, std::env::var_os(SDK_PATH_VARIABLE).map(PathBuf::from).as_deref())
}

fn create_with(directory: &Path, template: Option<&str>, sdk: Option<&Path>) -> Result<Created, NewError> {
    let service = service_name(directory);
    let (name, files) = match template {
        Some(name) => {
            let template = Template::named(name).ok_or_else(|| NewError::UnknownTemplate { name: name.to_owned() })?;
            (Some(template.name), render(template, &service, sdk)?)
        }
        None => match infer::project_file(directory, &service)? {
            Some(text) => (None, vec![(PathBuf::from(project::FILE_NAME), text)]),
            None => (Some(templates::RUST.name), render(&templates::RUST, &service, sdk)?),
        },
    };
    write_all(directory, &files)?;
    let next = next_commands(directory, name, &service);
    Ok(Created { directory: directory.to_owned(), template: name, service, files: files.into_iter().map(|(path, _)| path).collect(), next })
}

fn render(template: &Template, service: &str, sdk: Option<&Path>) -> Result<Vec<(PathBuf, String)>, NewError> {
    let needs_sdk = template.files.iter().any(|(_, text)| text.contains("{{sdk}}"));
    let sdk = if needs_sdk { sdk_path(template.name, sdk)? } else { PathBuf::new() };
    // In a TOML string: a backslash or a quote in the path would end or change it.
    let sdk = sdk.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    let slug = allocate_slug(service, |_| false);
    let fill = |text: &str| {
        text.replace("{{name}}", service).replace("{{slug}}", &slug).replace("{{package}}", &package_name(service)).replace("{{sdk}}", &sdk)
    };
    Ok(template.files.iter().map(|(path, text)| (PathBuf::from(path), fill(text))).collect())
}

/// The folder of the crate `tovuk`: what the variable says, else where it was when this program was built.
fn sdk_path(template: &'static str, given: Option<&Path>) -> Result<PathBuf, NewError> {
    let is_crate = |path: &Path| path.join("Cargo.toml").is_file();
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-sdk");
    let path = match given {
        Some(path) if is_crate(path) => path,
        Some(path) => return Err(NewError::BadSdk { path: path.to_owned() }),
        None if is_crate(&built_from) => &built_from,
        None => return Err(NewError::NoSdk { template }),
    };
    std::fs::canonicalize(path).map_err(|source| NewError::Write { path: path.to_owned(), source })
}

/// A service name made of the folder's: lower-case letters, digits and `-`.
fn service_name(directory: &Path) -> String {
    // `.` and `..` have no name of their own.
    let absolute = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let folder = absolute.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let mapped: String = folder.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let words: Vec<&str> = mapped.split('-').filter(|word| !word.is_empty()).collect();
    let mut name = words.join("-");
    name.truncate(SERVICE_NAME_CHARS_MAX);
    let name = name.trim_end_matches('-');
    if check_service_name(name).is_ok() { name.to_owned() } else { "app".to_owned() }
}

/// A name for the Rust or JavaScript package: the service's, unless cargo would refuse it or it would clash with a crate that is used.
fn package_name(service: &str) -> String {
    // The keywords of Rust, then the names of crates that cargo keeps or a template uses.
    const TAKEN: &str = " abstract as async await become box break const continue crate do dyn else enum extern false final fn for gen if impl in let \
        loop macro match mod move mut override priv pub ref return self static struct super trait true try type typeof unsafe unsized use virtual \
        where while yield  alloc core futures-lite proc-macro serde std test tovuk wstd ";
    let refused = TAKEN.contains(&format!(" {service} ")) || service.starts_with(|c: char| c.is_ascii_digit());
    if refused { format!("worker-{service}") } else { service.to_owned() }
}

/// Writes all files or, when one is there already, none.
fn write_all(directory: &Path, files: &[(PathBuf, String)]) -> Result<(), NewError> {
    let existing: Vec<PathBuf> = files.iter().map(|(path, _)| path.clone()).filter(|path| directory.join(path).symlink_metadata().is_ok()).collect();
    if !existing.is_empty() {
        return Err(NewError::FileExists { directory: directory.to_owned(), files: existing });
    }
    for (path, text) in files {
        let path = directory.join(path);
        let write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(directory))?;
            // Should another program make the file in this moment, it is not overwritten either.
            std::fs::File::create_new(&path)?.write_all(text.as_bytes())
        };
        write().map_err(|source| NewError::Write { path: path.clone(), source })?;
    }
    Ok(())
}

fn next_commands(directory: &Path, template: Option<&str>, service: &str) -> Vec<String> {
    let mut next = Vec::new();
    if directory != Path::new(".") && !directory.as_os_str().is_empty() {
        let text = directory.to_string_lossy();
        next.push(format!("cd {}", shlex::try_quote(&text).unwrap_or(std::borrow::Cow::Borrowed(&text))));
    }
    next.push("tovuk dev".to_owned());
    let path = template.and_then(Template::named).map_or("/", |template| template.try_path);
    next.push(format!("curl http://{}.localhost:8787{path}", allocate_slug(service, |_| false)));
    next
}

#[cfg(test)]
mod tests;
