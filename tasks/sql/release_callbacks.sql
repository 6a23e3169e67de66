-- What waits for a receiver that works again is due at once, a batch of each at a time. A receiver whose time has come and
-- for which nothing waits, or no longer, is looked at again only when something does.
WITH found AS MATERIALIZED (
    SELECT c.id FROM tasks_receiver r CROSS JOIN LATERAL (
        SELECT c.id FROM tasks_callback c WHERE c.waits_for_id = r.id ORDER BY c.next_attempt_at, c.id
        LIMIT %(batch)s FOR NO KEY UPDATE SKIP LOCKED) c
    WHERE r.next_probe_at <= now() AND r.paused_at IS NULL
), idle AS MATERIALIZED (
    SELECT r.id FROM tasks_receiver r
    WHERE r.next_probe_at <= now() AND NOT EXISTS (SELECT FROM tasks_callback c WHERE c.waits_for_id = r.id)
    LIMIT %(batch)s FOR NO KEY UPDATE SKIP LOCKED
), settled AS (
    UPDATE tasks_receiver r SET next_probe_at = NULL FROM idle WHERE r.id = idle.id
)
UPDATE tasks_callback c SET waits_for_id = NULL, waits_since = NULL, next_attempt_at = least(c.next_attempt_at, now())
FROM found WHERE c.id = found.id
RETURNING c.id
