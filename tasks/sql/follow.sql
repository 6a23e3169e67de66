-- What a stream has still to tell, all of one moment: the events after a seq, the text after an offset (the whole text of
-- an attempt that it has not begun to tell; unread where the size says that there is none), and the present state. No row: the task is gone, or the key may not read it.
SELECT t.seq, t.completed_at IS NOT NULL, t.attempt,
    CASE WHEN t.attempt = %(attempt)s AND octet_length(r.partial_text) = %(size)s THEN ''
        WHEN t.attempt = %(attempt)s THEN substr(r.partial_text, %(offset)s::int + 1) ELSE r.partial_text END,
    octet_length(r.partial_text),
    (SELECT row_to_json(p)::text FROM (SELECT t.seq, 'task.progress' AS type, rfc3339(now()) AS created_at,
        (SELECT row_to_json(d) FROM (SELECT t.status, t.attempt, t.progress -> 'percent' AS percent,
            t.progress -> 'stage' AS stage, t.progress -> 'message' AS message) d) AS data) p),
    ARRAY(SELECT ARRAY[e.seq::text, e.type, (SELECT row_to_json(o)::text FROM (
            SELECT e.seq, e.type, rfc3339(e.created_at) AS created_at, e.data - 'private' AS data) o)]
        FROM tasks_taskevent e WHERE e.task_id = t.id AND e.seq > %(after)s ORDER BY e.seq LIMIT %(most)s)
FROM billing_apikey k
JOIN billing_account a ON a.id = k.account_id
JOIN tasks_task t ON t.id = %(id)s AND t.account_id = a.id
JOIN tasks_run r ON r.task_id = t.id AND r.number = t.attempt
WHERE k.id = %(key)s AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
    AND a.is_active AND 'tasks:read' = ANY (k.scopes)
