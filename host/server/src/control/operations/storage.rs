//! Objects of a service: what there is, and URLs to send and fetch bytes with. The bytes themselves never come this way; they go to the public listener
//! (`edge/objects.rs`). The store checks every limit.

use futures::{Stream, TryStreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::limits::OBJECT_LIST_BYTES_MAX;
use tovuk_kernel::meters::Meter;
use tovuk_kernel::operation::{Access, Argument, Command, Method, Operation, PAGE_ARGUMENTS, Request};
use tovuk_resources::objects::{self, Links, NewObject, Object, Objects, Status, Tenant, UploadId};

use super::timestamp;
use crate::control::handler::Handler;
use crate::control::store::accounts;
use crate::control::{Caller, Control, Refusal, service_for};

/// What the other fields of an object take of an answer, with the names of all.
const ENTRY_BYTES: usize = 250;

/// An object as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StoredObject")]
pub struct ObjectEntry {
    /// Its path.
    pub path: String,
    /// Its size; of a pending one, the size that was announced.
    pub size_bytes: u64,
    /// Whether it can be read.
    pub status: Status,
    /// Its content type.
    pub content_type: String,
    /// Its entity tag, with quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Whether anybody may read it.
    pub public_read: bool,
    /// Where anybody can read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// When the first object of this path was completed.
    pub created_at: String,
    /// When this content was completed.
    pub updated_at: String,
}

impl ObjectEntry {
    /// What it takes of an answer, about.
    fn bytes(&self) -> usize {
        let url = self.public_url.as_ref().map_or(0, String::len);
        ENTRY_BYTES + self.path.len() + self.content_type.len() + url
    }

    fn of(links: &Links, service: i64, object: Object) -> Self {
        Self {
            public_url: links.public(service, &object),
            etag: Some(object.etag).filter(|etag| !etag.is_empty()),
            size_bytes: object.size_bytes,
            status: object.status,
            content_type: object.content_type,
            public_read: object.public_read,
            created_at: moment(object.created_ms),
            updated_at: moment(object.updated_ms),
            path: object.path,
        }
    }
}

pub(super) fn moment(unix_ms: u64) -> String {
    timestamp(i64::try_from(unix_ms).unwrap_or(i64::MAX))
}

/// The store, which charges a service.
pub(super) fn objects(control: &Control, tenant: Tenant) -> Objects {
    control.objects().billed_to(control.bill(tenant.account, tenant.service))
}

/// The service that the caller may use, as the store knows it.
pub(super) async fn tenant(control: &Control, caller: &Caller, service: String) -> Result<Tenant, Refusal> {
    let caller = caller.clone();
    let read = control.read(move |conn| {
        let service = service_for(conn, &caller, &service)?;
        let account = accounts::get(conn, service.account_id)?.ok_or_else(|| Refusal::internal("a service without an account"))?;
        Ok(Tenant { account: account.id, service: service.id, plan: account.plan })
    });
    read.await
}

pub(super) fn entry(control: &Control, service: i64, object: Object) -> Result<ObjectEntry, Refusal> {
    Ok(ObjectEntry::of(control.objects().links()?, service, object))
}

const PATH: Argument = Argument::positional("path", "The path of the object");
const BEGIN_ERRORS: &[&Code] = &[&codes::OBJECT_PATH_INVALID, &codes::OBJECT_TOO_LARGE, &codes::OBJECT_STORAGE_LIMIT, &codes::UPLOAD_LIMIT];

/// Lists objects.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// The service.
    pub service: String,
    /// What the paths begin with.
    #[serde(default)]
    pub prefix: String,
    /// Most objects to return, 1 to 1,000. Without it the answer has all, up to 100,000 and about 32 MiB; `next_cursor` says where more begin.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
}

/// Objects in the byte order of their paths.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StoredObjects")]
pub struct ObjectsPage {
    /// The objects, with those whose upload was begun and not completed.
    pub objects: Vec<ObjectEntry>,
    /// Whether more follow.
    pub has_more: bool,
    /// Where to go on.
    pub next_cursor: Option<String>,
}

impl Request for List {
    const OPERATION: Operation = Operation::new("storage.list", Method::Get, "/v1/services/{service}/storage", "List objects")
        .access(Access::Runtime)
        .errors(&[&codes::INVALID_CURSOR])
        .meters(&[Meter::ObjectStorageClassAOperations])
        .commands(&[Command::new("storage list")
            .default()
            .arguments(&[Argument::flag("prefix", "prefix", "What the paths begin with"), PAGE_ARGUMENTS[0], PAGE_ARGUMENTS[1]])
            .examples(&["tovuk storage list --service service_1", "tovuk storage list --service service_1 --prefix uploads/ --limit 100"])]);
    type Response = ObjectsPage;
}

impl Handler for List {
    async fn run(self, control: Control, caller: Caller) -> Result<ObjectsPage, Refusal> {
        let tenant = tenant(&control, &caller, self.service).await?;
        let (service, objects) = (tenant.service, objects(&control, tenant));
        let links = control.objects().links()?;
        let first = objects::List { prefix: self.prefix, limit: self.limit, cursor: self.cursor };
        // One that goes on from a cursor without a limit is whole as well.
        if self.limit.is_some() {
            return Ok(gather(links, service, stream::once(objects.list(service, first))).await?);
        }
        Ok(gather(links, service, objects.list_all(service, first.prefix, first.cursor)).await?)
    }
}

/// One answer of pages, of which no more is taken when it is large enough.
async fn gather(
    links: &Links,
    service: i64,
    pages: impl Stream<Item = Result<objects::Page, objects::Error>>,
) -> Result<ObjectsPage, objects::Error> {
    let mut answer = ObjectsPage { objects: Vec::new(), has_more: false, next_cursor: None };
    let mut bytes = 0;
    let mut pages = std::pin::pin!(pages);
    while bytes < OBJECT_LIST_BYTES_MAX
        && let Some(page) = pages.try_next().await?
    {
        (answer.has_more, answer.next_cursor) = (page.has_more(), page.next_cursor);
        let before = answer.objects.len();
        answer.objects.extend(page.objects.into_iter().map(|object| ObjectEntry::of(links, service, object)));
        bytes += answer.objects.iter().skip(before).map(ObjectEntry::bytes).sum::<usize>();
    }
    Ok(answer)
}

/// Begins an upload that is sent as a whole.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadUrl {
    /// The service.
    pub service: String,
    /// The path of the object.
    pub path: String,
    /// Its content type; `application/octet-stream` when absent.
    #[serde(default)]
    pub content_type: String,
    /// Its exact size, in bytes.
    pub size_bytes: u64,
    /// Whether anybody may read it.
    #[serde(default)]
    pub public_read: bool,
}

/// Where to send the bytes of an object.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "UploadBegun")]
pub struct UploadAt {
    /// The URL for one `PUT` of exactly the announced number of bytes. It needs no token.
    pub url: String,
    /// The path to complete the upload with.
    pub path: String,
    /// The id of the upload, to complete or abort it with.
    pub upload_id: String,
    /// When the URL ends.
    pub expires_at: String,
}

impl Request for UploadUrl {
    const OPERATION: Operation =
        Operation::new("storage.upload", Method::Post, "/v1/services/{service}/storage/upload-url", "Begin an upload that is sent as a whole")
            .described("Send the bytes with `PUT` to the URL, then complete the upload. `tovuk storage upload` does all of it.")
            .access(Access::Runtime)
            .errors(BEGIN_ERRORS)
            .meters(&[Meter::ObjectStorageBytes]);
    type Response = UploadAt;
}

impl Handler for UploadUrl {
    async fn run(self, control: Control, caller: Caller) -> Result<UploadAt, Refusal> {
        let tenant = tenant(&control, &caller, self.service).await?;
        let new = NewObject { path: self.path, content_type: self.content_type, size_bytes: self.size_bytes, public_read: self.public_read };
        let links = control.objects().links()?;
        let upload = objects(&control, tenant).begin(tenant, new).await?;
        let part = upload.parts.first().ok_or_else(|| Refusal::internal("an upload without parts"))?;
        Ok(UploadAt {
            url: links.part(tenant.service, &upload, part),
            upload_id: upload.id.to_string(),
            expires_at: moment(upload.urls_expire_ms),
            path: upload.path,
        })
    }
}

/// Makes an upload that was sent as a whole the object of its path.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Complete {
    /// The service.
    pub service: String,
    /// The path of the object.
    pub path: String,
    /// The id of the upload. Without it, the one counts that was begun last of those to the path that have arrived.
    pub upload_id: Option<String>,
}

impl Request for Complete {
    const OPERATION: Operation =
        Operation::new("storage.complete", Method::Post, "/v1/services/{service}/storage/complete", "Complete an upload that was sent as a whole")
            .described("The object is there from then on, in place of the one that its path had.")
            .access(Access::Runtime)
            .errors(&[&codes::UPLOAD_NOT_FOUND, &codes::UPLOAD_INCOMPLETE]);
    type Response = ObjectEntry;
}

impl Handler for Complete {
    async fn run(self, control: Control, caller: Caller) -> Result<ObjectEntry, Refusal> {
        let tenant = tenant(&control, &caller, self.service).await?;
        let (service, objects) = (tenant.service, objects(&control, tenant));
        let object = match self.upload_id {
            Some(upload) => objects.complete_upload(service, &self.path, UploadId::parse(&upload)?).await?,
            None => objects.complete(service, &self.path).await?,
        };
        entry(&control, service, object)
    }
}

/// Signs the reading of an object.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DownloadUrl {
    /// The service.
    pub service: String,
    /// The path of the object.
    pub path: String,
}

/// Where to fetch an object.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownloadAt {
    /// The URL for `GET` and `HEAD`, with ranges and conditions. It needs no token.
    pub url: String,
    /// The path of the object.
    pub path: String,
    /// When the URL ends.
    pub expires_at: String,
}

impl Request for DownloadUrl {
    const OPERATION: Operation =
        Operation::new("storage.download", Method::Post, "/v1/services/{service}/storage/download-url", "Get a URL to read an object with")
            .described("Whoever has the URL can read the object for 15 minutes.")
            .access(Access::Runtime)
            .errors(&[&codes::OBJECT_NOT_FOUND])
            .meters(&[Meter::ObjectStorageClassBOperations])
            .commands(&[Command::new("storage url").arguments(&[PATH]).examples(&["tovuk storage url --service service_1 uploads/logo.png"])]);
    type Response = DownloadAt;
}

impl Handler for DownloadUrl {
    async fn run(self, control: Control, caller: Caller) -> Result<DownloadAt, Refusal> {
        let tenant = tenant(&control, &caller, self.service).await?;
        let (service, objects) = (tenant.service, objects(&control, tenant));
        let (url, grant) = objects.download_url(service, &self.path).await?;
        Ok(DownloadAt { url, path: grant.path, expires_at: moment(grant.expires_ms) })
    }
}

/// Deletes an object.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// The service.
    pub service: String,
    /// The path of the object.
    pub path: String,
}

/// What a deletion has removed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// Whether there was an object or an open upload.
    pub deleted: bool,
    /// The path.
    pub path: String,
    /// How many bytes the object had.
    pub deleted_bytes: u64,
    /// Uploads to the path that were ended.
    pub aborted_uploads: u64,
}

impl Request for Delete {
    const OPERATION: Operation = Operation::new("storage.delete", Method::Delete, "/v1/services/{service}/storage", "Delete an object")
        .described("Uploads to its path end. Who reads it goes on reading. It is no error when there is none.")
        .access(Access::Runtime)
        .errors(&[&codes::OBJECT_PATH_INVALID])
        .commands(&[Command::new("storage delete").arguments(&[PATH]).examples(&["tovuk storage delete --service service_1 uploads/logo.png"])]);
    type Response = Deleted;
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<Deleted, Refusal> {
        let tenant = tenant(&control, &caller, self.service).await?;
        let (service, objects) = (tenant.service, objects(&control, tenant));
        objects::check_path(&self.path)?;
        let removed = objects.delete(service, &self.path).await?;
        Ok(Deleted { deleted: removed.any(), path: self.path, deleted_bytes: removed.bytes, aborted_uploads: removed.uploads })
    }
}

#[cfg(test)]
mod tests {
    use tovuk_kernel::limits::{OBJECT_PATH_BYTES_MAX, PAGE_MAX};
    use tovuk_resources::objects::Signer;

    use super::*;

    #[tokio::test]
    async fn a_list_of_long_paths_ends_where_it_is_large_enough() {
        let links = Links::new("http://storage.localhost:1".into(), Signer::new(&[7; 32]));
        let object = Object {
            path: "é".repeat(OBJECT_PATH_BYTES_MAX / 2),
            content_type: "image/png".to_owned(),
            size_bytes: 1,
            etag: "\"0\"".to_owned(),
            public_read: true,
            status: Status::Ready,
            created_ms: 0,
            updated_ms: 0,
        };
        let page = |number: u32| objects::Page { objects: vec![object.clone(); PAGE_MAX as usize], next_cursor: Some(number.to_string()) };
        let listed = gather(&links, 1, stream::iter((0..100).map(|number| Ok(page(number))))).await.unwrap();
        let pages = listed.objects.len() / PAGE_MAX as usize;
        assert_eq!((listed.has_more, listed.next_cursor.clone()), (true, Some((pages - 1).to_string())), "it goes on behind the last");
        let bytes = serde_json::to_string(&listed).unwrap().len();
        assert!((OBJECT_LIST_BYTES_MAX..OBJECT_LIST_BYTES_MAX + (6 << 20)).contains(&bytes), "{bytes}");
        let short = gather(&links, 1, stream::iter([Ok(objects::Page { next_cursor: None, ..page(0) })])).await.unwrap();
        assert_eq!((short.objects.len(), short.has_more), (PAGE_MAX as usize, false));
    }
}
