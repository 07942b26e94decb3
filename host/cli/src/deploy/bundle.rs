//! What is sent for one service: built and looked at on this machine, or its source. Nothing is sent here.

use std::io::Write;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use tovuk_kernel::archive::Kind;
use tovuk_kernel::codes;
use tovuk_runtime::component::Description;
use tovuk_server::deploy::powers;

use super::archive::{self, Packed};
use super::find::{Target, commit};
use crate::build::{self, Sink};
use crate::failure::Failure;
use crate::{check, migrations};

/// What is sent for one service.
pub struct Bundle {
    /// The body of the request.
    pub body: Value,
    /// What the component is, where there is one and it was built here.
    pub description: Option<Description>,
    /// Bytes of the component.
    pub component_bytes: Option<u64>,
    /// Files in the archive.
    pub files: Option<u64>,
    /// What of the folder is not sent.
    pub skipped: Vec<String>,
}

impl Bundle {
    /// What the service will be able to do; nothing is known of what the host builds.
    pub fn powers(&self, target: &Target) -> Option<Vec<String>> {
        let built = self.description.is_some() || !target.service.kind().has_worker();
        built.then(|| powers::of(self.description.as_ref().map(|description| description.imports.as_slice()).unwrap_or_default(), &target.service))
    }
}

/// Builds a service and packs what the build has left.
pub async fn built(target: &Target, sink: Sink) -> Result<Bundle, Failure> {
    let failed = |error: &build::BuildError| {
        let failure =
            Failure::of(&codes::BUILD_FAILED, error.to_string()).instruct("Correct what the build reports, then deploy again. Nothing was sent.");
        let details = [("log_tail".to_owned(), json!(error.tail()))];
        Failure { details: Box::new(Map::from_iter(details)), ..failure }
    };
    let built = build::build(&target.project, &target.name, &target.service, sink).await.map_err(|error| failed(&error))?;
    let mut body = begun(target).await?;
    let mut bundle = Bundle { body: Value::Null, description: None, component_bytes: None, files: None, skipped: Vec::new() };
    if let Some(path) = &built.component {
        let description = check::describe(path).await.map_err(|error| Failure::local("check_failed", format!("{error:#}")))?;
        let description =
            description.map_err(|problem| Failure::of(&codes::COMPONENT_REFUSED, format!("{} cannot run: {problem}", path.display())))?;
        let wasm = std::fs::read(path).map_err(|error| Failure::local("check_failed", format!("cannot read {}: {error}", path.display())))?;
        bundle.component_bytes = Some(wasm.len() as u64);
        bundle.description = Some(description);
        body.insert("component_base64".to_owned(), Value::String(STANDARD.encode(gzip(&wasm)?)));
    }
    if let Some(folder) = &built.assets {
        body.insert("assets_archive_base64".to_owned(), bundle.take(packed(folder, Kind::Assets)?));
    }
    bundle.body = Value::Object(body);
    Ok(bundle)
}

/// Packs the source of a service, for a host that builds it.
pub async fn source(target: &Target) -> Result<Bundle, Failure> {
    let mut body = begun(target).await?;
    let mut bundle = Bundle { body: Value::Null, description: None, component_bytes: None, files: None, skipped: Vec::new() };
    body.insert("source_archive_base64".to_owned(), bundle.take(packed(&target.project, Kind::Source)?));
    bundle.body = Value::Object(body);
    Ok(bundle)
}

impl Bundle {
    fn take(&mut self, packed: Packed) -> Value {
        self.files = Some(packed.files);
        self.skipped = packed.skipped.iter().map(ToString::to_string).collect();
        Value::String(STANDARD.encode(packed.bytes))
    }
}

async fn begun(target: &Target) -> Result<Map<String, Value>, Failure> {
    let mut body = Map::new();
    body.insert("config".to_owned(), target.config()?);
    body.insert("service".to_owned(), json!(target.name));
    body.insert("commit_sha".to_owned(), json!(commit(&target.project).await));
    let migrations = migrations::of(&target.project, &target.service).map_err(|error| Failure::local("migrations_unreadable", error))?;
    if !migrations.is_empty() {
        body.insert("migrations".to_owned(), json!(migrations));
    }
    Ok(body)
}

fn packed(folder: &Path, kind: Kind) -> Result<Packed, Failure> {
    archive::pack(folder, kind)
        .map_err(|error| Failure::local(error.code(), error.to_string()).instruct("Correct what the message names, then deploy again."))
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let packed = encoder.write_all(bytes).and_then(|()| encoder.finish());
    packed.map_err(|error| Failure::local("archive_failed", error.to_string()))
}
