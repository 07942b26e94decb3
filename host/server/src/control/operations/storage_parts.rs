//! Uploads that are sent in parts: each part has a URL of its own and can be sent again, at the same time as others, for 24 hours.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::limits::API_OBJECT_PARTS_BODY_BYTES_MAX;
use tovuk_kernel::meters::Meter;
use tovuk_kernel::operation::{Access, Method, Operation, Request};
use tovuk_resources::objects::{CompletedPart, NewObject, UploadId};

use super::storage::{ObjectEntry, entry, moment, objects, tenant};
use crate::control::handler::Handler;
use crate::control::{Caller, Control, Refusal};

/// Begins an upload in parts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "MultipartCreate")]
pub struct Create {
    /// The service.
    pub service: String,
    /// The path of the object.
    pub path: String,
    /// Its content type; `application/octet-stream` when absent.
    #[serde(default)]
    pub content_type: String,
    /// Its exact size, in bytes.
    pub size_bytes: u64,
    /// How large each part but the last is to be, in bytes: 5 MiB to 5,115 MiB, 100 MiB when absent. Where there would be more than 10,000 parts, or
    /// their URLs would take more than 8 MiB, they are made larger.
    pub part_size_bytes: Option<u64>,
    /// Whether anybody may read it.
    #[serde(default)]
    pub public_read: bool,
}

/// A part to send.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartAt {
    /// Its number, from 1.
    pub part_number: u32,
    /// Where in the object it begins.
    pub offset_bytes: u64,
    /// Its exact size.
    pub size_bytes: u64,
    /// The URL for a `PUT` of its bytes, whose answer has the header `ETag`. It needs no token, and can be used again.
    pub url: String,
}

/// An upload in parts that was begun.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "MultipartCreated")]
pub struct Created {
    /// The path to complete the upload with.
    pub path: String,
    /// The id of the upload.
    pub upload_id: String,
    /// What to send.
    pub parts: Vec<PartAt>,
    /// When the URLs end.
    pub expires_at: String,
}

impl Request for Create {
    const OPERATION: Operation =
        Operation::new("storage.multipart.create", Method::Post, "/v1/services/{service}/storage/multipart/create", "Begin an upload in parts")
            .described("Send each part with `PUT` to its URL, in any order, then complete the upload with the tags that were answered.")
            .access(Access::Runtime)
            .errors(&[&codes::OBJECT_PATH_INVALID, &codes::OBJECT_TOO_LARGE, &codes::OBJECT_STORAGE_LIMIT, &codes::UPLOAD_LIMIT])
            .meters(&[Meter::ObjectStorageClassAOperations, Meter::ObjectStorageBytes]);
    type Response = Created;
}

impl Handler for Create {
    async fn run(self, control: Control, caller: Caller) -> Result<Created, Refusal> {
        let tenant = tenant(&control, &caller, self.service).await?;
        let new = NewObject { path: self.path, content_type: self.content_type, size_bytes: self.size_bytes, public_read: self.public_read };
        let links = control.objects().links()?;
        let upload = objects(&control, tenant).begin_multipart(tenant, new, self.part_size_bytes).await?;
        let part = |part: &tovuk_resources::objects::PartPlan| PartAt {
            part_number: part.number,
            offset_bytes: part.offset_bytes,
            size_bytes: part.size_bytes,
            url: links.part(tenant.service, &upload, part),
        };
        let parts = upload.parts.iter().map(part).collect();
        Ok(Created { parts, upload_id: upload.id.to_string(), expires_at: moment(upload.urls_expire_ms), path: upload.path })
    }
}

/// Makes an upload in parts the object of its path.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "MultipartComplete")]
pub struct Complete {
    /// The service.
    pub service: String,
    /// The path of the object.
    pub path: String,
    /// The id of the upload.
    pub upload_id: String,
    /// Every part, in order.
    pub parts: Vec<SentPart>,
}

/// A part that was sent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SentPart {
    /// Its number.
    pub part_number: u32,
    /// The `ETag` that was answered, with or without quotes.
    pub etag: String,
}

impl Request for Complete {
    const OPERATION: Operation = Operation::new(
        "storage.multipart.complete",
        Method::Post,
        "/v1/services/{service}/storage/multipart/complete",
        "Complete an upload in parts",
    )
    .described("The object is there from then on, in place of the one that its path had.")
    .access(Access::Runtime)
    .body_bytes_max(API_OBJECT_PARTS_BODY_BYTES_MAX)
    .errors(&[&codes::UPLOAD_NOT_FOUND, &codes::UPLOAD_INCOMPLETE, &codes::UPLOAD_MISMATCH])
    .meters(&[Meter::ObjectStorageClassAOperations]);
    type Response = ObjectEntry;
}

impl Handler for Complete {
    async fn run(self, control: Control, caller: Caller) -> Result<ObjectEntry, Refusal> {
        let tenant = tenant(&control, &caller, self.service).await?;
        let service = tenant.service;
        let parts = self.parts.into_iter().map(|part| CompletedPart { number: part.part_number, etag: part.etag }).collect();
        let object = objects(&control, tenant).complete_multipart(service, &self.path, UploadId::parse(&self.upload_id)?, parts).await?;
        entry(&control, service, object)
    }
}

/// Ends an upload without an object.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "MultipartAbort")]
pub struct Abort {
    /// The service.
    pub service: String,
    /// The path of the object.
    pub path: String,
    /// The id of the upload.
    pub upload_id: String,
}

/// What became of an upload.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Aborted {
    /// Whether it was open.
    pub aborted: bool,
    /// The path.
    pub path: String,
}

impl Request for Abort {
    const OPERATION: Operation =
        Operation::new("storage.multipart.abort", Method::Post, "/v1/services/{service}/storage/multipart/abort", "End an upload without an object")
            .described("What was sent of it is removed. It is no error when there is none.")
            .access(Access::Runtime);
    type Response = Aborted;
}

impl Handler for Abort {
    async fn run(self, control: Control, caller: Caller) -> Result<Aborted, Refusal> {
        let service = tenant(&control, &caller, self.service).await?.service;
        let aborted = match UploadId::parse(&self.upload_id) {
            Ok(upload) => control.objects().abort(service, &self.path, upload).await?,
            Err(_) => false,
        };
        Ok(Aborted { aborted, path: self.path })
    }
}
