//! Files of a static or full-stack service as HTTP: which file a path means, in which encoding, whether the client has it already, and which part of
//! it was asked for. A route that names no file gets `index.html`, so that a browser application can have routes of its own.
//!
//! Nothing is compressed here: what a build left as `app.js.br`, `app.js.zst` or `app.js.gz` stands in for `app.js`.

mod encoding;
mod names;
mod validators;

use std::fs::File;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::StreamBody;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use tovuk_kernel::codes;
use tovuk_resources::conditional::Part;
use tovuk_runtime::body::{Body, BodyError};
use tovuk_runtime::failure::Failure;

use crate::assets::{Assets, Folder, Opened, SMALL_FILE_BYTES, Stat, Tree, is_withheld};
use names::{Found, SitePath};
use validators::{Condition, Validators};

/// What a large file is read in.
const CHUNK_BYTES: usize = 64 << 10;
/// How often a file of an author's folder may change between being looked at and being opened.
const LOOKS_MAX: usize = 4;

/// Answers from the files. Only GET and HEAD have an answer there.
pub(super) async fn serve(assets: &Assets, request: Request<Body>) -> Result<Response<Body>, Failure> {
    let (parts, _) = request.into_parts();
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(no_file(format!("there are only files at {}, and files answer GET and HEAD", parts.uri.path())));
    }
    if is_withheld(parts.uri.path()) {
        return Err(no_file("hidden files, the project file and folders that builds fill are not served"));
    }
    let path = SitePath::parse(parts.uri.path()).ok_or_else(|| no_file("there is no such file"))?;
    let ask = Ask { path, query: parts.uri.query().map(str::to_owned), head: parts.method == Method::HEAD, headers: parts.headers };
    if !assets.is_deployed() {
        let assets = assets.clone();
        return blocking(move || from_folder(&assets, &ask)).await?;
    }
    let index = match assets.index_at_hand() {
        Some(index) => index,
        None => {
            let assets = assets.clone();
            blocking(move || assets.load_index()).await?.map_err(unreadable)?
        }
    };
    match plan(&*index, &ask, true)? {
        Plan::Answer(response) => Ok(response),
        Plan::Send(head, content) => from_deploy(assets, head, content).await,
    }
}

/// What was asked for.
struct Ask {
    path: SitePath,
    query: Option<String>,
    head: bool,
    headers: HeaderMap,
}

/// What to answer.
enum Plan {
    /// This, for which no file has to be read.
    Answer(Response<Body>),
    /// This, with content.
    Send(Response<()>, Content),
}

/// A part of a file, as it was looked at.
struct Content {
    path: String,
    stat: Stat,
    range: Range<u64>,
}

fn plan(tree: &impl Tree, ask: &Ask, deployed: bool) -> Result<Plan, Failure> {
    let (path, identity) = match names::resolve(tree, &ask.path) {
        Found::File(path, stat) => (path, stat),
        Found::Folder => return Ok(Plan::Answer(to_folder(&ask.path, ask.query.as_deref()))),
        Found::Nothing => return Err(no_file("there is no such file")),
    };
    let siblings = encoding::siblings(tree, &path, identity);
    let varies = !siblings.is_empty();
    let chosen = encoding::choose(&siblings, &ask.headers);
    let (encoding, stat) = chosen.map_or((None, identity), |(encoding, stat)| (Some(encoding), stat));
    let validators = Validators::of(stat, encoding);
    let mut head = Response::new(());
    let headers = head.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(names::cache_control(&path, deployed)));
    if varies {
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    validators.write(headers);
    match validators.check(&ask.headers) {
        Condition::Holds => {}
        Condition::NotModified => return Ok(Plan::Answer(bodiless(head, StatusCode::NOT_MODIFIED))),
        Condition::Failed => return Ok(Plan::Answer(bodiless(head, StatusCode::PRECONDITION_FAILED))),
    }
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let range = match validators.part(&ask.headers, ask.head, stat.bytes) {
        Part::Whole => 0..stat.bytes,
        Part::Range(range) => {
            let text = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), stat.bytes);
            headers.insert(header::CONTENT_RANGE, ascii(&text)?);
            *head.status_mut() = StatusCode::PARTIAL_CONTENT;
            range
        }
        Part::Outside => {
            headers.insert(header::CONTENT_RANGE, ascii(&format!("bytes */{}", stat.bytes))?);
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            return Ok(Plan::Answer(bodiless(head, StatusCode::RANGE_NOT_SATISFIABLE)));
        }
    };
    let headers = head.headers_mut();
    headers.insert(header::CONTENT_TYPE, names::content_type(&path));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
    }
    if ask.head || range.is_empty() {
        return Ok(Plan::Answer(head.map(|()| Body::Empty)));
    }
    let path = encoding.map_or_else(|| path.clone(), |encoding| encoding.sibling_of(&path));
    Ok(Plan::Send(head, Content { path, stat, range }))
}

/// Answers from an author's folder. Blocks.
fn from_folder(assets: &Assets, ask: &Ask) -> Result<Response<Body>, Failure> {
    // A build may have removed the folder to make it again.
    let folder = Folder::open(assets.folder()).map_err(|error| no_file(format!("{}: {error}", assets.folder().display())))?;
    for _ in 0..LOOKS_MAX {
        match plan(&folder, ask, false)? {
            Plan::Answer(response) => return Ok(response),
            Plan::Send(head, Content { path, stat, range }) => {
                let length = range.end - range.start;
                if let Some(opened) = folder.read(&path, stat, range).map_err(unreadable)? {
                    return Ok(head.map(|()| body_of(opened, length)));
                }
            }
        }
    }
    Err(Failure::internal(format!("{}: files change faster than they can be read", assets.folder().display())))
}

/// Answers with a file of a deploy.
async fn from_deploy(assets: &Assets, head: Response<()>, content: Content) -> Result<Response<Body>, Failure> {
    let Content { path, stat, range } = content;
    let sha256 = stat.sha256.unwrap_or_default();
    if stat.bytes > SMALL_FILE_BYTES {
        let length = range.end - range.start;
        let opened = read_deployed(assets, path, stat, range).await?;
        return Ok(head.map(|()| body_of(opened, length)));
    }
    let whole = match assets.content_at_hand(sha256) {
        Some(whole) => whole,
        None => match read_deployed(assets, path, stat, 0..stat.bytes).await? {
            Opened::Small(whole) => {
                assets.keep_content(sha256, whole.clone());
                whole
            }
            Opened::Large(_) => return Err(Failure::internal("a small file was opened as a large one")),
        },
    };
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
    Ok(head.map(|()| Body::from(whole.slice(at(range.start)..at(range.end)))))
}

async fn read_deployed(assets: &Assets, path: String, stat: Stat, range: Range<u64>) -> Result<Opened, Failure> {
    let folder = assets.folder().to_owned();
    blocking(move || {
        let opened = Folder::open(&folder).and_then(|opened| opened.read(&path, stat, range)).map_err(unreadable)?;
        opened.ok_or_else(|| Failure::internal(format!("{}: `{path}` is not what the index says", folder.display())))
    })
    .await?
}

fn body_of(opened: Opened, length: u64) -> Body {
    match opened {
        Opened::Small(bytes) => Body::from(bytes),
        Opened::Large(file) => stream(file, length),
    }
}

fn stream(file: File, length: u64) -> Body {
    use futures::StreamExt;
    let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file).take(length), CHUNK_BYTES);
    let frames = chunks.map(|chunk: io::Result<Bytes>| match chunk {
        Ok(bytes) => Ok(http_body::Frame::data(bytes)),
        Err(error) => Err(BodyError::InternalError(Some(error.to_string()))),
    });
    Body::stream(StreamBody::new(frames))
}

/// Where the page of a folder is, so that its relative links lead into it. Temporary, because the next deploy may have a file of that name.
fn to_folder(path: &SitePath, query: Option<&str>) -> Response<Body> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, path.folder_url(query));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(names::REVALIDATE));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    bodiless(response, StatusCode::TEMPORARY_REDIRECT)
}

fn bodiless(mut head: Response<()>, status: StatusCode) -> Response<Body> {
    *head.status_mut() = status;
    head.map(|()| Body::Empty)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tovuk_kernel::threads::spawn_blocking(work).await.map_err(|error| Failure::internal(error.to_string()))
}

fn no_file(message: impl Into<String>) -> Failure {
    Failure::refused(&codes::ROUTE_NOT_FOUND, message)
}

fn unreadable(error: io::Error) -> Failure {
    Failure::internal(format!("a static file cannot be read: {error}"))
}

fn ascii(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|error| Failure::internal(error.to_string()))
}
