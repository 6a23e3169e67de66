-- A heartbeat, by the database's clock. No row: the token is refused.
UPDATE tasks_run SET lease_expires_at = now() + make_interval(secs => %(lease)s)
WHERE lease_token = %(token)s AND status = 'running' RETURNING 1
