-- A run for each try; the last one says how its task is. Leases of running ones last as long as their deadlines.
INSERT INTO tasks_run (id, task_id, number, status, reason_created, reason_resolved, worker, lease_token, lease_expires_at,
    partial_text, usage, scheduled_at, started_at, resolved_at)
SELECT uuid_in(overlay(md5(%(salt)s || t.id::text || try) placing left(replace(t.id::text, '-', ''), 12) from 1 for 12)::cstring), t.id, try,
    CASE WHEN try < t.attempt THEN 'exception' WHEN t.status = 'queued' THEN 'pending'
        WHEN t.status IN ('running', 'succeeded') THEN t.status WHEN t.status = 'canceled' THEN 'exception'
        ELSE r.run_status END,
    CASE WHEN try > 1 THEN 'retry' WHEN t.rerun_of IS NOT NULL THEN 'rerun' ELSE 'scheduled' END,
    CASE WHEN try < t.attempt THEN t.lost_by WHEN NOT t.final THEN NULL WHEN t.status = 'succeeded' THEN 'completed'
        WHEN t.status = 'canceled' THEN 'canceled' ELSE r.resolved END,
    CASE WHEN b.ran THEN 'worker-' || 1 + (t.n + try) %% 4 || '@tasks-' || 1 + t.n %% 3 END,
    CASE WHEN t.status = 'running' AND try = t.attempt THEN gen_random_uuid() END,
    CASE WHEN t.status = 'running' AND try = t.attempt THEN now() + interval '30 days' END,
    CASE WHEN try = t.attempt AND t.status = 'succeeded' AND s.partial_text <> '' THEN s.output #>> '{}'
        WHEN try = t.attempt AND t.partial THEN s.partial_text ELSE '' END,
    CASE WHEN try < t.attempt OR NOT t.final THEN '{}' WHEN t.status = 'succeeded' THEN s.usage
        WHEN t.partial THEN s.partial_usage ELSE '{}' END,
    CASE WHEN try = 1 THEN t.created_at ELSE t.created_at + t.wait_for + (try - 1) * t.step END,
    CASE WHEN b.ran THEN CASE WHEN try = t.attempt THEN t.last_start ELSE t.created_at + t.wait_for + (try - 1) * t.step END END,
    CASE WHEN try < t.attempt THEN t.created_at + t.wait_for + (try - 1) * t.step + t.work_for ELSE t.completed_at END
FROM seed_began t
JOIN seed_sample s ON s.model = t.model AND s.number = t.work_number
LEFT JOIN seed_reason r ON r.code = t.code AND r.retryable = (t.attempt = 3)
CROSS JOIN LATERAL generate_series(1, t.attempt) try
CROSS JOIN LATERAL (SELECT t.started AND NOT (t.status = 'queued' AND try = t.attempt) AS ran) b
ORDER BY t.n, try
