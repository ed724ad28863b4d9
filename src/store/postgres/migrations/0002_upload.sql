-- Files sent to the vendor. `correlation` is sent with the file and returned with the
-- documents made of it. `owner` is the process that is sending it; no other process
-- sends it before `claimed_until`.
CREATE TABLE upload (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    correlation TEXT NOT NULL UNIQUE,
    sha256 TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    file_name TEXT NOT NULL,
    state TEXT NOT NULL,
    owner TEXT,
    claimed_until BIGINT,
    attempts BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    sent_at BIGINT,
    last_error TEXT
);

-- Not unique: `--force` sends the same content again.
CREATE INDEX upload_content ON upload (account_id, sha256);

-- The documents made of a file: one, or several if the vendor splits it.
CREATE TABLE upload_document (
    upload_id BIGINT NOT NULL REFERENCES upload (id),
    document_id TEXT NOT NULL,
    PRIMARY KEY (upload_id, document_id)
);
