-- Lease due callbacks. At most ten are under way to a host, and a share of a deliverer's places is an account's: both take
-- turns, those of an account with few under way first, and the longest due of each. A look at so many due rows is all of them
-- most of the time; beyond, some of each account are looked at, of as many of its hosts as the look has room for. So a claim
-- costs the same whatever waits for its time and however many are due.
-- Bodies that are not small go while those before them, the host's and then everybody's, leave room. What turns out to be
-- for a paused receiver is not leased: it waits for that receiver, which is returned.
WITH RECURSIVE under_way AS MATERIALIZED (
    SELECT account_id, host, waits_for_id,
        CASE WHEN octet_length(body) > %(small)s THEN octet_length(body) ELSE 0 END AS size
    FROM tasks_callback WHERE status = 'pending' AND lease_expires_at > now()
), of_account AS MATERIALIZED (
    SELECT account_id, count(*) AS places FROM under_way GROUP BY 1
), of_host AS MATERIALIZED (
    SELECT host, count(*) AS places, sum(size) AS size FROM under_way WHERE waits_for_id IS NULL GROUP BY 1
), look AS MATERIALIZED (
    SELECT account_id, host FROM tasks_callback
    WHERE status = 'pending' AND waits_for_id IS NULL AND next_attempt_at <= now()
    ORDER BY next_attempt_at LIMIT %(look)s
), owing AS (
    (SELECT account_id, next_attempt_at FROM tasks_callback
    WHERE status = 'pending' AND waits_for_id IS NULL AND (SELECT count(*) FROM look) = %(look)s
    ORDER BY account_id, next_attempt_at LIMIT 1)
    UNION ALL
    SELECT n.* FROM owing o CROSS JOIN LATERAL (
        SELECT c.account_id, c.next_attempt_at FROM tasks_callback c
        WHERE c.status = 'pending' AND c.waits_for_id IS NULL AND c.account_id > o.account_id
        ORDER BY c.account_id, c.next_attempt_at LIMIT 1) n
), account AS MATERIALIZED (
    SELECT o.account_id FROM owing o LEFT JOIN of_account a USING (account_id)
    WHERE o.next_attempt_at <= now() AND coalesce(a.places, 0) < %(an_account)s
    ORDER BY coalesce(a.places, 0), o.next_attempt_at LIMIT %(accounts)s
), each AS MATERIALIZED (
    SELECT ceil(%(look)s::float8 / greatest(count(*), 1))::int AS rows FROM account
), some_host AS (
    SELECT a.account_id, h.host, 1 AS step FROM account a CROSS JOIN LATERAL (
        SELECT c.host FROM tasks_callback c
        WHERE c.status = 'pending' AND c.waits_for_id IS NULL AND c.account_id = a.account_id ORDER BY c.host LIMIT 1) h
    UNION ALL
    SELECT s.account_id, h.host, s.step + 1 FROM some_host s CROSS JOIN LATERAL (
        SELECT c.host FROM tasks_callback c
        WHERE c.status = 'pending' AND c.waits_for_id IS NULL AND c.account_id = s.account_id AND c.host > s.host
        ORDER BY c.host LIMIT 1) h
    WHERE s.step < (SELECT rows FROM each)
), turn AS MATERIALIZED (
    SELECT account_id, host FROM look LEFT JOIN of_account a USING (account_id) WHERE coalesce(a.places, 0) < %(an_account)s
    UNION
    SELECT account_id, host FROM some_host
    UNION
    SELECT a.account_id, c.host FROM account a CROSS JOIN LATERAL (
        SELECT c.host FROM tasks_callback c
        WHERE c.status = 'pending' AND c.waits_for_id IS NULL AND c.next_attempt_at <= now()
            AND c.account_id BETWEEN a.account_id AND a.account_id -- an order of its own index, not of everybody's due rows
        ORDER BY c.account_id, c.next_attempt_at LIMIT (SELECT rows FROM each)) c
), free AS (
    SELECT c.*, t.account_id, t.host, row_number() OVER (PARTITION BY t.account_id, t.host ORDER BY c.next_attempt_at, c.id) AS nth
    FROM turn t LEFT JOIN of_host h USING (host) CROSS JOIN LATERAL (
        SELECT c.id, c.next_attempt_at,
            CASE WHEN octet_length(c.body) > %(small)s THEN octet_length(c.body) ELSE 0 END AS size
        FROM tasks_callback c
        WHERE c.status = 'pending' AND c.waits_for_id IS NULL AND c.account_id = t.account_id AND c.host = t.host
            AND c.next_attempt_at <= now() AND (c.lease_expires_at IS NULL OR c.lease_expires_at <= now())
        ORDER BY c.next_attempt_at, c.id LIMIT %(a_host)s) c
    WHERE coalesce(h.places, 0) < %(a_host)s
), of_hosts AS (
    SELECT f.*, coalesce(h.places, 0) + row_number() OVER host AS place, coalesce(h.size, 0) + sum(f.size) OVER host - f.size AS before
    FROM free f LEFT JOIN of_host h USING (host)
    WINDOW host AS (PARTITION BY f.host ORDER BY f.nth, f.next_attempt_at, f.id)
), of_accounts AS (
    SELECT f.id, f.next_attempt_at, f.size, coalesce(a.places, 0) + row_number() OVER (
        PARTITION BY f.account_id ORDER BY f.next_attempt_at, f.id) AS place
    FROM of_hosts f LEFT JOIN of_account a USING (account_id)
    WHERE f.place <= %(a_host)s AND (f.size = 0 OR f.before < %(room_a_host)s)
), chosen AS (
    SELECT id FROM (
        SELECT id, place, next_attempt_at, size, sum(size) OVER (ORDER BY place, next_attempt_at, id) - size AS before
        FROM of_accounts WHERE place <= %(an_account)s) t
    WHERE size = 0 OR before < %(room)s ORDER BY place, next_attempt_at LIMIT %(places)s
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
RETURNING c.id, c.lease_token, c.task_id, c.account_id, c.url, c.format, convert_to(c.body, 'UTF8'), c.tries_left,
    a.callback_secret, CASE WHEN a.callback_secret_previous_until > now() THEN a.callback_secret_previous ELSE '' END, r.id
