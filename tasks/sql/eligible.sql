-- How many tasks of each queue could be claimed now, up to `most`: what `claim.sql` would find, and no more of an account
-- than it has room for. Without that an account at its limit had 64 messages sent for nothing in every tick.
SELECT q.queue, least(%(most)s, coalesce((
    WITH RECURSIVE waiting AS (
        (SELECT account_id FROM tasks_task
         WHERE status = 'queued' AND paused_at IS NULL AND blocked = 0 AND queue = q.queue
         ORDER BY account_id, priority DESC, id LIMIT 1)
        UNION ALL
        SELECT (SELECT t.account_id FROM tasks_task t
                WHERE t.status = 'queued' AND t.paused_at IS NULL AND t.blocked = 0 AND t.queue = q.queue
                    AND t.account_id > w.account_id
                ORDER BY t.account_id, t.priority DESC, t.id LIMIT 1)
        FROM waiting w WHERE w.account_id IS NOT NULL
    ), drained AS MATERIALIZED (
        SELECT coalesce(array_agg(id), '{}') AS ids FROM tasks_deployment WHERE drained_at IS NOT NULL
    )
    SELECT sum(eligible.tasks) FROM waiting w JOIN billing_account a ON a.id = w.account_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS tasks FROM (
            SELECT 1 FROM tasks_task t
            WHERE t.account_id = a.id AND t.queue = q.queue AND t.status = 'queued' AND t.blocked = 0
                AND t.available_at <= now() AND t.paused_at IS NULL AND NOT (SELECT ids FROM drained) @> ARRAY[t.deployment_id]
                AND t.deadline > now() AND (t.started_at IS NOT NULL OR t.expires_at > now())
            ORDER BY t.priority DESC, t.id LIMIT least(%(most)s, a.running_limit - a.running)) head) eligible
    WHERE a.running < a.running_limit
), 0))::int
FROM unnest(%(queues)s::text[]) q(queue)
