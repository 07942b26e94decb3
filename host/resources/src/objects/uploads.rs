//! Uploads: from what was announced, over parts that arrive in any order and as often as need be, to an object. What has arrived is durable before
//! it is answered, and an object is ready in the commit that completes it.

use std::fmt::Display;

use futures::{Stream, StreamExt};
use ring::digest::{Context, SHA256};
use tovuk_kernel::limits;
use tovuk_kernel::meters::Meter;

use super::budget::Purse;
use super::incoming::{Digest, Expected, Incoming};
use super::rows::{self, Segment, UploadRow};
use super::types::{Chunk, CompletedPart, NewObject, Object, PartPlan, PutObject, Received, Tenant, Upload, UploadId};
use super::{Error, Objects, links, paths, signing};
use crate::meters::Charge;

/// What an upload of unknown size reserves at a time, in bytes.
const GROWTH_BYTES: u64 = 8 << 20;

impl Objects {
    /// Begins an upload that is sent as a whole, by one `receive` of part 1, and completed by its path.
    ///
    /// # Errors
    /// [`Error::Path`], [`Error::Request`], [`Error::TooLarge`], [`Error::StorageLimit`], [`Error::UploadLimit`], [`Error::Removed`].
    pub async fn begin(&self, tenant: Tenant, new: NewObject) -> Result<Upload, Error> {
        at_most(new.size_bytes, limits::OBJECT_SINGLE_BYTES_MAX)?;
        let row = self.insert(tenant, new, None, false, || ()).await?;
        Ok(self.upload(&row, limits::OBJECT_URL_SECONDS))
    }

    /// Begins an upload that is sent in parts, which are planned here: of the size that is asked for, or larger where there would be too many, or
    /// their URLs would be too long together.
    ///
    /// # Errors
    /// As [`Objects::begin`].
    pub async fn begin_multipart(&self, tenant: Tenant, new: NewObject, part_size_bytes: Option<u64>) -> Result<Upload, Error> {
        at_most(new.size_bytes, limits::OBJECT_BYTES_MAX)?;
        let part = part_size_bytes.unwrap_or(limits::OBJECT_PART_BYTES);
        if !(limits::OBJECT_PART_BYTES_MIN..=limits::OBJECT_SINGLE_BYTES_MAX).contains(&part) {
            return Err(Error::Request("a part has between 5 MiB and 5,115 MiB".to_owned()));
        }
        let parts_max = limits::OBJECT_PARTS_MAX.min(limits::OBJECT_PLAN_BYTES_MAX / links::planned_bytes(&new.path));
        let part = part.max(new.size_bytes.div_ceil(parts_max.max(1)));
        let charge = self.1.reserve(Meter::ObjectStorageClassAOperations, 1).await?;
        let row = self.insert(tenant, new, Some(part), false, || charge.settle(1)).await?;
        Ok(self.upload(&row, limits::OBJECT_PART_URL_SECONDS))
    }

    fn upload(&self, row: &UploadRow, seconds: u64) -> Upload {
        let parts: Vec<PartPlan> = (1..=row.parts()).filter_map(|number| row.part(number)).collect();
        let urls_expire_ms = signing::after(&self.0.clock, seconds);
        Upload { id: row.id, path: row.path.clone(), content_type: row.content_type.clone(), parts, urls_expire_ms }
    }

    async fn insert<C>(&self, tenant: Tenant, new: NewObject, part_size: Option<u64>, direct: bool, committed: C) -> Result<UploadRow, Error>
    where
        C: FnOnce() + Send + 'static,
    {
        paths::check_path(&new.path)?;
        let mut row = UploadRow {
            id: UploadId(0),
            service: tenant.service,
            path: new.path,
            content_type: paths::content_type(&new.content_type)?,
            size: new.size_bytes,
            part_size,
            direct,
            public: new.public_read,
            begun_ms: self.0.clock.now_unix_ms(),
        };
        let removed = self.0.removed.clone();
        let insert = move |tx: &rusqlite::Transaction<'_>| {
            // Here and not before, because writes run one after the other: what is begun before the removal goes with it.
            if super::lock(&removed).contains(&tenant.service) {
                return Err(Error::Removed);
            }
            if rows::open_uploads(tx, tenant.account, tenant.service)? >= limits::OBJECT_UPLOADS_OPEN_MAX {
                return Err(Error::UploadLimit);
            }
            check_room(tx, tenant, row.size)?;
            row.id = rows::insert_upload(tx, &row)?;
            Ok(row)
        };
        let room = self.1.reserve(Meter::ObjectStorageBytes, new.size_bytes).await?;
        let committed = move || {
            drop(room);
            committed();
        };
        self.write_then(tenant.service, insert, committed).await
    }

    /// Receives a part of an upload; an upload as a whole has part 1. `length` is what the sender says that it will send, if it does. A part may be
    /// sent again, also while it is being sent: the latest one counts.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`], [`Error::Mismatch`], [`Error::Interrupted`], [`Error::Superseded`], [`Error::Media`], [`Error::Full`]. After any of
    /// them, what had arrived before is unchanged and the part can be sent again.
    pub async fn receive<S, E>(&self, service: i64, upload: UploadId, part: u32, length: Option<u64>, body: S) -> Result<Received, Error>
    where
        S: Stream<Item = Result<Chunk, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let charge = self.1.reserve(Meter::ObjectStorageClassAOperations, 1).await?;
        let row = self.open_upload(service, upload).await?;
        let plan = row.part(part).ok_or_else(|| Error::Mismatch(format!("the upload has {} parts and no part {part}", row.parts())))?;
        if length.is_some_and(|length| length != plan.size_bytes) {
            return Err(Error::Mismatch(format!("part {part} has {} bytes, and other than that were announced", plan.size_bytes)));
        }
        let expected = Expected::Exactly(plan.size_bytes);
        let commit = |tx: &rusqlite::Transaction<'_>, row: &UploadRow, segment: &Segment| {
            place(tx, row, segment)?;
            Ok(Received { etag: etag_of(&segment.digest), size_bytes: segment.size })
        };
        self.write_segment(&row, part, expected, body, commit, charge).await
    }

    /// The upload, if it can still be sent.
    async fn open_upload(&self, service: i64, upload: UploadId) -> Result<UploadRow, Error> {
        let row: Option<UploadRow> = self.0.database.read(move |conn| rows::find_upload(conn, service, upload).map_err(Error::from)).await?;
        row.filter(|row| !self.is_over(row)).ok_or(Error::UploadNotFound)
    }

    /// Whose share of the host's memory an upload takes.
    async fn account_of(&self, service: i64) -> Result<i64, Error> {
        let account: Option<i64> = self.0.database.read(move |conn| rows::account_of(conn, service).map_err(Error::from)).await?;
        account.ok_or(Error::UploadNotFound)
    }

    fn is_over(&self, row: &UploadRow) -> bool {
        self.0.clock.now_unix_ms() >= row.begun_ms.saturating_add(limits::OBJECT_UPLOAD_SECONDS_MAX.saturating_mul(1_000))
    }

    /// Writes the bytes of a part, and then commits what `place` makes of them, which is charged.
    async fn write_segment<S, E, T, P>(&self, row: &UploadRow, part: u32, expected: Expected, body: S, place: P, charge: Charge) -> Result<T, Error>
    where
        S: Stream<Item = Result<Chunk, E>> + Send + 'static,
        E: Display + Send + 'static,
        T: Send + 'static,
        P: FnOnce(&rusqlite::Transaction<'_>, &UploadRow, &Segment) -> Result<T, Error> + Send + 'static,
    {
        let account = self.account_of(row.service).await?;
        let mut attempt = self.0.receiving.begin(row.id, part);
        let name = self.0.names.hold(&self.0.database).await?;
        let body = Box::pin(body.map(|chunk| chunk.map_err(|error| Error::Interrupted(error.to_string()))));
        let public_type = (row.public && part == 1).then(|| row.content_type.clone());
        let purse = Purse { budget: self.0.budget.clone(), account, service: row.service };
        let mut incoming = Incoming::new(body, expected, public_type, purse, self.0.clock.clone());
        tokio::select! {
            biased;
            () = attempt.wait() => return Err(Error::Superseded),
            written = self.0.blobs.write(&name, &mut incoming) => written?,
        }
        let (size, digest) = incoming.summary();
        let segment = Segment { part, size, digest, blob: name.name() };
        let (service, upload) = (row.service, row.id);
        let commit = move |tx: &rusqlite::Transaction<'_>| {
            let row = rows::find_upload(tx, service, upload)?.ok_or(Error::UploadNotFound)?;
            place(tx, &row, &segment)
        };
        // Until this is answered the name is held, so that it cannot be taken for garbage.
        let committed = self.write_then(row.service, commit, || charge.settle(1)).await?;
        name.keep();
        Ok(committed)
    }

    /// Makes an upload as a whole the object of its path. Of several that have arrived, the one begun last; asked again soon after, it answers the same. For
    /// clients that do not say which.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`], [`Error::Incomplete`].
    pub async fn complete(&self, service: i64, path: &str) -> Result<Object, Error> {
        let (path, now) = (path.to_owned(), self.0.clock.now_unix_ms());
        let complete = move |tx: &rusqlite::Transaction<'_>| {
            let mut arrived = Vec::new();
            let mut open = false;
            for row in rows::uploads_of(tx, service, &path)?.into_iter().filter(|row| row.part_size.is_none() && !row.direct) {
                match rows::segments(tx, row.id.0)?.into_iter().next() {
                    Some(segment) => arrived.push((row, segment)),
                    None => open = true,
                }
            }
            let mut arrived = arrived.into_iter();
            if let Some((row, segment)) = arrived.next() {
                rows::publish(tx, &row, segment.size, &etag_of(&segment.digest), now)?;
                arrived.try_for_each(|(older, _)| rows::end_upload(tx, &older))?;
            } else if open {
                return Err(Error::Incomplete("the object's bytes have not arrived".to_owned()));
            }
            let object = rows::find(tx, service, &path)?.filter(|(_, version)| version.is_some()).map(|(object, _)| object);
            let recent = |object: &Object| now.saturating_sub(object.updated_ms) < limits::OBJECT_URL_SECONDS.saturating_mul(1_000);
            object.filter(recent).ok_or(Error::UploadNotFound)
        };
        self.completed(service, complete, || ()).await
    }

    /// Makes one upload as a whole the object of its path, whatever else is uploaded to it; asked again, it answers the same.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`], [`Error::Incomplete`].
    pub async fn complete_upload(&self, service: i64, path: &str, upload: UploadId) -> Result<Object, Error> {
        let (path, now) = (path.to_owned(), self.0.clock.now_unix_ms());
        let complete = move |tx: &rusqlite::Transaction<'_>| {
            if let Some(row) = rows::find_upload(tx, service, upload)? {
                if row.path != path || row.part_size.is_some() || row.direct {
                    return Err(Error::UploadNotFound);
                }
                let segment = rows::segments(tx, upload.0)?.into_iter().next();
                let segment = segment.ok_or_else(|| Error::Incomplete("the object's bytes have not arrived".to_owned()))?;
                rows::publish(tx, &row, segment.size, &etag_of(&segment.digest), now)?;
            }
            version_of(tx, service, &path, upload)
        };
        self.completed(service, complete, || ()).await
    }

    /// Makes an upload in parts the object of its path. Every part has to be listed, in order, with the tag that `receive` answered; asked again, it
    /// answers the same.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`], [`Error::Incomplete`], [`Error::Mismatch`].
    pub async fn complete_multipart(&self, service: i64, path: &str, upload: UploadId, parts: Vec<CompletedPart>) -> Result<Object, Error> {
        let charge = self.1.reserve(Meter::ObjectStorageClassAOperations, 1).await?;
        let (path, now) = (path.to_owned(), self.0.clock.now_unix_ms());
        let complete = move |tx: &rusqlite::Transaction<'_>| {
            if let Some(row) = rows::find_upload(tx, service, upload)? {
                if row.path != path || row.part_size.is_none() {
                    return Err(Error::UploadNotFound);
                }
                let segments = rows::segments(tx, upload.0)?;
                let etag = check_parts(&row, &segments, &parts)?;
                rows::publish(tx, &row, row.size, &etag, now)?;
            }
            version_of(tx, service, &path, upload)
        };
        self.completed(service, complete, || charge.settle(1)).await
    }

    async fn completed<F, C>(&self, service: i64, complete: F, committed: C) -> Result<Object, Error>
    where
        F: FnOnce(&rusqlite::Transaction<'_>) -> Result<Object, Error> + Send + 'static,
        C: FnOnce() + Send + 'static,
    {
        let object = self.write_then(service, complete, committed).await?;
        self.collect_replaced(&object);
        Ok(object)
    }

    /// What an object has replaced may go. One that has replaced another in the same millisecond leaves it to the next occasion.
    fn collect_replaced(&self, object: &Object) {
        if object.created_ms != object.updated_ms {
            self.0.work.notify_one();
        }
    }

    /// Ends an upload without an object. False when there is none of that id and path, or no longer.
    pub async fn abort(&self, service: i64, path: &str, upload: UploadId) -> Result<bool, Error> {
        let path = path.to_owned();
        let abort = move |tx: &rusqlite::Transaction<'_>| {
            let row = rows::find_upload(tx, service, upload)?.filter(|row| row.path == path);
            row.as_ref().map(|row| rows::end_upload(tx, row)).transpose()?;
            Ok::<_, Error>(row.is_some())
        };
        let aborted = self.write(service, abort).await?;
        self.0.receiving.end(upload);
        self.0.work.notify_one();
        Ok(aborted)
    }

    /// Stores an object in one step, as workers do: the object is there when this returns, and nothing is when it fails or is dropped. Without a
    /// size, room is reserved as the bytes come.
    ///
    /// # Errors
    /// As [`Objects::begin`] and [`Objects::receive`].
    pub async fn put<S, E>(&self, tenant: Tenant, new: PutObject, body: S) -> Result<Object, Error>
    where
        S: Stream<Item = Result<Chunk, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let PutObject { path, content_type, size_bytes, public_read } = new;
        at_most(size_bytes.unwrap_or_default(), limits::OBJECT_SINGLE_BYTES_MAX)?;
        let new = NewObject { path, content_type, size_bytes: size_bytes.unwrap_or_default(), public_read };
        let charge = self.1.reserve(Meter::ObjectStorageClassAOperations, 1).await?;
        let row = self.insert(tenant, new, None, true, || ()).await?;
        let mut unfinished = Unfinished { objects: Some(self.clone()), row: row.clone() };
        let room = || Room { objects: self.clone(), tenant, upload: row.id, reserved: 0 };
        let expected = size_bytes.map_or_else(|| Expected::Growing(room()), Expected::Exactly);
        let clock = self.0.clock.clone();
        let publish = move |tx: &rusqlite::Transaction<'_>, row: &UploadRow, segment: &Segment| {
            place(tx, row, segment)?;
            Ok(rows::publish(tx, row, segment.size, &etag_of(&segment.digest), clock.now_unix_ms())?)
        };
        let object = self.write_segment(&row, 1, expected, body, publish, charge).await?;
        unfinished.objects = None;
        self.collect_replaced(&object);
        Ok(object)
    }
}

/// The object of a path, if it is what this upload has become.
fn version_of(tx: &rusqlite::Transaction<'_>, service: i64, path: &str, upload: UploadId) -> Result<Object, Error> {
    let object = rows::find(tx, service, path)?.filter(|(_, version)| *version == Some(upload.0));
    object.map(|(object, _)| object).ok_or(Error::UploadNotFound)
}

fn at_most(bytes: u64, max: u64) -> Result<(), Error> {
    if bytes > max { Err(Error::TooLarge { bytes, max }) } else { Ok(()) }
}

/// Checks that the account has room for so many more bytes.
fn check_room(tx: &rusqlite::Transaction<'_>, tenant: Tenant, more: u64) -> Result<(), Error> {
    let usage = rows::account_usage(tx, tenant.account)?;
    let (used, max) = (usage.bytes.saturating_add(usage.reserved_bytes), tenant.account_bytes_max());
    if used.saturating_add(more) > max { Err(Error::StorageLimit { used, more, max }) } else { Ok(()) }
}

fn place(tx: &rusqlite::Transaction<'_>, row: &UploadRow, segment: &Segment) -> Result<(), Error> {
    match rows::insert_segment(tx, row.id, segment)? {
        true => Ok(()),
        false => Err(Error::Interrupted("it took too long; send it again".to_owned())),
    }
}

/// Compares what was listed with what has arrived. The tag of the whole.
fn check_parts(row: &UploadRow, segments: &[Segment], listed: &[CompletedPart]) -> Result<String, Error> {
    let mut digest = Context::new(&SHA256);
    for number in 1..=row.parts() {
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        // They are in order, so the first that is not where it belongs is missing.
        let arrived = segments.get(index).filter(|segment| segment.part == number);
        let arrived = arrived.ok_or_else(|| Error::Incomplete(format!("part {number} of {} has not arrived", row.parts())))?;
        let part = listed.get(index).filter(|part| part.number == number);
        let part = part.ok_or_else(|| Error::Mismatch(format!("list all {} parts in order: part {number} is not where it belongs", row.parts())))?;
        let etag = etag_of(&arrived.digest);
        if part.etag.trim_matches('"') != etag.trim_matches('"') {
            return Err(Error::Mismatch(format!("part {number} has another ETag: its upload answered {etag}")));
        }
        digest.update(&arrived.digest);
    }
    if listed.len() as u64 > u64::from(row.parts()) {
        return Err(Error::Mismatch(format!("the upload has {} parts and {} are listed", row.parts(), listed.len())));
    }
    Ok(format!("\"{}-{}\"", tag_text(digest.finish().as_ref()), row.parts()))
}

/// The tag of bytes that came as a whole. Half of the digest: nobody gains from two contents that share it but whoever made both.
fn etag_of(digest: &Digest) -> String {
    format!("\"{}\"", tag_text(digest))
}

fn tag_text(digest: &[u8]) -> String {
    hex::encode(digest.get(..16).unwrap_or(digest))
}

/// An upload of unknown size, which takes the room that it needs as it comes.
pub(super) struct Room {
    objects: Objects,
    tenant: Tenant,
    upload: UploadId,
    reserved: u64,
}

impl Room {
    /// Makes sure that there is room for so many bytes in all.
    pub async fn grow_to(&mut self, bytes: u64) -> Result<(), Error> {
        if bytes <= self.reserved {
            return Ok(());
        }
        at_most(bytes, limits::OBJECT_SINGLE_BYTES_MAX)?;
        let (tenant, upload) = (self.tenant, self.upload);
        // What is needed now counts; what is taken ahead only if there is room for it.
        let needed = bytes.saturating_sub(self.reserved);
        let ahead = needed.saturating_add(GROWTH_BYTES);
        let (room, granted) = self.objects.1.reserve_some(Meter::ObjectStorageBytes, ahead, needed).await?;
        let size = self.reserved.saturating_add(granted);
        let grow = move |tx: &rusqlite::Transaction<'_>| {
            let row = rows::find_upload(tx, tenant.service, upload)?.ok_or(Error::UploadNotFound)?;
            let size = match check_room(tx, tenant, size.saturating_sub(row.size)) {
                Ok(()) => size,
                Err(_) => check_room(tx, tenant, bytes.saturating_sub(row.size)).map(|()| bytes)?,
            };
            rows::resize_upload(tx, &row, size)?;
            Ok::<_, Error>(size)
        };
        self.reserved = self.objects.write_then(tenant.service, grow, || drop(room)).await?;
        Ok(())
    }
}

/// A direct upload whose caller may go away. It is aborted when it has not become an object.
struct Unfinished {
    objects: Option<Objects>,
    row: UploadRow,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let (Some(objects), Ok(runtime)) = (self.objects.take(), tokio::runtime::Handle::try_current()) {
            let row = self.row.clone();
            runtime.spawn(async move {
                if let Err(error) = objects.abort(row.service, &row.path, row.id).await {
                    tracing::warn!(%error, "an upload could not be undone; it is when the host starts again");
                }
            });
        }
    }
}
