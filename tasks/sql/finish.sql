-- The end of a task, or the same end of several: the rows, their runs, events and the callbacks they owe, in one statement
-- (a fifth of the ORM's time).
-- An endpoint's row is shared until the end is committed: who deletes it waits, and sees what it was owed.
WITH task AS (
    UPDATE tasks_task SET status = %(to)s::text, seq = seq + 1, completed_at = now(), output = %(output)s::json,
        error = %(error)s::jsonb, usage = %(usage)s::jsonb, warnings = %(warnings)s::jsonb, paused_at = NULL,
        cancel_requested_at = CASE WHEN %(to)s::text = 'canceled' THEN now() END, cancel_reason = %(cancel_reason)s,
        progress = CASE WHEN %(to)s::text = 'succeeded' THEN progress || '{"percent": 100}' ELSE progress END
    WHERE id = ANY (%(ids)s) RETURNING *
), run AS (
    UPDATE tasks_run r SET status = %(run_status)s::text, reason_resolved = %(resolved)s::text, resolved_at = now(), lease_token = NULL,
        lease_expires_at = NULL, usage = t.usage
    FROM task t WHERE r.task_id = t.id AND r.number = t.attempt
), event AS (
    INSERT INTO tasks_taskevent (task_id, seq, type, data, actor) SELECT id, seq, 'task.' || status, %(data)s, %(actor)s FROM task
), endpoint AS MATERIALIZED (
    SELECT e.id, e.url, t.id AS task_id FROM task t JOIN tasks_webhookendpoint e ON e.account_id = t.account_id
    WHERE e.deleted_at IS NULL AND 'task.' || t.status = ANY (e.events) FOR SHARE OF e
)
INSERT INTO tasks_callback (id, task_id, account_id, endpoint_id, event, url, format, body, status, tries_left)
SELECT uuid7(), id, account_id, NULL::uuid, 'task.' || status, callback_url, callback_format, '', 'pending', %(tries)s
FROM task WHERE callback_url IS NOT NULL
UNION ALL
SELECT uuid7(), t.id, t.account_id, e.id, 'task.' || t.status, e.url, 'standard', '', 'pending', %(tries)s
FROM task t JOIN endpoint e ON e.task_id = t.id
RETURNING id, format
