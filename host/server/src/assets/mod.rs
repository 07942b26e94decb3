//! The static files of a service: a deploy's folder, which never changes and has an index of its files, or an author's folder, which does and has none.
//!
//! It says what there is and reads it. How that becomes HTTP is `edge/files`; unpacking an archive into a folder is the deploy's business.

mod folder;
mod index;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use moka::sync::Cache;

pub(crate) use folder::{Folder, Opened};
pub use index::{AssetIndex, IndexError};

/// A file of at most this size is read at once, and kept while it is asked for often; a larger one is streamed.
pub(crate) const SMALL_FILE_BYTES: u64 = 64 << 10;
/// What an entry of a cache takes beside its content.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// What can be known of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub bytes: u64,
    /// When it was written, where the file system says so credibly.
    pub modified: Option<SystemTime>,
    /// The digest of its content, where an index has it.
    pub sha256: Option<[u8; 32]>,
}

/// Something that has files by their paths, which are relative, decoded and free of `.` and `..`.
pub(crate) trait Tree {
    fn file(&self, path: &str) -> Option<Stat>;
}

/// How much memory a store may take.
#[derive(Clone, Copy, Debug)]
pub struct AssetStoreConfig {
    /// For indexes, in bytes. One of 20,000 files takes about 3 MB.
    pub index_bytes: u64,
    /// For the content of small files, in bytes.
    pub content_bytes: u64,
}

impl Default for AssetStoreConfig {
    fn default() -> Self {
        Self { index_bytes: 64 << 20, content_bytes: 64 << 20 }
    }
}

/// What all deployed folders of a host share: the indexes and the small files that are asked for most. Clones are the same store.
#[derive(Clone)]
pub struct AssetStore(Arc<Caches>);

struct Caches {
    indexes: Cache<Arc<Path>, Arc<AssetIndex>>,
    /// By folder too, so that no tenant can fill or time an entry of another one.
    contents: Cache<(Arc<Path>, [u8; 32]), Bytes>,
}

impl AssetStore {
    /// An empty store.
    pub fn new(config: AssetStoreConfig) -> Self {
        let weight = |bytes: usize| u32::try_from(bytes + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX);
        let indexes = Cache::builder().max_capacity(config.index_bytes).weigher(move |_, index: &Arc<AssetIndex>| weight(index.memory_bytes()));
        let contents = Cache::builder().max_capacity(config.content_bytes).weigher(move |_, content: &Bytes| weight(content.len()));
        Self(Arc::new(Caches { indexes: indexes.build(), contents: contents.build() }))
    }

    /// The files of a deploy: a folder that never changes again, with the index that [`AssetIndex::save`] left beside it. The index is read when
    /// it is first needed.
    pub fn deployed(&self, folder: PathBuf) -> Assets {
        // A later deploy of the same files has written it anew, with the time of that deploy.
        self.0.indexes.invalidate(folder.as_path());
        Assets { folder: folder.into(), store: Some(self.clone()) }
    }
}

/// The static files of one service. Clones are the same files.
#[derive(Clone)]
pub struct Assets {
    folder: Arc<Path>,
    /// None for a folder that may change at any time.
    store: Option<AssetStore>,
}

impl Assets {
    /// A folder that its author changes: looked at anew for each request.
    pub fn live(folder: PathBuf) -> Self {
        Self { folder: folder.into(), store: None }
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the files stay as they are.
    pub(crate) fn is_deployed(&self) -> bool {
        self.store.is_some()
    }

    /// The index of a deployed folder, if it is in memory.
    pub(crate) fn index_at_hand(&self) -> Option<Arc<AssetIndex>> {
        self.store.as_ref()?.0.indexes.get(&*self.folder)
    }

    /// The index of a deployed folder. Blocks; requests that need the same one wait for one reader.
    pub(crate) fn load_index(&self) -> io::Result<Arc<AssetIndex>> {
        let load = || AssetIndex::load(&self.folder).map(Arc::new);
        match &self.store {
            Some(store) => store.0.indexes.try_get_with(self.folder.clone(), load).map_err(|error| io::Error::new(error.kind(), error)),
            None => load(),
        }
    }

    /// The content of a small deployed file, if it is in memory.
    pub(crate) fn content_at_hand(&self, sha256: [u8; 32]) -> Option<Bytes> {
        self.store.as_ref()?.0.contents.get(&(self.folder.clone(), sha256))
    }

    /// Keeps the whole content of a small deployed file.
    pub(crate) fn keep_content(&self, sha256: [u8; 32], content: Bytes) {
        if let Some(store) = &self.store {
            store.0.contents.insert((self.folder.clone(), sha256), content);
        }
    }
}

impl std::fmt::Debug for Assets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple(if self.is_deployed() { "Deployed" } else { "Live" }).field(&self.folder).finish()
    }
}

/// Whether a path leads to something that lies in a project's folder and is no part of its site. A static project may serve its own root.
pub(crate) fn is_withheld(path: &str) -> bool {
    const FOLDERS: [&str; 2] = ["target", "node_modules"];
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let mut segments = decoded.split(['/', '\\']).filter(|segment| !segment.is_empty());
    let first = segments.clone().next().unwrap_or_default();
    FOLDERS.contains(&first) || segments.any(|segment| segment == "tovuk.toml" || (segment.starts_with('.') && segment != ".well-known"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_folder_that_is_served_keeps_what_is_no_part_of_its_site() {
        for path in ["/.env.local", "/a/.git/config", "/%2eenv", "/tovuk.toml", "/target/x", "/node_modules/x", "/a\\.env", "/.tovuk/dev-token"] {
            assert!(is_withheld(path), "{path}");
        }
        for path in ["/", "/index.html", "/.well-known/acme-challenge/x", "/a/target/x", "/a.b/c"] {
            assert!(!is_withheld(path), "{path}");
        }
    }
}
