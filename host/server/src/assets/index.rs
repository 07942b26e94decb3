//! The index of a deployed folder: each file with its digest, which makes its entity tag. It is written once, beside the folder, when a deploy is made.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tovuk_kernel::limits::{STATIC_ASSET_FILE_BYTES, STATIC_ASSET_FILES_PER_VERSION};
use walkdir::WalkDir;

use super::folder::is_credible;
use super::{Stat, Tree, is_withheld};

/// What is read at once while a digest is made.
const READ_BYTES: usize = 64 << 10;

/// The files of a folder.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetIndex {
    /// In the order of their paths.
    files: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    path: Box<str>,
    #[serde(with = "hex")]
    sha256: [u8; 32],
    bytes: u64,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<u32>,
}

/// Why a folder cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// More files than a deploy may have.
    #[error(
        "there are more than {STATIC_ASSET_FILES_PER_VERSION} static files; deploy fewer, or keep what is not part of the site in object storage"
    )]
    TooManyFiles,
    /// A file that is larger than a deploy may have.
    #[error("the static file `{path}` has {bytes} bytes, and {STATIC_ASSET_FILE_BYTES} are allowed; keep it in object storage")]
    FileTooLarge {
        /// Relative to the folder.
        path: String,
        /// Its size.
        bytes: u64,
    },
    /// A link, a device, a pipe or a socket.
    #[error("`{path}` is no regular file; replace it with a copy of what it stands for")]
    NotAFile {
        /// Relative to the folder.
        path: String,
    },
    /// A name that no URL can say.
    #[error("the name of the static file {path:?} is not UTF-8; rename it")]
    NotUtf8 {
        /// Relative to the folder.
        path: PathBuf,
    },
    /// The folder could not be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl AssetIndex {
    /// Makes the index of a folder. What is never served, such as hidden files, is left out. Blocks.
    pub fn of(folder: &Path) -> Result<Self, IndexError> {
        let mut files = Vec::new();
        for entry in WalkDir::new(folder).min_depth(1).follow_links(false) {
            let entry = entry.map_err(|error| {
                let path = error.path().unwrap_or(folder).to_owned();
                IndexError::Io { path, source: error.into() }
            })?;
            if entry.file_type().is_dir() {
                continue;
            }
            let relative = entry.path().strip_prefix(folder).unwrap_or(entry.path());
            let Some(path) = relative.to_str().map(str::to_owned) else {
                return Err(IndexError::NotUtf8 { path: relative.to_owned() });
            };
            if is_withheld(&path) {
                continue;
            }
            if !entry.file_type().is_file() {
                return Err(IndexError::NotAFile { path });
            }
            if files.len() == STATIC_ASSET_FILES_PER_VERSION {
                return Err(IndexError::TooManyFiles);
            }
            files.push(entry_of(entry.path(), path)?);
        }
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    /// Names the content: the same files have the same name, whenever they were written.
    pub fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for entry in &self.files {
            digest.update(entry.path.as_bytes());
            // No path has one, so that it is clear where the path ends.
            digest.update([0]);
            digest.update(entry.sha256);
        }
        hex::encode(digest.finalize())
    }

    /// Writes the index beside its folder, by way of a new file at `draft` on the same file system. It is on disk when this returns.
    pub fn save(&self, folder: &Path, draft: &Path) -> io::Result<()> {
        let path = path_beside(folder)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = File::create(draft)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(draft, &path)?;
        File::open(parent)?.sync_all()
    }

    /// Reads the index that was saved beside a folder. Blocks.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let path = path_beside(folder)?;
        let named = |source: io::Error| io::Error::new(source.kind(), format!("{}: {source}", path.display()));
        let bytes = std::fs::read(&path).map_err(named)?;
        let mut index: Self = serde_json::from_slice(&bytes).map_err(|error| named(error.into()))?;
        // Looked up by halving, so the order is not taken on trust.
        index.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(index)
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// How large they are together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|entry| entry.bytes).sum()
    }

    /// What the index takes of the host's memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.files.iter().map(|entry| size_of::<Entry>() + entry.path.len()).sum()
    }
}

impl Tree for AssetIndex {
    fn file(&self, path: &str) -> Option<Stat> {
        let at = self.files.binary_search_by(|entry| entry.path.as_ref().cmp(path)).ok()?;
        let entry = self.files.get(at)?;
        let modified = entry.modified.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds.into()));
        Some(Stat { bytes: entry.bytes, modified, sha256: Some(entry.sha256) })
    }
}

/// Where the index of a folder is: beside it, so that it is no file of the site.
pub(super) fn path_beside(folder: &Path) -> io::Result<PathBuf> {
    let Some(name) = folder.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no name for an index beside it", folder.display())));
    };
    let mut name = name.to_owned();
    name.push(".index.json");
    Ok(folder.with_file_name(name))
}

fn entry_of(file: &Path, path: String) -> Result<Entry, IndexError> {
    let io = |source| IndexError::Io { path: file.to_owned(), source };
    let mut opened = File::open(file).map_err(io)?;
    let metadata = opened.metadata().map_err(io)?;
    if metadata.len() > STATIC_ASSET_FILE_BYTES {
        return Err(IndexError::FileTooLarge { path, bytes: metadata.len() });
    }
    let mut digest = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        let read = opened.read(&mut buffer).map_err(io)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        digest.update(buffer.get(..read).unwrap_or_default());
    }
    let modified = metadata.modified().ok().filter(|time| is_credible(*time));
    let seconds = |time: SystemTime| u32::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok();
    Ok(Entry { path: path.into(), sha256: digest.finalize().into(), bytes, modified: modified.and_then(seconds) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("site");
        std::fs::create_dir_all(folder.join("a/.git")).unwrap();
        for (path, content) in [("index.html", "<p>"), ("a/x.js", "1"), ("a-b", ""), (".env", "KEY=1"), ("a/.git/config", "x"), ("tovuk.toml", "")] {
            std::fs::write(folder.join(path), content).unwrap();
        }
        (parent, folder)
    }

    #[test]
    fn an_index_has_what_is_served_and_is_the_same_after_it_was_read_again() {
        let (_parent, folder) = site();
        let index = AssetIndex::of(&folder).unwrap();
        assert_eq!(index.files.iter().map(|entry| &*entry.path).collect::<Vec<_>>(), ["a-b", "a/x.js", "index.html"]);
        assert_eq!((index.files(), index.bytes()), (3, 4));
        let found = index.file("a/x.js").unwrap();
        assert_eq!(hex::encode(found.sha256.unwrap()), "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b");
        assert!(found.modified.is_some());
        assert_eq!((index.file("a"), index.file(".env"), index.file("")), (None, None, None));
        index.save(&folder, &folder.with_extension("draft")).unwrap();
        assert_eq!(AssetIndex::load(&folder).unwrap(), index);
        assert_eq!(AssetIndex::of(&folder).unwrap(), index, "the index is no file of the site");
    }

    #[test]
    fn the_same_files_have_the_same_name_whenever_they_were_written() {
        let (_parent, folder) = site();
        let before = AssetIndex::of(&folder).unwrap();
        let file = File::options().write(true).open(folder.join("index.html")).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        let after = AssetIndex::of(&folder).unwrap();
        assert_ne!(after, before);
        assert_eq!(after.digest(), before.digest());
        std::fs::rename(folder.join("a-b"), folder.join("a-c")).unwrap();
        assert_ne!(AssetIndex::of(&folder).unwrap().digest(), before.digest());
    }

    #[test]
    fn an_index_that_is_missing_or_broken_is_named() {
        let (_parent, folder) = site();
        let error = AssetIndex::load(&folder).unwrap_err().to_string();
        assert!(error.contains("site.index.json"), "{error}");
        std::fs::write(path_beside(&folder).unwrap(), "{\"files\":[{").unwrap();
        let error = AssetIndex::load(&folder).unwrap_err().to_string();
        assert!(error.contains("site.index.json"), "{error}");
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_name() {
        let (_parent, folder) = site();
        std::os::unix::fs::symlink("/etc/passwd", folder.join("a/link")).unwrap();
        let error = AssetIndex::of(&folder).unwrap_err().to_string();
        assert!(error.starts_with("`a/link` is no regular file"), "{error}");
        std::fs::remove_file(folder.join("a/link")).unwrap();
        File::create(folder.join("film.mp4")).unwrap().set_len(STATIC_ASSET_FILE_BYTES + 1).unwrap();
        let error = AssetIndex::of(&folder).unwrap_err().to_string();
        assert!(error.starts_with("the static file `film.mp4` has 26214401 bytes"), "{error}");
        std::fs::remove_file(folder.join("film.mp4")).unwrap();
        for number in 0..STATIC_ASSET_FILES_PER_VERSION {
            File::create(folder.join(format!("{number}.txt"))).unwrap();
        }
        assert!(matches!(AssetIndex::of(&folder), Err(IndexError::TooManyFiles)));
    }

    #[test]
    fn times_of_reproducible_archives_are_no_dates_of_change() {
        let (_parent, folder) = site();
        let file = File::options().write(true).open(folder.join("index.html")).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(315_532_800)).unwrap();
        assert_eq!(AssetIndex::of(&folder).unwrap().file("index.html").unwrap().modified, None);
    }
}
