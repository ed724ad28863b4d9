-- Times are milliseconds since 1970-01-01T00:00:00Z.

-- One row. `last` is the newest number given to a document version; it is raised
-- last before COMMIT, so numbers have no gaps and appear in the order of commits.
-- `epoch` changes when a backup is restored: numbers of different epochs don't compare.
-- `backup` is 1 in the files that `store backup` writes.
CREATE TABLE sequence (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    last INTEGER NOT NULL,
    backup INTEGER NOT NULL DEFAULT 0
) STRICT;

-- One API key at the vendor. Its backoff lives here, so that replicas share it.
CREATE TABLE account (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    paused TEXT,
    waits_until INTEGER,
    failures INTEGER NOT NULL DEFAULT 0,
    last_error TEXT
) STRICT;

-- One list read with one cursor. `fence` rises with every lease, so that a stale
-- owner can't write; `asked_at` makes turns fair between companies.
CREATE TABLE feed (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES account (id),
    queue TEXT NOT NULL,
    company TEXT NOT NULL,
    cursor TEXT,
    fence INTEGER NOT NULL DEFAULT 0,
    leased_until INTEGER,
    asked_at INTEGER,
    last_page_at INTEGER,
    up_to_date_at INTEGER,
    first_complete_at INTEGER,
    documents INTEGER NOT NULL DEFAULT 0,
    missed_notifications INTEGER NOT NULL DEFAULT 0,
    gaps INTEGER NOT NULL DEFAULT 0,
    paused TEXT,
    waits_until INTEGER,
    failures INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    UNIQUE (account_id, queue, company)
) STRICT;

-- For counting an account's requests in flight.
CREATE INDEX feed_leased ON feed (account_id, leased_until) WHERE leased_until IS NOT NULL;

-- Saved cursors, for overlap reads: one that is old enough, and those since.
CREATE TABLE feed_cursor (
    feed_id INTEGER NOT NULL REFERENCES feed (id),
    saved_at INTEGER NOT NULL,
    cursor TEXT NOT NULL,
    PRIMARY KEY (feed_id, saved_at)
) STRICT, WITHOUT ROWID;

-- Wishes to pull, written by ingest: apart from the feed and from the runs, so that
-- ingest never waits behind a page. `kind` is the order of urgency: 0 hint,
-- 1 follow-up, 2 late follow-up, 3 reconciliation, 4 backfill. `again_at` is the
-- latest wish that came while one was pending.
CREATE TABLE feed_trigger (
    feed_id INTEGER NOT NULL REFERENCES feed (id),
    kind INTEGER NOT NULL,
    raised INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    again_at INTEGER,
    PRIMARY KEY (feed_id, kind)
) STRICT, WITHOUT ROWID;

-- The pull that serves a wish: `target` is the `raised` that it will have served,
-- NULL while none is under way. `position` is what it sends as `from` next, the other
-- two tell of its page before.
CREATE TABLE feed_pull (
    feed_id INTEGER NOT NULL REFERENCES feed (id),
    kind INTEGER NOT NULL,
    completed INTEGER NOT NULL DEFAULT 0,
    target INTEGER,
    started_at INTEGER,
    position TEXT,
    previous_next TEXT,
    previous_entries INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (feed_id, kind)
) STRICT, WITHOUT ROWID;

-- Verified messages. `message_id` is the UUID's 16 bytes: half the index of its
-- text. `event` is 1 for on_exported, 2 for on_digitized. Retention takes `body`.
CREATE TABLE notification (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES account (id),
    event INTEGER NOT NULL,
    message_id BLOB NOT NULL,
    kind TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    body BLOB
) STRICT;

CREATE UNIQUE INDEX notification_identity ON notification (message_id, account_id, event);

-- One row: the newest notification whose body retention has looked at. Rows arrive
-- in the order of time, so it goes on from there and never reads the table twice.
CREATE TABLE retention (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    notification_id INTEGER NOT NULL
) STRICT;

INSERT INTO retention (id, notification_id) VALUES (1, 0);

-- Versions of documents, numbered without gaps. `version_ms` is `version` as a
-- moment, NULL where it is none. Retention takes `body`, never the row.
CREATE TABLE document (
    sequence INTEGER PRIMARY KEY,
    feed_id INTEGER NOT NULL REFERENCES feed (id),
    document_id TEXT NOT NULL,
    version TEXT NOT NULL,
    version_ms INTEGER,
    superseded INTEGER NOT NULL,
    first_pull INTEGER NOT NULL,
    found_by INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    body BLOB
) STRICT;

-- The identity, ordered so that it also finds a document under other companies.
CREATE UNIQUE INDEX document_identity ON document (document_id, version, feed_id);
CREATE INDEX document_feed ON document (feed_id, sequence);

-- Entries of pages that have no usable id, so that one of them can't stop a feed.
CREATE TABLE unreadable (
    feed_id INTEGER NOT NULL REFERENCES feed (id),
    digest BLOB NOT NULL,
    seen_at INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (feed_id, digest)
) STRICT, WITHOUT ROWID;

-- Subscriptions, asked for by us or offered by SNS. `spoken_at` is the Timestamp of
-- the message that the row reflects: an older one that comes late changes nothing.
CREATE TABLE subscription (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES account (id),
    event TEXT NOT NULL,
    name TEXT,
    topic_arn TEXT,
    subscription_arn TEXT,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    spoken_at INTEGER,
    next_try_at INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    subscribe_url TEXT,
    token TEXT,
    UNIQUE (account_id, event, topic_arn)
) STRICT;

-- Signing certificates that have verified a message.
CREATE TABLE certificate (
    url TEXT PRIMARY KEY,
    pem BLOB NOT NULL,
    fetched_at INTEGER NOT NULL
) STRICT;

-- Refused messages, for a while and within a bound.
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY,
    received_at INTEGER NOT NULL,
    account TEXT NOT NULL,
    event TEXT NOT NULL,
    reason TEXT NOT NULL,
    allowed_topic INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
