//! `tovuk:objects/store`: the objects of a worker's service. What is read is pulled within the guest's own calls. What is written is stored by a task of its
//! own, because the store must not wait for a guest in the middle of something; the task ends with the writer, and takes back what was not finished.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tovuk_kernel::codes;
use tovuk_kernel::limits::{OBJECT_PIECE_BYTES_MAX, OBJECT_READERS_MAX, OBJECT_WRITERS_MAX};
use tovuk_resources::objects::{self, Body, Conditions, Download, NewObject, Object, Objects, PutObject, Range, Tenant};
use wasmtime::component::{Linker, Resource, ResourceTableError};

use super::Whole;
use super::data::error;
use crate::data_bindings::tovuk::data::types::Error;
use crate::data_bindings::tovuk::objects::store::{
    Fetched, Found, GetOptions, Host, HostReader, HostWriter, ListOptions, NewObject as New, Object as Shown, Page, Range as Wanted, Upload,
    add_to_linker as add,
};
use crate::instance::Data;
use crate::spans;

/// How many objects an instance has open.
#[derive(Default)]
pub(crate) struct OpenObjects {
    readers: usize,
    writers: usize,
}

/// The bytes of an object on their way to a guest.
pub struct Reader {
    body: Body,
    /// What the guest has not taken yet of the last piece that came.
    rest: Bytes,
    /// After a failure there is no end that could be taken for the object's.
    failed: Option<Error>,
}

/// An object on its way from a guest.
pub struct Writer {
    pieces: mpsc::Sender<Bytes>,
    put: Put,
    failed: Option<Error>,
}

/// Stores what comes, for as long as this is there.
struct Put(JoinHandle<Result<Object, objects::Error>>);

impl Drop for Put {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn ended(put: Result<Result<Object, objects::Error>, JoinError>) -> Result<Object, Error> {
    match put {
        Ok(stored) => stored.map_err(failed),
        Err(why) => {
            tracing::error!("an object could not be stored: {why}");
            Err(error(&codes::INTERNAL_ERROR, codes::INTERNAL_ERROR.message.to_owned()))
        }
    }
}

fn failed(failure: objects::Error) -> Error {
    if failure.is_for_caller() {
        return error(failure.code(), failure.to_string());
    }
    tracing::error!("object storage failed: {failure}");
    error(failure.code(), failure.code().message.to_owned())
}

/// The table is full, or the handle is none; the engine lets no guest use a handle that it does not have.
fn no_handle(reason: ResourceTableError) -> Error {
    error(&codes::INVALID_REQUEST, format!("the worker has too many resources open: {reason}"))
}

/// The objects of the guest's service.
struct Own {
    objects: Objects,
    tenant: Tenant,
}

impl Own {
    fn show(&self, object: Object) -> Shown {
        let public_url = self.objects.links().ok().and_then(|links| links.public(self.tenant.service, &object));
        Shown {
            path: object.path,
            size: object.size_bytes,
            content_type: object.content_type,
            etag: object.etag,
            public: object.public_read,
            public_url,
            updated_ms: object.updated_ms,
        }
    }
}

impl Data {
    fn own_objects(&self) -> Result<Own, Error> {
        let owner = self.grants().owner;
        let tenant = Tenant { account: owner.account, service: owner.service, plan: owner.plan };
        let objects = self.stores()?.objects.billed_to(self.invocation.deployment.bill.clone());
        Ok(Own { objects, tenant })
    }
}

/// What came of asking for an object, for the trace.
fn fetched(fetched: &Fetched) -> String {
    match fetched {
        Fetched::Missing => "found nothing".to_owned(),
        Fetched::NotModified(_) => "not modified".to_owned(),
        Fetched::Found(found) => bytes_of(found.length),
    }
}

fn bytes_of(size: u64) -> String {
    spans::counted(usize::try_from(size).unwrap_or(usize::MAX), "byte")
}

fn to_put(new: New, size_bytes: Option<u64>) -> PutObject {
    PutObject { path: new.path, content_type: new.content_type.unwrap_or_default(), size_bytes, public_read: new.public }
}

impl Host for Data {
    async fn head(&mut self, path: String) -> Result<Option<Shown>, Error> {
        self.span("objects.head", &path)
            .telling(|found: &Option<Shown>| if found.is_some() { "found it" } else { "found nothing" }.to_owned(), async move {
                let own = self.own_objects()?;
                match own.objects.head(own.tenant.service, &path, objects::Reader::Granted).await {
                    Ok(object) => Ok(Some(own.show(object))),
                    Err(objects::Error::NotFound(_)) => Ok(None),
                    Err(other) => Err(failed(other)),
                }
            })
            .await
    }

    async fn get(&mut self, path: String, options: GetOptions) -> Result<Fetched, Error> {
        self.span("objects.get", &path)
            .telling(fetched, async move {
                if self.open_objects.readers >= OBJECT_READERS_MAX {
                    let text = format!("the worker reads {OBJECT_READERS_MAX} objects already: drop a reader first");
                    return Err(error(&codes::INVALID_REQUEST, text));
                }
                let own = self.own_objects()?;
                let conditions = Conditions { if_match: options.if_match, if_none_match: options.if_none_match, ..Conditions::default() };
                let range = match options.range {
                    Wanted::Whole => Range::Whole,
                    Wanted::Start(start) => Range::From(start),
                    Wanted::Between((start, last)) => Range::Between(start, last),
                    Wanted::Last(bytes) => Range::Last(bytes),
                };
                let content = match own.objects.open_object(own.tenant.service, &path, objects::Reader::Granted, &conditions, range).await {
                    Ok(Download::Content(content)) => content,
                    Ok(Download::NotModified(object)) => return Ok(Fetched::NotModified(own.show(object))),
                    Err(objects::Error::NotFound(_)) => return Ok(Fetched::Missing),
                    Err(other) => return Err(failed(other)),
                };
                let start = content.range.map_or(0, |range| range.start);
                let body = self.table.push(Reader { body: content.body, rest: Bytes::new(), failed: None }).map_err(no_handle)?;
                self.open_objects.readers += 1;
                Ok(Fetched::Found(Found { object: own.show(content.object), start, length: content.length, body }))
            })
            .await
    }

    async fn put(&mut self, object: New, bytes: Vec<u8>) -> Result<Shown, Error> {
        self.span("objects.put", &object.path)
            .telling(|stored: &Shown| bytes_of(stored.size), async move {
                let own = self.own_objects()?;
                let bytes = self.held(bytes)?;
                let size = bytes.len() as u64;
                let body = stream::once(async { Ok::<_, Infallible>(bytes) });
                let stored = own.objects.put(own.tenant, to_put(object, Some(size)), body).await.map_err(failed)?;
                Ok(own.show(stored))
            })
            .await
    }

    async fn create(&mut self, object: New, size: Option<u64>) -> Result<Resource<Writer>, Error> {
        if self.open_objects.writers >= OBJECT_WRITERS_MAX {
            let text = format!("the worker writes {OBJECT_WRITERS_MAX} objects already: finish or drop a writer first");
            return Err(error(&codes::INVALID_REQUEST, text));
        }
        let Own { objects, tenant } = self.own_objects()?;
        // What is wrong with it is told here and not at the first piece, as far as it is known.
        objects::check_path(&object.path).map_err(failed)?;
        let (pieces, mut come) = mpsc::channel(1);
        let body = stream::poll_fn(move |cx| come.poll_recv(cx)).map(Ok::<_, Infallible>);
        let put = Put(tokio::spawn(async move { objects.put(tenant, to_put(object, size), body).await }));
        let writer = self.table.push(Writer { pieces, put, failed: None }).map_err(no_handle)?;
        self.open_objects.writers += 1;
        Ok(writer)
    }

    async fn list(&mut self, options: ListOptions) -> Result<Page, Error> {
        self.span("objects.list", "")
            .telling(|page: &Page| spans::counted(page.objects.len(), "object"), async move {
                let own = self.own_objects()?;
                let list = objects::List { prefix: options.prefix, limit: options.limit, cursor: options.cursor };
                let page = own.objects.list(own.tenant.service, list).await.map_err(failed)?;
                // What was begun and not completed is nothing that a worker could read.
                let ready = page.objects.into_iter().filter(|object| object.status == objects::Status::Ready);
                Ok(Page { objects: ready.map(|object| own.show(object)).collect(), cursor: page.next_cursor })
            })
            .await
    }

    async fn delete(&mut self, path: String) -> Result<bool, Error> {
        self.span("objects.delete", &path)
            .telling(|existed| if *existed { "deleted it" } else { "found nothing" }.to_owned(), async move {
                let own = self.own_objects()?;
                objects::check_path(&path).map_err(failed)?;
                Ok(own.objects.delete(own.tenant.service, &path).await.map_err(failed)?.objects > 0)
            })
            .await
    }

    async fn download_url(&mut self, path: String) -> Result<String, Error> {
        let own = self.own_objects()?;
        own.objects.download_url(own.tenant.service, &path).await.map(|(url, _)| url).map_err(failed)
    }

    async fn upload_url(&mut self, object: New, size: u64) -> Result<Upload, Error> {
        let own = self.own_objects()?;
        let links = own.objects.links().map_err(failed)?;
        let content_type = object.content_type.unwrap_or_default();
        let new = NewObject { path: object.path, content_type, size_bytes: size, public_read: object.public };
        let upload = own.objects.begin(own.tenant, new).await.map_err(failed)?;
        let url = upload.parts.first().map(|part| links.part(own.tenant.service, &upload, part)).unwrap_or_default();
        Ok(Upload { path: upload.path, url })
    }

    async fn complete(&mut self, path: String) -> Result<Shown, Error> {
        let own = self.own_objects()?;
        let object = own.objects.complete(own.tenant.service, &path).await.map_err(failed)?;
        Ok(own.show(object))
    }
}

impl HostReader for Data {
    async fn read(&mut self, this: Resource<Reader>, max: u32) -> Result<Vec<u8>, Error> {
        let memory = self.invocation.runtime.memory().clone();
        let reader = self.table.get_mut(&this).map_err(no_handle)?;
        if let Some(failed) = &reader.failed {
            return Err(failed.clone());
        }
        while reader.rest.is_empty() {
            match reader.body.next().await {
                None => return Ok(Vec::new()),
                Some(Ok(piece)) => reader.rest = piece,
                Some(Err(why)) => return Err(reader.failed.insert(failed(why)).clone()),
            }
            // What waits here for the guest counts as its own memory does. When there is none left the piece stays, and the same call may succeed later.
            let held = memory.reserve();
            if !held.grow(reader.rest.len() as u64) {
                return Err(error(&codes::HOST_BUSY, "the host has no memory for the object's bytes now".to_owned()));
            }
            reader.rest = held.hold(std::mem::take(&mut reader.rest));
        }
        let most = usize::try_from(max).unwrap_or(usize::MAX).clamp(1, OBJECT_PIECE_BYTES_MAX);
        Ok(reader.rest.split_to(most.min(reader.rest.len())).to_vec())
    }

    async fn drop(&mut self, this: Resource<Reader>) -> wasmtime::Result<()> {
        self.open_objects.readers = self.open_objects.readers.saturating_sub(1);
        self.table.delete(this)?;
        Ok(())
    }
}

impl HostWriter for Data {
    async fn write(&mut self, this: Resource<Writer>, bytes: Vec<u8>) -> Result<(), Error> {
        let memory = self.invocation.runtime.memory().clone();
        let writer = self.table.get_mut(&this).map_err(no_handle)?;
        if let Some(failed) = &writer.failed {
            return Err(failed.clone());
        }
        if bytes.len() > OBJECT_PIECE_BYTES_MAX {
            return Err(error(&codes::INVALID_REQUEST, format!("a piece has at most {OBJECT_PIECE_BYTES_MAX} bytes")));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        // They wait here and for the store, so they count. Without memory for them the writer stays as it is, and the same call may succeed later.
        let held = memory.reserve();
        if !held.grow(bytes.len() as u64) {
            return Err(error(&codes::HOST_BUSY, "the host has no memory for the object's bytes now".to_owned()));
        }
        if writer.pieces.send(held.hold(bytes.into())).await.is_ok() {
            return Ok(());
        }
        // Nobody takes them any more, so the store has ended before the guest has.
        let why = ended((&mut writer.put.0).await)
            .err()
            .unwrap_or_else(|| error(&codes::UPLOAD_MISMATCH, "more was written than was announced".to_owned()));
        Err(writer.failed.insert(why).clone())
    }

    async fn finish(&mut self, this: Resource<Writer>) -> Result<Shown, Error> {
        self.span("objects.finish", "")
            .telling(|stored: &Shown| bytes_of(stored.size), async move {
                self.open_objects.writers = self.open_objects.writers.saturating_sub(1);
                let Writer { pieces, mut put, failed } = self.table.delete(this).map_err(no_handle)?;
                if let Some(failed) = failed {
                    return Err(failed);
                }
                let own = self.own_objects()?;
                // Nothing more comes.
                drop(pieces);
                ended((&mut put.0).await).map(|object| own.show(object))
            })
            .await
    }

    async fn drop(&mut self, this: Resource<Writer>) -> wasmtime::Result<()> {
        self.open_objects.writers = self.open_objects.writers.saturating_sub(1);
        self.table.delete(this)?;
        Ok(())
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    add::<Data, Whole>(linker, |data| data)
}
