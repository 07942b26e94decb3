CREATE TABLE entries (key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

-- One row: whose file it is, how many values it has with how many bytes, and the last change of the alarm that was committed together with values:
-- `alarm_due` is null when that was a removal. It counts only when the catalogue has not heard of it, which its number says.
CREATE TABLE about (
    namespace INTEGER,
    object BLOB,
    vals INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    alarm_generation INTEGER NOT NULL,
    alarm_due INTEGER
);
INSERT INTO about VALUES (NULL, NULL, 0, 0, 0, NULL);
