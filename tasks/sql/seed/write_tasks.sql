-- The tasks. What has ended keeps the content that its work really had; `seq` is that of its last change.
INSERT INTO tasks_task (
    id, account_id, api_key_id, deployment_id, capability, model, resolved_model, queue, test, status, seq, attempt, priority,
    available_at, paused_at, blocked, depends_on, metadata, input, output, progress, warnings, error, usage, quote, quoted,
    waived, usd_rate, client_reference, idempotency_key, idempotency_fingerprint, callback_url, callback_format, max_retries,
    retries_left, timeout, deadline, expires_at, rerun_of_id, rerun_root, cancel_reason, content_deleted_at, created_at,
    started_at, completed_at, cancel_requested_at)
SELECT t.id, t.account_id, t.api_key_id, m.deployment_id, m.capability, m.name, m.name || '-1', %(queue)s, false, t.status,
    e.seq, t.attempt, t.priority,
    CASE WHEN t.attempt > 1 THEN t.created_at + t.wait_for + (t.attempt - 1) * t.step ELSE t.created_at END,
    CASE WHEN t.paused THEN t.created_at + t.wait_for END, 0, '{}',
    jsonb_build_object('customer', 'c-' || 1 + n %% 1999, 'order', 'A-' || 100000 + n,
        'env', CASE WHEN n %% 7 = 0 THEN 'staging' ELSE 'prod' END),
    CASE WHEN t.emptied THEN '{}'::json ELSE s.input END,
    CASE WHEN t.emptied THEN NULL WHEN t.status = 'succeeded' THEN s.output WHEN t.partial THEN to_json(s.partial_text) END,
    CASE WHEN t.status = 'succeeded' THEN '{"percent": 100, "stage": null, "message": null}'::jsonb
        WHEN t.status = 'running' THEN jsonb_build_object('percent', 10 * floor(t.work * 10), 'stage', 'working', 'message', null)
        ELSE '{"percent": null, "stage": null, "message": null}' END,
    CASE WHEN t.status = 'succeeded' AND NOT t.waived THEN s.warnings ELSE '[]' END,
    r.error, CASE WHEN t.status = 'succeeded' THEN s.usage WHEN t.partial THEN s.partial_usage ELSE '{}' END,
    CASE WHEN t.waived THEN s.quote || '{"ceiling_credits": "0.0000"}' ELSE s.quote END, t.quoted, t.waived, 1000,
    CASE WHEN n %% 10 < 7 THEN 'order-' || 100000 + n END,
    CASE WHEN n %% 5 < 3 THEN md5(%(salt)s || n) || md5(t.id::text) END,
    CASE WHEN n %% 5 < 3 THEN md5(t.id::text) || md5(%(salt)s || n) END,
    t.hook, 'standard', 2, CASE WHEN t.waived AND t.attempt = 1 THEN 2 ELSE 2 - (t.attempt - 1) END,
    CASE WHEN t.code = 'timeout' THEN 120 ELSE 600 END,
    CASE WHEN t.stuck THEN t.created_at + (now() - t.created_at) * (0.3 + 0.4 * t.work)
        WHEN t.code IN ('expired', 'deadline_exceeded') THEN t.created_at + (t.completed_at - t.created_at) * 0.99
        WHEN t.extended THEN t.created_at + interval '31 days'
        ELSE t.created_at + interval '30 days 2100 seconds' END,
    t.created_at + interval '30 days', t.rerun_of, t.rerun_of,
    CASE WHEN t.status = 'canceled' THEN (ARRAY['No longer needed.', 'Submitted twice by mistake.', NULL])[1 + n %% 3] END,
    CASE WHEN t.emptied THEN t.completed_at + interval '1 hour' END, t.created_at,
    CASE WHEN t.started THEN CASE WHEN t.status = 'running' AND t.attempt = 1 THEN t.last_start ELSE t.created_at + t.wait_for END END,
    t.completed_at, CASE WHEN t.status = 'canceled' THEN t.completed_at END
FROM seed_began t
JOIN seed_model m ON m.model = t.model
JOIN seed_sample s ON s.model = t.model AND s.number = t.work_number
LEFT JOIN seed_reason r ON r.code = t.code AND r.retryable = (t.attempt = 3)
JOIN seed_seq e ON e.id = t.id
ORDER BY n
