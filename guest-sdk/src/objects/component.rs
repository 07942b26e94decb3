//! Objects of the host.

use super::streams::{Reader, Writer};
use super::types::{Fetched, GetOptions, ListOptions, NewObject, Object, Page, Range, Upload};
use crate::DataError;
use crate::bindings::tovuk::objects::store;

pub struct Body(store::Reader);

impl Body {
    pub fn read(&mut self, most: usize) -> Result<Vec<u8>, DataError> {
        Ok(self.0.read(u32::try_from(most).unwrap_or(u32::MAX))?)
    }
}

pub struct Sink(store::Writer);

impl Sink {
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        Ok(self.0.write(bytes)?)
    }

    pub fn finish(self) -> Result<Object, DataError> {
        Ok(store::Writer::finish(self.0)?.into())
    }
}

impl From<store::Object> for Object {
    fn from(object: store::Object) -> Self {
        let store::Object { path, size, content_type, etag, public, public_url, updated_ms } = object;
        Self { path, size, content_type, etag, public, public_url, updated_ms }
    }
}

fn new(object: &NewObject) -> store::NewObject {
    store::NewObject { path: object.path.clone(), content_type: object.content_type.clone(), public: object.public }
}

pub fn head(path: &str) -> Result<Option<Object>, DataError> {
    Ok(store::head(path)?.map(Object::from))
}

pub fn get(path: &str, options: &GetOptions) -> Result<Fetched, DataError> {
    let range = match options.range {
        Range::Whole => store::Range::Whole,
        Range::From(start) => store::Range::Start(start),
        Range::Between(start, last) => store::Range::Between((start, last)),
        Range::Last(bytes) => store::Range::Last(bytes),
    };
    let options = store::GetOptions { range, if_match: options.if_match.clone(), if_none_match: options.if_none_match.clone() };
    Ok(match store::get(path, &options)? {
        store::Fetched::Found(found) => Fetched::Found(Reader::new(found.object.into(), found.start, found.length, Body(found.body))),
        store::Fetched::NotModified(object) => Fetched::NotModified(object.into()),
        store::Fetched::Missing => Fetched::Missing,
    })
}

pub fn put(object: &NewObject, bytes: &[u8]) -> Result<Object, DataError> {
    Ok(store::put(&new(object), bytes)?.into())
}

pub fn create(object: &NewObject) -> Result<Writer, DataError> {
    Ok(Writer::new(Sink(store::create(&new(object), object.size)?)))
}

pub fn list(options: &ListOptions) -> Result<Page, DataError> {
    let options = store::ListOptions { prefix: options.prefix.clone(), limit: options.limit, cursor: options.cursor.clone() };
    let page = store::list(&options)?;
    Ok(Page { objects: page.objects.into_iter().map(Object::from).collect(), cursor: page.cursor })
}

pub fn delete(path: &str) -> Result<bool, DataError> {
    Ok(store::delete(path)?)
}

pub fn download_url(path: &str) -> Result<String, DataError> {
    Ok(store::download_url(path)?)
}

pub fn upload_url(object: &NewObject, size: u64) -> Result<Upload, DataError> {
    let store::Upload { path, url } = store::upload_url(&new(object), size)?;
    Ok(Upload { path, url })
}

pub fn complete(path: &str) -> Result<Object, DataError> {
    Ok(store::complete(path)?.into())
}
