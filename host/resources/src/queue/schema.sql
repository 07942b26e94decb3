-- A queue: whose it is, how it delivers, what is in it, and what has become of what was. Dropped ones stay as a mark: their number is not given out
-- again, and what comes late is refused. `local` is the number of the queue in this file, and the beginning of the ids of its messages,
-- which bounds it.
CREATE TABLE queues (
    local INTEGER PRIMARY KEY AUTOINCREMENT CHECK (local < 2097152),
    number INTEGER NOT NULL UNIQUE,
    service INTEGER NOT NULL,
    batch_messages INTEGER NOT NULL,
    batch_wait INTEGER NOT NULL,
    retries_max INTEGER NOT NULL,
    retention INTEGER NOT NULL,
    visibility INTEGER NOT NULL,
    delay INTEGER NOT NULL,
    concurrency INTEGER NOT NULL,
    dead_letter INTEGER,
    pull INTEGER NOT NULL,
    dropped INTEGER NOT NULL DEFAULT 0,
    next INTEGER NOT NULL DEFAULT 1,
    messages INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    deliveries INTEGER NOT NULL DEFAULT 0,
    retries INTEGER NOT NULL DEFAULT 0,
    dead_letters INTEGER NOT NULL DEFAULT 0,
    discarded INTEGER NOT NULL DEFAULT 0,
    expired INTEGER NOT NULL DEFAULT 0
);

-- The messages. The upper bits of an id are the queue's local number and the lower ones count up, so a queue's messages lie together in the order
-- in which they came, and new ones are appended. `due` is when a message may be delivered, in ms; none if it just waits for its turn.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    due INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    lease INTEGER,
    encoding INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX messages_due ON messages (queue, due) WHERE due IS NOT NULL;

-- Dropped queues whose messages are still to be removed.
CREATE TABLE dropping (local INTEGER PRIMARY KEY);
