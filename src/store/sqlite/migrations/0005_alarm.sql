-- Problems that a person should know of; a kind and subject have one active alarm at a
-- time. `notified` is 0 until the notice of its beginning was sent to the configured
-- target, 1 until that of its end was, then 2; `notify_at` is when the next notice is due,
-- and `fence` rises with every attempt.
CREATE TABLE alarm (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    text TEXT NOT NULL,
    raised_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    ended_at INTEGER,
    notified INTEGER NOT NULL DEFAULT 0,
    notify_at INTEGER,
    fence INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    last_error TEXT
) STRICT;

CREATE UNIQUE INDEX alarm_active ON alarm (kind, subject) WHERE ended_at IS NULL;
CREATE INDEX alarm_to_notify ON alarm (notify_at) WHERE notify_at IS NOT NULL;
