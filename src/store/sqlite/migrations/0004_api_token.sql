-- Tokens of the admin listener. `hash` is SHA-256 of the token, which itself is kept
-- nowhere. A number is never given twice: who holds a withdrawn one must not become another.
CREATE TABLE api_token (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    rights TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;
