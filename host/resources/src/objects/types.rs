//! What operations take and answer. Sizes are bytes, times milliseconds since the UNIX epoch.

use std::fmt;

use futures::stream::BoxStream;
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::ids;
use tovuk_kernel::limits::{self, Plan};

use super::Error;

/// Bytes on their way, in chunks.
pub type Chunk = bytes::Bytes;
/// The bytes of an object. An error instead of the end means that there would be more.
pub type Body = BoxStream<'static, Result<Chunk, Error>>;

/// Whose objects, and under which limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The number of the account.
    pub account: i64,
    /// The number of the service.
    pub service: i64,
    /// The account's plan.
    pub plan: Plan,
}

impl Tenant {
    /// What objects and open uploads of the account may have together.
    pub(super) fn account_bytes_max(&self) -> u64 {
        limits::object_storage_account_bytes(self.plan)
    }
}

/// Whether an object can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// An upload was begun and no object of this path was ever completed.
    Pending,
    /// It can.
    Ready,
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its path, unique in its service.
    pub path: String,
    /// Its content type.
    pub content_type: String,
    /// Its size; of a pending one, the size that was announced.
    pub size_bytes: u64,
    /// Its strong entity tag, with quotes; empty while it is pending.
    pub etag: String,
    /// Whether anybody may read it at its public URL.
    pub public_read: bool,
    /// Whether it can be read.
    pub status: Status,
    /// When the first object of this path was completed, or its upload begun.
    pub created_ms: UnixMs,
    /// When this content was completed, or its upload begun.
    pub updated_ms: UnixMs,
}

/// What is to be uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewObject {
    /// Its path.
    pub path: String,
    /// Its content type; empty for `application/octet-stream`.
    pub content_type: String,
    /// Its exact size.
    pub size_bytes: u64,
    /// Whether anybody may read it at its public URL.
    pub public_read: bool,
}

/// What is to be stored in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutObject {
    /// Its path.
    pub path: String,
    /// Its content type; empty for `application/octet-stream`.
    pub content_type: String,
    /// Its exact size, if it is known before it comes.
    pub size_bytes: Option<u64>,
    /// Whether anybody may read it at its public URL.
    pub public_read: bool,
}

/// Who asks for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Somebody who may read all objects of the service, or holds a signed URL.
    Granted,
    /// Anybody: finds only objects with `public_read`, and cannot tell others from those that are not there.
    Anybody,
}

/// What a request for an object gets.
pub enum Download {
    /// Its bytes.
    Content(Content),
    /// The client has it already.
    NotModified(Object),
}

/// The bytes of an object.
pub struct Content {
    /// The object that they are of, also when it is replaced meanwhile.
    pub object: Object,
    /// Which bytes; nothing when they are all.
    pub range: Option<std::ops::Range<u64>>,
    /// How many there are: what is egress when all are read.
    pub length: u64,
    /// The bytes. They can be read to their end whatever becomes of the object.
    pub body: Body,
}

/// The id of an upload, written `upload_7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(pub(super) i64);

impl UploadId {
    /// The id that is written like this.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`] for a text that no upload can have.
    pub fn parse(text: &str) -> Result<Self, Error> {
        ids::number(text, "upload").map(Self).ok_or(Error::UploadNotFound)
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upload_{}", self.0)
    }
}

/// An upload that was begun: what to send, and how long it can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// The path to complete it with.
    pub path: String,
    /// The content type to store.
    pub content_type: String,
    /// What is to be sent: one part, the whole, unless it was begun in parts.
    pub parts: Vec<PartPlan>,
    /// When URLs for it should end.
    pub urls_expire_ms: UnixMs,
}

/// A part of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartPlan {
    /// Its number, from 1.
    pub number: u32,
    /// Where in the object it begins.
    pub offset_bytes: u64,
    /// Its exact size.
    pub size_bytes: u64,
}

/// A part that has arrived and is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its strong entity tag, with quotes; for an upload as a whole, that of the object.
    pub etag: String,
    /// Its size.
    pub size_bytes: u64,
}

/// What `complete` says of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletedPart {
    /// Its number, from 1.
    pub number: u32,
    /// The entity tag that its upload answered, with or without quotes.
    pub etag: String,
}

/// What a deletion has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Objects that could be read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Uploads that were not completed.
    pub uploads: u64,
}

impl Deleted {
    /// Whether there was anything.
    pub fn any(&self) -> bool {
        self.objects + self.uploads > 0
    }
}

/// What a service or an account has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Objects that can be read.
    pub objects: u64,
    /// Their bytes: what is billed.
    pub bytes: u64,
    /// Bytes that open uploads have announced. They count toward the limit of the account.
    pub reserved_bytes: u64,
}

/// Which objects to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// What their paths begin with.
    pub prefix: String,
    /// How many at most, up to 1,000; 100 when nothing is said.
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// Objects in the byte order of their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The objects.
    pub objects: Vec<Object>,
    /// Where the next page begins; nothing when there is none.
    pub next_cursor: Option<String>,
}

impl Page {
    /// Whether there are more.
    pub fn has_more(&self) -> bool {
        self.next_cursor.is_some()
    }
}

/// How an operation is metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// One `object_storage_class_a_operations`: [`begin_multipart`], [`receive`], [`put`], completion of parts, and each page of a list.
    ///
    /// [`begin_multipart`]: super::Objects::begin_multipart
    /// [`receive`]: super::Objects::receive
    /// [`put`]: super::Objects::put
    A,
    /// One `object_storage_class_b_operations`: head, and open; what is read from the body of the latter is egress besides.
    B,
    /// Nothing: begin and complete of an upload as a whole, whose one charge is its receipt; delete, abort and usage.
    Free,
}
