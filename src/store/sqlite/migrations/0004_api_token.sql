-- Tokens of the admin listener. `hash` is the SHA-256 digest of the token, which itself is
-- not stored. An id is never used twice, so that the holder of a revoked token never
-- passes for another one.
CREATE TABLE api_token (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    rights TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;
