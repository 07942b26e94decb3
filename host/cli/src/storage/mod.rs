//! `tovuk storage upload` and `tovuk storage download`: between a file here and an object there. Each is several operations of the API and requests to
//! signed URLs in between, which the table of operations cannot say; the other commands of `tovuk storage` come from there.

mod files;
mod transfer;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args, FromArgMatches, Subcommand};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tovuk_kernel::limits::OBJECT_PART_BYTES;
use tovuk_server::control::api::operations;

use self::files::{Source, Target, content_type, file_name};
use self::transfer::{Piece, Transfer};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, one_line};
use crate::remote::{Fields, call_of};
use crate::session::ClientArgs;

/// Parts that are sent at a time.
const PARTS_AT_A_TIME: usize = 4;

/// Files as objects of a service
#[derive(Debug, Subcommand)]
pub enum StorageCommand {
    /// Send a file as an object
    Upload(UploadArgs),
    /// Fetch an object into a file
    Download(DownloadArgs),
}

/// `tovuk storage upload`.
#[derive(Debug, Args)]
#[command(
    after_help = "Files of more than 100 MiB are sent in parts, several at a time; a part that fails is sent again.\n\nExamples:\n  tovuk storage upload --service service_1 ./logo.png uploads/logo.png --public\n  tovuk storage upload --service shop backup.tar\n"
)]
pub struct UploadArgs {
    /// The file
    pub file: Option<PathBuf>,
    /// The path of the object [default: the name of the file]
    pub path: Option<String>,
    /// The service: its id or name
    #[arg(long, value_name = "SERVICE")]
    pub service: String,
    /// The content type [default: by the end of the file's name]
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Let anybody read it
    #[arg(long, overrides_with = "private")]
    pub public: bool,
    /// Let only holders of a signed URL read it, which is the default
    #[arg(long, overrides_with = "public")]
    pub private: bool,
}

/// `tovuk storage download`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tovuk storage download --service service_1 uploads/logo.png ./logo.png\n  tovuk storage download --service shop backup.tar\n"
)]
pub struct DownloadArgs {
    /// The path of the object
    pub path: Option<String>,
    /// The file; its folders are made [default: the last part of the path]
    pub file: Option<PathBuf>,
    /// The service: its id or name
    #[arg(long, value_name = "SERVICE")]
    pub service: String,
}

/// Adds these commands beside those of the table.
pub fn add_to(command: clap::Command) -> clap::Command {
    StorageCommand::augment_subcommands(command)
}

/// The command that was given, if it is one of these.
pub fn find(matches: &ArgMatches) -> Option<Result<StorageCommand, clap::Error>> {
    let ("storage", inner) = matches.subcommand()? else { return None };
    matches!(inner.subcommand_name()?, "upload" | "download").then(|| StorageCommand::from_arg_matches(inner))
}

/// Runs the command.
pub async fn run(command: StorageCommand, args: &ClientArgs) -> anyhow::Result<ExitCode> {
    match command {
        StorageCommand::Upload(upload) => {
            let done = send(&upload, args).await?;
            output::print(&done, args.json, uploaded);
        }
        StorageCommand::Download(download) => {
            let done = fetch(&download, args).await?;
            output::print(&done, args.json, |done| format!("{} ({} bytes)\n", text(done, "file"), done.get("bytes").cloned().unwrap_or_default()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &Value, field: &str) -> String {
    one_line(answer.get(field).and_then(Value::as_str).unwrap_or_default())
}

fn uploaded(done: &Value) -> String {
    let mut told = format!("{} ({} bytes)\n", text(done, "path"), done.get("sizeBytes").cloned().unwrap_or_default());
    let public = text(done, "publicUrl");
    if !public.is_empty() {
        told.push_str(&format!("public at {public}\n"));
    }
    told
}

/// A bar on a terminal. Elsewhere, and for programs, there is none.
fn bar(bytes: u64, json: bool) -> ProgressBar {
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(bytes) };
    let style = ProgressStyle::with_template("{bar:40} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Asks for one operation of a service.
struct Api<'a> {
    client: Client,
    service: &'a str,
}

impl<'a> Api<'a> {
    fn new(args: &ClientArgs, service: &'a str) -> Result<Self, Failure> {
        let operation = Self::operation("storage.upload")?;
        Ok(Self { client: Client::for_operation(args, operation)?, service })
    }

    fn operation(name: &str) -> Result<&'static tovuk_kernel::operation::Operation, Failure> {
        let operation = operations().iter().map(|registered| registered.operation).find(|operation| operation.name == name);
        operation.ok_or_else(|| Failure::local("internal_error", format!("the table has no operation {name}")))
    }

    async fn call(&self, name: &str, fields: Value) -> Result<Value, Failure> {
        let mut fields: Fields = fields.as_object().cloned().unwrap_or_default();
        fields.insert("service".to_owned(), json!(self.service));
        self.client.call(call_of(Self::operation(name)?, fields)?).await
    }
}

async fn send(upload: &UploadArgs, args: &ClientArgs) -> Result<Value, Failure> {
    let file = upload.file.as_deref().ok_or_else(|| {
        Failure::local("missing_storage_file", "`tovuk storage upload` needs a file")
            .instruct("For example: `tovuk storage upload --service shop ./logo.png uploads/logo.png`.")
    })?;
    let source = Source::open(file)?;
    let path = match &upload.path {
        Some(path) => path.clone(),
        None => file_name(file)?,
    };
    let content_type = upload.content_type.clone().unwrap_or_else(|| content_type(file).to_owned());
    let api = Api::new(args, &upload.service)?;
    let new = json!({"path": path, "contentType": content_type, "sizeBytes": source.bytes, "publicRead": upload.public});
    let bar = bar(source.bytes, args.json);
    let done = if source.bytes > OBJECT_PART_BYTES {
        send_parts(&api, &source, new, &bar).await
    } else {
        send_whole(&api, &source, new, &content_type, &bar).await
    };
    bar.finish_and_clear();
    done
}

async fn send_whole(api: &Api<'_>, source: &Source, new: Value, content_type: &str, bar: &ProgressBar) -> Result<Value, Failure> {
    let begun = api.call("storage.upload", new).await?;
    let url = begun.get("url").and_then(Value::as_str).ok_or_else(unexpected)?;
    let piece = Piece { url: url.to_owned(), offset: 0, bytes: source.bytes, content_type: Some(content_type) };
    Transfer::new(url)?.send(source, &piece, bar).await?;
    let (path, upload) = (begun.get("path").cloned().unwrap_or_default(), begun.get("uploadId").cloned().unwrap_or_default());
    api.call("storage.complete", json!({"path": path, "uploadId": upload})).await
}

async fn send_parts(api: &Api<'_>, source: &Source, mut new: Value, bar: &ProgressBar) -> Result<Value, Failure> {
    if let Some(new) = new.as_object_mut() {
        new.insert("partSizeBytes".to_owned(), json!(OBJECT_PART_BYTES));
    }
    let begun = api.call("storage.multipart.create", new).await?;
    let (path, upload) = (begun.get("path").cloned().unwrap_or_default(), begun.get("uploadId").cloned().unwrap_or_default());
    let sent = tokio::select! {
        sent = all_parts(source, &begun, bar) => sent,
        _ = tokio::signal::ctrl_c() => Err(Failure::local("storage_upload_failed", "the upload was interrupted")),
    };
    let completed = match sent {
        Ok(parts) => api.call("storage.multipart.complete", json!({"path": path, "uploadId": upload, "parts": parts})).await,
        Err(failure) => Err(failure),
    };
    if completed.is_err() {
        // What is not removed now is by the host, a day after the upload was begun.
        let _ = api.call("storage.multipart.abort", json!({"path": path, "uploadId": upload})).await;
    }
    completed
}

/// Sends every part that the host has planned, several at a time. What they are completed with, in their order.
async fn all_parts(source: &Source, begun: &Value, bar: &ProgressBar) -> Result<Vec<Value>, Failure> {
    let parts = begun.get("parts").and_then(Value::as_array).filter(|parts| !parts.is_empty()).ok_or_else(unexpected)?;
    let mut planned = Vec::with_capacity(parts.len());
    for part in parts {
        let number = |field: &str| part.get(field).and_then(Value::as_u64).ok_or_else(unexpected);
        let url = part.get("url").and_then(Value::as_str).ok_or_else(unexpected)?.to_owned();
        let piece = Piece { url, offset: number("offsetBytes")?, bytes: number("sizeBytes")?, content_type: None };
        planned.push((number("partNumber")?, piece));
    }
    let transfer = Transfer::new(planned.first().map(|(_, piece)| piece.url.as_str()).unwrap_or_default())?;
    let sending = stream::iter(&planned).map(|(number, piece)| {
        let transfer = &transfer;
        async move {
            let etag = transfer.send_again(source, piece, bar).await?.ok_or_else(unexpected)?;
            Ok::<_, Failure>(json!({"partNumber": number, "etag": etag}))
        }
    });
    sending.buffered(PARTS_AT_A_TIME).try_collect().await
}

async fn fetch(download: &DownloadArgs, args: &ClientArgs) -> Result<Value, Failure> {
    let path = download.path.as_deref().filter(|path| !path.is_empty()).ok_or_else(|| {
        Failure::local("missing_storage_path", "`tovuk storage download` needs the path of an object")
            .instruct("For example: `tovuk storage download --service shop uploads/logo.png`. `tovuk storage list` shows paths.")
    })?;
    let target = Target::of(path, download.file.as_deref())?;
    let api = Api::new(args, &download.service)?;
    let answer = api.call("storage.download", json!({"path": path})).await?;
    let url = answer.get("url").and_then(Value::as_str).ok_or_else(unexpected)?;
    let bytes = Transfer::new(url)?.fetch(url, &target, || bar(0, args.json)).await?;
    Ok(json!({"path": path, "file": target.file, "bytes": bytes}))
}

fn unexpected() -> Failure {
    Failure::local("api_error", "the answer is none of a tovuk host")
        .instruct("Check that --api names a tovuk host, and that it is not older than this program.")
}
