-- Tokens of the admin listener. `hash` is SHA-256 of the token, which itself is kept
-- nowhere. A number is never given twice: who holds a withdrawn one must not become another.
CREATE TABLE api_token (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    rights TEXT NOT NULL,
    hash BYTEA NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);
