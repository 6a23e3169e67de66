INSERT INTO tasks_taskevent (task_id, seq, type, data, actor, created_at)
SELECT id, seq, type, data, actor, at FROM seed_event WHERE type IS NOT NULL ORDER BY at, id, seq
