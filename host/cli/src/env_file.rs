//! `.env.local`: the secrets of a project on its author's machine, one `NAME=value` per line. A service is given only those that it declares in
//! `secrets`. Nothing here reaches the environment of this process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tovuk_kernel::names::check_variable_name;
use tovuk_kernel::project::Service;

/// The name of the file, beside the project file.
pub const FILE_NAME: &str = ".env.local";

/// The values of a file.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EnvFile {
    values: BTreeMap<String, String>,
}

/// What a service gets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The declared secrets that have a value.
    pub values: BTreeMap<String, String>,
    /// The declared secrets that have none.
    pub missing: Vec<String>,
}

// The values are secrets: the names are enough for whoever prints these types.
impl std::fmt::Debug for EnvFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("names", &self.values.keys()).field("missing", &self.missing).finish()
    }
}

/// Why a file cannot be used. No text holds a value.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not `NAME=value`.
    #[error("{}:{line}: not a line of the form NAME=value. Write NAME='value', with quotes when the value has spaces, `#` or `$`", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A name cannot be used.
    #[error("{}:{line}: {reason}. Rename it here and in `secrets` of tovuk.toml", .path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// A name stands there twice.
    #[error("{}:{line}: `{name}` stands here for the second time. Remove one of the two lines", .path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The line of the second, from 1.
        line: usize,
        /// The name.
        name: String,
    },
}

/// Reads the file beside a project file. A project without one has no secrets.
pub fn load(directory: &Path) -> Result<EnvFile, EnvFileError> {
    let path = directory.join(FILE_NAME);
    match std::fs::read(&path) {
        Ok(bytes) => parse(&path, &bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(EnvFile::default()),
        Err(source) => Err(EnvFileError::Unreadable { path, source }),
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<EnvFile, EnvFileError> {
    let text = String::from_utf8_lossy(bytes);
    let mut values = BTreeMap::new();
    for entry in dotenvy::from_read_iter(bytes) {
        let (name, value) = entry.map_err(|error| failure(path, &text, error))?;
        if let Err(error) = check_variable_name(&name) {
            return Err(EnvFileError::Name { path: path.to_owned(), line: line_of(&text, &name, 0), reason: error.to_string() });
        }
        if values.insert(name.clone(), value).is_some() {
            return Err(EnvFileError::Duplicate { path: path.to_owned(), line: line_of(&text, &name, 1), name });
        }
    }
    Ok(EnvFile { values })
}

fn failure(path: &Path, text: &str, error: dotenvy::Error) -> EnvFileError {
    match error {
        dotenvy::Error::Io(source) => EnvFileError::Unreadable { path: path.to_owned(), source },
        dotenvy::Error::LineParse(content, _) => {
            let first = content.lines().next().unwrap_or_default();
            let line = text.lines().position(|line| line.trim() == first.trim()).unwrap_or_default() + 1;
            EnvFileError::Malformed { path: path.to_owned(), line }
        }
        _ => EnvFileError::Malformed { path: path.to_owned(), line: 1 },
    }
}

/// The number of the line that sets `name`, after skipping `skip` of them.
fn line_of(text: &str, name: &str, skip: usize) -> usize {
    let sets = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let lines = text.lines().enumerate().filter(|(_, line)| sets(line));
    lines.map(|(number, _)| number + 1).nth(skip).unwrap_or(1)
}

impl EnvFile {
    /// What a service gets: the secrets it declares and nothing else.
    pub fn secrets_of(&self, service: &Service) -> Secrets {
        let mut secrets = Secrets::default();
        for name in &service.secrets {
            match self.values.get(name) {
                Some(value) => {
                    secrets.values.insert(name.clone(), value.clone());
                }
                None => secrets.missing.push(name.clone()),
            }
        }
        secrets
    }

    /// Names in the file that no service of the project declares: most often a slip in one of the two places.
    pub fn undeclared<'a>(&'a self, services: impl IntoIterator<Item = &'a Service>) -> Vec<&'a str> {
        let declared: Vec<&String> = services.into_iter().flat_map(|service| &service.secrets).collect();
        self.values.keys().filter(|name| !declared.contains(name)).map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parsed(text: &str) -> Result<EnvFile, EnvFileError> {
        parse(Path::new(".env.local"), text.as_bytes())
    }

    fn service(secrets: &[&str]) -> Service {
        Service { secrets: secrets.iter().map(|name| (*name).to_owned()).collect(), ..Service::default() }
    }

    #[test]
    fn a_service_gets_only_what_it_declares() {
        let file = parsed("# keys\nSTRIPE_KEY=sk_1\nexport OTHER=\"two words\"\nEMPTY=\n").unwrap();
        let secrets = file.secrets_of(&service(&["OTHER", "EMPTY", "ABSENT"]));
        assert_eq!(secrets.values, [("EMPTY".to_owned(), String::new()), ("OTHER".to_owned(), "two words".to_owned())].into());
        assert_eq!(secrets.missing, ["ABSENT"]);
        assert_eq!(file.undeclared(&[service(&["OTHER", "EMPTY"])]), ["STRIPE_KEY"]);
    }

    #[test]
    fn names_of_the_host_are_refused_with_their_line() {
        let text = parsed("A=1\nTOVUK_TOKEN=x\n").unwrap_err().to_string();
        assert!(text.starts_with(".env.local:2: ") && text.contains("TOVUK_TOKEN"), "{text}");
    }

    #[test]
    fn errors_name_the_line_and_hold_no_value() {
        let text = parsed("A=1\nB = \"hunter2 is open\n").unwrap_err().to_string();
        assert!(text.starts_with(".env.local:2: ") && !text.contains("hunter2"), "{text}");
        let text = parsed("A=1\nB=2\nA=hunter2\n").unwrap_err().to_string();
        assert!(text.starts_with(".env.local:3: ") && !text.contains("hunter2"), "{text}");
        assert!(!format!("{:?}", parsed("A=hunter2").unwrap()).contains("hunter2"));
    }

    #[test]
    fn a_project_without_the_file_has_no_secrets() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(load(directory.path()).unwrap(), EnvFile::default());
    }
}
