-- The files of pictures; those past their time are gone, as the sweeper would have it.
INSERT INTO tasks_artifact (task_id, run_id, name, content_type, size, sha256, key, created_at, expires_at, deleted_at)
SELECT t.id, r.id, s.output ->> 'name', 'image/png', (s.output ->> 'bytes')::bigint, s.output ->> 'sha256',
    t.id || '/' || r.id || '/' || md5(r.id::text) || '/' || (s.output ->> 'name'), t.completed_at,
    t.completed_at + make_interval(secs => %(keep)s), CASE WHEN t.completed_at + make_interval(secs => %(keep)s) <= now() THEN now() END
FROM seed_began t JOIN seed_model m ON m.model = t.model JOIN seed_sample s ON s.model = t.model AND s.number = t.work_number
JOIN tasks_run r ON r.task_id = t.id AND r.number = t.attempt
WHERE t.status = 'succeeded' AND m.capability = 'image.transform' AND NOT t.emptied ORDER BY t.completed_at
RETURNING key, sha256, deleted_at IS NULL
