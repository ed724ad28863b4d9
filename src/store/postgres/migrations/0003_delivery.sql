-- Places where documents are delivered. Every version at or below `position` is settled,
-- as far as the destination's feeds were started. What was stored when the destination became known
-- (`since_sequence`), or last took other documents than before (`filter`), is never handed
-- on by itself. One worker at a time holds the lease;
-- `fence` rises with each, so that a stale owner can't write. `last_number` is the newest
-- place in the list that a program asks for.
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

-- Feeds that were let begin at a destination; of others it is given nothing. Versions of all
-- times (`everything`), those after a number that are not of the first pull, and those
-- from a moment on.
CREATE TABLE destination_feed (
    destination_id BIGINT NOT NULL REFERENCES destination (id),
    feed_id BIGINT NOT NULL REFERENCES feed (id),
    started_at BIGINT NOT NULL,
    everything BOOLEAN NOT NULL,
    after_sequence BIGINT NOT NULL,
    since_ms BIGINT,
    PRIMARY KEY (destination_id, feed_id)
);

-- What became of a version at a destination; none for those that were never given to it.
-- `note` is the destination's own, `detail` what it said; `body_taken` tells that retention has
-- taken the document's body. `number` is its place in the list that
-- a program asks for.
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
    body_taken BOOLEAN NOT NULL DEFAULT false,
    PRIMARY KEY (destination_id, sequence)
);

-- A sequence is looked up alone by whoever asks what became of a document.
CREATE INDEX delivery_version ON delivery (sequence);
CREATE UNIQUE INDEX delivery_number ON delivery (destination_id, number) WHERE number IS NOT NULL;
-- What retention has still to look at, in the order of booking.
CREATE INDEX delivery_delivered ON delivery (changed_at) WHERE state = 'delivered' AND NOT body_taken;
CREATE INDEX delivery_rejected ON delivery (destination_id, sequence) WHERE state = 'rejected';

-- Attempts, several in a row that ended alike as one.
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

-- Import errors for the vendor's accountant: one for each (version, text), whose digest
-- is kept because an index of whole texts would be as large as the texts.
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

-- Feeds that are read again because links to files have expired, and the links that this
-- brought. A link is a secret, as is the one in the document's body.
CREATE TABLE fresh_link_request (
    feed_id BIGINT PRIMARY KEY REFERENCES feed (id),
    asked_at BIGINT NOT NULL
);

CREATE TABLE document_link (
    sequence BIGINT PRIMARY KEY REFERENCES document (sequence),
    url TEXT NOT NULL,
    listed_at BIGINT NOT NULL
);
