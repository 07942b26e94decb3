-- Where the bytes lie, so that a database is not used with the bytes of another.
CREATE TABLE place (name TEXT NOT NULL);

-- What each service has. `reserved` is what its open uploads have announced.
CREATE TABLE services (
    number INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    objects INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    reserved INTEGER NOT NULL DEFAULT 0,
    uploads INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX services_account ON services (account);

-- Objects. The version is the number of the upload that the content came with; without one, the object is pending.
CREATE TABLE objects (
    service INTEGER NOT NULL,
    path TEXT NOT NULL,
    version INTEGER,
    content_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    public INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (service, path)
) WITHOUT ROWID;

-- Uploads that are open. `part_size` is null for one that is sent as a whole; `direct` marks those that no client can complete.
CREATE TABLE uploads (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    service INTEGER NOT NULL,
    path TEXT NOT NULL,
    content_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    part_size INTEGER,
    direct INTEGER NOT NULL,
    public INTEGER NOT NULL,
    begun INTEGER NOT NULL
);
CREATE INDEX uploads_path ON uploads (service, path);
CREATE INDEX uploads_begun ON uploads (begun);

-- What objects and open uploads are made of: parts, each with bytes of its own. Completing an upload moves no byte.
CREATE TABLE segments (
    version INTEGER NOT NULL,
    part INTEGER NOT NULL,
    size INTEGER NOT NULL,
    digest BLOB NOT NULL,
    blob BLOB NOT NULL,
    PRIMARY KEY (version, part)
) WITHOUT ROWID;

-- Bytes that nothing refers to. A name stands here before the first byte is written under it and leaves in the transaction that refers to it, so
-- that whatever is left behind is known without looking through the store.
CREATE TABLE garbage (
    blob BLOB PRIMARY KEY,
    version INTEGER,
    doomed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
