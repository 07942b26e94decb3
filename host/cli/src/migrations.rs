//! Migrations as they lie in a project: a folder of `.sql` files for each database that has one, applied in the order of their names.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use tovuk_kernel::project::Service;
use tovuk_server::deploy::migrations::{Migrations, Script};

/// Why a folder of migrations cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a file in it.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A name that is no text.
    #[error("{0}: the name of a migration has to be UTF-8")]
    Name(PathBuf),
}

/// The scripts of a service's databases. `project` is the folder of the project file.
pub fn of(project: &Path, service: &Service) -> Result<Migrations, Error> {
    let with_folder = service.sqlite.iter().filter_map(|(name, settings)| Some((name, settings.migrations.as_ref()?)));
    with_folder.map(|(name, folder)| Ok((name.clone(), folder_of(&project.join(service.root()).join(folder))?))).collect()
}

/// The scripts in a folder. What does not end in `.sql` is something else.
pub fn folder_of(folder: &Path) -> Result<Vec<Script>, Error> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Unreadable { path, source }
    };
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(unreadable(folder))?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(|path| path.extension() == Some(OsStr::new("sql"))).collect();
    files.sort();
    let script = |path: PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).ok_or_else(|| Error::Name(path.clone()))?.to_owned();
        let sql = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
        Ok(Script { name, sql })
    };
    files.into_iter().map(script).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn scripts_come_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["0002_b.sql", "0001_a.sql", "README.md"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let names: Vec<_> = folder_of(folder.path()).unwrap().into_iter().map(|script| script.name).collect();
        assert_eq!(names, ["0001_a.sql", "0002_b.sql"]);
        assert!(folder_of(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
