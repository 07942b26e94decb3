//! Unpacks an uploaded archive, a gzip-compressed tar, into a fresh folder. Whoever sends it is hostile: only regular files with plain relative names
//! are written, everything is counted as it comes and never taken from a header, and nothing is followed. What is refused is named, with what to do.
//!
//! It does not decide what an archive is for, and does not make it durable: see [`super::sync_tree`].

mod error;
mod name;
mod reader;
mod tree;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::GzDecoder;
use tar::{EntryType, Header};
pub use tovuk_kernel::archive::Kind;
use tovuk_kernel::archive::{Unwanted, unwanted};

pub use self::error::{ArchiveError, Problem};
use self::name::{Extended, safe_path};
use self::reader::{Compressed, Stream};
use self::tree::Tree;

/// How much is read from an entry at a time, and so how often a cancelled unpacking notices.
const CHUNK_BYTES: usize = 64 << 10;
/// Largest record with a long name or extended attributes that is read. Paths are shorter; what else stands there is not used.
const RECORD_BYTES_MAX: u64 = 16 << 10;
/// What headers and padding may add to each entry. Two records with extensions of a few blocks each fit.
const OVERHEAD_BYTES_PER_ENTRY: u64 = 8 << 10;
/// Headers for each file: its own, one for a long name, one for attributes, and folders.
const HEADERS_PER_FILE: u64 = 4;
/// An archive ends with two blocks of zeros.
const END_BYTES: u64 = 1024;

/// What an archive may hold. An operator may set each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// All files together, unpacked.
    pub bytes: u64,
    /// One file, unpacked.
    pub file_bytes: u64,
    /// How many files, and how many folders.
    pub files: u64,
    /// How many times larger than the archive its content may be, once it is larger than `ratio_from_bytes`. Source compresses about tenfold.
    pub ratio: u64,
    /// Content up to this size may have any ratio: a small file of zeros is no attack.
    pub ratio_from_bytes: u64,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self { bytes: 512 << 20, file_bytes: 128 << 20, files: 20_000, ratio: 100, ratio_from_bytes: 32 << 20 }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// How many files.
    pub files: u64,
    /// Their content.
    pub bytes: u64,
}

/// Unpacks a gzip-compressed tar into `into`, which must not exist or be empty. Blocking. When it fails or `cancel` becomes true, what it had
/// written is removed again.
pub fn unpack(archive: impl Read, into: &Path, limits: &ArchiveLimits, kind: Kind, cancel: &AtomicBool) -> Result<Unpacked, ArchiveError> {
    fresh(into, || {
        let compressed = Compressed::new(archive);
        let read_bytes = compressed.count();
        let mut gzip = GzDecoder::new(BufReader::new(compressed));
        let unpacked = write_all(Stream::new(&mut gzip, limits, Some(read_bytes)), into, limits, kind, cancel)?;
        // A second member, or anything else after the first, would be seen by some tools and not by others.
        match gzip.into_inner().fill_buf() {
            Ok([]) => Ok(unpacked),
            Ok(_) => Err(Problem::TrailingBytes.into()),
            Err(source) => Err(ArchiveError::read(source)),
        }
    })
}

/// The same for a tar that is not compressed: what a build sandbox answers with.
pub(super) fn unpack_tar(archive: impl Read, into: &Path, limits: &ArchiveLimits, kind: Kind, cancel: &AtomicBool) -> Result<Unpacked, ArchiveError> {
    fresh(into, || write_all(Stream::new(archive, limits, None), into, limits, kind, cancel))
}

/// Makes the folder, and removes it again when filling it fails.
fn fresh(into: &Path, fill: impl FnOnce() -> Result<Unpacked, ArchiveError>) -> Result<Unpacked, ArchiveError> {
    match fs::create_dir(into) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut entries = fs::read_dir(into).map_err(|source| ArchiveError::write(into, source))?;
            if entries.next().is_some() {
                return Err(ArchiveError::write(into, io::Error::other("the folder is not empty")));
            }
        }
        made => made.map_err(|source| ArchiveError::write(into, source))?,
    }
    let result = fill();
    if result.is_err() {
        // Nothing more can be done when this fails as well; the error that is told is the one that came first.
        let _ = fs::remove_dir_all(into);
    }
    result
}

fn write_all(stream: Stream<impl Read>, into: &Path, limits: &ArchiveLimits, kind: Kind, cancel: &AtomicBool) -> Result<Unpacked, ArchiveError> {
    let mut archive = tar::Archive::new(stream);
    let mut unpacker = Unpacker { into, limits, kind, cancel, tree: Tree::default(), unpacked: Unpacked::default() };
    let mut headers = 0;
    let mut extended = Extended::default();
    for entry in archive.entries().map_err(ArchiveError::read)?.raw(true) {
        let mut entry = entry.map_err(ArchiveError::read)?;
        unpacker.check_cancelled()?;
        headers += 1;
        if headers > limits.files.saturating_mul(HEADERS_PER_FILE) {
            return Err(Problem::TooManyFiles { max: limits.files }.into());
        }
        let header = entry.header().clone();
        match header.entry_type() {
            EntryType::GNULongName => extended.long_name(&record(&mut entry)?)?,
            EntryType::XHeader => extended.attributes(&record(&mut entry)?)?,
            EntryType::XGlobalHeader => Extended::check_global(&record(&mut entry)?)?,
            entry_type => {
                let name = extended.take_name(&header);
                unpacker.entry(&name, entry_type, &header, &mut entry)?;
            }
        }
    }
    let unpacked = unpacker.unpacked;
    archive.into_inner().finish(END_BYTES)?;
    Ok(unpacked)
}

/// The content of a record that describes the next entry.
fn record(entry: &mut impl Read) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    entry.take(RECORD_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(ArchiveError::read)?;
    if bytes.len() as u64 > RECORD_BYTES_MAX { Err(Problem::RecordTooLarge.into()) } else { Ok(bytes) }
}

struct Unpacker<'a> {
    into: &'a Path,
    limits: &'a ArchiveLimits,
    kind: Kind,
    cancel: &'a AtomicBool,
    tree: Tree,
    unpacked: Unpacked,
}

impl Unpacker<'_> {
    fn check_cancelled(&self) -> Result<(), ArchiveError> {
        if self.cancel.load(Ordering::Relaxed) { Err(ArchiveError::Cancelled) } else { Ok(()) }
    }

    fn entry(&mut self, name: &[u8], entry_type: EntryType, header: &Header, content: &mut impl Read) -> Result<(), ArchiveError> {
        let is_folder = match entry_type {
            EntryType::Regular => false,
            EntryType::Directory => true,
            other => return Err(Problem::NotAFile { what: error::in_words(other) }.at(name)),
        };
        let Some(path) = safe_path(name, is_folder).map_err(|problem| problem.at(name))? else { return Ok(()) };
        let reason = if is_folder { tovuk_kernel::archive::unwanted_folder(&path, self.kind) } else { unwanted(&path, self.kind) };
        match reason {
            Some(Unwanted::Desktop) => return Ok(()),
            Some(reason @ (Unwanted::Secret | Unwanted::Generated | Unwanted::Compiled)) => {
                return Err(Problem::Unwanted { reason, kind: self.kind }.at(name));
            }
            // Databases and logs are left out by the command line. Whoever sends one all the same may have a reason.
            Some(Unwanted::Data) | None => {}
        }
        let added = if is_folder { self.tree.folder(&path) } else { self.tree.file(&path) };
        added.map_err(|problem| problem.at(name))?;
        // One name can stand for as many folders as it has levels, so they are counted and not the entries that name them.
        if self.tree.folders() > self.limits.files {
            return Err(Problem::TooManyFiles { max: self.limits.files }.into());
        }
        if is_folder { self.make_folder(&path) } else { self.file(&path, header, content) }
    }

    fn make_folder(&self, path: &str) -> Result<(), ArchiveError> {
        let folder = self.into.join(path);
        fs::create_dir_all(&folder).map_err(|source| ArchiveError::write(&folder, source))
    }

    fn file(&mut self, path: &str, header: &Header, content: &mut impl Read) -> Result<(), ArchiveError> {
        if self.unpacked.files == self.limits.files {
            return Err(Problem::TooManyFiles { max: self.limits.files }.into());
        }
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.make_folder(folder)?;
        }
        let target = self.into.join(path);
        let failed = |source| ArchiveError::write(&target, source);
        // The folder is new and holds no links, and `create_new` follows none: nothing outside can be reached or replaced.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target).map_err(failed)?;
        let bytes = self.copy(path, content, &mut file, &target)?;
        if header.entry_size().map_err(ArchiveError::read)? != bytes {
            return Err(Problem::Truncated.at(path.as_bytes()));
        }
        let runs = self.kind == Kind::Source && header.mode().is_ok_and(|mode| mode & 0o111 != 0);
        file.set_permissions(fs::Permissions::from_mode(if runs { 0o755 } else { 0o644 })).map_err(failed)?;
        self.unpacked.files += 1;
        Ok(())
    }

    /// Copies one file, counting what comes.
    fn copy(&mut self, path: &str, content: &mut impl Read, file: &mut File, target: &Path) -> Result<u64, ArchiveError> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut bytes = 0;
        loop {
            self.check_cancelled()?;
            let read = content.read(&mut chunk).map_err(ArchiveError::read)?;
            let Some(piece) = chunk.get(..read).filter(|piece| !piece.is_empty()) else { return Ok(bytes) };
            bytes += read as u64;
            self.unpacked.bytes += read as u64;
            if bytes > self.limits.file_bytes {
                return Err(Problem::FileTooLarge { max: self.limits.file_bytes }.at(path.as_bytes()));
            }
            if self.unpacked.bytes > self.limits.bytes {
                return Err(Problem::TooLarge { max: self.limits.bytes }.into());
            }
            file.write_all(piece).map_err(|source| ArchiveError::write(target, source))?;
        }
    }
}

#[cfg(test)]
mod tests;
