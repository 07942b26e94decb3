//! Objects in memory, for tests: those of the test that runs on this thread. It imitates what a worker sees, without the host's limits and its disk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::streams::{Reader, Writer};
use super::types::{Fetched, GetOptions, ListOptions, NewObject, Object, Page, Range, Upload};
use crate::{DataError, testing};

/// The objects of a test, by path.
pub(crate) type Stored = Rc<RefCell<BTreeMap<String, (Object, Rc<[u8]>)>>>;

fn stored() -> Result<Stored, DataError> {
    let none = || DataError::new("storage_failed", "a native program has no host that keeps objects: run the handler with `tovuk::testing::TestEnv`");
    testing::current().map(|env| env.objects()).ok_or_else(none)
}

fn missing(path: &str) -> DataError {
    DataError::new("object_not_found", format!("there is no object `{path}`"))
}

fn check_path(path: &str) -> Result<(), DataError> {
    let is_good = path.len() <= 1_024 && !path.contains('\0') && path.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    is_good.then_some(()).ok_or_else(|| DataError::new("object_path_invalid", format!("`{path}` cannot be the path of an object")))
}

pub struct Body {
    bytes: Rc<[u8]>,
    at: usize,
    end: usize,
}

impl Body {
    pub fn read(&mut self, most: usize) -> Result<Vec<u8>, DataError> {
        let end = self.end.min(self.at.saturating_add(most));
        let piece = self.bytes.get(self.at..end).unwrap_or_default().to_vec();
        self.at = end;
        Ok(piece)
    }
}

pub struct Sink {
    object: NewObject,
    bytes: Vec<u8>,
}

impl Sink {
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub fn finish(self) -> Result<Object, DataError> {
        if self.object.size.is_some_and(|size| size != self.bytes.len() as u64) {
            return Err(DataError::new("upload_mismatch", format!("{} bytes came and others were announced", self.bytes.len())));
        }
        put(&self.object, &self.bytes)
    }
}

pub fn head(path: &str) -> Result<Option<Object>, DataError> {
    Ok(stored()?.borrow().get(path).map(|(object, _)| object.clone()))
}

pub fn get(path: &str, options: &GetOptions) -> Result<Fetched, DataError> {
    let Some((object, bytes)) = stored()?.borrow().get(path).cloned() else { return Ok(Fetched::Missing) };
    let names = |tags: &Option<String>| tags.as_ref().map(|tags| tags == "*" || tags.split(',').any(|tag| tag.trim() == object.etag));
    if names(&options.if_match) == Some(false) {
        return Err(DataError::new("object_precondition_failed", "the object is not the version that was asked for"));
    }
    if names(&options.if_none_match) == Some(true) {
        return Ok(Fetched::NotModified(object));
    }
    let (start, end) = match options.range {
        Range::Whole => (0, object.size),
        Range::From(start) => (start, object.size),
        Range::Between(start, last) => (start, last.saturating_add(1).min(object.size)),
        Range::Last(bytes) => (object.size.saturating_sub(bytes), object.size),
    };
    if start >= end && options.range != Range::Whole {
        return Err(DataError::new("object_range_invalid", format!("the object has {} bytes and no such range", object.size)));
    }
    let offset = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    let body = Body { at: offset(start), end: offset(end), bytes };
    Ok(Fetched::Found(Reader::new(object, start, end - start, body)))
}

pub fn put(object: &NewObject, bytes: &[u8]) -> Result<Object, DataError> {
    check_path(&object.path)?;
    let stored = stored()?;
    let mut stored = stored.borrow_mut();
    // No two versions of a path have the same.
    let version = stored.get(&object.path).map_or(1, |(before, _)| before.updated_ms + 1);
    let kept = Object {
        path: object.path.clone(),
        size: bytes.len() as u64,
        content_type: object.content_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned()),
        etag: format!("\"{version}\""),
        public: object.public,
        public_url: object.public.then(|| format!("http://storage.test/{}", object.path)),
        updated_ms: version,
    };
    stored.insert(object.path.clone(), (kept.clone(), bytes.into()));
    Ok(kept)
}

pub fn create(object: &NewObject) -> Result<Writer, DataError> {
    check_path(&object.path)?;
    stored()?;
    Ok(Writer::new(Sink { object: object.clone(), bytes: Vec::new() }))
}

pub fn list(options: &ListOptions) -> Result<Page, DataError> {
    let stored = stored()?;
    let stored = stored.borrow();
    let limit = options.limit.unwrap_or(100) as usize;
    let after = |path: &str| options.cursor.as_deref().is_none_or(|cursor| path > cursor);
    let mut found = stored.values().map(|(object, _)| object).filter(|object| object.path.starts_with(&options.prefix) && after(&object.path));
    let objects: Vec<Object> = found.by_ref().take(limit).cloned().collect();
    let cursor = found.next().and(objects.last()).map(|last| last.path.clone());
    Ok(Page { objects, cursor })
}

pub fn delete(path: &str) -> Result<bool, DataError> {
    check_path(path)?;
    Ok(stored()?.borrow_mut().remove(path).is_some())
}

pub fn download_url(path: &str) -> Result<String, DataError> {
    head(path)?.ok_or_else(|| missing(path)).map(|object| format!("http://storage.test/{}?signature=test", object.path))
}

pub fn upload_url(object: &NewObject, _: u64) -> Result<Upload, DataError> {
    check_path(&object.path)?;
    stored()?;
    Ok(Upload { path: object.path.clone(), url: format!("http://storage.test/{}?signature=test", object.path) })
}

/// Nobody sends anything to a URL in a test: what is complete is what the test has stored.
pub fn complete(path: &str) -> Result<Object, DataError> {
    head(path)?.ok_or_else(|| DataError::new("upload_incomplete", format!("the test has stored no `{path}`")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write};

    use super::*;
    use crate::objects::objects;
    use crate::testing::TestEnv;
    use crate::{Request, Response};

    fn with(work: fn()) {
        let handle = move |_: Request| {
            work();
            Response::text("done")
        };
        assert_eq!(TestEnv::new().run(handle, Request::get("/")).body(), b"done");
    }

    #[test]
    fn what_is_written_is_read() {
        with(|| {
            let objects = objects();
            let mut writer = objects.writer(NewObject::new("a").size(600_000)).unwrap();
            writer.write_all(&[7; 600_000]).unwrap();
            assert!(objects.get("a").unwrap().is_none());
            let first = writer.finish().unwrap();
            let mut reader = objects.get("a").unwrap().unwrap();
            objects.put("a", "other").unwrap();
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            assert_eq!((bytes.len(), reader.object().clone()), (600_000, first));
            let options = GetOptions { range: Range::Last(2), ..GetOptions::default() };
            let Fetched::Found(part) = objects.get_with("a", &options).unwrap() else { panic!() };
            assert_eq!((part.start(), part.length(), part.read_all().unwrap()), (3, 2, b"er".to_vec()));
            for (size, path) in [(1, "a"), (0, "..")] {
                let failed = objects.writer(NewObject::new(path).size(size)).and_then(Writer::finish).unwrap_err();
                assert!(["upload_mismatch", "object_path_invalid"].contains(&failed.code()));
            }
        });
    }

    #[test]
    fn lists_go_through_all_pages() {
        with(|| {
            let objects = objects();
            (0..1_500).for_each(|number| drop(objects.put(format!("p/{number:04}"), "x").unwrap()));
            objects.put("q", "x").unwrap();
            assert_eq!(objects.list("p/").map(Result::unwrap).count(), 1_500);
            assert!(objects.delete("q").unwrap() && !objects.delete("q").unwrap());
            assert_eq!(objects.download_url("q").unwrap_err().code(), "object_not_found");
        });
    }
}
