-- The queues that may have work: those that deployments name, and those that tasks still wait in to be claimed.
WITH RECURSIVE waiting AS (
    (SELECT queue FROM tasks_task WHERE status = 'queued' AND paused_at IS NULL AND blocked = 0
     ORDER BY queue, account_id, priority DESC, id LIMIT 1)
    UNION ALL
    SELECT (SELECT t.queue FROM tasks_task t WHERE t.status = 'queued' AND t.paused_at IS NULL AND t.blocked = 0 AND t.queue > w.queue
            ORDER BY t.queue, t.account_id, t.priority DESC, t.id LIMIT 1)
    FROM waiting w WHERE w.queue IS NOT NULL
)
SELECT queue FROM tasks_deployment UNION SELECT queue FROM waiting WHERE queue IS NOT NULL ORDER BY queue
