-- How often the file was opened. The numbers of incarnations and of alarms begin with it, so that none is given out twice.
CREATE TABLE starts (number INTEGER NOT NULL);
INSERT INTO starts VALUES (0);

-- What a namespace holds. `dropped` ones stay as a mark: their number is not given out again, and what comes late is refused.
CREATE TABLE namespaces (
    number INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    objects INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0
);

-- The objects in byte order. `incarnation` is in the name of the file; without one there is no file. `dirty` says that the file may know better
-- what is in it: such rows are read from their files at the next start. An alarm is there when it has a time at which it is due `next`.
CREATE TABLE objects (
    namespace INTEGER NOT NULL,
    key BLOB NOT NULL,
    incarnation INTEGER,
    vals INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    dirty INTEGER,
    generation INTEGER NOT NULL DEFAULT 0,
    scheduled INTEGER,
    next INTEGER,
    retries INTEGER NOT NULL DEFAULT 0,
    delivering INTEGER,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID;
CREATE INDEX objects_due ON objects (next) WHERE next IS NOT NULL AND delivering IS NULL;
CREATE INDEX objects_dirty ON objects (dirty) WHERE dirty IS NOT NULL;
CREATE INDEX objects_delivering ON objects (delivering) WHERE delivering IS NOT NULL;

-- An object exists while it has a value or an alarm.
CREATE TRIGGER objects_inserted AFTER INSERT ON objects BEGIN
    UPDATE namespaces SET objects = objects + (new.vals > 0 OR new.next IS NOT NULL), bytes = bytes + new.bytes WHERE number = new.namespace;
END;
CREATE TRIGGER objects_updated AFTER UPDATE OF vals, bytes, next ON objects
WHEN old.bytes != new.bytes OR (old.vals > 0 OR old.next IS NOT NULL) != (new.vals > 0 OR new.next IS NOT NULL) BEGIN
    UPDATE namespaces
    SET objects = objects + (new.vals > 0 OR new.next IS NOT NULL) - (old.vals > 0 OR old.next IS NOT NULL), bytes = bytes + new.bytes - old.bytes
    WHERE number = new.namespace;
END;
CREATE TRIGGER objects_deleted AFTER DELETE ON objects BEGIN
    UPDATE namespaces SET objects = objects - (old.vals > 0 OR old.next IS NOT NULL), bytes = bytes - old.bytes WHERE number = old.namespace;
END;

-- Files that belong to no object any more and are still to be removed.
CREATE TABLE removed (namespace INTEGER NOT NULL, key BLOB NOT NULL, incarnation INTEGER NOT NULL, PRIMARY KEY (namespace, key, incarnation)) WITHOUT ROWID;

-- Dropped namespaces whose objects are still to be removed.
CREATE TABLE dropping (number INTEGER PRIMARY KEY);
