//! Objects as doors use them: the same tests on a folder and on an S3 server that runs in the test's process.

mod crashes;
mod downloads;
mod faults;
mod limits;
mod listing;
mod measured;
mod slow;
mod uploads;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tovuk_kernel::limits::Plan;

use super::*;

const TENANT: Tenant = Tenant { account: 1, service: 7, plan: Plan::Free };
const SERVICE: i64 = TENANT.service;
const MIB: usize = 1 << 20;

/// Runs tests on both kinds of store.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod folder {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::objects::tests::Fixture::folder().await).await;
            })*
        }
        mod s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::objects::tests::Fixture::s3().await).await;
            })*
        }
    };
}
pub(super) use on_both;

/// A store, with what it stands on.
pub(super) struct Fixture {
    folder: TempDir,
    place: Place,
    clock: Clock,
    pub objects: Objects,
}

impl Fixture {
    pub async fn folder() -> Self {
        let folder = TempDir::new().unwrap();
        let place = Place::Folder(folder.path().join("objects"));
        Self::of(folder, place).await
    }

    pub async fn s3() -> Self {
        let folder = TempDir::new().unwrap();
        let place = serve_s3(&folder.path().join("s3")).await;
        Self::of(folder, place).await
    }

    async fn of(folder: TempDir, place: Place) -> Self {
        let clock = Clock::advanceable();
        let objects = Objects::open(folder.path().join("objects.db"), &place, clock.clone()).await.unwrap();
        Self { folder, place, clock, objects }
    }

    /// As after a restart of the host.
    pub async fn reopen(&mut self) {
        self.objects.close().await.unwrap();
        self.objects = Objects::open(self.folder.path().join("objects.db"), &self.place, self.clock.clone()).await.unwrap();
    }

    pub fn advance(&self, seconds: u64) {
        assert!(self.clock.advance(Duration::from_secs(seconds)));
    }

    /// The files that hold bytes, after everything that can go has gone.
    pub async fn blobs(&self) -> Vec<PathBuf> {
        self.objects.collect().await.unwrap();
        self.files()
    }

    pub fn files(&self) -> Vec<PathBuf> {
        let root = match &self.place {
            Place::Folder(folder) => folder.clone(),
            Place::S3(settings) => self.folder.path().join("s3").join(&settings.bucket),
        };
        let mut files = Vec::new();
        walk(&root, &mut files);
        files
    }

    pub async fn put(&self, path: &str, bytes: impl Into<Bytes>) -> Object {
        let bytes = bytes.into();
        let new = PutObject { path: path.into(), content_type: "text/plain".into(), size_bytes: Some(bytes.len() as u64), public_read: false };
        self.objects.put(TENANT, new, body(bytes)).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Result<Vec<u8>, Error> {
        read(self.open(path, Range::Whole).await?).await
    }

    pub async fn open(&self, path: &str, range: Range) -> Result<Content, Error> {
        match self.objects.open_object(SERVICE, path, Reader::Granted, &Conditions::default(), range).await? {
            Download::Content(content) => Ok(content),
            Download::NotModified(object) => panic!("nothing was asked of {}", object.path),
        }
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => walk(&entry.path(), files),
            false => files.push(entry.path()),
        }
    }
}

/// An S3 server on a port of its own, for as long as the test runs.
async fn serve_s3(root: &Path) -> Place {
    std::fs::create_dir_all(root.join("bucket")).unwrap();
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    builder.set_auth(SimpleAuth::from_single("the-key", "the-secret"));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            socket.set_nodelay(true).unwrap();
            tokio::spawn(async move { auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await });
        }
    });
    Place::S3(S3 {
        endpoint: Some(endpoint),
        bucket: "bucket".into(),
        region: "us-east-1".into(),
        access_key_id: "the-key".into(),
        secret_access_key: "the-secret".into(),
        path_style: true,
        prefix: "tovuk".into(),
    })
}

/// A body in pieces of odd sizes.
pub(super) fn body(bytes: impl Into<Bytes>) -> impl Stream<Item = Result<Bytes, String>> + Send + 'static {
    let mut rest: Bytes = bytes.into();
    let mut size = 1;
    stream::iter(std::iter::from_fn(move || {
        size = (size * 7 + 3) % 70_001 + 1;
        (!rest.is_empty()).then(|| Ok(rest.split_to(size.min(rest.len()))))
    }))
}

/// A body that breaks off.
pub(super) fn broken(bytes: impl Into<Bytes>) -> impl Stream<Item = Result<Bytes, String>> + Send + 'static {
    body(bytes).chain(stream::once(async { Err("the connection is gone".to_owned()) }))
}

/// A body that does not end until the sender is dropped, which breaks it off.
pub(super) fn held<E: Display + Send + 'static>(
    receiver: futures::channel::mpsc::Receiver<Result<Bytes, E>>,
) -> impl Stream<Item = Result<Bytes, E>> + Send {
    receiver
}

pub(super) async fn read(content: Content) -> Result<Vec<u8>, Error> {
    let length = content.length;
    let bytes: Vec<u8> = content
        .body
        .try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await?;
    assert_eq!(bytes.len() as u64, length);
    Ok(bytes)
}

/// Bytes of which each part differs from the others.
pub(super) fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut all = Vec::with_capacity(bytes + 8);
    while all.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.extend_from_slice(&state.to_le_bytes());
    }
    all.truncate(bytes);
    all
}

pub(super) fn new(path: &str, size: usize) -> NewObject {
    NewObject { path: path.into(), content_type: "image/png".into(), size_bytes: size as u64, public_read: false }
}
