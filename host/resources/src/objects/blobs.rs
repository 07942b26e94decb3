//! Bytes under opaque names, on the local disk or in an S3-compatible store: from a stream to bytes that are durable, and back. It knows nothing of
//! objects; no text of a tenant is ever part of a name.

use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{GetOptions, GetRange, GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use ring::rand::{SecureRandom, SystemRandom};

use super::garbage::Held;
use super::incoming::{Incoming, Piece};
use super::s3::S3;
use super::types::Body;
use super::{Error, Place};

/// What is written to a disk at a time.
const LOCAL_CHUNK_BYTES: usize = 1 << 20;
/// What is sent to a store at a time. S3 takes no parts below 5 MiB but the last, and at most 10,000 of them.
const REMOTE_CHUNK_BYTES: usize = 8 << 20;
/// What is read from a disk at a time.
const READ_BYTES: usize = 256 << 10;
/// How long a store may be silent in the middle of an answer.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The name of a blob: random, so that it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(pub [u8; 16]);

impl Name {
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Random)?;
        Ok(Self(bytes))
    }

    /// In one of 256 folders, so that none grows too large for tools.
    fn path(&self) -> StorePath {
        let text = hex::encode(self.0);
        let (folder, name) = text.split_at_checked(2).unwrap_or(("", &text));
        StorePath::from_iter([folder, name])
    }
}

/// A store of blobs.
pub(super) struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Where it is on this machine.
    folder: Option<PathBuf>,
    chunk_bytes: usize,
}

impl Blobs {
    /// Opens the store. A folder is made when it is missing.
    pub fn open(place: &Place) -> Result<Self, Error> {
        match place {
            Place::Folder(folder) => Self::local(folder),
            Place::S3(settings) => Self::remote(settings),
        }
    }

    fn local(folder: &Path) -> Result<Self, Error> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
        Ok(Self { store: Arc::new(store), folder: Some(folder.to_owned()), chunk_bytes: LOCAL_CHUNK_BYTES })
    }

    fn remote(settings: &S3) -> Result<Self, Error> {
        Ok(Self { store: settings.connect()?, folder: None, chunk_bytes: REMOTE_CHUNK_BYTES })
    }

    /// Over any store, as if it were remote.
    #[cfg(test)]
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, folder: None, chunk_bytes: REMOTE_CHUNK_BYTES }
    }

    /// Writes what comes in. When this succeeds, all of it is durable. At most two chunks are in memory: one that goes out, and one that comes in.
    ///
    /// The name is held until nothing can appear under it any more, also when the caller has gone before.
    pub async fn write<S>(&self, name: &Arc<Held>, incoming: &mut Incoming<S>) -> Result<(), Error>
    where
        S: Stream<Item = Result<Bytes, Error>> + Send + Unpin,
    {
        let path = name.name().path();
        let first = incoming.next_chunk(self.chunk_bytes).await?;
        if first.bytes.len() < self.chunk_bytes {
            incoming.finish()?;
            let store = self.store.clone();
            let put = async move {
                let stored = store.put(&path, PutPayload::from(first.bytes)).await;
                drop(first.memory);
                stored
            };
            return to_its_end(name, put).await;
        }
        let upload = self.store.put_multipart(&path).await?;
        let mut upload = Sending { upload: Some(upload), name: name.clone() };
        self.write_chunks(&mut upload, first, incoming).await?;
        match upload.upload.take() {
            Some(mut upload) => to_its_end(name, async move { upload.complete().await }).await,
            None => Ok(()),
        }
    }

    async fn write_chunks<S>(&self, upload: &mut Sending, first: Piece, incoming: &mut Incoming<S>) -> Result<(), Error>
    where
        S: Stream<Item = Result<Bytes, Error>> + Send + Unpin,
    {
        let mut chunk = first;
        while !chunk.bytes.is_empty() {
            let Some(open) = upload.upload.as_mut() else { break };
            let Piece { bytes, memory } = chunk;
            let sending = open.put_part(PutPayload::from(bytes));
            // Its memory is free as soon as it is out, whatever the sender does meanwhile.
            let part = async move {
                let sent = sending.await;
                drop(memory);
                sent
            };
            // The next chunk comes in while this one goes out.
            let (sent, next) = futures::future::join(part, incoming.next_chunk(self.chunk_bytes)).await;
            sent?;
            chunk = next?;
        }
        incoming.finish()
    }

    /// Reads a part of a blob. The stream fails when there is less than that.
    pub async fn read(&self, name: Name, range: Range<u64>) -> Result<Body, Error> {
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let result = self.store.get_opts(&name.path(), options).await.map_err(|error| match error {
            object_store::Error::NotFound { .. } => Error::Damaged(format!("{} is missing", name.path())),
            other => other.into(),
        })?;
        if result.range != range {
            return Err(Error::Damaged(format!("{} has {} bytes", name.path(), result.meta.size)));
        }
        Ok(match result.payload {
            GetResultPayload::File(file, _) => read_file(Arc::new(file), range),
            GetResultPayload::Stream(stream) => exactly(stream, range.end - range.start),
        })
    }

    /// Removes blobs, and what a write that never ended has left under their names. What is not there is removed.
    pub async fn remove(&self, names: &[Name]) -> Result<(), Error> {
        let paths: Vec<StorePath> = names.iter().map(Name::path).collect();
        if let Some(folder) = self.folder.clone() {
            let unfinished: Vec<PathBuf> = paths.iter().map(|path| folder.join(format!("{path}#1"))).collect();
            let removed =
                tovuk_kernel::threads::spawn_blocking(move || unfinished.iter().try_for_each(|path| absent(std::fs::remove_file(path)))).await;
            removed.unwrap_or(Ok(()))?;
        }
        let mut results = self.store.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
        while let Some(result) = results.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn absent(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Does what makes bytes appear under a name to its end, also when the caller goes away: threads and stores do not stop halfway. Until then, the
/// name is held.
async fn to_its_end<T: Send + 'static>(name: &Arc<Held>, work: impl Future<Output = object_store::Result<T>> + Send + 'static) -> Result<(), Error> {
    let name = name.clone();
    let work = tokio::spawn(async move {
        let result = work.await.map(drop);
        drop(name);
        result
    });
    Ok(work.await.map_err(|error| Error::Damaged(error.to_string()))??)
}

/// An upload to the store. One that is dropped unfinished, because it failed or whoever waited for it has gone, is undone.
struct Sending {
    upload: Option<Box<dyn MultipartUpload>>,
    name: Arc<Held>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let (Some(mut upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            let name = self.name.clone();
            runtime.spawn(async move {
                // What cannot be undone now is found by its name later.
                let _ = upload.abort().await;
                drop(name);
            });
        }
    }
}

/// The bytes of a file that is open, which stay readable when it is removed.
fn read_file(file: Arc<std::fs::File>, range: Range<u64>) -> Body {
    let end = range.end;
    let chunks = stream::try_unfold(range.start, move |offset| {
        let file = file.clone();
        async move {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            if left == 0 {
                return Ok(None);
            }
            let read = move || {
                let mut buffer = vec![0; left.min(READ_BYTES)];
                file.read_exact_at(&mut buffer, offset).map(|()| buffer)
            };
            let read = tovuk_kernel::threads::spawn_blocking(read).await.map_err(|error| Error::Damaged(error.to_string()))?;
            let buffer = read.map_err(|error| Error::Damaged(error.to_string()))?;
            let next = offset + buffer.len() as u64;
            Ok(Some((Bytes::from(buffer), next)))
        }
    });
    chunks.boxed()
}

/// A stream that fails when it is silent, or ends before this many bytes.
fn exactly(stream: stream::BoxStream<'static, object_store::Result<Bytes>>, bytes: u64) -> Body {
    let chunks = stream::try_unfold((stream, bytes), move |(mut stream, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let next = tokio::time::timeout(SILENCE_MAX, stream.next()).await;
        let next = next.map_err(|_| Error::Damaged("the store of objects fell silent".to_owned()))?;
        let mut chunk = next.ok_or_else(|| Error::Damaged(format!("{left} bytes are missing")))??;
        chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - chunk.len() as u64;
        Ok(Some((chunk, (stream, left))))
    });
    chunks.boxed()
}
