INSERT INTO tasks_callbackattempt (callback_id, number, started_at, duration_ms, status_code, response, error)
SELECT k.id, try, least(now(), k.created_at + (%(schedule)s::interval[])[try]), 8 + (t.n * 7 + try) %% 400, a.code,
    CASE WHEN a.code = 200 THEN 'ok' WHEN a.code = 410 THEN 'gone' ELSE '<h1>Service Unavailable</h1>' END,
    CASE WHEN a.code <> 200 THEN 'The receiver answered ' || a.code || '.' END
FROM seed_began t JOIN tasks_callback k ON k.task_id = t.id
CROSS JOIN LATERAL generate_series(1, k.attempt_count) try
CROSS JOIN LATERAL (SELECT CASE WHEN k.status = 'delivered' AND try = k.attempt_count THEN 200
    WHEN k.last_error LIKE '%%410.' THEN 410 ELSE 503 END AS code) a
ORDER BY k.created_at, k.id, try
