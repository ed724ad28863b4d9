-- Problems that a person should know of; a kind and subject have one active alarm at a
-- time. `notified` is 0 until the notice of its beginning was sent to the configured
-- target, 1 until that of its end was, then 2; `notify_at` is when the next notice is due,
-- and `fence` rises with every attempt.
CREATE TABLE alarm (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    text TEXT NOT NULL,
    raised_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    ended_at BIGINT,
    notified BIGINT NOT NULL DEFAULT 0,
    notify_at BIGINT,
    fence BIGINT NOT NULL DEFAULT 0,
    attempts BIGINT NOT NULL DEFAULT 0,
    last_error TEXT
);

CREATE UNIQUE INDEX alarm_active ON alarm (kind, subject) WHERE ended_at IS NULL;
CREATE INDEX alarm_to_notify ON alarm (notify_at) WHERE notify_at IS NOT NULL;
