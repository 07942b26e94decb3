//! Why an archive was not unpacked: in words for whoever has packed it, with the entry and what to do.

use std::io;
use std::path::{Path, PathBuf};

use tar::EntryType;
use tovuk_kernel::archive::{Kind, Unwanted};
use tovuk_kernel::codes::{self, Code};

/// Longest part of a name that an error repeats, in characters.
const NAME_CHARS_MAX: usize = 200;

/// What is wrong with an archive or one of its entries. Each text is a clause that follows the entry's name, or stands alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is no gzip.
    #[error("is not a gzip-compressed tar. Pack the folder with `tar -czf`, or let `tovuk deploy` do it")]
    NotGzip,
    /// The end is missing.
    #[error("ends too early. Send it again; if that does not help, pack it again")]
    Truncated,
    /// Something follows the end.
    #[error("goes on after its end. Send one gzip-compressed tar and nothing else")]
    TrailingBytes,
    /// The format is broken in another way.
    #[error("is damaged: {0}. Pack it again")]
    Damaged(String),
    /// Too many files.
    #[error("holds more than {max} files or folders. Leave out what the service does not need")]
    TooManyFiles {
        /// The limit.
        max: u64,
    },
    /// Too much content.
    #[error("unpacks to more than {} MiB. Leave out what the service does not need", max >> 20)]
    TooLarge {
        /// The limit in bytes.
        max: u64,
    },
    /// Too much content for its size.
    #[error("unpacks to more than {max} times its size, which no real files do. Leave out files of zeros or other filler")]
    Ratio {
        /// The limit.
        max: u64,
    },
    /// One file is too large.
    #[error("is larger than {} MiB. Leave it out, or put it into object storage", max >> 20)]
    FileTooLarge {
        /// The limit in bytes.
        max: u64,
    },
    /// A record that describes an entry is too large.
    #[error("has a name or attributes of more than 16 KiB. Rename the file, or pack with `tar --format=gnu`")]
    RecordTooLarge,
    /// Not a regular file.
    #[error("is {what}, and only files and folders can be uploaded. Put a copy of the file there instead, or leave it out")]
    NotAFile {
        /// What it is.
        what: &'static str,
    },
    /// The name is not usable.
    #[error("has a name that {0}. Pack from inside the folder, with plain relative names: tar -czf ../archive.tar.gz .")]
    Name(&'static str),
    /// The same name for two entries that cannot both exist.
    #[error("is there twice, or is a file where other entries need a folder. Pack the folder anew instead of adding to an archive")]
    Duplicate,
    /// The attributes change what the header says.
    #[error("has attributes that change its size or layout ({0}). Pack without sparse files, with `tar --format=gnu`")]
    Attributes(String),
    /// The name belongs to what is never uploaded.
    #[error("is {}, which does not belong into an archive of {}. {}", .reason.as_str(), .kind.as_str(), advice(*.reason))]
    Unwanted {
        /// Why.
        reason: Unwanted,
        /// What the archive holds.
        kind: Kind,
    },
}

fn advice(reason: Unwanted) -> &'static str {
    match reason {
        Unwanted::Secret => {
            "Leave it out, and set what the service needs with `tovuk env set <NAME>=<value>`. If it has been sent anywhere before, replace the secret"
        }
        Unwanted::Generated => "Leave it out: the build makes it anew. If it is a folder of yours, rename it",
        Unwanted::Compiled | Unwanted::Data | Unwanted::Desktop => "Leave it out: the build makes what it needs from source",
    }
}

impl Problem {
    /// The problem of one entry.
    pub(super) fn at(self, name: &[u8]) -> ArchiveError {
        let name: String = String::from_utf8_lossy(name).chars().take(NAME_CHARS_MAX).collect();
        ArchiveError::Refused { entry: Some(name.escape_debug().to_string()), problem: self }
    }
}

impl From<Problem> for ArchiveError {
    fn from(problem: Problem) -> Self {
        Self::Refused { entry: None, problem }
    }
}

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive's fault.
    #[error("{} {problem}", subject(.entry.as_deref()))]
    Refused {
        /// The entry, where one is at fault.
        entry: Option<String>,
        /// What is wrong.
        problem: Problem,
    },
    /// The host could not write.
    #[error("{} cannot be written: {source}", .path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The upload could not be read.
    #[error("the archive cannot be read: {0}")]
    Read(io::Error),
    /// Whoever wanted it does not any more.
    #[error("unpacking was cancelled")]
    Cancelled,
}

fn subject(entry: Option<&str>) -> String {
    entry.map_or_else(|| "the archive".to_owned(), |name| format!("the archive's entry `{name}`"))
}

impl ArchiveError {
    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }

    /// What reading has failed with: a limit that the reader keeps, a broken archive, or the upload itself.
    pub(super) fn read(error: io::Error) -> Self {
        if let Some(problem) = error.get_ref().and_then(|inner| inner.downcast_ref::<Problem>()) {
            return problem.clone().into();
        }
        // The crates that read the formats tell these cases by their texts alone.
        let text = error.to_string();
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Problem::Truncated.into(),
            _ if text == "failed to read entire block" || text == "unexpected EOF during skip" => Problem::Truncated.into(),
            _ if text == "invalid gzip header" => Problem::NotGzip.into(),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::Other => Problem::Damaged(text).into(),
            _ => Self::Read(error),
        }
    }

    /// The row of the code table for a response. Nothing when the fault is not the sender's.
    pub fn code(&self) -> Option<&'static Code> {
        match self {
            Self::Refused { problem, .. } => Some(match problem {
                Problem::TooLarge { .. } | Problem::FileTooLarge { .. } | Problem::TooManyFiles { .. } => &codes::ARCHIVE_TOO_LARGE,
                _ => &codes::ARCHIVE_REFUSED,
            }),
            Self::Write { .. } | Self::Read(_) | Self::Cancelled => None,
        }
    }
}

/// What an entry is that is no file, in words.
pub(super) fn in_words(entry_type: EntryType) -> &'static str {
    match entry_type {
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a named pipe",
        EntryType::GNUSparse => "a sparse file",
        _ => "neither a file nor a folder",
    }
}
