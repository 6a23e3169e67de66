-- What waits for a receiver that works again is due at once, a batch of each at a time. Nothing waits: one look at an index.
WITH found AS MATERIALIZED (
    SELECT c.id FROM waited_receivers() w JOIN tasks_receiver r ON r.id = w CROSS JOIN LATERAL (
        SELECT c.id FROM tasks_callback c WHERE c.waits_for_id = r.id ORDER BY c.next_attempt_at, c.id
        LIMIT %(batch)s FOR NO KEY UPDATE SKIP LOCKED) c
    WHERE r.paused_at IS NULL
)
UPDATE tasks_callback c SET waits_for_id = NULL, waits_since = NULL, next_attempt_at = least(c.next_attempt_at, now())
FROM found WHERE c.id = found.id
RETURNING c.id
