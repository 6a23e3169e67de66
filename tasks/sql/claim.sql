-- Claim the next task of a queue, fairly: among the accounts with eligible work and room, the one with the fewest tasks
-- running in this queue goes first, ties by who was least recently served in it, then the priority of its head, then the
-- oldest; inside an account by priority, then age. So a newcomer waits for no more claims than there are accounts, with
-- one worker as with many, whatever runs elsewhere. `tasks_turn` keeps who was served when: a row an account and queue.
-- The account's row is locked before its task is picked, so its limit holds under any number of workers; both are taken
-- by SKIP LOCKED, so nobody waits while holding one. The account is chosen before it is locked: a row that fails its
-- condition after a wait stays locked, and to wait for the next one then is a deadlock (seen with 8 workers). No row:
-- nothing is eligible. A row without a task: the race for the chosen account was lost, and it is passed over next time.
-- `held` names an account whose row this transaction has waited for: then it is that one's turn, or nobody's.
-- Three things keep the planner on task_claim's order, 0.6 ms against 10-20 ms at 20,000 rows: `= (SELECT id FROM room)`
-- instead of a join, the index's whole order even where the account alone is wanted, and `NOT ids @> ARRAY[...]`, because
-- `<> ALL (...)` is estimated to leave one row.
WITH RECURSIVE waiting AS (
    (SELECT account_id FROM tasks_task
     WHERE status = 'queued' AND paused_at IS NULL AND blocked = 0 AND queue = %(queue)s
     ORDER BY account_id, priority DESC, id LIMIT 1)
    UNION ALL
    SELECT (SELECT t.account_id FROM tasks_task t
            WHERE t.status = 'queued' AND t.paused_at IS NULL AND t.blocked = 0 AND t.queue = %(queue)s
                AND t.account_id > w.account_id
            ORDER BY t.account_id, t.priority DESC, t.id LIMIT 1)
    FROM waiting w WHERE w.account_id IS NOT NULL
), drained AS MATERIALIZED (
    SELECT coalesce(array_agg(id), '{}') AS ids FROM tasks_deployment WHERE drained_at IS NOT NULL
), chosen AS MATERIALIZED (
    SELECT a.id FROM waiting w JOIN billing_account a ON a.id = w.account_id
    CROSS JOIN LATERAL (
        SELECT t.id, t.priority FROM tasks_task t
        WHERE t.account_id = a.id AND t.queue = %(queue)s AND t.status = 'queued' AND t.blocked = 0
            AND t.available_at <= now() AND t.paused_at IS NULL AND NOT (SELECT ids FROM drained) @> ARRAY[t.deployment_id]
            AND t.deadline > now() AND (t.started_at IS NOT NULL OR t.expires_at > now())
        ORDER BY t.priority DESC, t.id LIMIT 1) head
    LEFT JOIN tasks_turn turn ON turn.queue = %(queue)s AND turn.account_id = a.id
    WHERE a.running < a.running_limit AND a.id <> ALL (%(lost)s::uuid[]) AND a.id = coalesce(%(held)s::uuid, a.id)
    ORDER BY (SELECT count(*) FROM tasks_task r WHERE r.status = 'running' AND r.queue = %(queue)s AND r.account_id = a.id),
        turn.served_at NULLS FIRST, head.priority DESC, head.id LIMIT 1
), room AS MATERIALIZED (
    SELECT id FROM billing_account WHERE id = (SELECT id FROM chosen) AND running < running_limit
    FOR NO KEY UPDATE SKIP LOCKED
), picked AS (
    UPDATE tasks_task SET status = 'running', seq = seq + 1, started_at = coalesce(started_at, now()), progress = %(progress)s
    WHERE id = (
        SELECT t.id FROM tasks_task t
        WHERE t.account_id = (SELECT id FROM room) AND t.queue = %(queue)s AND t.status = 'queued' AND t.blocked = 0
            AND t.available_at <= now() AND t.paused_at IS NULL AND NOT (SELECT ids FROM drained) @> ARRAY[t.deployment_id]
            AND t.deadline > now() AND (t.started_at IS NOT NULL OR t.expires_at > now())
        ORDER BY t.priority DESC, t.id LIMIT 1
        FOR UPDATE SKIP LOCKED)
    RETURNING *
), run AS (
    UPDATE tasks_run r SET status = 'running', worker = %(worker)s, lease_token = %(token)s, started_at = now(),
        lease_expires_at = now() + make_interval(secs => %(lease)s)
    FROM picked p WHERE r.task_id = p.id AND r.number = p.attempt
), event AS (
    INSERT INTO tasks_taskevent (task_id, seq, type, data, actor)
    SELECT id, seq, 'task.running', jsonb_build_object('attempt', attempt), 'system' FROM picked
), turn AS (
    INSERT INTO tasks_turn (queue, account_id, served_at) SELECT queue, account_id, clock_timestamp() FROM picked
    ON CONFLICT (queue, account_id) DO UPDATE SET served_at = excluded.served_at
)
SELECT p.id, chosen.id, p.capability, p.resolved_model, p.input, p.attempt, p.timeout, p.deadline - now(), d.settings, p.quote,
    p.test, p.test_outcome
FROM chosen LEFT JOIN picked p ON true LEFT JOIN tasks_deployment d ON d.id = p.deployment_id
