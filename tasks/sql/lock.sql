-- The row every verb decides on, locked. Only the task is locked: after a wait PostgreSQL re-reads it, and its status
-- and attempt decide; every end of a lease changes one of the two. The runs stay as the statement first saw them: a task
-- that was retried during the wait has none here, which is why the join is a left one. NO KEY: a rerun, which holds the
-- account and refers to the task, does not wait for a refund, which holds the task and waits for the account.
SELECT t.id, t.account_id, t.status, t.seq, t.queue, t.attempt, t.retries_left, t.quoted, t.quote, t.waived, t.usd_rate,
    t.started_at IS NOT NULL, t.callback_url, t.callback_format, d.bills_partial_output, r.lease_token,
    coalesce(r.usage, '{}'), coalesce(r.partial_text, ''),
    t.deadline <= now(), t.expires_at <= now(), r.lease_expires_at <= now(), coalesce(c.held, 0)
FROM tasks_task t
JOIN tasks_deployment d ON d.id = t.deployment_id
LEFT JOIN tasks_run r ON r.task_id = t.id AND r.number = t.attempt
LEFT JOIN billing_charge c ON c.task_id = t.id
WHERE t.id = %(id)s
FOR NO KEY UPDATE OF t
