-- What a batch of tries came to: the rows still leased to us, their attempts, their tasks' seq, and the ends' events, in
-- one statement. Tasks are locked first and in order; a row whose lease went to somebody else stays as it is.
WITH locked AS MATERIALIZED (
    SELECT id FROM tasks_task WHERE id = ANY (%(tasks)s::uuid[]) ORDER BY id FOR NO KEY UPDATE
), result AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(tries)s::json) AS r(id uuid, token uuid, status text, tries_left int, delay float8,
        last_error text, started_at timestamptz, duration_ms int, code int, response text, error text)
), moved AS (
    UPDATE tasks_callback c SET status = r.status, attempt_count = c.attempt_count + 1, tries_left = r.tries_left,
        next_attempt_at = CASE WHEN r.status = 'pending' THEN now() + make_interval(secs => r.delay) END,
        delivered_at = CASE WHEN r.status = 'delivered' THEN now() END, last_error = r.last_error,
        lease_token = NULL, lease_expires_at = NULL
    FROM result r, locked
    WHERE c.id = r.id AND c.lease_token = r.token AND c.task_id = locked.id
    RETURNING c.id, c.task_id, c.attempt_count, r.status, r.last_error, r.started_at, r.duration_ms, r.code, r.response,
        r.error
), attempt AS (
    INSERT INTO tasks_callbackattempt (callback_id, number, started_at, duration_ms, status_code, response, error)
    SELECT id, attempt_count, started_at, duration_ms, code, response, error FROM moved
), told AS (
    UPDATE tasks_task t SET seq = t.seq + m.changes
    FROM (SELECT task_id, count(*) AS changes, array_agg(status ORDER BY id) AS statuses,
            array_agg(jsonb_strip_nulls(jsonb_build_object(
                'attempt_count', attempt_count, 'status_code', code, 'error', last_error)) ORDER BY id) AS data
        FROM moved GROUP BY task_id) m
    WHERE t.id = m.task_id RETURNING t.id, t.seq - m.changes AS seq, m.statuses, m.data
), event AS (
    INSERT INTO tasks_taskevent (task_id, seq, type, data, actor)
    SELECT told.id, told.seq + e.place, 'callback.' || e.status, e.data, 'system'
    FROM told, unnest(told.statuses, told.data) WITH ORDINALITY AS e(status, data, place) WHERE e.status <> 'pending'
)
SELECT id FROM moved
