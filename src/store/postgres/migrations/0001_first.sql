-- Times are milliseconds since 1970-01-01T00:00:00Z, by this database's clock.
-- The tables are SQLite's (store/sqlite/migrations); only the types differ.

-- One row. `version` is how many migrations were run. `works_from` is the oldest
-- schema that a program must know to work with this one: releases that overlap during
-- a rolling upgrade share the database as long as it is not newer than theirs.
CREATE TABLE ivesk_webhook_schema (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL,
    works_from BIGINT NOT NULL
);

INSERT INTO ivesk_webhook_schema (id, version, works_from) VALUES (1, 0, 0);

-- One row. `last` is the newest number given to a document version; it is raised
-- last before COMMIT, so numbers have no gaps and appear in the order of commits.
-- `epoch` changes when a backup is restored: numbers of different epochs don't compare.
-- `backup` is set by hand in a database that was restored (docs/postgres.md).
CREATE TABLE sequence (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    last BIGINT NOT NULL,
    backup BOOLEAN NOT NULL DEFAULT false
);

-- One API key at the vendor. Its backoff lives here, so that replicas share it.
CREATE TABLE account (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    paused TEXT,
    waits_until BIGINT,
    failures BIGINT NOT NULL DEFAULT 0,
    last_error TEXT
);

-- One list read with one cursor. `fence` rises with every lease, so that a stale
-- owner can't write; `asked_at` makes turns fair between companies.
CREATE TABLE feed (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    queue TEXT NOT NULL,
    company TEXT NOT NULL,
    cursor TEXT,
    fence BIGINT NOT NULL DEFAULT 0,
    leased_until BIGINT,
    asked_at BIGINT,
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

-- Saved cursors, for overlap reads: one that is old enough, and those since.
CREATE TABLE feed_cursor (
    feed_id BIGINT NOT NULL REFERENCES feed (id),
    saved_at BIGINT NOT NULL,
    cursor TEXT NOT NULL,
    PRIMARY KEY (feed_id, saved_at)
);

-- Wishes to pull, written by ingest: apart from the feed and from the runs, so that
-- ingest never waits behind a page. `kind` is the order of urgency: 0 hint,
-- 1 follow-up, 2 late follow-up, 3 reconciliation, 4 backfill. `again_at` is the
-- latest wish that came while one was pending.
CREATE TABLE feed_trigger (
    feed_id BIGINT NOT NULL REFERENCES feed (id),
    kind BIGINT NOT NULL,
    raised BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    again_at BIGINT,
    PRIMARY KEY (feed_id, kind)
);

-- The pull that serves a wish: `target` is the `raised` that it will have served,
-- NULL while none is under way. `position` is what it sends as `from` next, the other
-- two tell of its page before.
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

-- Verified messages. `message_id` is the UUID's 16 bytes: half the index of its
-- text. `event` is 1 for on_exported, 2 for on_digitized. Retention takes `body`.
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

-- One row: the newest notification whose body retention has looked at. Rows arrive
-- in the order of time, so it goes on from there and never reads the table twice.
CREATE TABLE retention (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    notification_id BIGINT NOT NULL
);

INSERT INTO retention (id, notification_id) VALUES (1, 0);

-- Versions of documents, numbered without gaps. `version_ms` is `version` as a
-- moment, NULL where it is none. Retention takes `body`, never the row.
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

-- Entries of pages that have no usable id, so that one of them can't stop a feed.
CREATE TABLE unreadable (
    feed_id BIGINT NOT NULL REFERENCES feed (id),
    digest BYTEA NOT NULL,
    seen_at BIGINT NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (feed_id, digest)
);

-- Subscriptions, asked for by us or offered by SNS. `spoken_at` is the Timestamp of
-- the message that the row reflects: an older one that comes late changes nothing.
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
    spoken_at BIGINT,
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

-- Refused messages, for a while and within a bound.
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
