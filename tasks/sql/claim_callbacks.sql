-- Lease due callbacks. A host's ten longest due rows are its turn, and one that is leased keeps its place in it: no more
-- than ten are under way to a host at a time, and a host with a hundred thousand due costs as much as one with ten.
-- Bodies that are not small go while those before them, the host's and then everybody's, leave room. What turns out to be
-- for a paused receiver is not leased: it waits for that receiver, which is returned.
WITH RECURSIVE host AS (
    (SELECT host FROM tasks_callback WHERE status = 'pending' AND waits_for_id IS NULL ORDER BY host LIMIT 1)
    UNION ALL
    SELECT (SELECT c.host FROM tasks_callback c WHERE c.status = 'pending' AND c.waits_for_id IS NULL AND c.host > h.host
        ORDER BY c.host LIMIT 1)
    FROM host h WHERE h.host IS NOT NULL
), turn AS (
    SELECT t.id, t.next_attempt_at, t.size FROM host h CROSS JOIN LATERAL (
        SELECT d.*, sum(d.size) OVER (ORDER BY d.next_attempt_at, d.id) - d.size AS before FROM (
            SELECT c.id, c.next_attempt_at, c.lease_expires_at,
                CASE WHEN octet_length(c.body) > %(small)s THEN octet_length(c.body) ELSE 0 END AS size
            FROM tasks_callback c
            WHERE c.status = 'pending' AND c.waits_for_id IS NULL AND c.host = h.host AND c.next_attempt_at <= now()
            ORDER BY c.next_attempt_at, c.id LIMIT %(a_host)s) d) t
    WHERE (t.lease_expires_at IS NULL OR t.lease_expires_at <= now())
        AND (t.size = 0 OR t.before < %(room_a_host)s)
), chosen AS (
    SELECT id FROM (
        SELECT id, next_attempt_at, size, sum(size) OVER (ORDER BY next_attempt_at, id) - size AS before FROM turn) t
    WHERE size = 0 OR before < %(room)s ORDER BY next_attempt_at LIMIT %(places)s
), due AS MATERIALIZED (
    SELECT c.id FROM tasks_callback c
    WHERE c.id = ANY (ARRAY(SELECT id FROM chosen)) AND c.status = 'pending' AND c.waits_for_id IS NULL
        AND c.next_attempt_at <= now() AND (c.lease_expires_at IS NULL OR c.lease_expires_at <= now())
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tasks_callback c SET waits_for_id = r.id, waits_since = CASE WHEN r.id IS NOT NULL THEN now() END,
    lease_token = CASE WHEN r.id IS NULL THEN %(token)s::uuid END,
    lease_expires_at = CASE WHEN r.id IS NULL THEN now() + make_interval(secs => %(lease)s) END
FROM due JOIN tasks_callback d USING (id) JOIN billing_account a ON a.id = d.account_id
LEFT JOIN LATERAL (
    SELECT r.id FROM tasks_receiver r
    WHERE r.account_id = d.account_id AND md5(r.url) = md5(split_part(d.url, '?', 1)) AND r.url = split_part(d.url, '?', 1)
        AND r.paused_at IS NOT NULL LIMIT 1) r ON true
WHERE c.id = due.id
RETURNING c.id, c.lease_token, c.task_id, c.url, c.format, convert_to(c.body, 'UTF8'), c.tries_left, a.callback_secret,
    CASE WHEN a.callback_secret_previous_until > now() THEN a.callback_secret_previous ELSE '' END, r.id
