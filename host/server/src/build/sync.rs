//! Puts a folder on disk, so that what was unpacked or built survives a loss of power. It renames nothing.

use std::fs::File;
use std::io;
use std::path::Path;

/// Up to so many files are synchronised one by one, which leaves the rest of the file system alone. Beyond that one call for the whole file system is
/// cheaper than waiting for the disk once for each file.
const FILES_ONE_BY_ONE_MAX: usize = 256;

/// Makes a folder, everything below it and its own name durable. Blocking.
pub fn sync_tree(path: &Path) -> io::Result<()> {
    let mut folders = vec![path.to_owned()];
    let mut files = Vec::new();
    let mut at = 0;
    while let Some(folder) = folders.get(at).cloned() {
        at += 1;
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    if files.len() > FILES_ONE_BY_ONE_MAX {
        rustix::fs::syncfs(File::open(path)?)?;
    } else {
        // Files before the folders that name them, inner folders before outer ones.
        for path in files.iter().chain(folders.iter().rev()) {
            File::open(path)?.sync_all()?;
        }
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn trees_small_and_large_can_be_synchronised() {
        for count in [3, FILES_ONE_BY_ONE_MAX + 1] {
            let folder = tempfile::tempdir().unwrap();
            let deep = folder.path().join("a/b");
            std::fs::create_dir_all(&deep).unwrap();
            for number in 0..count {
                std::fs::write(deep.join(number.to_string()), "x").unwrap();
            }
            sync_tree(&folder.path().join("a")).unwrap();
        }
        assert!(sync_tree(Path::new("/nowhere")).is_err());
    }
}
