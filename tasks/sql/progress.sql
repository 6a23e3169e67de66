-- Progress takes a seq without an event; only the holder of the lease is heard.
UPDATE tasks_task t SET progress = %(progress)s, seq = seq + 1
FROM tasks_run r
WHERE t.id = %(id)s AND t.status = 'running' AND r.task_id = t.id AND r.number = t.attempt AND r.lease_token = %(token)s
RETURNING t.seq
