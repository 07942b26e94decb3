//! What there is, how much it is, and its removal: of one object, or of all of a service.

use futures::{Stream, TryStreamExt, stream};
use tovuk_kernel::limits;
use tovuk_kernel::meters::Meter;

use super::rows;
use super::types::{Deleted, List, Page, Usage};
use super::{Error, Objects, paths};

/// Objects or uploads that one commit removes when all of a service goes.
const REMOVED_AT_A_TIME: u32 = 200;

impl Objects {
    /// A page of the objects of a service, in the byte order of their paths, pending ones included.
    ///
    /// # Errors
    /// [`Error::Request`] for a limit outside 1 to 1,000 or a prefix that no path can have, [`Error::Cursor`].
    pub async fn list(&self, service: i64, list: List) -> Result<Page, Error> {
        let limit = list.limit.unwrap_or(limits::PAGE_DEFAULT);
        if limit == 0 || limit > limits::PAGE_MAX {
            return Err(Error::Request(format!("a page has between 1 and {} objects", limits::PAGE_MAX)));
        }
        if list.prefix.len() > limits::OBJECT_PATH_BYTES_MAX {
            return Err(Error::Request("the prefix is longer than any path".to_owned()));
        }
        let charge = self.1.reserve(Meter::ObjectStorageClassAOperations, 1).await?;
        let after = list.cursor.as_deref().map(|cursor| path_of(cursor, &list.prefix)).transpose()?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let read = move |conn: &rusqlite::Connection| {
            let mut page = Page::default();
            let from = after.as_deref().unwrap_or(&list.prefix);
            rows::scan(conn, service, from, |object, _| {
                if !object.path.starts_with(&list.prefix) {
                    return Ok(false);
                }
                if after.as_deref() == Some(object.path.as_str()) {
                    return Ok(true);
                }
                if page.objects.len() == limit {
                    page.next_cursor = page.objects.last().map(|last| hex::encode(&last.path));
                    return Ok(false);
                }
                page.objects.push(object);
                Ok(true)
            })?;
            charge.settle(1);
            Ok::<_, Error>(page)
        };
        self.0.database.read(read).await
    }

    /// The whole list from a cursor on in pages, up to 100,000 objects. If there are more, the last page says where they begin.
    pub fn list_all(&self, service: i64, prefix: String, cursor: Option<String>) -> impl Stream<Item = Result<Page, Error>> + Send + 'static {
        let objects = self.clone();
        let first = Some((List { prefix, limit: Some(limits::PAGE_MAX), cursor }, 0_u64));
        stream::try_unfold(first, move |next| {
            let objects = objects.clone();
            async move {
                let Some((list, before)) = next else { return Ok(None) };
                let page = objects.list(service, list.clone()).await?;
                let listed = before + page.objects.len() as u64;
                let more = page.next_cursor.clone().filter(|_| listed < limits::OBJECT_LIST_MAX);
                let next = more.map(|cursor| (List { cursor: Some(cursor), ..list }, listed));
                Ok(Some((page, next)))
            }
        })
        .into_stream()
    }

    /// Removes the object of a path, and ends uploads to it that a client has begun. Who reads it goes on reading, and a `put` that runs at the same
    /// time counts as later.
    pub async fn delete(&self, service: i64, path: &str) -> Result<Deleted, Error> {
        let path = path.to_owned();
        let delete = move |tx: &rusqlite::Transaction<'_>| {
            let mut deleted = Deleted::default();
            let mut uploads = rows::uploads_of(tx, service, &path)?;
            uploads.retain(|upload| !upload.direct);
            for upload in &uploads {
                rows::end_upload(tx, upload)?;
                deleted.uploads += 1;
            }
            if let Some((object, version)) = rows::find(tx, service, &path)?
                && let Some(bytes) = rows::remove(tx, service, &object, version)?
            {
                deleted.objects += 1;
                deleted.bytes += bytes;
            }
            Ok::<_, Error>((deleted, uploads))
        };
        let (deleted, uploads) = self.write(service, delete).await?;
        uploads.iter().for_each(|upload| self.0.receiving.end(upload.id));
        self.0.work.notify_one();
        Ok(deleted)
    }

    /// Removes all that a service has, and lets nothing new begin for it. In steps: when it fails or the host dies, what is left goes when it is called
    /// again.
    pub async fn remove_service(&self, service: i64) -> Result<Deleted, Error> {
        super::lock(&self.0.removed).insert(service);
        let mut all = Deleted::default();
        loop {
            let step = move |tx: &rusqlite::Transaction<'_>| {
                let mut deleted = Deleted::default();
                let uploads = rows::some_uploads(tx, service, REMOVED_AT_A_TIME)?;
                for upload in &uploads {
                    rows::end_upload(tx, upload)?;
                    deleted.uploads += 1;
                }
                let mut found = Vec::new();
                rows::scan(tx, service, "", |object, version| {
                    found.push((object, version));
                    Ok(found.len() < REMOVED_AT_A_TIME as usize)
                })?;
                for (object, version) in &found {
                    if let Some(bytes) = rows::remove(tx, service, object, *version)? {
                        deleted.objects += 1;
                        deleted.bytes += bytes;
                    }
                }
                let done = uploads.is_empty() && found.is_empty();
                if done {
                    rows::forget(tx, service)?;
                }
                Ok::<_, Error>((deleted, uploads, done))
            };
            let (deleted, uploads, done) = self.write(service, step).await?;
            uploads.iter().for_each(|upload| self.0.receiving.end(upload.id));
            all.objects += deleted.objects;
            all.bytes += deleted.bytes;
            all.uploads += deleted.uploads;
            self.0.work.notify_one();
            if done {
                self.0.ledger.remove(service);
                return Ok(all);
            }
        }
    }

    /// The highest number of a service that has objects, or has had some; 0 when there is none.
    pub async fn highest_service(&self) -> Result<i64, Error> {
        self.0.database.read(|conn| rows::highest_service(conn).map_err(Error::from)).await
    }

    /// What a service has.
    pub async fn usage(&self, service: i64) -> Result<Usage, Error> {
        self.0.database.read(move |conn| rows::usage(conn, service).map_err(Error::from)).await
    }

    /// What all services of an account have.
    pub async fn account_usage(&self, account: i64) -> Result<Usage, Error> {
        self.0.database.read(move |conn| rows::account_usage(conn, account).map_err(Error::from)).await
    }
}

/// The path that a cursor stands for.
fn path_of(cursor: &str, prefix: &str) -> Result<String, Error> {
    let path = hex::decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    path.filter(|path| path.starts_with(prefix) && paths::check_path(path).is_ok()).ok_or(Error::Cursor)
}
