//! Objects: files of any size under paths. Thin over `tovuk:objects/store`; every limit is the host's, who says which one was met.

#[cfg(target_arch = "wasm32")]
mod component;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod memory;
mod streams;
mod types;

#[cfg(target_arch = "wasm32")]
use component as backend;
#[cfg(not(target_arch = "wasm32"))]
use memory as backend;

pub use streams::{Reader, Writer};
pub use types::{Fetched, GetOptions, ListOptions, NewObject, Object, Page, Range, Upload};

use crate::DataError;
use crate::paged::Paged;

/// The objects of this worker's service.
///
/// ```
/// use std::io::{Read, Write};
/// use tovuk::{Request, Response, Result, objects::NewObject, testing::TestEnv};
///
/// fn handle(req: Request) -> Result<Response> {
///     let objects = tovuk::objects();
///     objects.put("notes/first.txt", "hello")?;
///     let mut report = objects.writer(NewObject::new("report.csv").content_type("text/csv"))?;
///     for line in 0..1_000 {
///         writeln!(report, "{line}")?;
///     }
///     let report = report.finish()?;
///     let Some(mut note) = objects.get("notes/first.txt")? else { return Ok(Response::empty(404)) };
///     let mut text = String::new();
///     note.read_to_string(&mut text)?;
///     Ok(Response::text(format!("{text}, {} bytes", report.size)))
/// }
///
/// let env = TestEnv::new();
/// assert_eq!(env.run(handle, Request::get("/")).body(), b"hello, 3890 bytes");
/// assert_eq!(env.object("notes/first.txt").as_deref(), Some(b"hello".as_slice()));
/// ```
pub fn objects() -> Objects {
    Objects
}

/// The objects of this worker's service. What is written is on disk, whole, when the operation that ends it returns.
#[derive(Clone, Copy, Debug)]
pub struct Objects;

impl Objects {
    /// What is known of the object of a path; `None` when there is none.
    ///
    /// # Errors
    /// `storage_failed`. So with all operations.
    pub fn head(&self, path: &str) -> Result<Option<Object>, DataError> {
        backend::head(path)
    }

    /// Opens the object of a path to read it; `None` when there is none. A worker reads at most 16 at a time.
    ///
    /// # Errors
    /// As [`head`](Self::head).
    pub fn get(&self, path: &str) -> Result<Option<Reader>, DataError> {
        match self.get_with(path, &GetOptions::default())? {
            Fetched::Found(reader) => Ok(Some(reader)),
            Fetched::NotModified(_) | Fetched::Missing => Ok(None),
        }
    }

    /// The same for a part of it, or under conditions.
    ///
    /// # Errors
    /// `object_range_invalid` when the object has no such range, `object_precondition_failed` when `if_match` names another version.
    pub fn get_with(&self, path: &str, options: &GetOptions) -> Result<Fetched, DataError> {
        backend::get(path, options)
    }

    /// Stores an object whole. More than 25 MiB are written piece by piece, with [`writer`](Self::writer).
    ///
    /// # Errors
    /// `object_path_invalid`, `object_storage_limit`, `object_media_refused` for a public object that is not what its type says.
    pub fn put(&self, object: impl Into<NewObject>, bytes: impl AsRef<[u8]>) -> Result<Object, DataError> {
        backend::put(&object.into(), bytes.as_ref())
    }

    /// Begins an object that is written piece by piece. It is there once [`Writer::finish`] has returned; one that is dropped before leaves nothing. A
    /// worker writes at most 4 at a time.
    ///
    /// # Errors
    /// As [`put`](Self::put); some only when the first pieces are written, or at the end.
    pub fn writer(&self, object: impl Into<NewObject>) -> Result<Writer, DataError> {
        backend::create(&object.into())
    }

    /// All objects whose paths begin so, in the order of their bytes. They are fetched page by page.
    pub fn list<'a>(&self, prefix: &'a str) -> impl Iterator<Item = Result<Object, DataError>> + 'a {
        let mut rest = Paged::new(prefix.to_owned());
        let page = |prefix: &str, cursor: Option<&str>| {
            let options = ListOptions { prefix: prefix.to_owned(), limit: Some(1_000), cursor: cursor.map(str::to_owned) };
            backend::list(&options).map(|found| (found.objects, found.cursor))
        };
        std::iter::from_fn(move || rest.next(page))
    }

    /// One page of objects.
    ///
    /// # Errors
    /// `invalid_cursor`, `invalid_request`.
    pub fn page(&self, options: &ListOptions) -> Result<Page, DataError> {
        backend::list(options)
    }

    /// Deletes the object of a path; false when there was none. Who reads it goes on reading.
    ///
    /// # Errors
    /// `object_path_invalid`.
    pub fn delete(&self, path: &str) -> Result<bool, DataError> {
        backend::delete(path)
    }

    /// A URL with which its holder can read the object for 15 minutes. The URL of a public object, which does not end, is [`Object::public_url`].
    ///
    /// # Errors
    /// `object_not_found`.
    pub fn download_url(&self, path: &str) -> Result<String, DataError> {
        backend::download_url(path)
    }

    /// A URL to which somebody else, such as a browser, can send an object of exactly this size within 15 minutes. It is there after
    /// [`complete`](Self::complete).
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn upload_url(&self, object: impl Into<NewObject>, size: u64) -> Result<Upload, DataError> {
        backend::upload_url(&object.into(), size)
    }

    /// Makes what was sent to the URL of [`upload_url`](Self::upload_url) the object of its path.
    ///
    /// # Errors
    /// `upload_incomplete` while it has not arrived, `upload_not_found`.
    pub fn complete(&self, path: &str) -> Result<Object, DataError> {
        backend::complete(path)
    }
}
