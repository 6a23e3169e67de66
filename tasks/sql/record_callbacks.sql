-- What a batch of tries came to, in one statement: the callbacks still leased to us, every attempt, what it says of the
-- receivers, the tasks' seq, and the ends' events. Locks are taken in order: tasks, receivers, callbacks. A callback whose
-- lease went to somebody else stays as it is, but for the number of attempts. A task's timeline tells of its own URL alone:
-- what becomes of an endpoint's callback is in its log. Of a
-- callback whose body was deleted, no answer is kept.
WITH locked AS MATERIALIZED (
    SELECT id FROM tasks_task WHERE id = ANY (%(tasks)s::uuid[]) ORDER BY id FOR NO KEY UPDATE
), result AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(tries)s::json) AS r(id uuid, token uuid, probe boolean, tells boolean, asked float8,
        status text, tries_left int, delay float8, last_error text, started_at timestamptz, duration_ms int, code int,
        response text, error text,
        request_headers json, response_headers text, address text)
), heard AS MATERIALIZED (
    SELECT c.account_id, split_part(c.url, '?', 1) AS url, bool_or(r.status = 'delivered') AS works, count(*) AS failures,
        count(*) FILTER (WHERE r.probe) AS probes, max(r.asked) AS asked, max(r.last_error) AS last_error
    FROM result r JOIN tasks_callback c ON c.id = r.id CROSS JOIN (SELECT count(*) FROM locked) first WHERE r.tells GROUP BY 1, 2
), known AS MATERIALIZED (
    SELECT r.id, r.account_id, r.url, h.works FROM heard h JOIN tasks_receiver r
        ON r.account_id = h.account_id AND md5(r.url) = md5(h.url) AND r.url = h.url
    WHERE NOT h.works OR r.failures > 0 ORDER BY r.account_id, r.url FOR NO KEY UPDATE OF r
), recovered AS (
    UPDATE tasks_receiver r SET failures = 0, recovered_at = now(), paused_at = NULL, probes = 0, failing_since = NULL,
        next_probe_at = CASE WHEN r.paused_at IS NOT NULL THEN now() ELSE r.next_probe_at END, probing_until = NULL, probe_id = NULL
    FROM known WHERE r.id = known.id AND known.works
), failing AS (
    INSERT INTO tasks_receiver AS r (account_id, url, failures, last_error, last_failure_at, failing_since, probes, paused_at,
        next_probe_at)
    SELECT account_id, url, failures, last_error, now(), now(), 0, CASE WHEN failures >= %(failures)s THEN now() END,
        CASE WHEN failures >= %(failures)s THEN now() + make_interval(secs => greatest(asked, (%(pauses)s::float8[])[1])) END
    FROM heard CROSS JOIN (SELECT count(*) FROM known) first WHERE NOT works ORDER BY account_id, url
    ON CONFLICT (account_id, md5(url)) DO UPDATE
    SET (failures, last_error, last_failure_at, failing_since, probes, paused_at, next_probe_at, probing_until) = (
        SELECT r.failures + h.failures, h.last_error, now(), coalesce(r.failing_since, now()), r.probes + h.probes,
            CASE WHEN r.failures + h.failures >= %(failures)s THEN coalesce(r.paused_at, now()) END,
            CASE WHEN r.failures + h.failures < %(failures)s THEN r.next_probe_at
                WHEN r.paused_at IS NOT NULL AND h.probes = 0 THEN coalesce(r.next_probe_at, now())
                ELSE now() + make_interval(secs => greatest(h.asked,
                    (%(pauses)s::float8[])[least(r.probes + h.probes + 1, cardinality(%(pauses)s::float8[]))])) END,
            CASE WHEN h.probes = 0 THEN r.probing_until END
        FROM heard h WHERE h.account_id = r.account_id AND h.url = r.url)
    RETURNING r.id, r.account_id, r.url, r.paused_at
), held AS MATERIALIZED (
    SELECT c.id, c.task_id, c.account_id, c.endpoint_id, c.url, c.attempt_count, c.lease_token,
        c.body = '' AS deleted
    FROM tasks_callback c CROSS JOIN (SELECT count(*) FROM locked) tasks CROSS JOIN (SELECT count(*) FROM failing) first
    WHERE c.id = ANY (ARRAY(SELECT id FROM result)) ORDER BY c.id FOR NO KEY UPDATE OF c
), tried AS MATERIALIZED (
    SELECT r.*, h.task_id, h.endpoint_id, h.deleted, coalesce(h.lease_token = r.token, false) AS ours, p.id AS paused,
        h.attempt_count + row_number() OVER (PARTITION BY r.id ORDER BY r.started_at) AS number
    FROM result r JOIN held h USING (id) LEFT JOIN failing p
        ON p.account_id = h.account_id AND p.url = split_part(h.url, '?', 1) AND p.paused_at IS NOT NULL
), counted AS (
    UPDATE tasks_callback c SET attempt_count = t.number
    FROM (SELECT id, max(number) AS number FROM tried GROUP BY id HAVING NOT bool_or(ours)) t WHERE c.id = t.id
), moved AS (
    UPDATE tasks_callback c SET status = t.status, tries_left = t.tries_left, last_error = t.last_error,
        attempt_count = (SELECT max(number) FROM tried WHERE id = t.id),
        next_attempt_at = CASE WHEN t.status = 'pending' THEN
            now() + make_interval(secs => CASE WHEN t.paused IS NULL THEN t.delay ELSE 0 END) END,
        delivered_at = CASE WHEN t.status = 'delivered' THEN now() END,
        waits_for_id = CASE WHEN t.status = 'pending' THEN coalesce(t.paused, c.waits_for_id) END,
        waits_since = CASE WHEN t.status = 'pending' THEN
            coalesce(c.waits_since, CASE WHEN t.paused IS NOT NULL THEN now() END) END,
        lease_token = NULL, lease_expires_at = NULL
    FROM tried t WHERE c.id = t.id AND t.ours
), attempt AS (
    INSERT INTO tasks_callbackattempt (callback_id, number, started_at, duration_ms, status_code, response, error,
        request_headers, response_headers, address)
    SELECT id, number, started_at, duration_ms, code, CASE WHEN deleted THEN '' ELSE response END, error,
        request_headers, CASE WHEN deleted THEN '' ELSE response_headers END, address FROM tried
), told AS (
    UPDATE tasks_task t SET seq = t.seq + m.changes
    FROM (SELECT task_id, count(*) AS changes, array_agg(CASE WHEN ours THEN status END ORDER BY id, number) AS statuses,
            array_agg(jsonb_strip_nulls(jsonb_build_object(
                'attempt_count', number, 'status_code', code, 'error', last_error)) ORDER BY id, number) AS data
        FROM tried WHERE endpoint_id IS NULL GROUP BY task_id) m
    WHERE t.id = m.task_id RETURNING t.id, t.seq - m.changes AS seq, m.statuses, m.data
), event AS (
    INSERT INTO tasks_taskevent (task_id, seq, type, data, actor)
    SELECT told.id, told.seq + e.place, 'callback.' || e.status, e.data, 'system'
    FROM told, unnest(told.statuses, told.data) WITH ORDINALITY AS e(status, data, place)
    WHERE e.status IN ('delivered', 'failed')
)
SELECT id FROM tried WHERE ours
