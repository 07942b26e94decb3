//! Packs a folder into the archive that is uploaded: a gzip-compressed tar of its regular files. The same files give the same bytes, whenever and
//! wherever they are packed. Secrets, build output and the like are left out and named; which names those are is in `tovuk_kernel::archive`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};
use tovuk_kernel::archive::{Kind, Unwanted, unwanted, unwanted_folder};
use tovuk_kernel::limits::ARCHIVE_GZIP_BYTES;

/// How many of the largest files an error names.
const LARGEST: usize = 3;

/// An archive, and what it leaves out.
#[derive(Debug)]
pub struct Packed {
    /// The gzip-compressed tar.
    pub bytes: Vec<u8>,
    /// How many files it holds.
    pub files: u64,
    /// Their content.
    pub content_bytes: u64,
    /// What was left out, sorted by path. A folder stands for everything in it.
    pub skipped: Vec<Skipped>,
}

/// Something that was left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// The path relative to the folder.
    pub path: String,
    /// Why.
    pub why: Why,
}

/// Why something was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its name.
    Name(Unwanted),
    /// It is a symbolic link.
    Link,
    /// It is a device, a socket or a named pipe.
    Special,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let why = match self.why {
            Why::Name(reason) => reason.as_str(),
            Why::Link => "a symbolic link",
            Why::Special => "neither a file nor a folder",
        };
        write!(formatter, "{} is left out: it is {why}", self.path)
    }
}

/// Why nothing was packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Something cannot be read.
    #[error("{} cannot be packed: {source}. Make it readable, or move it out of the folder", .path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The name cannot be sent.
    #[error("the name of {} is not UTF-8. Rename it", .path.display())]
    Name {
        /// What.
        path: PathBuf,
    },
    /// There is nothing to send.
    #[error("{} holds no files to upload. Check the folder, and what was left out", .folder.display())]
    Empty {
        /// The folder.
        folder: PathBuf,
    },
    /// More than can be sent.
    #[error(
        "{} is too large to upload: compressed it is more than {} MiB. Leave out what the service does not need; the largest files are {}",
        .folder.display(), ARCHIVE_GZIP_BYTES >> 20, .largest.join(", ")
    )]
    TooLarge {
        /// The folder.
        folder: PathBuf,
        /// The largest files with their sizes.
        largest: Vec<String>,
    },
}

impl PackError {
    /// The code for `--json`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "archive_too_large",
            _ => "archive_failed",
        }
    }
}

/// A file that goes in.
struct Entry {
    name: String,
    path: PathBuf,
    bytes: u64,
    runs: bool,
}

/// Packs the regular files of a folder.
pub fn pack(folder: &Path, kind: Kind) -> Result<Packed, PackError> {
    pack_within(folder, kind, ARCHIVE_GZIP_BYTES)
}

fn pack_within(folder: &Path, kind: Kind, bytes_max: u64) -> Result<Packed, PackError> {
    let mut entries = Vec::new();
    let mut skipped = Vec::new();
    collect(folder, "", kind, &mut entries, &mut skipped)?;
    if entries.is_empty() {
        return Err(PackError::Empty { folder: folder.to_owned() });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    skipped.sort();
    let bounded = Bounded { bytes: Vec::new(), bytes_max };
    let gzip = GzBuilder::new().mtime(0).write(bounded, Compression::default());
    let mut tar = Builder::new(gzip);
    let mut content_bytes = 0;
    for entry in &entries {
        match append(&mut tar, entry) {
            Ok(bytes) => content_bytes += bytes,
            Err(error) => return Err(failed(error, folder, &entry.path, &entries)),
        }
    }
    let written = tar.into_inner().and_then(flate2::write::GzEncoder::finish);
    let bytes = written.map_err(|error| failed(error, folder, folder, &entries))?.bytes;
    Ok(Packed { bytes, files: entries.len() as u64, content_bytes, skipped })
}

fn failed(error: io::Error, folder: &Path, path: &Path, entries: &[Entry]) -> PackError {
    if error.kind() != io::ErrorKind::FileTooLarge {
        return PackError::Read { path: path.to_owned(), source: error };
    }
    let mut largest: Vec<&Entry> = entries.iter().collect();
    largest.sort_by_key(|entry| std::cmp::Reverse(entry.bytes));
    let largest = largest.into_iter().take(LARGEST).map(|entry| format!("{} ({:.1} MiB)", entry.name, entry.bytes as f64 / f64::from(1 << 20)));
    PackError::TooLarge { folder: folder.to_owned(), largest: largest.collect() }
}

fn append(tar: &mut Builder<impl Write>, entry: &Entry) -> io::Result<u64> {
    let file = File::open(&entry.path)?;
    let bytes = file.metadata()?.len();
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes);
    // Nothing of this machine: neither users nor times.
    header.set_mode(if entry.runs { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let mut exactly = Exactly { file, left: bytes };
    tar.append_data(&mut header, &entry.name, &mut exactly)?;
    if exactly.left == 0 { Ok(bytes) } else { Err(io::Error::other("it became shorter while it was packed")) }
}

/// A file up to the size that the header says, should it grow meanwhile.
struct Exactly {
    file: File,
    left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = io::Read::take(&mut self.file, self.left).read(buffer)?;
        self.left -= read as u64;
        Ok(read)
    }
}

fn collect(folder: &Path, prefix: &str, kind: Kind, entries: &mut Vec<Entry>, skipped: &mut Vec<Skipped>) -> Result<(), PackError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| PackError::Read { path, source }
    };
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        let path = entry.path();
        let file_name = entry.file_name();
        let Some(file_name) = file_name.to_str() else { return Err(PackError::Name { path }) };
        let name = format!("{prefix}{file_name}");
        // Not followed: a link can lead anywhere on the author's machine.
        let metadata = fs::symlink_metadata(&path).map_err(failed(&path))?;
        let reason = if metadata.is_dir() { unwanted_folder(&name, kind) } else { unwanted(&name, kind) };
        let why = match reason {
            Some(reason) => Some(Why::Name(reason)),
            None if metadata.is_symlink() => Some(Why::Link),
            None if metadata.is_dir() || metadata.is_file() => None,
            None => Some(Why::Special),
        };
        if let Some(why) = why {
            skipped.push(Skipped { path: name, why });
        } else if metadata.is_dir() {
            collect(&path, &format!("{name}/"), kind, entries, skipped)?;
        } else {
            entries.push(Entry { name, path, bytes: metadata.len(), runs: runs(&metadata, kind) });
        }
    }
    Ok(())
}

fn runs(metadata: &fs::Metadata, kind: Kind) -> bool {
    use std::os::unix::fs::PermissionsExt;
    kind == Kind::Source && metadata.permissions().mode() & 0o111 != 0
}

/// Bytes up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 > self.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::AtomicBool;

    use tovuk_server::build::archive::{ArchiveLimits, unpack};

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    #[test]
    fn what_is_packed_can_be_unpacked_and_is_the_same_each_time() {
        let long = format!("src/{}/x.rs", "d".repeat(150));
        let files: &[(&str, &[u8])] = &[("tovuk.toml", b"a"), ("src/main.rs", b"fn main() {}"), (&long, b"long"), ("run.sh", b"#!/bin/sh")];
        let (one, two) = (folder(files), folder(files));
        fs::set_permissions(one.path().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(two.path().join("run.sh"), fs::Permissions::from_mode(0o700)).unwrap();
        let packed = pack(one.path(), Kind::Source).unwrap();
        assert_eq!(packed.bytes, pack(two.path(), Kind::Source).unwrap().bytes);
        assert_eq!((packed.files, packed.content_bytes), (4, 26));
        let into = tempfile::tempdir().unwrap();
        let target = into.path().join("x");
        let unpacked = unpack(packed.bytes.as_slice(), &target, &ArchiveLimits::default(), Kind::Source, &AtomicBool::new(false)).unwrap();
        assert_eq!((unpacked.files, unpacked.bytes), (4, 26));
        for (name, content) in files {
            assert_eq!(&fs::read(target.join(name)).unwrap(), content);
        }
        assert_eq!(fs::metadata(target.join("run.sh")).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn secrets_builds_and_links_are_left_out_and_named() {
        let folder = folder(&[
            ("a.txt", b""),
            ("api/.env", b"x"),
            ("target/debug/x", b""),
            ("web/node_modules/a.js", b""),
            (".git/config", b""),
            (".DS_Store", b""),
        ]);
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let packed = pack(folder.path(), Kind::Source).unwrap();
        assert_eq!(packed.files, 1);
        let skipped: Vec<_> = packed.skipped.iter().map(|skipped| skipped.path.as_str()).collect();
        assert_eq!(skipped, [".DS_Store", ".git", "api/.env", "link", "target", "web/node_modules"]);
        assert_eq!(packed.skipped[2].to_string(), "api/.env is left out: it is a place for secrets");
        let empty = pack(&folder.path().join("api"), Kind::Source).unwrap_err().to_string();
        assert!(empty.contains("holds no files"), "{empty}");
    }

    #[test]
    fn what_is_too_large_is_told_with_the_largest_files() {
        let noise: Vec<u8> = (0..200_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let folder = folder(&[("small.txt", b"a"), ("media/video.bin", &noise)]);
        let error = pack_within(folder.path(), Kind::Assets, 10_000).unwrap_err();
        assert_eq!(error.code(), "archive_too_large");
        assert!(error.to_string().contains("the largest files are media/video.bin (0.8 MiB), small.txt"), "{error}");
    }
}
