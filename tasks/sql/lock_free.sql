-- Of these tasks those that are unfinished and that nobody holds, nor their account, locked without waiting: whoever ends
-- many at once keeps nobody waiting while holding one, and shares them with whoever does the same.
WITH a AS MATERIALIZED (
    SELECT id FROM billing_account WHERE id = ANY (%(accounts)s) FOR NO KEY UPDATE SKIP LOCKED
)
SELECT id FROM tasks_task
WHERE id = ANY (%(ids)s) AND account_id = ANY (ARRAY(SELECT id FROM a)) AND status IN ('queued', 'running')
FOR NO KEY UPDATE SKIP LOCKED
