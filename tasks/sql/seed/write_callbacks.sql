-- What each task's own URL is told, and its account's endpoint of failures and cancels. Written while no callback is there, so
-- a body shows its callback as still owed, as bodies do. What is owed waits for a month, or for a receiver that is paused.
INSERT INTO tasks_callback (id, task_id, account_id, endpoint_id, event, url, format, body, status, attempt_count, tries_left,
    next_attempt_at, waits_for_id, waits_since, delivered_at, failed_at, last_error, created_at)
SELECT k.id, t.id, t.account_id, k.endpoint, 'task.' || t.status, k.url, 'standard',
    '{"type":"task.' || t.status || '","timestamp":"' || rfc3339(t.completed_at) || '","data":'
        || replace(task_json(t.id), ',"seq":' || s.seq || ',"attempt":', ',"seq":' || s.at_end || ',"attempt":') || '}',
    CASE k.state WHEN 'delivered' THEN 'delivered' WHEN 'failed' THEN 'failed' WHEN 'gone' THEN 'failed' ELSE 'pending' END,
    k.made, CASE k.state WHEN 'delivered' THEN 10 - k.made WHEN 'failed' THEN 0 WHEN 'gone' THEN 0 ELSE 10 - k.made END,
    CASE WHEN k.state = 'owed' THEN now() + interval '30 days' + t.work * interval '1 day' WHEN k.state = 'waiting' THEN t.completed_at END,
    CASE WHEN k.state = 'waiting' THEN a.receiver_id END,
    CASE WHEN k.state = 'waiting' THEN greatest(t.completed_at, now() - interval '1 day') END,
    CASE WHEN k.state = 'delivered' THEN least(now(), t.completed_at + (%(schedule)s::interval[])[k.made]) END,
    CASE WHEN k.state IN ('failed', 'gone') THEN t.completed_at + (%(schedule)s::interval[])[k.made] END,
    CASE WHEN k.state IN ('failed', 'waiting') OR (k.state <> 'gone' AND k.made > 1) THEN 'The receiver answered 503.'
        WHEN k.state = 'gone' THEN 'The receiver answered 410.' END, t.completed_at
FROM seed_began t JOIN seed_account a ON a.place = t.place JOIN seed_seq s ON s.id = t.id
CROSS JOIN LATERAL (
    SELECT t.callback_id AS id, NULL::uuid AS endpoint, t.hook AS url, t.callback AS state, t.attempts_made AS made
    WHERE t.callback IS NOT NULL
    UNION ALL
    SELECT uuid_in(md5(%(salt)s || 'endpoint' || t.n)::cstring), a.endpoint_id, a.endpoint_url, 'delivered', 1
    WHERE a.endpoint_id IS NOT NULL AND t.status IN ('failed', 'canceled')) k
WHERE t.final ORDER BY t.completed_at
