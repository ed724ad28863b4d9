-- Times are milliseconds since 1970-01-01T00:00:00Z.

-- One row. `last` is the newest sequence number of a document version; it is raised
-- last before COMMIT, so numbers have no gaps and appear in the order of commits.
-- `epoch` changes when a backup is restored: numbers of different epochs don't compare.
-- `backup` is 1 in files written by `store backup`.
CREATE TABLE sequence (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    last INTEGER NOT NULL,
    backup INTEGER NOT NULL DEFAULT 0
) STRICT;

-- One API key at the vendor, with its backoff, which replicas share.
CREATE TABLE account (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    paused TEXT,
    waits_until INTEGER,
    failures INTEGER NOT NULL DEFAULT 0,
    last_error TEXT
) STRICT;

-- One (account, queue, company) with one cursor. `fence` rises with every lease, so that
-- a stale owner can't write; `last_leased_at` keeps turns fair between companies.
CREATE TABLE feed (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES account (id),
    queue TEXT NOT NULL,
    company TEXT NOT NULL,
    cursor TEXT,
    fence INTEGER NOT NULL DEFAULT 0,
    leased_until INTEGER,
    last_leased_at INTEGER,
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

-- Saved cursors for overlap reads: the newest that is old enough, and all later ones.
CREATE TABLE feed_cursor (
    feed_id INTEGER NOT NULL REFERENCES feed (id),
    saved_at INTEGER NOT NULL,
    cursor TEXT NOT NULL,
    PRIMARY KEY (feed_id, saved_at)
) STRICT, WITHOUT ROWID;

-- Triggers, apart from feeds and pulls, so that ingest, which writes them, never waits
-- behind a page. `kind` is the order of urgency: 0 notification, 1 follow-up, 2 late
-- follow-up, 3 reconciliation, 4 backfill. `raised` counts triggers; those above
-- `feed_pull.completed` are pending. `again_at` is the latest due time that was requested
-- while a trigger was pending.
CREATE TABLE feed_trigger (
    feed_id INTEGER NOT NULL REFERENCES feed (id),
    kind INTEGER NOT NULL,
    raised INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    again_at INTEGER,
    PRIMARY KEY (feed_id, kind)
) STRICT, WITHOUT ROWID;

-- The pull for a kind of trigger: it will have completed the triggers up to `target`,
-- which is NULL while no pull is in progress. `position` is the `from` of its next
-- request; the other two describe its previous page.
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

-- Verified messages. `message_id` is the UUID's 16 bytes, whose index is half as large as
-- that of its text. `event` is 1 for on_exported, 2 for on_digitized. Retention removes
-- `body`.
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

-- One row: the newest notification that retention has processed. Rows arrive in the order
-- of time, so the next step continues from there and never reads the table twice.
CREATE TABLE retention (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    notification_id INTEGER NOT NULL
) STRICT;

INSERT INTO retention (id, notification_id) VALUES (1, 0);

-- Versions of documents, numbered without gaps. `version_ms` is `version` as a moment,
-- NULL if it is not one. Retention removes `body`, never the row.
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

-- Entries of pages without a usable id, kept aside so that none of them stops a feed.
CREATE TABLE unreadable (
    feed_id INTEGER NOT NULL REFERENCES feed (id),
    digest BLOB NOT NULL,
    seen_at INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (feed_id, digest)
) STRICT, WITHOUT ROWID;

-- Subscriptions, requested from the vendor or offered by SNS. `last_message_at` is the
-- Timestamp of the message that the row reflects: older ones that arrive late are ignored.
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
    last_message_at INTEGER,
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

-- Refused messages, kept for a limited time and within a limited size.
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
