-- Destinations of documents. Every version at or below `position`, of feeds that were
-- started, is settled. Versions stored when the destination was registered, or when its
-- `filter` last changed (`since_sequence`), are history and not delivered automatically.
-- One worker at a time holds the lease; `fence` rises with each, so that a stale owner
-- can't write. `last_number` is the newest place in the list that a program reads.
CREATE TABLE destination (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    filter TEXT NOT NULL,
    since_sequence BIGINT NOT NULL,
    position BIGINT NOT NULL,
    last_number BIGINT NOT NULL DEFAULT 0,
    fence BIGINT NOT NULL DEFAULT 0,
    leased_until BIGINT,
    paused TEXT,
    waits_until BIGINT,
    failing_since BIGINT,
    failures BIGINT NOT NULL DEFAULT 0,
    last_error TEXT,
    stuck_at BIGINT,
    last_success_at BIGINT,
    delivered BIGINT NOT NULL DEFAULT 0,
    rejected BIGINT NOT NULL DEFAULT 0
);

-- Feeds that were started at a destination; others are held. Delivered are all versions
-- (`everything`), or those after `after_sequence` that are not from the first pull, and
-- those from `since_ms` on.
CREATE TABLE destination_feed (
    destination_id BIGINT NOT NULL REFERENCES destination (id),
    feed_id BIGINT NOT NULL REFERENCES feed (id),
    started_at BIGINT NOT NULL,
    everything BOOLEAN NOT NULL,
    after_sequence BIGINT NOT NULL,
    since_ms BIGINT,
    PRIMARY KEY (destination_id, feed_id)
);

-- The delivery of a version to a destination; no row before the first attempt. `note` is
-- the destination's own, `detail` its answer. `body_removed` means that retention has
-- removed the document's body. `number` is the place in the list that a program reads.
CREATE TABLE delivery (
    destination_id BIGINT NOT NULL REFERENCES destination (id),
    sequence BIGINT NOT NULL REFERENCES document (sequence),
    state TEXT NOT NULL,
    number BIGINT,
    began_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    next_try_at BIGINT,
    link_tries BIGINT NOT NULL DEFAULT 0,
    note TEXT,
    detail TEXT,
    body_removed BOOLEAN NOT NULL DEFAULT false,
    PRIMARY KEY (destination_id, sequence)
);

-- For finding the deliveries of one version.
CREATE INDEX delivery_version ON delivery (sequence);
CREATE UNIQUE INDEX delivery_number ON delivery (destination_id, number) WHERE number IS NOT NULL;
-- Deliveries that retention has not processed, in the order of acceptance.
CREATE INDEX delivery_delivered ON delivery (changed_at) WHERE state = 'delivered' AND NOT body_removed;
CREATE INDEX delivery_rejected ON delivery (destination_id, sequence) WHERE state = 'rejected';

-- Attempts; consecutive ones with the same result are one row.
CREATE TABLE delivery_attempt (
    destination_id BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    number BIGINT NOT NULL,
    began_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    result TEXT NOT NULL,
    detail TEXT,
    times BIGINT NOT NULL,
    PRIMARY KEY (destination_id, sequence, number),
    FOREIGN KEY (destination_id, sequence) REFERENCES delivery (destination_id, sequence)
);

-- Import errors for the vendor's accountant: one for each (version, text). The digest
-- stands for the text, as an index of whole texts would be as large as the texts.
CREATE TABLE import_error (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    sequence BIGINT NOT NULL REFERENCES document (sequence),
    digest BYTEA NOT NULL,
    company TEXT,
    message TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    fence BIGINT NOT NULL DEFAULT 0,
    leased_until BIGINT,
    created_at BIGINT NOT NULL,
    sent_at BIGINT,
    next_try_at BIGINT,
    last_error TEXT,
    UNIQUE (sequence, digest)
);

CREATE INDEX import_error_pending ON import_error (next_try_at) WHERE state = 'pending';

-- Feeds that are pulled again because links to files have expired, and the fresh links
-- found. A link is a secret, as is the one in the document's body.
CREATE TABLE fresh_link_request (
    feed_id BIGINT PRIMARY KEY REFERENCES feed (id),
    requested_at BIGINT NOT NULL
);

CREATE TABLE document_link (
    sequence BIGINT PRIMARY KEY REFERENCES document (sequence),
    url TEXT NOT NULL,
    listed_at BIGINT NOT NULL
);
