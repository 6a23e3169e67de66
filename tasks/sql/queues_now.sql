-- Each queue as it is now: what waits in it (up to `most`), what runs, the oldest task that `claim.sql` would find, and the
-- last claim. The oldest is looked for among the heads of accounts with room and of priorities, in task_claim's order, so
-- that a backlog costs no more than its accounts.
SELECT q.queue,
    (SELECT count(*) FROM (SELECT FROM tasks_task
        WHERE queue = q.queue AND status = 'queued' AND paused_at IS NULL AND blocked = 0 LIMIT %(most)s) t) AS waiting,
    (SELECT count(*) FROM tasks_task WHERE queue = q.queue AND status = 'running') AS running,
    oldest.id, oldest.available_at,
    (SELECT max(served_at) FROM tasks_turn WHERE queue = q.queue) AS claimed_at
FROM unnest(%(queues)s::text[]) q(queue)
LEFT JOIN LATERAL (
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
    SELECT head.id, head.available_at
    FROM waiting w JOIN billing_account a ON a.id = w.account_id CROSS JOIN generate_series(0, 9) AS p(priority)
    CROSS JOIN LATERAL (
        SELECT t.id, t.available_at FROM tasks_task t
        WHERE t.account_id = a.id AND t.queue = q.queue AND t.priority = p.priority AND t.status = 'queued' AND t.blocked = 0
            AND t.available_at <= now() AND t.paused_at IS NULL AND NOT (SELECT ids FROM drained) @> ARRAY[t.deployment_id]
            AND t.deadline > now() AND (t.started_at IS NOT NULL OR t.expires_at > now())
        ORDER BY t.id LIMIT 1) head
    WHERE a.running < a.running_limit
    ORDER BY head.available_at, head.id LIMIT 1
) oldest ON true
ORDER BY q.queue
