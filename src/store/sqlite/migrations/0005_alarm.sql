-- What a person should know of. Of one kind and subject one is on at a time. `told` is 0
-- until its beginning was told to whom the settings name, 1 until its end was, then 2;
-- `tell_at` is when that is due, and `fence` rises with every attempt.
CREATE TABLE alarm (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    text TEXT NOT NULL,
    raised_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    ended_at INTEGER,
    told INTEGER NOT NULL DEFAULT 0,
    tell_at INTEGER,
    fence INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    last_error TEXT
) STRICT;

CREATE UNIQUE INDEX alarm_on ON alarm (kind, subject) WHERE ended_at IS NULL;
CREATE INDEX alarm_to_tell ON alarm (tell_at) WHERE tell_at IS NOT NULL;
