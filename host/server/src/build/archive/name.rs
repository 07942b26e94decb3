//! Names of entries: where they stand, and which of them are safe to write.

use tar::{Header, PaxExtensions};

use super::{ArchiveError, Problem};

/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 1024;
/// Longest name of one folder or file, in bytes. File systems take no more.
const NAME_BYTES_MAX: usize = 255;
/// Most names in one path.
const DEPTH_MAX: usize = 64;

/// The path of an entry, relative and plain, or nothing for the archive's own root.
pub(super) fn safe_path(name: &[u8], is_folder: bool) -> Result<Option<String>, Problem> {
    let name = str::from_utf8(name).map_err(|_| Problem::Name("is not UTF-8"))?;
    if name.contains('\0') {
        return Err(Problem::Name("contains a NUL"));
    }
    if name.contains('\\') {
        return Err(Problem::Name("contains a backslash"));
    }
    if name.contains(char::is_control) {
        return Err(Problem::Name("contains a control character"));
    }
    if name.starts_with('/') {
        return Err(Problem::Name("is absolute"));
    }
    if name.len() > PATH_BYTES_MAX {
        return Err(Problem::Name("is longer than 1,024 bytes"));
    }
    let mut path = name;
    while let Some(rest) = path.strip_prefix("./") {
        path = rest;
    }
    if is_folder {
        path = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty() || path == "." {
            return Ok(None);
        }
    }
    let names = path.split('/');
    if names.clone().count() > DEPTH_MAX {
        return Err(Problem::Name("has more than 64 levels"));
    }
    for name in names {
        match name {
            "" | "." => return Err(Problem::Name("has an empty part or one that is `.`")),
            ".." => return Err(Problem::Name("contains `..`")),
            name if name.len() > NAME_BYTES_MAX => return Err(Problem::Name("has a part longer than 255 bytes")),
            _ => {}
        }
    }
    Ok(Some(path.to_owned()))
}

/// What records before an entry say about it.
#[derive(Default)]
pub(super) struct Extended {
    name: Option<Vec<u8>>,
}

impl Extended {
    /// A GNU record with the name that was too long for the header.
    pub(super) fn long_name(&mut self, record: &[u8]) -> Result<(), ArchiveError> {
        self.set_name(record.strip_suffix(b"\0").unwrap_or(record).to_vec())
    }

    /// A POSIX record of attributes. The name is taken, times and owners are not used, and what would change what the next header means is refused: tools
    /// that disagree about such records see different archives.
    pub(super) fn attributes(&mut self, record: &[u8]) -> Result<(), ArchiveError> {
        for (key, value) in pairs(record)? {
            if key == "path" {
                self.set_name(value)?;
            } else {
                refuse_layout(&key)?;
            }
        }
        Ok(())
    }

    /// Attributes for all entries that follow, such as the comment of `git archive`.
    pub(super) fn check_global(record: &[u8]) -> Result<(), ArchiveError> {
        for (key, _) in pairs(record)? {
            if key == "path" {
                return Err(Problem::Attributes(key).into());
            }
            refuse_layout(&key)?;
        }
        Ok(())
    }

    fn set_name(&mut self, name: Vec<u8>) -> Result<(), ArchiveError> {
        if self.name.is_some() {
            return Err(Problem::Damaged("one entry has two names".to_owned()).at(&name));
        }
        self.name = Some(name);
        Ok(())
    }

    /// The name of the entry with this header.
    pub(super) fn take_name(&mut self, header: &Header) -> Vec<u8> {
        self.name.take().unwrap_or_else(|| header.path_bytes().into_owned())
    }
}

fn pairs(record: &[u8]) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
    let damaged = || ArchiveError::from(Problem::Damaged("its extended attributes cannot be read".to_owned()));
    // A line feed inside a value would be read as the beginning of another pair.
    let pairs = PaxExtensions::new(record).map(|pair| {
        let pair = pair.map_err(|_| damaged())?;
        Ok((pair.key().map_err(|_| damaged())?.to_owned(), pair.value_bytes().to_vec()))
    });
    pairs.collect()
}

fn refuse_layout(key: &str) -> Result<(), ArchiveError> {
    let changes = key == "size" || key == "linkpath" || key.starts_with("GNU.sparse") || key.starts_with("SCHILY.realsize");
    if changes { Err(Problem::Attributes(key.to_owned()).into()) } else { Ok(()) }
}
