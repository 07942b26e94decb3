//! What operations on objects take and answer.

use super::Reader;

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its path.
    pub path: String,
    /// Its size, in bytes.
    pub size: u64,
    /// Its content type.
    pub content_type: String,
    /// Its strong entity tag, with quotes.
    pub etag: String,
    /// Whether anybody may read it.
    pub public: bool,
    /// Where anybody can, if anybody may.
    pub public_url: Option<String>,
    /// When this content was stored, in milliseconds of Unix time.
    pub updated_ms: u64,
}

/// What to store. A path alone is one, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewObject {
    pub(super) path: String,
    pub(super) content_type: Option<String>,
    pub(super) public: bool,
    pub(super) size: Option<u64>,
}

impl NewObject {
    /// An object of this path: relative, at most 1,024 bytes, without `.` and `..`.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// With this content type instead of `application/octet-stream`.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// That anybody may read.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.public = true;
        self
    }

    /// Of exactly this many bytes. What is written piece by piece fails when there are more or fewer.
    #[must_use]
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }
}

impl<T: Into<String>> From<T> for NewObject {
    fn from(path: T) -> Self {
        Self::new(path)
    }
}

/// Which bytes of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Range {
    /// All.
    #[default]
    Whole,
    /// From this offset to the end.
    From(u64),
    /// From the first offset to the second, which is included.
    Between(u64, u64),
    /// The last so many.
    Last(u64),
}

/// Which bytes to read, and under which conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetOptions {
    /// Which bytes.
    pub range: Range,
    /// As the header `If-Match`: entity tags, or `*`.
    pub if_match: Option<String>,
    /// As the header `If-None-Match`: entity tags, or `*`.
    pub if_none_match: Option<String>,
}

/// What a path has.
#[derive(Debug)]
pub enum Fetched {
    /// An object, to be read.
    Found(Reader),
    /// The version that `if_none_match` names.
    NotModified(Object),
    /// No object.
    Missing,
}

/// Which objects to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// What their paths begin with.
    pub prefix: String,
    /// Most objects of one page, 1 to 1,000; 100 when nothing is said.
    pub limit: Option<u32>,
    /// The cursor of the page before.
    pub cursor: Option<String>,
}

/// Objects in the order of the bytes of their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The objects.
    pub objects: Vec<Object>,
    /// Where to go on; nothing on the last page.
    pub cursor: Option<String>,
}

/// Where somebody else can send the bytes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The path to complete the upload with.
    pub path: String,
    /// For one `PUT` of exactly the announced bytes.
    pub url: String,
}
