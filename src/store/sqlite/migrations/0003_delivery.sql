-- Destinations of documents. Every version at or below `position`, of feeds that were
-- started, is settled. Versions stored when the destination was registered, or when its
-- `filter` last changed (`since_sequence`), are history and not delivered automatically.
-- One worker at a time holds the lease; `fence` rises with each, so that a stale owner
-- can't write. `last_number` is the newest place in the list that a program reads.
CREATE TABLE destination (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    filter TEXT NOT NULL,
    since_sequence INTEGER NOT NULL,
    position INTEGER NOT NULL,
    last_number INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    leased_until INTEGER,
    paused TEXT,
    waits_until INTEGER,
    failing_since INTEGER,
    failures INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    stuck_at INTEGER,
    last_success_at INTEGER,
    delivered INTEGER NOT NULL DEFAULT 0,
    rejected INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Feeds that were started at a destination; others are held. Delivered are all versions
-- (`everything`), or those after `after_sequence` that are not from the first pull, and
-- those from `since_ms` on.
CREATE TABLE destination_feed (
    destination_id INTEGER NOT NULL REFERENCES destination (id),
    feed_id INTEGER NOT NULL REFERENCES feed (id),
    started_at INTEGER NOT NULL,
    everything INTEGER NOT NULL,
    after_sequence INTEGER NOT NULL,
    since_ms INTEGER,
    PRIMARY KEY (destination_id, feed_id)
) STRICT, WITHOUT ROWID;

-- The delivery of a version to a destination; no row before the first attempt. `note` is
-- the destination's own, `detail` its answer. `body_removed` means that retention has
-- removed the document's body. `number` is the place in the list that a program reads.
CREATE TABLE delivery (
    destination_id INTEGER NOT NULL REFERENCES destination (id),
    sequence INTEGER NOT NULL REFERENCES document (sequence),
    state TEXT NOT NULL,
    number INTEGER,
    began_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    next_try_at INTEGER,
    link_tries INTEGER NOT NULL DEFAULT 0,
    note TEXT,
    detail TEXT,
    body_removed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (destination_id, sequence)
) STRICT, WITHOUT ROWID;

-- For finding the deliveries of one version.
CREATE INDEX delivery_version ON delivery (sequence);
CREATE UNIQUE INDEX delivery_number ON delivery (destination_id, number) WHERE number IS NOT NULL;
-- Deliveries that retention has not processed, in the order of acceptance.
CREATE INDEX delivery_delivered ON delivery (changed_at) WHERE state = 'delivered' AND body_removed = 0;
CREATE INDEX delivery_rejected ON delivery (destination_id, sequence) WHERE state = 'rejected';

-- Attempts; consecutive ones with the same result are one row.
CREATE TABLE delivery_attempt (
    destination_id INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    began_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    result TEXT NOT NULL,
    detail TEXT,
    times INTEGER NOT NULL,
    PRIMARY KEY (destination_id, sequence, number),
    FOREIGN KEY (destination_id, sequence) REFERENCES delivery (destination_id, sequence)
) STRICT, WITHOUT ROWID;

-- Import errors for the vendor's accountant: one for each (version, text). The digest
-- stands for the text, as an index of whole texts would be as large as the texts.
CREATE TABLE import_error (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES account (id),
    sequence INTEGER NOT NULL REFERENCES document (sequence),
    digest BLOB NOT NULL,
    company TEXT,
    message TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    leased_until INTEGER,
    created_at INTEGER NOT NULL,
    sent_at INTEGER,
    next_try_at INTEGER,
    last_error TEXT,
    UNIQUE (sequence, digest)
) STRICT;

CREATE INDEX import_error_pending ON import_error (next_try_at) WHERE state = 'pending';

-- Feeds that are pulled again because links to files have expired, and the fresh links
-- found. A link is a secret, as is the one in the document's body.
CREATE TABLE fresh_link_request (
    feed_id INTEGER PRIMARY KEY REFERENCES feed (id),
    requested_at INTEGER NOT NULL
) STRICT;

CREATE TABLE document_link (
    sequence INTEGER PRIMARY KEY REFERENCES document (sequence),
    url TEXT NOT NULL,
    listed_at INTEGER NOT NULL
) STRICT;
