//! The files of transfers: one that is sent, in pieces of it at the same time, and one that is there only once all of it has come.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::Failure;

/// Content types by the end of a file's name.
const TYPES: [(&str, &str); 21] = [
    ("avif", "image/avif"),
    ("css", "text/css"),
    ("gif", "image/gif"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("md", "text/plain"),
    ("mjs", "text/javascript"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
];

/// The content type of a file of this name.
pub fn content_type(file: &Path) -> &'static str {
    let end = file.extension().map(|end| end.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    TYPES.iter().find(|(known, _)| *known == end).map_or("application/octet-stream", |(_, content_type)| content_type)
}

fn unreadable(file: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::local("storage_file_unreadable", format!("{}: {why}", file.display())).instruct("Name a file that this user can read.")
}

/// The last part of a file's path, as the path of an object.
pub fn file_name(file: &Path) -> Result<String, Failure> {
    let name = file.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| unreadable(file, "its name cannot be the path of an object; give one after it"))
}

/// A file to send.
pub struct Source {
    file: PathBuf,
    /// Its size when it was looked at.
    pub bytes: u64,
}

impl Source {
    /// Looks at the file.
    pub fn open(file: &Path) -> Result<Self, Failure> {
        let opened = std::fs::File::open(file).map_err(|error| unreadable(file, error))?;
        let metadata = opened.metadata().map_err(|error| unreadable(file, error))?;
        if !metadata.is_file() {
            return Err(unreadable(file, "it is no file"));
        }
        Ok(Self { file: file.to_owned(), bytes: metadata.len() })
    }

    /// The file, from this offset on.
    pub async fn from(&self, offset: u64) -> Result<tokio::fs::File, Failure> {
        use tokio::io::AsyncSeekExt;
        let mut file = tokio::fs::File::open(&self.file).await.map_err(|error| unreadable(&self.file, error))?;
        file.seek(std::io::SeekFrom::Start(offset)).await.map_err(|error| unreadable(&self.file, error))?;
        Ok(file)
    }
}

/// A file to make.
pub struct Target {
    /// Where it is going to be.
    pub file: PathBuf,
}

impl Target {
    /// The file for an object: the one that was named, one in the folder that was named, or one named like the last part of the object's path.
    pub fn of(path: &str, named: Option<&Path>) -> Result<Self, Failure> {
        let last = path.rsplit('/').next().filter(|last| !matches!(*last, "" | "." | ".."));
        let file = match (named, last) {
            (Some(folder), Some(last)) if folder.is_dir() => folder.join(last),
            (Some(file), _) => file.to_owned(),
            (None, Some(last)) => PathBuf::from(last),
            (None, None) => return Err(Failure::local("missing_storage_path", format!("`{path}` is no path of an object"))),
        };
        Ok(Self { file })
    }

    /// A file beside it, on the same disk, that goes when nothing comes of it.
    pub fn begin(&self) -> Result<NamedTempFile, Failure> {
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let begin = || {
            std::fs::create_dir_all(folder)?;
            // As any new file: what the umask leaves of it.
            tempfile::Builder::new().prefix(".tovuk-").permissions(Permissions::from_mode(0o666)).tempfile_in(folder)
        };
        begin().map_err(|error| self.failed(error))
    }

    /// Gives the file its name, in place of one that has it.
    pub fn finish(&self, file: NamedTempFile) -> Result<(), Failure> {
        file.persist(&self.file).map(drop).map_err(|error| self.failed(error.error))
    }

    /// A failure to write it.
    pub fn failed(&self, error: impl std::fmt::Display) -> Failure {
        Failure::local("storage_download_failed", format!("{}: {error}", self.file.display())).instruct("Name a file that this user can write.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_follow_the_end_of_the_name() {
        for (name, expected) in
            [("a.PNG", "image/png"), ("a.tar.gz", "application/octet-stream"), ("a", "application/octet-stream"), ("x/y.md", "text/plain")]
        {
            assert_eq!(content_type(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn a_download_goes_where_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = |path: &str, named: Option<&Path>| Target::of(path, named).map(|target| target.file).ok();
        assert_eq!(file("a/b.png", None), Some("b.png".into()));
        assert_eq!(file("a/b.png", Some(Path::new("c.png"))), Some("c.png".into()));
        assert_eq!(file("a/b.png", Some(folder.path())), Some(folder.path().join("b.png")));
        assert_eq!((file("a/..", None), file("/", None)), (None, None));
    }
}
