-- A heartbeat, by the database's clock, answered with the seconds to the deadline. No row: the token is refused.
UPDATE tasks_run r SET lease_expires_at = now() + make_interval(secs => %(lease)s)
FROM tasks_task t
WHERE r.lease_token = %(token)s AND r.status = 'running' AND t.id = r.task_id
RETURNING extract(epoch FROM t.deadline - now())::float8
