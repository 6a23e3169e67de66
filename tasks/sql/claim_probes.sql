-- Lease one probe for each paused receiver whose time has come: the callback that was asked for, or the one that is waiting
-- longest. A host's three longest due receivers are its turn, and one that is being probed keeps its place in it. Accounts
-- take turns, within their share of the places.
WITH of_account AS MATERIALIZED (
    SELECT account_id, count(*) AS places FROM tasks_callback WHERE status = 'pending' AND lease_expires_at > now() GROUP BY 1
), turn AS (
    SELECT r.id, r.account_id, r.next_probe_at, r.probing_until,
        row_number() OVER (PARTITION BY r.host ORDER BY r.next_probe_at, r.id) AS place
    FROM tasks_receiver r WHERE r.paused_at IS NOT NULL AND r.next_probe_at <= now()
), of_accounts AS (
    SELECT t.id, t.next_probe_at, coalesce(a.places, 0) + row_number() OVER (
        PARTITION BY t.account_id ORDER BY t.next_probe_at, t.id) AS place
    FROM turn t LEFT JOIN of_account a USING (account_id)
    WHERE t.place <= %(a_host)s AND (t.probing_until IS NULL OR t.probing_until <= now())
), chosen AS (
    SELECT id FROM of_accounts WHERE place <= %(an_account)s ORDER BY place, next_probe_at LIMIT %(places)s
), ready AS MATERIALIZED (
    SELECT r.id, r.probe_id FROM tasks_receiver r
    WHERE r.id = ANY (ARRAY(SELECT id FROM chosen)) AND r.paused_at IS NOT NULL AND r.next_probe_at <= now()
        AND (r.probing_until IS NULL OR r.probing_until <= now())
    FOR NO KEY UPDATE SKIP LOCKED
), picked AS MATERIALIZED (
    SELECT r.id AS receiver, coalesce(
        (SELECT c.id FROM tasks_callback c WHERE c.id = r.probe_id AND c.waits_for_id = r.id
            AND (c.lease_expires_at IS NULL OR c.lease_expires_at <= now())),
        (SELECT c.id FROM tasks_callback c WHERE c.waits_for_id = r.id
            AND (c.lease_expires_at IS NULL OR c.lease_expires_at <= now())
            ORDER BY c.next_attempt_at, c.id LIMIT 1)) AS id
    FROM ready r
), due AS MATERIALIZED (
    SELECT c.id, p.receiver FROM picked p JOIN tasks_callback c ON c.id = p.id AND c.waits_for_id = p.receiver
    WHERE c.lease_expires_at IS NULL OR c.lease_expires_at <= now()
    FOR NO KEY UPDATE OF c SKIP LOCKED
), probing AS (
    UPDATE tasks_receiver r SET probing_until = now() + make_interval(secs => %(lease)s), probe_id = NULL
    FROM due WHERE r.id = due.receiver
)
UPDATE tasks_callback c SET lease_token = %(token)s, lease_expires_at = now() + make_interval(secs => %(lease)s)
FROM due JOIN tasks_callback d USING (id) JOIN billing_account a ON a.id = d.account_id
WHERE c.id = due.id
RETURNING c.id, c.lease_token, c.task_id, c.account_id, c.url, c.format, convert_to(c.body, 'UTF8'), c.tries_left,
    a.callback_secret, CASE WHEN a.callback_secret_previous_until > now() THEN a.callback_secret_previous ELSE '' END, due.receiver
