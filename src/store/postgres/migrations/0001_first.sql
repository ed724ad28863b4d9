-- Times are milliseconds since 1970-01-01T00:00:00Z, by this database's clock.
-- The tables are the same as SQLite's (store/sqlite/migrations); only the types differ.

-- One row. `version` is the number of migrations applied. `works_from` is the oldest
-- schema version that a program must support to work with this one, so that two releases
-- can share the database during a rolling upgrade.
CREATE TABLE ivesk_webhook_schema (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL,
    works_from BIGINT NOT NULL
);

INSERT INTO ivesk_webhook_schema (id, version, works_from) VALUES (1, 0, 0);

-- One row. `last` is the newest sequence number of a document version; it is raised
-- last before COMMIT, so numbers have no gaps and appear in the order of commits.
-- `epoch` changes when a backup is restored: numbers of different epochs don't compare.
-- `backup` is set by hand in a restored database (docs/postgres.md).
CREATE TABLE sequence (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    last BIGINT NOT NULL,
    backup BOOLEAN NOT NULL DEFAULT false
);

-- One API key at the vendor, with its backoff, which replicas share.
CREATE TABLE account (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    paused TEXT,
    waits_until BIGINT,
    failures BIGINT NOT NULL DEFAULT 0,
    last_error TEXT
);

-- One (account, queue, company) with one cursor. `fence` rises with every lease, so that
-- a stale owner can't write; `last_leased_at` keeps turns fair between companies.
CREATE TABLE feed (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    queue TEXT NOT NULL,
    company TEXT NOT NULL,
    cursor TEXT,
    fence BIGINT NOT NULL DEFAULT 0,
    leased_until BIGINT,
    last_leased_at BIGINT,
    last_page_at BIGINT,
    up_to_date_at BIGINT,
    first_complete_at BIGINT,
    documents BIGINT NOT NULL DEFAULT 0,
    missed_notifications BIGINT NOT NULL DEFAULT 0,
    gaps BIGINT NOT NULL DEFAULT 0,
    paused TEXT,
    waits_until BIGINT,
    failures BIGINT NOT NULL DEFAULT 0,
    last_error TEXT,
    UNIQUE (account_id, queue, company)
);

-- For counting an account's requests in flight.
CREATE INDEX feed_leased ON feed (account_id, leased_until) WHERE leased_until IS NOT NULL;

-- Saved cursors for overlap reads: the newest that is old enough, and all later ones.
CREATE TABLE feed_cursor (
    feed_id BIGINT NOT NULL REFERENCES feed (id),
    saved_at BIGINT NOT NULL,
    cursor TEXT NOT NULL,
    PRIMARY KEY (feed_id, saved_at)
);

-- Triggers, apart from feeds and pulls, so that ingest, which writes them, never waits
-- behind a page. `kind` is the order of urgency: 0 notification, 1 follow-up, 2 late
-- follow-up, 3 reconciliation, 4 backfill. `raised` counts triggers; those above
-- `feed_pull.completed` are pending. `again_at` is the latest due time that was requested
-- while a trigger was pending.
CREATE TABLE feed_trigger (
    feed_id BIGINT NOT NULL REFERENCES feed (id),
    kind BIGINT NOT NULL,
    raised BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    again_at BIGINT,
    PRIMARY KEY (feed_id, kind)
);

-- The pull for a kind of trigger: it will have completed the triggers up to `target`,
-- which is NULL while no pull is in progress. `position` is the `from` of its next
-- request; the other two describe its previous page.
CREATE TABLE feed_pull (
    feed_id BIGINT NOT NULL REFERENCES feed (id),
    kind BIGINT NOT NULL,
    completed BIGINT NOT NULL DEFAULT 0,
    target BIGINT,
    started_at BIGINT,
    position TEXT,
    previous_next TEXT,
    previous_entries BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (feed_id, kind)
);

-- Verified messages. `message_id` is the UUID's 16 bytes, whose index is half as large as
-- that of its text. `event` is 1 for on_exported, 2 for on_digitized. Retention removes
-- `body`.
CREATE TABLE notification (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    event BIGINT NOT NULL,
    message_id BYTEA NOT NULL,
    kind TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    body BYTEA
);

CREATE UNIQUE INDEX notification_identity ON notification (message_id, account_id, event);

-- One row: the newest notification that retention has processed. Rows arrive in the order
-- of time, so the next step continues from there and never reads the table twice.
CREATE TABLE retention (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    notification_id BIGINT NOT NULL
);

INSERT INTO retention (id, notification_id) VALUES (1, 0);

-- Versions of documents, numbered without gaps. `version_ms` is `version` as a moment,
-- NULL if it is not one. Retention removes `body`, never the row.
CREATE TABLE document (
    sequence BIGINT PRIMARY KEY,
    feed_id BIGINT NOT NULL REFERENCES feed (id),
    document_id TEXT NOT NULL,
    version TEXT NOT NULL,
    version_ms BIGINT,
    superseded BOOLEAN NOT NULL,
    first_pull BOOLEAN NOT NULL,
    found_by BIGINT NOT NULL,
    stored_at BIGINT NOT NULL,
    body BYTEA
);

-- The identity, ordered so that it also finds a document under other companies.
CREATE UNIQUE INDEX document_identity ON document (document_id, version, feed_id);
CREATE INDEX document_feed ON document (feed_id, sequence);

-- Entries of pages without a usable id, kept aside so that none of them stops a feed.
CREATE TABLE unreadable (
    feed_id BIGINT NOT NULL REFERENCES feed (id),
    digest BYTEA NOT NULL,
    seen_at BIGINT NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (feed_id, digest)
);

-- Subscriptions, requested from the vendor or offered by SNS. `last_message_at` is the
-- Timestamp of the message that the row reflects: older ones that arrive late are ignored.
CREATE TABLE subscription (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    event TEXT NOT NULL,
    name TEXT,
    topic_arn TEXT,
    subscription_arn TEXT,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    last_message_at BIGINT,
    next_try_at BIGINT,
    attempts BIGINT NOT NULL DEFAULT 0,
    last_error TEXT,
    subscribe_url TEXT,
    token TEXT,
    UNIQUE (account_id, event, topic_arn)
);

-- Signing certificates that have verified a message.
CREATE TABLE certificate (
    url TEXT PRIMARY KEY,
    pem BYTEA NOT NULL,
    fetched_at BIGINT NOT NULL
);

-- Refused messages, kept for a limited time and within a limited size.
CREATE TABLE quarantine (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at BIGINT NOT NULL,
    account TEXT NOT NULL,
    event TEXT NOT NULL,
    reason TEXT NOT NULL,
    allowed_topic BOOLEAN NOT NULL,
    headers TEXT NOT NULL,
    body BYTEA NOT NULL
);
