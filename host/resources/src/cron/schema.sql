-- A trigger: whose it is, when it ticks, and when next; never if it is disabled. Dropped ones stay as a mark: their number is not given out again.
CREATE TABLE triggers (
    number INTEGER PRIMARY KEY,
    service INTEGER NOT NULL,
    name TEXT NOT NULL,
    expression TEXT NOT NULL,
    enabled INTEGER NOT NULL DEFAULT 1,
    next INTEGER,
    dropped INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX triggers_next ON triggers (next) WHERE next IS NOT NULL;

-- The ticks of triggers, and what has become of them. `due` is when one is to be delivered, again after it failed; none while it is being delivered
-- (`taken`) and after its end. A tick of the schedule is known by its trigger and time, so it is there once.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    trigger INTEGER NOT NULL,
    scheduled INTEGER NOT NULL,
    manual INTEGER NOT NULL,
    due INTEGER,
    taken INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    -- How often in a row the host itself has refused to deliver it.
    held INTEGER NOT NULL DEFAULT 0,
    outcome INTEGER NOT NULL DEFAULT 0,
    started INTEGER,
    ended INTEGER,
    detail TEXT
);
CREATE UNIQUE INDEX runs_tick ON runs (trigger, scheduled) WHERE manual = 0;
CREATE INDEX runs_of_trigger ON runs (trigger, id);
CREATE INDEX runs_due ON runs (due) WHERE due IS NOT NULL;
CREATE INDEX runs_taken ON runs (taken) WHERE taken = 1;
CREATE INDEX runs_held ON runs (due) WHERE held > 0 AND due IS NOT NULL;
