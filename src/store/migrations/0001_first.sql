-- The tables of both databases; types in braces are written by src/store/migrations.rs.
-- Times are milliseconds since 1970-01-01T00:00:00Z.

-- One row. `last` is the newest sequence number of a document version; it is raised
-- last before COMMIT, so numbers have no gaps and appear in the order of commits.
-- `epoch` changes when a backup is restored: numbers of different epochs don't compare.
-- `backup` is true in files written by `store backup`; in a restored PostgreSQL database
-- it is set by hand (docs/postgres.md).
CREATE TABLE sequence (
    id {integer} PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    last {integer} NOT NULL,
    backup {boolean} NOT NULL DEFAULT FALSE
){strict};

-- Counts that many transactions raise: by the hour that begins at `hour`, or in all (0). On
-- PostgreSQL each has several rows, so that transactions seldom wait for each other.
CREATE TABLE tally (
    what TEXT NOT NULL,
    hour {integer} NOT NULL,
    part {integer} NOT NULL,
    count {integer} NOT NULL,
    PRIMARY KEY (what, hour, part)
){by_key};

-- One API key at the vendor, with its backoff, which replicas share. Accounts and feeds are
-- never deleted, as their numbers are cached and referred to: they have a `removed_at`. A wait
-- that began (`waits_since`) in the future is over: the clock was ahead. `clock_offset` is how
-- many milliseconds the vendor's clock is ahead of ours, NULL until an answer has shown it.
CREATE TABLE account (
    id {id},
    name TEXT NOT NULL UNIQUE,
    clock_offset {integer},
    removed_at {integer},
    paused TEXT,
    waits_since {integer},
    waits_until {integer},
    failures {integer} NOT NULL DEFAULT 0,
    last_error TEXT
){strict};

-- The number of entries of the largest page that a queue of an account has ever shown: a page
-- as large may have been cut.
CREATE TABLE account_queue (
    account_id {integer} NOT NULL REFERENCES account (id),
    queue TEXT NOT NULL,
    largest_page {integer} NOT NULL,
    PRIMARY KEY (account_id, queue)
){by_key};

-- One (account, queue, company) with one cursor. `fence` rises with every lease, so that
-- a stale owner can't write; `last_leased_at` keeps turns fair between companies.
-- `known_at` is when it became known, `announced_at` in the vendor's time when something of the
-- vendor's made it known, and `begins_at` the moment of the cursor at which a person let it
-- start. `pulled_at` is when a pull last ended, complete or not. A person
-- who knows that the vendor obeys the company in requests has `company_vouched`. An `unfit` one is
-- removed as long as it does not fit the settings.
CREATE TABLE feed (
    id {id},
    account_id {integer} NOT NULL REFERENCES account (id),
    queue TEXT{bytewise} NOT NULL,
    company TEXT{bytewise} NOT NULL,
    known_at {integer} NOT NULL,
    announced_at {integer},
    begins_at TEXT,
    removed_at {integer},
    unfit {boolean} NOT NULL DEFAULT FALSE,
    cursor TEXT,
    fence {integer} NOT NULL DEFAULT 0,
    leased_until {integer},
    last_leased_at {integer},
    last_page_at {integer},
    pulled_at {integer},
    up_to_date_at {integer},
    first_complete_at {integer},
    documents {integer} NOT NULL DEFAULT 0,
    missed_notifications {integer} NOT NULL DEFAULT 0,
    company_vouched {boolean} NOT NULL DEFAULT FALSE,
    paused TEXT,
    waits_since {integer},
    waits_until {integer},
    failures {integer} NOT NULL DEFAULT 0,
    last_error TEXT,
    UNIQUE (account_id, queue, company)
){strict};

-- For counting an account's requests in flight.
CREATE INDEX feed_leased ON feed (account_id, leased_until) WHERE leased_until IS NOT NULL;

-- For finding a company's feeds, and those that a person should know of.
CREATE INDEX feed_company ON feed (company);
CREATE INDEX feed_removed ON feed (id) WHERE removed_at IS NOT NULL;
CREATE INDEX feed_paused ON feed (account_id, paused, id) WHERE paused IS NOT NULL AND removed_at IS NULL;
CREATE INDEX feed_failing ON feed (id) WHERE failures > 0 AND removed_at IS NULL;
CREATE INDEX feed_pulled ON feed (account_id, queue, (coalesce(pulled_at, known_at))) WHERE paused IS NULL AND removed_at IS NULL;

-- Saved cursors for overlap reads: the newest that is old enough, and all later ones.
CREATE TABLE feed_cursor (
    feed_id {integer} NOT NULL REFERENCES feed (id),
    saved_at {integer} NOT NULL,
    cursor TEXT NOT NULL,
    PRIMARY KEY (feed_id, saved_at)
){by_key};

-- Stretches of feeds in which versions may be missing: after `from_cursor` (NULL: from the
-- beginning) up to `to_cursor` (NULL: not known). A feed is incomplete while it has an open
-- one. `entries` are those of the page that may have been cut, `seen_fence` is the feed's
-- fence when the gap was last found: a pull that began later, and did not find it again,
-- closes it. `dismissed_by` is the person who closed it, NULL if a pull did.
CREATE TABLE gap (
    id {id},
    feed_id {integer} NOT NULL REFERENCES feed (id),
    from_cursor TEXT,
    to_cursor TEXT,
    reason TEXT NOT NULL,
    entries {integer} NOT NULL DEFAULT 0,
    seen_fence {integer} NOT NULL,
    tried_page {integer} NOT NULL,
    found_at {integer} NOT NULL,
    closed_at {integer},
    dismissed_by TEXT
){strict};

CREATE INDEX gap_feed ON gap (feed_id, id);
CREATE INDEX gap_open ON gap (feed_id) WHERE closed_at IS NULL;

-- Triggers, apart from feeds and pulls, so that ingest, which writes them, never waits
-- behind a page. `kind` is the order of urgency: 0 notification, 1 follow-up, 2 late
-- follow-up, 3 reconciliation, 4 backfill. `raised` counts triggers; those above
-- `feed_pull.completed` are pending. `again_at` is the latest due time that was requested
-- while a trigger was pending. `next_at` is when to look at the trigger again, at the latest
-- when its feed may be pulled for it; NULL if it is not pending. `depth` is how far back the pull reads: 0 from the cursor, 1
-- from the lookback, 2 from the beginning, 3 from `from_cursor` to `to_cursor`.
CREATE TABLE feed_trigger (
    feed_id {integer} NOT NULL REFERENCES feed (id),
    kind {integer} NOT NULL,
    raised {integer} NOT NULL,
    due_at {integer} NOT NULL,
    again_at {integer},
    account_id {integer} NOT NULL,
    queue TEXT NOT NULL,
    next_at {integer},
    depth {integer} NOT NULL DEFAULT 0,
    from_cursor TEXT,
    to_cursor TEXT,
    PRIMARY KEY (feed_id, kind)
){by_key};

-- The most urgent trigger is the first of its kind.
CREATE INDEX feed_trigger_next ON feed_trigger (account_id, queue, kind, next_at) WHERE next_at IS NOT NULL;

-- The pull for a kind of trigger: it will have completed the triggers up to `target`,
-- which is NULL while no pull is in progress. `position` is the `from` of its next
-- request, `previous_next` the newest `next` of the vendor, and `progress` the JSON of what
-- its pages have shown so far.
CREATE TABLE feed_pull (
    feed_id {integer} NOT NULL REFERENCES feed (id),
    kind {integer} NOT NULL,
    completed {integer} NOT NULL DEFAULT 0,
    target {integer},
    started_at {integer},
    position TEXT,
    previous_next TEXT,
    progress TEXT,
    PRIMARY KEY (feed_id, kind)
){by_key};

-- Verified messages. `message_id` is the UUID's 16 bytes, which need less room than its text.
-- `published_at` is the signed `Timestamp` of a notification: when it was published. If its copies had
-- another (docs/vendor-api.md), each would trigger a pull. That of a confirmation is when it was sent, so there it
-- is 0. It comes first in the index, so that new messages, whose ids have no order, are beside each other there: by
-- id alone each would change another page. `event` is 1 for on_exported, 2 for on_digitized. Retention removes
-- `body`. Accounts are never removed, and `account_id` comes from their rows: to check it for each
-- message would lock a row that all messages share.
CREATE TABLE notification (
    id {id},
    account_id {integer} NOT NULL,
    event {integer} NOT NULL,
    published_at {integer} NOT NULL,
    message_id {bytes} NOT NULL,
    kind TEXT NOT NULL,
    received_at {integer} NOT NULL,
    body {bytes}
){strict};

CREATE UNIQUE INDEX notification_identity ON notification (published_at, message_id, account_id, event);

-- `on_exported` notifications of an account whose shape is not understood. `triggered_at` is when
-- one last triggered all feeds of the account's exported queue, which happens once in a while.
CREATE TABLE unclear_notification (
    account_id {integer} PRIMARY KEY REFERENCES account (id),
    total {integer} NOT NULL,
    last_at {integer} NOT NULL,
    triggered_at {integer}
){strict};

-- One row: the progress of retention. Notifications arrive in the order of time, so that the next step
-- continues after `notification_id` and never reads the table twice. After the last delivery the next step
-- begins again with the first: `changed_at` and `sequence` are of the one that was looked at last, or 0.
CREATE TABLE retention (
    id {integer} PRIMARY KEY CHECK (id = 1),
    notification_id {integer} NOT NULL,
    changed_at {integer} NOT NULL,
    sequence {integer} NOT NULL
){strict};

INSERT INTO retention (id, notification_id, changed_at, sequence) VALUES (1, 0, 0, 0);

-- Versions of documents, numbered without gaps. `version` is the canonical text of the
-- moment, which orders by its bytes, and `version_ms` its milliseconds; a version that is no
-- moment is kept as written, with NULL. Retention removes `body`, never the row. Of an erased
-- version only its numbers and times are left: `document_id` is `erased-` and the sequence number.
CREATE TABLE document (
    sequence {integer} PRIMARY KEY,
    feed_id {integer} NOT NULL REFERENCES feed (id),
    document_id TEXT NOT NULL,
    version TEXT NOT NULL,
    version_ms {integer},
    superseded {boolean} NOT NULL,
    first_pull {boolean} NOT NULL,
    found_by {integer} NOT NULL,
    stored_at {integer} NOT NULL,
    erased_at {integer},
    body {bytes}
){strict};

-- The identity, ordered so that it also finds a document under other companies.
CREATE UNIQUE INDEX document_identity ON document (document_id, version, feed_id);
CREATE INDEX document_feed ON document (feed_id, sequence);

-- The terms by which versions are found: folded words, and with a sign before them whole numbers,
-- amounts, dates and digests (src/domain/search_text.rs). They are removed with the version's body.
-- Without a reference to `document`, whose rows are never removed, so that storing a page checks none.
CREATE TABLE search_term (
    term TEXT{bytewise} NOT NULL,
    sequence {integer} NOT NULL,
    PRIMARY KEY (term, sequence)
){by_key};

-- For the terms of a version.
CREATE INDEX search_term_document ON search_term (sequence);

-- Versions that a person erased, by the SHA-256 digest of their document's id, and with the
-- empty version unreadable entries, by their own digest: no later pull brings them back.
CREATE TABLE tombstone (
    feed_id {integer} NOT NULL REFERENCES feed (id),
    document_digest {bytes} NOT NULL,
    version TEXT NOT NULL,
    erased_at {integer} NOT NULL,
    PRIMARY KEY (feed_id, document_digest, version)
){by_key};

-- For finding a version under other companies.
CREATE INDEX tombstone_document ON tombstone (document_digest, version);

-- Entries of pages without a usable id, kept aside so that none of them stops a feed.
CREATE TABLE unreadable (
    feed_id {integer} NOT NULL REFERENCES feed (id),
    digest {bytes} NOT NULL,
    seen_at {integer} NOT NULL,
    body {bytes} NOT NULL,
    PRIMARY KEY (feed_id, digest)
){by_key};

-- Subscriptions, requested from the vendor or offered by SNS; a topic may have several.
-- `last_message_at` is the Timestamp of the message that the row reflects: older ones that
-- arrive late are ignored. `last_heard_at` is when its topic last sent a message.
CREATE TABLE subscription (
    id {id},
    account_id {integer} NOT NULL REFERENCES account (id),
    event TEXT NOT NULL,
    name TEXT,
    topic_arn TEXT,
    subscription_arn TEXT,
    state TEXT NOT NULL,
    created_at {integer} NOT NULL,
    changed_at {integer} NOT NULL,
    last_message_at {integer},
    last_heard_at {integer},
    next_try_at {integer},
    attempts {integer} NOT NULL DEFAULT 0,
    last_error TEXT,
    subscribe_url TEXT,
    token TEXT
){strict};

CREATE INDEX subscription_topic ON subscription (account_id, event, topic_arn);
CREATE UNIQUE INDEX subscription_identity ON subscription (subscription_arn) WHERE subscription_arn IS NOT NULL;

-- Topics that a person allowed, beyond those that the settings allow.
CREATE TABLE allowed_topic (
    topic_arn TEXT PRIMARY KEY,
    allowed_at {integer} NOT NULL,
    allowed_by TEXT NOT NULL
){strict};

-- Signing certificates that have verified a message.
CREATE TABLE certificate (
    url TEXT PRIMARY KEY,
    pem {bytes} NOT NULL,
    fetched_at {integer} NOT NULL
){strict};

-- Refused messages, kept for a limited time and within a limited size.
CREATE TABLE quarantine (
    id {id},
    received_at {integer} NOT NULL,
    account TEXT NOT NULL,
    event TEXT NOT NULL,
    reason TEXT NOT NULL,
    allowed_topic {boolean} NOT NULL,
    headers TEXT NOT NULL,
    body {bytes} NOT NULL
){strict};

CREATE INDEX quarantine_received ON quarantine (received_at, reason);

-- Files sent to the vendor. `correlation` is sent with the file and returned with the
-- documents made of it. `owner` is the process that is sending it; no other process
-- sends it before `claimed_until`, unless the claim, which began at `changed_at`, is of the future:
-- the clock was ahead. `location` is where it is being sent, a secret that is
-- removed once the file is there or refused: the same bytes are repeated at the same place.
-- A person settles a sent file of which no document will come; `returned` is true once one has come.
CREATE TABLE upload (
    id {id},
    account_id {integer} NOT NULL REFERENCES account (id),
    correlation TEXT NOT NULL UNIQUE,
    sha256 TEXT NOT NULL,
    size_bytes {integer} NOT NULL,
    file_name TEXT NOT NULL,
    state TEXT NOT NULL,
    owner TEXT,
    claimed_until {integer},
    attempts {integer} NOT NULL DEFAULT 0,
    created_at {integer} NOT NULL,
    changed_at {integer} NOT NULL,
    sent_at {integer},
    last_error TEXT,
    location TEXT,
    settled_at {integer},
    settled_reason TEXT,
    returned {boolean} NOT NULL DEFAULT FALSE
){strict};

-- Those of which a document is still to come.
CREATE INDEX upload_missing ON upload (id) WHERE sent_at IS NOT NULL AND settled_at IS NULL AND NOT returned;

-- For removing locations that have expired.
CREATE INDEX upload_located ON upload (changed_at) WHERE location IS NOT NULL;

-- For finding uploads by the names of their files.
CREATE INDEX upload_file_name ON upload (file_name, id);

-- Not unique: `--force` sends the same content again.
CREATE INDEX upload_content ON upload (account_id, sha256);

-- The documents made of a file: one, or several if the vendor splits it.
CREATE TABLE upload_document (
    upload_id {integer} NOT NULL REFERENCES upload (id),
    document_id TEXT NOT NULL,
    PRIMARY KEY (upload_id, document_id)
){by_key};

CREATE INDEX upload_of_document ON upload_document (document_id);

-- Destinations of documents. `known_at` is when it became known, or its `filter` last changed.
-- Feeds up to the id `lanes_to` have their lanes, made when `accounts_known` accounts had shown
-- the vendor's clock. One worker at a time holds the lease, which began or was last renewed at
-- `leased_at`; one of the future is over: the clock was ahead. `fence` rises with each, so that a
-- stale owner can't write, and `turn` whenever it chooses what comes next. Two documents failed
-- alike if it is `probing`: it gets one at a time. `stuck_at` is the version that failed last.
-- `last_number` is the newest place in the list that a program reads.
CREATE TABLE destination (
    id {id},
    name TEXT NOT NULL UNIQUE,
    known_at {integer} NOT NULL,
    filter TEXT NOT NULL,
    lanes_to {integer} NOT NULL DEFAULT 0,
    accounts_known {integer} NOT NULL DEFAULT 0,
    last_number {integer} NOT NULL DEFAULT 0,
    fence {integer} NOT NULL DEFAULT 0,
    turn {integer} NOT NULL DEFAULT 0,
    leased_at {integer},
    leased_until {integer},
    paused TEXT,
    waits_until {integer},
    failing_since {integer},
    failures {integer} NOT NULL DEFAULT 0,
    probing {boolean} NOT NULL DEFAULT FALSE,
    last_error TEXT,
    stuck_at {integer},
    last_answer_at {integer},
    last_success_at {integer},
    delivered {integer} NOT NULL DEFAULT 0,
    rejected {integer} NOT NULL DEFAULT 0
){strict};

-- One feed at one destination, in its own order. Versions before the moment `begins_at` (NULL:
-- not known yet) are history, of which a person started those from `history_from` on (empty: all;
-- NULL: none). Every version at or below `position` is finished, is tried again at a time of its
-- own, or is history; `held` counts the latter: current versions with a body whose delivery is `held`,
-- or that have none. `due_at` is NULL if nothing waits, so that an
-- idle, paused or held lane costs nothing. `turn` is the destination's when the lane last had
-- one, and 0 if it has had none since it became due. Pages with new versions raise `arrivals`.
-- `equal_rejections` counts rejections with the digest `last_rejection` in a row, `answers` all
-- answers until one was another.
CREATE TABLE lane (
    destination_id {integer} NOT NULL REFERENCES destination (id),
    feed_id {integer} NOT NULL REFERENCES feed (id),
    begins_at TEXT,
    history_from TEXT,
    position {integer} NOT NULL DEFAULT 0,
    held {integer} NOT NULL DEFAULT 0,
    due_at {integer},
    turn {integer} NOT NULL DEFAULT 0,
    arrivals {integer} NOT NULL DEFAULT 0,
    failures {integer} NOT NULL DEFAULT 0,
    failing_since {integer},
    last_error TEXT,
    paused TEXT,
    removed_at {integer},
    answers {integer} NOT NULL DEFAULT 0,
    equal_rejections {integer} NOT NULL DEFAULT 0,
    last_rejection {bytes},
    PRIMARY KEY (destination_id, feed_id)
){by_key};

CREATE INDEX lane_due ON lane (destination_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX lane_turn ON lane (destination_id, turn, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX lane_trouble ON lane (destination_id, paused) WHERE failures > 0 OR paused IS NOT NULL;
CREATE INDEX lane_unknown ON lane (destination_id) WHERE begins_at IS NULL AND removed_at IS NULL AND history_from IS NULL;
CREATE INDEX lane_started ON lane (destination_id) WHERE history_from IS NOT NULL;
-- All lanes with history are read for its sum: without `removed_at` SQLite would read the row of each.
CREATE INDEX lane_held ON lane (destination_id, held, removed_at) WHERE held > 0 AND removed_at IS NULL;
CREATE INDEX lane_feed ON lane (feed_id);

-- The delivery of a version to a destination; no row before the first attempt. `note` is
-- the destination's own, `detail` its answer. A version with a `next_try_at` is tried then, apart
-- from the order of its lane. `failures` in a row began at `failing_since`. `body_removed` means
-- that retention has removed the document's body. `number` is the place in the list that a
-- program reads.
-- `import_error_id` is the import error of its last rejection.
-- Without references to rows that are never removed, so that storing outcomes checks none.
CREATE TABLE delivery (
    destination_id {integer} NOT NULL,
    sequence {integer} NOT NULL,
    state TEXT NOT NULL,
    import_error_id {integer},
    number {integer},
    began_at {integer} NOT NULL,
    changed_at {integer} NOT NULL,
    next_try_at {integer},
    failures {integer} NOT NULL DEFAULT 0,
    failing_since {integer},
    link_tries {integer} NOT NULL DEFAULT 0,
    note TEXT,
    detail TEXT,
    body_removed {boolean} NOT NULL DEFAULT FALSE,
    PRIMARY KEY (destination_id, sequence)
){by_key};

-- For finding the deliveries of one version.
CREATE INDEX delivery_version ON delivery (sequence);
CREATE UNIQUE INDEX delivery_number ON delivery (destination_id, number) WHERE number IS NOT NULL;
-- Deliveries that retention has not processed, in the order of acceptance.
CREATE INDEX delivery_delivered ON delivery (changed_at, sequence) WHERE state = 'delivered' AND NOT body_removed;
-- Deliveries that people look for, by state.
CREATE INDEX delivery_state ON delivery (destination_id, state, sequence) WHERE state <> 'delivered';
CREATE INDEX delivery_due ON delivery (destination_id, next_try_at) WHERE next_try_at IS NOT NULL;
-- Those of them that wait for minutes at most, among thousands that may wait for a day.
CREATE INDEX delivery_retry ON delivery (destination_id, next_try_at) WHERE state = 'pending' AND next_try_at IS NOT NULL;

-- Places of lists that programs read, as many as were added at once: from `first_number` up to
-- the next row. `check_text` is random, so that the same numbers, given again after an older
-- state of the database was put back, have another one.
CREATE TABLE list_place (
    destination_id {integer} NOT NULL REFERENCES destination (id),
    first_number {integer} NOT NULL,
    check_text TEXT NOT NULL,
    PRIMARY KEY (destination_id, first_number)
){by_key};

-- Attempts; consecutive ones with the same result are one row. Without a reference to `delivery`, whose
-- rows are never removed.
CREATE TABLE delivery_attempt (
    destination_id {integer} NOT NULL,
    sequence {integer} NOT NULL,
    number {integer} NOT NULL,
    began_at {integer} NOT NULL,
    ended_at {integer} NOT NULL,
    result TEXT NOT NULL,
    detail TEXT,
    times {integer} NOT NULL,
    PRIMARY KEY (destination_id, sequence, number)
){by_key};

-- Files of erased documents at destinations that are folders, until they are removed: one line
-- of a delivery's note each, with the SHA-256 digest of the document's id in hexadecimal digits, since
-- another document may have the name by now. It is empty if the document was erased before the
-- file was there.
CREATE TABLE erased_file (
    destination_id {integer} NOT NULL REFERENCES destination (id),
    path TEXT NOT NULL,
    document_digest TEXT NOT NULL,
    PRIMARY KEY (destination_id, path, document_digest)
){by_key};

-- Import errors for the vendor's accountant: one for each (version, text). The digest
-- stands for the text, as an index of whole texts would be as large as the texts. One that a
-- person `requested` is sent even if its rejection has been withdrawn. `ended_at` is when it was
-- refused, withdrawn or discarded, `leased_at` when its lease began.
CREATE TABLE import_error (
    id {id},
    account_id {integer} NOT NULL REFERENCES account (id),
    sequence {integer} NOT NULL REFERENCES document (sequence),
    digest {bytes} NOT NULL,
    company TEXT,
    message TEXT NOT NULL,
    state TEXT NOT NULL,
    requested {boolean} NOT NULL DEFAULT FALSE,
    attempts {integer} NOT NULL DEFAULT 0,
    fence {integer} NOT NULL DEFAULT 0,
    leased_at {integer},
    leased_until {integer},
    created_at {integer} NOT NULL,
    sent_at {integer},
    ended_at {integer},
    next_try_at {integer},
    not_found_after {integer},
    last_error TEXT,
    UNIQUE (sequence, digest)
){strict};

CREATE INDEX import_error_pending ON import_error (next_try_at) WHERE state = 'pending';
CREATE INDEX import_error_of_account ON import_error (account_id, next_try_at) WHERE state = 'pending';

-- The path that an account's import errors are sent to, as the vendor answers there: how many
-- it has `accepted`, and the import error that it answered 404 to since. A path that
-- seems not to exist is paused, and tried again at `retry_at`. It is empty until the vendor has
-- answered at one; the row is locked before an account's import errors are changed.
CREATE TABLE import_error_path (
    account_id {integer} PRIMARY KEY REFERENCES account (id),
    path TEXT NOT NULL,
    accepted {integer} NOT NULL,
    not_found {integer},
    paused_since {integer},
    retry_at {integer},
    last_error TEXT
){strict};

-- Feeds that are pulled again because links to files have expired, and the fresh links
-- found. A link is a secret, as is the one in the document's body.
CREATE TABLE fresh_link_request (
    feed_id {integer} PRIMARY KEY REFERENCES feed (id),
    requested_at {integer} NOT NULL
){strict};

CREATE TABLE document_link (
    sequence {integer} PRIMARY KEY REFERENCES document (sequence),
    url TEXT NOT NULL,
    listed_at {integer} NOT NULL
){strict};

CREATE INDEX document_link_listed ON document_link (listed_at);

-- Tokens of the admin listener. `hash` is the SHA-256 digest of the token, which itself is
-- not stored. An id is never used twice, so that the holder of a revoked token never
-- passes for another one.
CREATE TABLE api_token (
    id {new_id},
    name TEXT NOT NULL UNIQUE,
    rights TEXT NOT NULL,
    hash {bytes} NOT NULL UNIQUE,
    created_at {integer} NOT NULL,
    expires_at {integer},
    last_used_at {integer}
){strict};

-- Links that let a browser in, by the digest of their secret. `sessions_end_at` is when the sessions that they open
-- end at the latest: with the token of their creator.
CREATE TABLE login_link (
    hash {bytes} PRIMARY KEY,
    rights TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at {integer} NOT NULL,
    expires_at {integer} NOT NULL,
    sessions_end_at {integer} NOT NULL
){by_key};

-- Sessions of browsers, by the digest of their cookie.
CREATE TABLE session (
    hash {bytes} PRIMARY KEY,
    rights TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at {integer} NOT NULL,
    last_used_at {integer} NOT NULL,
    expires_at {integer} NOT NULL
){by_key};

-- Changes by people and programs: who did what to which part.
CREATE TABLE audit (
    id {new_id},
    at {integer} NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT
){strict};

-- Problems that a person should know of; a kind and subject have one active alarm at a
-- time. `notified` is 0 until the notice of its beginning was sent to the configured
-- target, 1 until that of its end was, then 2; `notify_at` is when the next notice is due,
-- and `fence` rises with every attempt.
CREATE TABLE alarm (
    id {id},
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    text TEXT NOT NULL,
    raised_at {integer} NOT NULL,
    seen_at {integer} NOT NULL,
    ended_at {integer},
    notified {integer} NOT NULL DEFAULT 0,
    notify_at {integer},
    fence {integer} NOT NULL DEFAULT 0,
    attempts {integer} NOT NULL DEFAULT 0,
    last_error TEXT
){strict};

CREATE UNIQUE INDEX alarm_active ON alarm (kind, subject) WHERE ended_at IS NULL;
CREATE INDEX alarm_ended ON alarm (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX alarm_to_notify ON alarm (notify_at) WHERE notify_at IS NOT NULL;

