-- Callbacks that waited too long for a paused receiver end as failed, with the events of the tasks whose own they are; the
-- tasks are locked first.
WITH found AS MATERIALIZED (
    SELECT id, task_id FROM tasks_callback
    WHERE waits_for_id IS NOT NULL AND waits_since < now() - make_interval(days => %(days)s)
    ORDER BY waits_since LIMIT %(batch)s
), locked AS MATERIALIZED (
    SELECT id FROM tasks_task WHERE id = ANY (ARRAY(SELECT task_id FROM found)) ORDER BY id FOR NO KEY UPDATE
), held AS MATERIALIZED (
    SELECT c.id FROM tasks_callback c CROSS JOIN (SELECT count(*) FROM locked) first
    WHERE c.id = ANY (ARRAY(SELECT id FROM found)) ORDER BY c.id FOR NO KEY UPDATE OF c
), failed AS (
    UPDATE tasks_callback c SET status = 'failed', next_attempt_at = NULL, waits_for_id = NULL, waits_since = NULL,
        lease_token = NULL, lease_expires_at = NULL, last_error = format(
            'The receiver was paused for %%s days, every probe failed; the last: %%s', %(days)s::int, r.last_error)
    FROM held, tasks_receiver r
    WHERE c.id = held.id AND c.waits_since < now() - make_interval(days => %(days)s) AND r.id = c.waits_for_id
        AND r.paused_at IS NOT NULL AND (c.lease_expires_at IS NULL OR c.lease_expires_at <= now())
    RETURNING c.id, c.task_id, c.endpoint_id, c.attempt_count, c.last_error
), told AS (
    UPDATE tasks_task t SET seq = t.seq + m.changes
    FROM (SELECT task_id, count(*) AS changes, array_agg(jsonb_build_object(
            'attempt_count', attempt_count, 'error', last_error) ORDER BY id) AS data FROM failed WHERE endpoint_id IS NULL
        GROUP BY task_id) m
    WHERE t.id = m.task_id RETURNING t.id, t.seq - m.changes AS seq, m.data
), event AS (
    INSERT INTO tasks_taskevent (task_id, seq, type, data, actor)
    SELECT told.id, told.seq + e.place, 'callback.failed', e.data, 'system'
    FROM told, unnest(told.data) WITH ORDINALITY AS e(data, place)
)
SELECT id FROM failed
