-- How far each watched task is, once a second for all who wait in a process; one whose key may not read it any more, or
-- that was purged, has no row. The size of a text stands beside it: that of a long one is known without reading it.
SELECT w.task, w.key, t.seq, t.attempt, octet_length(r.partial_text)
FROM unnest(%(tasks)s::uuid[], %(keys)s::uuid[]) AS w(task, key)
JOIN tasks_task t ON t.id = w.task
JOIN tasks_run r ON r.task_id = t.id AND r.number = t.attempt
JOIN billing_apikey k ON k.id = w.key AND k.account_id = t.account_id
JOIN billing_account a ON a.id = k.account_id
WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()) AND a.is_active
