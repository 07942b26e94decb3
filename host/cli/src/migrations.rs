//! A folder of migrations, read: its files `*.sql` in the order of their names, which are the names of the migrations. What is in them is for the host
//! to judge.

use std::fs;
use std::path::Path;

use tovuk_kernel::limits::{SQLITE_MIGRATIONS_MAX, SQLITE_SQL_BYTES_MAX};
use tovuk_kernel::project::Service;
use tovuk_resources::sqlite::Migration;
use tovuk_server::deploy::migrations::Migrations;

/// The scripts of a service's databases. `project` is the folder of the project file.
///
/// # Errors
/// As [`read`], but for a folder that has no script yet.
pub fn of(project: &Path, service: &Service) -> Result<Migrations, String> {
    let with_folder = service.sqlite.iter().filter_map(|(name, settings)| Some((name, settings.migrations.as_ref()?)));
    with_folder.map(|(name, folder)| Ok((name.clone(), scripts(&project.join(service.root()).join(folder))?))).collect()
}

/// Reads the scripts of a folder. Other files, and those whose names begin with a dot, are passed over.
///
/// # Errors
/// When the folder or a script cannot be read or is too large, or there is no script in it: most often it is the wrong folder then.
pub fn read(folder: &Path) -> Result<Vec<Migration>, String> {
    let scripts = scripts(folder)?;
    if scripts.is_empty() { Err(format!("there is no file *.sql in {}", folder.display())) } else { Ok(scripts) }
}

fn scripts(folder: &Path) -> Result<Vec<Migration>, String> {
    let shown = folder.display();
    let unread = |error: std::io::Error| format!("the migrations in {shown} cannot be read: {error}");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        let name = entry.map_err(unread)?.file_name();
        let Some(text) = name.to_str() else { return Err(format!("{shown}: the name of a migration is no text: {}", name.display())) };
        if text.ends_with(".sql") && !text.starts_with('.') {
            names.push(text.to_owned());
        }
    }
    if names.len() > SQLITE_MIGRATIONS_MAX {
        return Err(format!("there are more than {SQLITE_MIGRATIONS_MAX} migrations in {shown}"));
    }
    names.sort_unstable();
    let script = |name: String| {
        let path = folder.join(&name);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        if fs::metadata(&path).map_err(failed)?.len() > u64::from(SQLITE_SQL_BYTES_MAX) {
            return Err(format!("{} has more than {SQLITE_SQL_BYTES_MAX} bytes: make several of it", path.display()));
        }
        let sql = fs::read_to_string(&path).map_err(failed)?;
        Ok(Migration { name, sql })
    };
    names.into_iter().map(script).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_come_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap_err().contains("no file *.sql"));
        for (name, text) in [("0002_b.sql", "b"), ("0001_a.sql", "a"), ("README.md", "x"), (".0003.sql", "x"), ("0010_c.sql", "c")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let names: Vec<_> = read(folder.path()).unwrap().into_iter().map(|script| (script.name, script.sql)).collect();
        assert_eq!(names, [("0001_a.sql", "a"), ("0002_b.sql", "b"), ("0010_c.sql", "c")].map(|(name, sql)| (name.to_owned(), sql.to_owned())));
        fs::write(folder.path().join("0011.sql"), vec![b' '; SQLITE_SQL_BYTES_MAX as usize + 1]).unwrap();
        assert!(read(folder.path()).unwrap_err().contains("0011.sql has more than"));
        assert!(read(&folder.path().join("none")).unwrap_err().contains("cannot be read"));
    }
}
