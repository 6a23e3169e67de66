-- GET of one task: key, account and task in one look, so that 401, 403, 404 and 304 need no second one, and another
-- account's task is told apart from nothing at all by nothing. No row: 401. No seq: 404. No body: 304.
-- As fast as a bare view with one primary-key query (0.95-1.09 of it), where key look-up and serializers made 0.1.
SELECT k.id, a.requests_per_minute, a.is_active, k.scopes, t.seq, t.completed_at IS NOT NULL,
    CASE WHEN a.is_active AND 'tasks:read' = ANY (k.scopes) AND t.seq IS DISTINCT FROM %(seen)s::bigint THEN task_json(t.id) END
FROM billing_apikey k
JOIN billing_account a ON a.id = k.account_id
LEFT JOIN tasks_task t ON t.id = %(id)s AND t.account_id = a.id
WHERE k.digest = %(digest)s AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
