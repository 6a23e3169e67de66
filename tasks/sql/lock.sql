-- The rows a verb decides on, locked, and then their present runs, so that nothing is streamed between the look and the
-- end. After a wait PostgreSQL re-reads a locked row, and status and attempt decide: every end of a lease changes one of
-- the two. A task that was retried during the wait has no run here: its new one is not in the statement's snapshot.
-- NO KEY: a rerun, which holds the account and refers to the task, does not wait for a refund, which holds the task and
-- waits for the account.
WITH t AS MATERIALIZED (
    SELECT * FROM tasks_task WHERE id = ANY (%(ids)s) FOR NO KEY UPDATE
), r AS MATERIALIZED (
    SELECT r.* FROM t JOIN tasks_run r ON r.task_id = t.id AND r.number = t.attempt FOR NO KEY UPDATE OF r
)
SELECT t.id, t.account_id, t.status, t.seq, t.queue, t.attempt, t.retries_left, t.quoted, t.quote, t.waived, t.usd_rate,
    t.started_at IS NOT NULL, t.callback_url, t.callback_format, r.lease_token,
    coalesce(r.usage, '{}'), coalesce(r.partial_text, ''),
    t.deadline <= now(), t.expires_at <= now(), r.lease_expires_at <= now(), coalesce(c.held, 0)
FROM t LEFT JOIN r ON r.task_id = t.id LEFT JOIN billing_charge c ON c.task_id = t.id
