//! The host is killed while objects are uploaded: what was acknowledged is there, whole, or what took its place is; and nothing of what was not is left.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tovuk_tests::{Protocol, Reply, Served, ask, full_size};

use crate::TOVUK;

const UPLOADERS: usize = 4;
const STORAGE: &str = "/v1/services/shop/storage";
/// More than a chunk of the store, so that an upload takes several writes.
const BYTES: usize = 1_500_000;

/// The bytes of a version of an object.
fn content(uploader: usize, version: u64) -> Bytes {
    let line = format!("{uploader} {version}\n");
    let mut bytes = line.repeat(BYTES / line.len() + 1).into_bytes();
    bytes.truncate(BYTES);
    bytes.into()
}

/// Where a host is, for many to ask it at once.
#[derive(Clone)]
struct Doors {
    public: SocketAddr,
    api: SocketAddr,
    token: String,
}

impl Doors {
    fn of(host: &Served) -> Self {
        Self { public: host.public, api: host.api, token: host.token.clone() }
    }

    /// A request to the API that has to succeed; nothing when the host was gone before it had answered.
    async fn try_ok(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        let reply = Served::ask_at(self.api, &self.token, method, path, body).await?;
        assert!(reply.status.is_success(), "{method} {path}: {} {}", reply.status, reply.text());
        Some(reply.json())
    }
}

/// A request to a signed URL; nothing when the host was gone before it had answered.
async fn at(host: &Doors, method: &str, answer: &Value, body: Bytes) -> Option<Reply> {
    let url: http::Uri = answer["url"].as_str().unwrap().parse().unwrap();
    let stream = TcpStream::connect(host.public).await.ok()?;
    let request = Request::builder().method(method).uri(url.path_and_query().unwrap().as_str()).header("host", url.authority().unwrap().as_str());
    ask(stream, Protocol::Http1, request.body(Full::new(body)).unwrap()).await.ok()
}

async fn upload(host: &Doors, uploader: usize, version: u64) -> Option<()> {
    let path = json!({"path": format!("object-{uploader}"), "sizeBytes": BYTES});
    let begun = host.try_ok("POST", &format!("{STORAGE}/upload-url"), Some(&path)).await?;
    let sent = at(host, "PUT", &begun, content(uploader, version)).await?;
    assert!(sent.status.is_success(), "{} {}", sent.status, sent.text());
    host.try_ok("POST", &format!("{STORAGE}/complete"), Some(&path)).await.map(drop)
}

/// Which version an object has, after it was compared byte by byte.
async fn version(host: &Doors, uploader: usize) -> Option<u64> {
    let answer = host.try_ok("POST", &format!("{STORAGE}/download-url"), Some(&json!({"path": format!("object-{uploader}")}))).await?;
    let read = at(host, "GET", &answer, Bytes::new()).await?.body;
    let first = std::str::from_utf8(&read[..read.iter().position(|byte| *byte == b'\n').unwrap()]).unwrap();
    let version = first.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(read == content(uploader, version), "object-{uploader} is not what was sent");
    Some(version)
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

/// With `TOVUK_SOAK` 200 times, else a few.
#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_object_is_lost() {
    let rounds = if full_size() { 200 } else { 4 };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let acknowledged: Arc<[AtomicU64; UPLOADERS]> = Arc::default();
    for round in 0..rounds {
        let mut host = Served::start(TOVUK, &data).await;
        let doors = Doors::of(&host);
        if round == 0 {
            host.ok("POST", "/v1/services", Some(&json!({"name": "shop"}))).await;
        }
        let uploaders: Vec<_> = (0..UPLOADERS)
            .map(|uploader| {
                let (doors, acknowledged) = (doors.clone(), acknowledged.clone());
                tokio::spawn(async move {
                    let mut next = acknowledged[uploader].load(Ordering::SeqCst) + 1;
                    if next > 1 {
                        let Some(there) = version(&doors, uploader).await else { return };
                        assert!(there >= next - 1, "object-{uploader} has version {there}, and {} was acknowledged", next - 1);
                        next = there + 1;
                    }
                    while upload(&doors, uploader, next).await.is_some() {
                        acknowledged[uploader].store(next, Ordering::SeqCst);
                        next += 1;
                    }
                })
            })
            .collect();
        // Killed in the middle of whatever they do then.
        let sum = || acknowledged.iter().map(|version| version.load(Ordering::SeqCst)).sum::<u64>();
        let enough = sum() + 5 + fastrand::u64(..15);
        while sum() < enough && !uploaders.iter().any(tokio::task::JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
        host.kill().await;
        for uploader in uploaders {
            uploader.await.unwrap();
        }
    }
    let host = Served::start(TOVUK, &data).await;
    for uploader in 0..UPLOADERS {
        assert!(version(&Doors::of(&host), uploader).await.unwrap() >= acknowledged[uploader].load(Ordering::SeqCst));
        host.ok("DELETE", &format!("{STORAGE}?path=object-{uploader}"), None).await;
    }
    assert_eq!(host.ok("GET", STORAGE, None).await["objects"], json!([]));
    while files(&data.join("objects")) > 0 {
        tokio::task::yield_now().await;
    }
}
