-- Another try: the run is resolved, the next one is written, the task waits out its back-off. Progress starts over.
WITH old AS (
    UPDATE tasks_run SET status = 'exception', reason_resolved = %(resolved)s::text, resolved_at = now(), lease_token = NULL,
        lease_expires_at = NULL
    WHERE task_id = %(id)s AND number = %(attempt)s
), task AS (
    UPDATE tasks_task SET status = 'queued', seq = seq + 1, attempt = attempt + 1, retries_left = retries_left - %(spent)s,
        available_at = now() + make_interval(secs => %(delay)s), progress = %(progress)s
    WHERE id = %(id)s RETURNING *
), run AS (
    INSERT INTO tasks_run (id, task_id, number, status, reason_created, scheduled_at)
    SELECT %(run)s, id, attempt, 'pending', %(created)s, available_at FROM task
)
INSERT INTO tasks_taskevent (task_id, seq, type, data, actor)
SELECT id, seq, 'task.queued', jsonb_build_object('attempt', attempt, 'reason', %(resolved)s::text), 'system' FROM task
RETURNING seq
