//! Which names an archive has used so far. A file can stand there once, a folder any number of times, and neither in the other's place.

use std::collections::HashMap;

use super::Problem;

/// What stands at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    File,
    Folder,
}

/// The names used so far.
#[derive(Default)]
pub(super) struct Tree {
    nodes: HashMap<Box<str>, Node>,
    folders: u64,
}

impl Tree {
    /// A folder, with those above it.
    pub(super) fn folder(&mut self, path: &str) -> Result<(), Problem> {
        // From the inside out: what is known as a folder has known folders above it.
        let mut path = path;
        loop {
            match self.nodes.insert(path.into(), Node::Folder) {
                Some(Node::File) => return Err(Problem::Duplicate),
                Some(Node::Folder) => return Ok(()),
                None => self.folders += 1,
            }
            let Some((above, _)) = path.rsplit_once('/') else { return Ok(()) };
            path = above;
        }
    }

    /// How many folders there are, named by an entry or only above one.
    pub(super) fn folders(&self) -> u64 {
        self.folders
    }

    /// A file, with the folders above it.
    pub(super) fn file(&mut self, path: &str) -> Result<(), Problem> {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder)?;
        }
        match self.nodes.insert(path.into(), Node::File) {
            None => Ok(()),
            Some(_) => Err(Problem::Duplicate),
        }
    }
}
