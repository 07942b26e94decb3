//! The tables of objects, uploads and their parts: statements and nothing else. Every change keeps the sums in `services` and leaves bytes that
//! nothing refers to any more in `garbage`.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tovuk_kernel::clock::UnixMs;

use super::blobs::Name;
use super::incoming::Digest;
use super::types::{Object, PartPlan, Status, UploadId, Usage};

/// An open upload.
#[derive(Clone, Debug)]
pub(super) struct UploadRow {
    pub id: UploadId,
    pub service: i64,
    pub path: String,
    pub content_type: String,
    pub size: u64,
    pub part_size: Option<u64>,
    pub direct: bool,
    pub public: bool,
    pub begun_ms: UnixMs,
}

impl UploadRow {
    pub fn parts(&self) -> u32 {
        let parts = self.part_size.map_or(1, |part| self.size.div_ceil(part.max(1)).max(1));
        u32::try_from(parts).unwrap_or(u32::MAX)
    }

    /// The part of this number, if it has one.
    pub fn part(&self, number: u32) -> Option<PartPlan> {
        if number == 0 || number > self.parts() {
            return None;
        }
        let part_size = self.part_size.unwrap_or(self.size);
        let offset_bytes = u64::from(number - 1) * part_size;
        Some(PartPlan { number, offset_bytes, size_bytes: part_size.min(self.size - offset_bytes) })
    }
}

/// A part that has arrived.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub part: u32,
    pub size: u64,
    pub digest: Digest,
    pub blob: Name,
}

pub(super) fn db(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn undb(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

const OBJECT: &str = "path, content_type, size, etag, public, version, created, updated";

fn object(row: &Row<'_>) -> rusqlite::Result<(Object, Option<i64>)> {
    let version: Option<i64> = row.get(5)?;
    let object = Object {
        path: row.get(0)?,
        content_type: row.get(1)?,
        size_bytes: undb(row.get(2)?),
        etag: row.get(3)?,
        public_read: row.get(4)?,
        status: if version.is_some() { Status::Ready } else { Status::Pending },
        created_ms: undb(row.get(6)?),
        updated_ms: undb(row.get(7)?),
    };
    Ok((object, version))
}

/// The object of a path, and its version if it can be read.
pub(super) fn find(conn: &Connection, service: i64, path: &str) -> rusqlite::Result<Option<(Object, Option<i64>)>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {OBJECT} FROM objects WHERE service = ?1 AND path = ?2"))?;
    statement.query_row(params![service, path], object).optional()
}

/// Objects from a path on, in byte order. `visit` says whether to go on.
pub(super) fn scan(
    conn: &Connection,
    service: i64,
    from: &str,
    mut visit: impl FnMut(Object, Option<i64>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached(&format!("SELECT {OBJECT} FROM objects WHERE service = ?1 AND path >= ?2 ORDER BY path"))?;
    let mut rows = statement.query(params![service, from])?;
    while let Some(row) = rows.next()? {
        let (object, version) = object(row)?;
        if !visit(object, version)? {
            break;
        }
    }
    Ok(())
}

/// The parts of a version, in order.
pub(super) fn segments(conn: &Connection, version: i64) -> rusqlite::Result<Vec<Segment>> {
    let mut statement = conn.prepare_cached("SELECT part, size, digest, blob FROM segments WHERE version = ?1 ORDER BY part")?;
    let rows = statement
        .query_map([version], |row| Ok(Segment { part: row.get(0)?, size: undb(row.get(1)?), digest: row.get(2)?, blob: Name(row.get(3)?) }))?;
    rows.collect()
}

const UPLOAD: &str = "number, service, path, content_type, size, part_size, direct, public, begun";

fn upload(row: &Row<'_>) -> rusqlite::Result<UploadRow> {
    Ok(UploadRow {
        id: UploadId(row.get(0)?),
        service: row.get(1)?,
        path: row.get(2)?,
        content_type: row.get(3)?,
        size: undb(row.get(4)?),
        part_size: row.get::<_, Option<i64>>(5)?.map(undb),
        direct: row.get(6)?,
        public: row.get(7)?,
        begun_ms: undb(row.get(8)?),
    })
}

/// An open upload of a service.
pub(super) fn find_upload(conn: &Connection, service: i64, id: UploadId) -> rusqlite::Result<Option<UploadRow>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {UPLOAD} FROM uploads WHERE number = ?1 AND service = ?2"))?;
    statement.query_row(params![id.0, service], upload).optional()
}

/// The open uploads of a path, the latest first.
pub(super) fn uploads_of(conn: &Connection, service: i64, path: &str) -> rusqlite::Result<Vec<UploadRow>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {UPLOAD} FROM uploads WHERE service = ?1 AND path = ?2 ORDER BY number DESC"))?;
    statement.query_map(params![service, path], upload)?.collect()
}

/// Uploads that were begun before a time, or that no client will complete.
pub(super) fn uploads_before(conn: &Connection, before_ms: UnixMs, limit: u32) -> rusqlite::Result<Vec<UploadRow>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {UPLOAD} FROM uploads WHERE begun <= ?1 ORDER BY begun LIMIT ?2"))?;
    statement.query_map(params![db(before_ms), limit], upload)?.collect()
}

/// Uploads that the host itself sends for somebody who waits.
pub(super) fn direct_uploads(conn: &Connection) -> rusqlite::Result<Vec<UploadRow>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {UPLOAD} FROM uploads WHERE direct"))?;
    statement.query_map([], upload)?.collect()
}

/// Some of the open uploads of a service.
pub(super) fn some_uploads(conn: &Connection, service: i64, limit: u32) -> rusqlite::Result<Vec<UploadRow>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {UPLOAD} FROM uploads WHERE service = ?1 LIMIT ?2"))?;
    statement.query_map(params![service, limit], upload)?.collect()
}

/// Makes sure that the sums of a service have a row, and returns its open uploads.
pub(super) fn open_uploads(tx: &Transaction<'_>, account: i64, service: i64) -> rusqlite::Result<u64> {
    let sql = "INSERT INTO services (number, account) VALUES (?1, ?2) ON CONFLICT (number) DO UPDATE SET account = ?2 RETURNING uploads";
    tx.prepare_cached(sql)?.query_row([service, account], |row| row.get(0)).map(undb)
}

/// Adds an upload, and the object of its path as pending if there is none. The id of the row is given out here.
pub(super) fn insert_upload(tx: &Transaction<'_>, new: &UploadRow) -> rusqlite::Result<UploadId> {
    let sql = "INSERT INTO uploads (service, path, content_type, size, part_size, direct, public, begun) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let part_size = new.part_size.map(db);
    let values = params![new.service, new.path, new.content_type, db(new.size), part_size, new.direct, new.public, db(new.begun_ms)];
    tx.prepare_cached(sql)?.execute(values)?;
    let id = UploadId(tx.last_insert_rowid());
    let sql = "INSERT INTO objects (service, path, version, content_type, size, etag, public, created, updated)
        VALUES (?1, ?2, NULL, ?3, ?4, '', ?5, ?6, ?6) ON CONFLICT DO NOTHING";
    tx.prepare_cached(sql)?.execute(params![new.service, new.path, new.content_type, db(new.size), new.public, db(new.begun_ms)])?;
    add(tx, new.service, 0, 0, db(new.size), 1)?;
    Ok(id)
}

/// Changes what an upload has announced.
pub(super) fn resize_upload(tx: &Transaction<'_>, upload: &UploadRow, size: u64) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE uploads SET size = ?2 WHERE number = ?1")?.execute([upload.id.0, db(size)])?;
    add(tx, upload.service, 0, 0, db(size) - db(upload.size), 0)
}

/// Puts a part in its place. What was there before is garbage. False when the name is no longer held: then nothing may refer to it.
pub(super) fn insert_segment(tx: &Transaction<'_>, upload: UploadId, segment: &Segment) -> rusqlite::Result<bool> {
    if tx.prepare_cached("DELETE FROM garbage WHERE blob = ?1 AND NOT doomed")?.execute([segment.blob.0])? != 1 {
        return Ok(false);
    }
    let sql = "INSERT INTO garbage (blob, version) SELECT blob, version FROM segments WHERE version = ?1 AND part = ?2";
    tx.prepare_cached(sql)?.execute(params![upload.0, segment.part])?;
    let sql = "INSERT OR REPLACE INTO segments (version, part, size, digest, blob) VALUES (?1, ?2, ?3, ?4, ?5)";
    tx.prepare_cached(sql)?.execute(params![upload.0, segment.part, db(segment.size), segment.digest, segment.blob.0])?;
    Ok(true)
}

/// Makes what was uploaded the object of its path.
pub(super) fn publish(tx: &Transaction<'_>, upload: &UploadRow, size: u64, etag: &str, now_ms: UnixMs) -> rusqlite::Result<Object> {
    let old = find(tx, upload.service, &upload.path)?.and_then(|(object, version)| version.map(|version| (object, version)));
    let (objects, bytes) = old.as_ref().map_or((1, 0), |(object, _)| (0, db(object.size_bytes)));
    if let Some((_, version)) = &old {
        discard(tx, *version)?;
    }
    let object = Object {
        path: upload.path.clone(),
        content_type: upload.content_type.clone(),
        size_bytes: size,
        etag: etag.to_owned(),
        public_read: upload.public,
        status: Status::Ready,
        created_ms: old.map_or(now_ms, |(object, _)| object.created_ms),
        updated_ms: now_ms,
    };
    let sql = "INSERT OR REPLACE INTO objects (service, path, version, content_type, size, etag, public, created, updated)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let (service, version, created) = (upload.service, upload.id.0, db(object.created_ms));
    let values = params![service, object.path, version, object.content_type, db(size), etag, object.public_read, created, db(now_ms)];
    tx.prepare_cached(sql)?.execute(values)?;
    tx.prepare_cached("DELETE FROM uploads WHERE number = ?1")?.execute([version])?;
    add(tx, service, objects, db(size) - bytes, -db(upload.size), -1)?;
    Ok(object)
}

/// Ends an upload that is not to be completed.
pub(super) fn end_upload(tx: &Transaction<'_>, upload: &UploadRow) -> rusqlite::Result<()> {
    if tx.prepare_cached("DELETE FROM uploads WHERE number = ?1")?.execute([upload.id.0])? == 0 {
        return Ok(());
    }
    discard(tx, upload.id.0)?;
    add(tx, upload.service, 0, 0, -db(upload.size), -1)?;
    let sql = "DELETE FROM objects WHERE service = ?1 AND path = ?2 AND version IS NULL
        AND NOT EXISTS (SELECT 1 FROM uploads WHERE uploads.service = ?1 AND uploads.path = ?2)";
    tx.prepare_cached(sql)?.execute(params![upload.service, upload.path])?;
    Ok(())
}

/// Removes the object of a path if it can be read. Its size.
pub(super) fn remove(tx: &Transaction<'_>, service: i64, object: &Object, version: Option<i64>) -> rusqlite::Result<Option<u64>> {
    tx.prepare_cached("DELETE FROM objects WHERE service = ?1 AND path = ?2")?.execute(params![service, object.path])?;
    let Some(version) = version else { return Ok(None) };
    discard(tx, version)?;
    add(tx, service, -1, -db(object.size_bytes), 0, 0)?;
    Ok(Some(object.size_bytes))
}

/// Forgets a service that has nothing any more.
pub(super) fn forget(tx: &Transaction<'_>, service: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM services WHERE number = ?1")?.execute([service]).map(drop)
}

/// Makes the bytes of a version garbage.
fn discard(tx: &Transaction<'_>, version: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO garbage (blob, version) SELECT blob, version FROM segments WHERE version = ?1")?.execute([version])?;
    tx.prepare_cached("DELETE FROM segments WHERE version = ?1")?.execute([version]).map(drop)
}

fn add(tx: &Transaction<'_>, service: i64, objects: i64, bytes: i64, reserved: i64, uploads: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE services SET objects = objects + ?2, bytes = bytes + ?3, reserved = reserved + ?4, uploads = uploads + ?5 WHERE number = ?1";
    tx.prepare_cached(sql)?.execute([service, objects, bytes, reserved, uploads]).map(drop)
}

/// The account of a service that has or had something.
pub(super) fn account_of(conn: &Connection, service: i64) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT account FROM services WHERE number = ?1")?.query_row([service], |row| row.get(0)).optional()
}

/// What a service has.
pub(super) fn usage(conn: &Connection, service: i64) -> rusqlite::Result<Usage> {
    let mut statement = conn.prepare_cached("SELECT objects, bytes, reserved FROM services WHERE number = ?1")?;
    statement.query_row([service], sums).optional().map(Option::unwrap_or_default)
}

/// A service with its account and what it has, if it has ever had anything.
pub(super) fn service(conn: &Connection, service: i64) -> rusqlite::Result<Option<(i64, i64, Usage)>> {
    let mut statement = conn.prepare_cached("SELECT objects, bytes, reserved, number, account FROM services WHERE number = ?1")?;
    statement.query_row([service], owned).optional()
}

/// All services.
pub(super) fn services(conn: &Connection) -> rusqlite::Result<Vec<(i64, i64, Usage)>> {
    conn.prepare("SELECT objects, bytes, reserved, number, account FROM services")?.query_map([], owned)?.collect()
}

fn owned(row: &Row<'_>) -> rusqlite::Result<(i64, i64, Usage)> {
    Ok((row.get("number")?, row.get("account")?, sums(row)?))
}

/// The highest number of a service.
pub(super) fn highest_service(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("SELECT coalesce(max(number), 0) FROM services", [], |row| row.get(0))
}

/// What all services of an account have.
pub(super) fn account_usage(conn: &Connection, account: i64) -> rusqlite::Result<Usage> {
    let sql = "SELECT coalesce(sum(objects), 0), coalesce(sum(bytes), 0), coalesce(sum(reserved), 0) FROM services WHERE account = ?1";
    conn.prepare_cached(sql)?.query_row([account], sums)
}

fn sums(row: &Row<'_>) -> rusqlite::Result<Usage> {
    Ok(Usage { objects: undb(row.get(0)?), bytes: undb(row.get(1)?), reserved_bytes: undb(row.get(2)?) })
}
