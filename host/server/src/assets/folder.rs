//! Files of a folder as it is now. No path and no link leads out of it: every look goes through a handle of the folder and stays beneath it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata, OpenOptions, OpenOptionsExt};

use super::{SMALL_FILE_BYTES, Stat, Tree};

/// Times before this are no times at which a site was made: archives that are made to be reproducible say 1970 or 1980.
const CREDIBLE_AFTER: Duration = Duration::from_hours(24 * 365 * 11);

/// A folder that was opened.
pub(crate) struct Folder(Dir);

/// A part of a file.
pub(crate) enum Opened {
    /// All of it.
    Small(Bytes),
    /// Where it begins.
    Large(File),
}

impl Folder {
    pub fn open(path: &Path) -> io::Result<Self> {
        Dir::open_ambient_dir(path, ambient_authority()).map(Self)
    }

    /// Opens a file that was looked at before and reads the range, or leaves it to be streamed. None, when the file is no longer the one that was
    /// looked at.
    pub fn read(&self, path: &str, expected: Stat, range: Range<u64>) -> io::Result<Option<Opened>> {
        // Opening anything but a file, such as a pipe, must not wait for whoever is at its other end.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = match self.0.open_with(path, OpenOptions::new().read(true).custom_flags(flags)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let now = stat(&opened.metadata()?);
        // The index knows the digest and not always the time; a folder knows the time and no digest.
        if !now.is_some_and(|now| now.bytes == expected.bytes && (expected.sha256.is_some() || now.modified == expected.modified)) {
            return Ok(None);
        }
        let mut file = opened.into_std();
        file.seek(SeekFrom::Start(range.start))?;
        let length = range.end - range.start;
        if length > SMALL_FILE_BYTES {
            return Ok(Some(Opened::Large(file)));
        }
        let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        file.take(length).read_to_end(&mut content)?;
        Ok((content.len() as u64 == length).then(|| Opened::Small(content.into())))
    }
}

impl Tree for Folder {
    fn file(&self, path: &str) -> Option<Stat> {
        stat(&self.0.metadata(path).ok()?)
    }
}

fn stat(metadata: &Metadata) -> Option<Stat> {
    let modified = metadata.modified().ok().map(cap_std::time::SystemTime::into_std).filter(|time| is_credible(*time));
    metadata.is_file().then(|| Stat { bytes: metadata.len(), modified, sha256: None })
}

pub(super) fn is_credible(modified: SystemTime) -> bool {
    modified.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since > CREDIBLE_AFTER)
}
