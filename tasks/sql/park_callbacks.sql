-- Let everything that is owed to these paused receivers wait for them, whether due or not, a batch of each at a time. One
-- for which nothing waited is probed now.
WITH found AS MATERIALIZED (
    SELECT c.id, r.id AS receiver FROM tasks_receiver r CROSS JOIN LATERAL (
        SELECT c.id FROM tasks_callback c
        WHERE c.status = 'pending' AND c.waits_for_id IS NULL AND c.account_id = r.account_id
            AND md5(split_part(c.url, '?', 1)) = md5(r.url) AND split_part(c.url, '?', 1) = r.url
            AND (c.lease_expires_at IS NULL OR c.lease_expires_at <= now())
        LIMIT %(batch)s FOR NO KEY UPDATE SKIP LOCKED) c
    WHERE r.id = ANY (%(receivers)s::bigint[]) AND r.paused_at IS NOT NULL
), idle AS MATERIALIZED (
    SELECT id FROM tasks_receiver
    WHERE id = ANY (%(receivers)s::bigint[]) AND paused_at IS NOT NULL AND next_probe_at IS NULL
    FOR NO KEY UPDATE SKIP LOCKED
), roused AS (
    UPDATE tasks_receiver r SET next_probe_at = now() FROM idle WHERE r.id = idle.id
)
UPDATE tasks_callback c SET waits_for_id = found.receiver, waits_since = now(),
    next_attempt_at = least(c.next_attempt_at, now())
FROM found WHERE c.id = found.id
RETURNING c.id
