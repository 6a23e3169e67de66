-- Tries that were not made: no try is used up and nobody is judged. They are due again in a few seconds, behind others.
WITH postponed AS MATERIALIZED (
    SELECT * FROM unnest(%(ids)s::uuid[], %(tokens)s::uuid[], %(probes)s::bigint[]) AS p(id, token, receiver)
), receiver AS MATERIALIZED (
    SELECT r.id FROM tasks_receiver r WHERE r.id IN (SELECT receiver FROM postponed)
    ORDER BY r.account_id, r.url FOR NO KEY UPDATE OF r
), probed AS (
    UPDATE tasks_receiver r SET probing_until = NULL, next_probe_at = now() + make_interval(secs => %(seconds)s)
    FROM receiver WHERE r.id = receiver.id AND r.paused_at IS NOT NULL
), held AS MATERIALIZED (
    SELECT c.id FROM tasks_callback c JOIN postponed p ON p.id = c.id AND p.token = c.lease_token
    CROSS JOIN (SELECT count(*) FROM receiver) first ORDER BY c.id FOR NO KEY UPDATE OF c
)
UPDATE tasks_callback c SET lease_token = NULL, lease_expires_at = NULL,
    next_attempt_at = now() + make_interval(secs => CASE WHEN c.waits_for_id IS NULL THEN %(seconds)s ELSE 0 END)
FROM held WHERE c.id = held.id
RETURNING c.id
