-- What a namespace holds. `dropped` ones stay as a mark: their number is not given out again, and what comes late is refused.
CREATE TABLE namespaces (
    number INTEGER PRIMARY KEY,
    keys INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    dropped INTEGER NOT NULL DEFAULT 0
);

-- The keys in byte order. A short value stands here; a longer one has a row of its own, so that these pages stay dense: a list reads few of
-- them, and the writer finds them in its cache.
CREATE TABLE entries (
    namespace INTEGER NOT NULL,
    key BLOB NOT NULL,
    size INTEGER NOT NULL,
    expiration INTEGER,
    metadata TEXT,
    long INTEGER,
    value BLOB,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID;
CREATE INDEX expiring ON entries (expiration) WHERE expiration IS NOT NULL;

CREATE TABLE long_values (id INTEGER PRIMARY KEY, value BLOB NOT NULL);

-- Dropped namespaces whose entries are still to be removed.
CREATE TABLE dropping (number INTEGER PRIMARY KEY);
