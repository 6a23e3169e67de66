-- The queues that may have work: those that deployments name, and those that queued tasks still wait in.
WITH RECURSIVE waiting AS (
    (SELECT queue FROM tasks_task WHERE status = 'queued' ORDER BY queue, account_id, priority DESC, id LIMIT 1)
    UNION ALL
    SELECT (SELECT t.queue FROM tasks_task t WHERE t.status = 'queued' AND t.queue > w.queue
            ORDER BY t.queue, t.account_id, t.priority DESC, t.id LIMIT 1)
    FROM waiting w WHERE w.queue IS NOT NULL
)
SELECT queue FROM tasks_deployment UNION SELECT queue FROM waiting WHERE queue IS NOT NULL ORDER BY queue
