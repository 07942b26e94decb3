//! Watches the folders of a project and says which services have changed. It builds nothing and knows nothing of what is being built: changes
//! are collected while nobody asks for them, so one that comes during a build is there when the build has ended.
//!
//! What a build writes must not start the next one. Three things see to that: folders of output are not watched at all, declared outputs are
//! ignored by path, and a file whose content is the same as at its last change counts as unchanged.

mod paths;

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, NoCache, new_debouncer_opt};
use tokio::sync::mpsc;

use self::paths::{Area, Layout};
use crate::project_file::Loaded;

/// How long a folder must be quiet before its changes are told. Editors write a file in several steps, and checkouts write many files.
const QUIET_MS: u64 = 100;
/// Largest file whose content is compared, in bytes. A larger one counts as changed whenever it is written.
const COMPARED_BYTES_MAX: u64 = 16 << 20;

/// What has changed since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The project file: it must be read again, and with it the watcher be made anew.
    pub project_file: bool,
    /// `.env.local`.
    pub env_file: bool,
    /// Services of which a source file has changed.
    pub services: BTreeSet<String>,
}

impl Changes {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        !self.project_file && !self.env_file && self.services.is_empty()
    }
}

/// Why a project cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The folder cannot be watched.
    #[error("cannot watch {}: {source}. On Linux, a limit that is too low is raised with `sudo sysctl fs.inotify.max_user_watches=524288`", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: notify::Error,
    },
    /// The system gives no notifications.
    #[error("cannot watch files: {0}")]
    System(notify::Error),
}

/// Watches one project until it is dropped.
pub struct Watcher {
    layout: Layout,
    debouncer: Debouncer<RecommendedWatcher, NoCache>,
    events: mpsc::UnboundedReceiver<DebounceEventResult>,
    watched: HashSet<PathBuf>,
    /// The content of each changed file when it was last told, as a hash.
    contents: HashMap<PathBuf, u64>,
}

impl Watcher {
    /// Starts to watch. `outputs` are files and folders that builds write and nobody edits, such as components.
    pub fn new(loaded: &Loaded, outputs: &[PathBuf]) -> Result<Self, WatchError> {
        let (sender, events) = mpsc::unbounded_channel();
        // The receiver is gone only when the watcher is being dropped.
        let handler = move |result: DebounceEventResult| drop(sender.send(result));
        let debouncer = new_debouncer_opt(Duration::from_millis(QUIET_MS), None, handler, NoCache, notify::Config::default());
        let debouncer = debouncer.map_err(WatchError::System)?;
        let layout = Layout::new(loaded, outputs);
        let mut watcher = Self { layout, debouncer, events, watched: HashSet::new(), contents: HashMap::new() };
        for root in watcher.layout.roots() {
            watcher.watch_tree(&root, &mut Changes::default())?;
        }
        Ok(watcher)
    }

    /// Waits until something has changed and returns all that has changed since the last call. Dropping the future loses nothing. Returns `None`
    /// when the system's notifications have ended.
    pub async fn next(&mut self) -> Option<Changes> {
        loop {
            let mut changes = Changes::default();
            let first = self.events.recv().await?;
            self.take(first, &mut changes);
            while let Ok(next) = self.events.try_recv() {
                self.take(next, &mut changes);
            }
            if !changes.is_empty() {
                return Some(changes);
            }
        }
    }

    fn take(&mut self, result: DebounceEventResult, changes: &mut Changes) {
        let Ok(events) = result else {
            // What was lost is not known, so everything has changed.
            self.layout.everything(changes);
            return;
        };
        for event in events {
            if event.need_rescan() {
                self.layout.everything(changes);
            }
            if matters(event.kind) {
                for path in &event.paths {
                    self.take_path(path, changes);
                }
            }
        }
    }

    fn take_path(&mut self, path: &Path, changes: &mut Changes) {
        if self.layout.area(path) == Area::Ignored {
            return;
        }
        if path.is_dir() {
            // Files can be written into a new folder before it is watched, so what is in it counts as changed. Should it not be watchable, its
            // files are told this once, which beats ending the whole loop.
            let _ = self.watch_tree(path, changes);
        } else if self.has_new_content(path) {
            self.layout.add(path, changes);
        }
    }

    /// Watches a folder and those below it, one by one: watching recursively would include folders of output, some of which are huge. Files in
    /// folders that were not watched before count as changed.
    fn watch_tree(&mut self, root: &Path, changes: &mut Changes) -> Result<(), WatchError> {
        let layout = &self.layout;
        let walk = walkdir::WalkDir::new(root).into_iter().filter_entry(|entry| layout.area(entry.path()) != Area::Ignored);
        let entries: Vec<walkdir::DirEntry> = walk.flatten().collect();
        for entry in entries {
            if entry.file_type().is_dir() {
                if self.watched.contains(entry.path()) {
                    continue;
                }
                match self.debouncer.watch(entry.path(), RecursiveMode::NonRecursive) {
                    Ok(()) => self.watched.insert(entry.path().to_owned()),
                    // It was removed in between, which is none of our business.
                    Err(_) if !entry.path().exists() => continue,
                    Err(source) => return Err(WatchError::Folder { path: entry.path().to_owned(), source }),
                };
            } else if self.has_new_content(entry.path()) {
                self.layout.add(entry.path(), changes);
            }
        }
        Ok(())
    }

    /// Whether a file differs from what it was when this was last asked. A file that is gone differs from one that was there.
    fn has_new_content(&mut self, path: &Path) -> bool {
        match content_hash(path) {
            Content::Hash(hash) => self.contents.insert(path.to_owned(), hash) != Some(hash),
            Content::Gone => {
                // The kernel forgets a folder that is removed; should it come again, it is a new one.
                self.watched.remove(path);
                self.contents.remove(path);
                true
            }
            Content::Unknown => true,
        }
    }
}

/// What is known of a file's content.
enum Content {
    Hash(u64),
    Gone,
    Unknown,
}

fn content_hash(path: &Path) -> Content {
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(_) => return Content::Gone,
    };
    if length > COMPARED_BYTES_MAX {
        return Content::Unknown;
    }
    let Ok(bytes) = std::fs::read(path) else { return Content::Unknown };
    // Not against an adversary: two contents that collide by chance would cost one rebuild that the next change makes up for.
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Content::Hash(hasher.finish())
}

/// Whether an event can mean that a file's content is another. Reading a file and changing its times or rights are events as well.
fn matters(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)))
}

#[cfg(test)]
mod tests;
