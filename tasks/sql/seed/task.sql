-- The tasks as they will be written: whose key, what work at what price, whether called back, refunded or run again. A rerun
-- repeats the work of its account's last task that failed, for the same model; every other one is free.
CREATE TEMP TABLE seed_task ON COMMIT DROP AS
WITH before AS (
    SELECT l.*, lag(n) OVER w AS before, lag(status) OVER w AS before_was, lag(completed_at) OVER w AS before_ended,
        lag(id) OVER w AS before_id, lag(number) OVER w AS before_number, lag(later) OVER w AS before_later
    FROM seed_life l WINDOW w AS (PARTITION BY place, model ORDER BY n)
), rerun AS (
    SELECT *, coalesce(later < 0.2 AND before_was IN ('failed', 'canceled') AND before_ended < created_at
        AND before_later >= 0.2, false) AS again
    FROM before
), worked AS (
    SELECT b.*, again AND n %% 2 = 0 AS waived, CASE WHEN again THEN before_number ELSE number END AS work_number,
        CASE WHEN again THEN before_id END AS rerun_of
    FROM rerun b
), priced AS (
    SELECT w.*, CASE WHEN waived THEN 0 ELSE s.quoted END AS quoted,
        CASE WHEN waived THEN 0 WHEN status = 'succeeded' THEN s.charged WHEN partial THEN s.partial_charged ELSE 0 END
            AS charged
    FROM worked w JOIN seed_sample s ON s.model = w.model AND s.number = w.work_number
), called AS (
    SELECT p.*, a.id AS account_id, a.failing,
        CASE WHEN NOT waived THEN CASE WHEN p.call < 0.85 THEN a.key_id ELSE a.second_key_id END END AS api_key_id,
        CASE WHEN p.call < 0.85 THEN a.key_prefix ELSE a.second_key_prefix END AS key_prefix,
        CASE WHEN p.call < 0.8 THEN a.hook END AS hook,
        uuid_in(md5(%(salt)s || 'callback' || n)::cstring) AS callback_id,
        CASE WHEN NOT final OR a.hook IS NULL OR p.call >= 0.8 THEN NULL
            WHEN a.failing AND completed_at < now() - interval '80 hours' THEN 'failed'
            WHEN a.failing THEN 'waiting'
            WHEN p.call < 0.003 THEN 'gone'
            WHEN p.call < 0.015 AND completed_at > now() - interval '20 hours' THEN 'owed'
            ELSE 'delivered' END AS callback,
        CASE WHEN age < 1200 OR p.call * 100 - floor(p.call * 100) < 0.94 THEN 1
            WHEN p.call * 100 - floor(p.call * 100) < 0.99 THEN 2
            ELSE 3 END AS hook_tries
    FROM priced p JOIN seed_account a ON a.place = p.place
)
SELECT *,
    CASE WHEN callback IS NULL THEN 0 WHEN callback = 'failed' THEN 10 WHEN callback = 'gone' THEN 1
        WHEN callback = 'waiting' THEN 2 WHEN callback = 'owed' THEN 2 ELSE hook_tries END AS attempts_made,
    CASE WHEN status = 'succeeded' AND charged > 0 AND later > 0.98 AND NOT failing AND age > 7200
        THEN CASE WHEN later > 0.99 THEN charged WHEN later > 0.984 THEN round(charged / 2, 4) ELSE 1.0000 END END AS refunded,
    CASE WHEN later > 0.98 AND later <= 0.984 THEN 0 END AS refunded_line,
    completed_at + greatest(age / 2, 3600) * 0.5 * interval '1 second' AS refunded_at,
    status = 'queued' AND NOT stuck AND cause < 0.15 AS paused,
    status = 'running' AND NOT stuck AND cause < 0.2 AS extended,
    CASE WHEN cause * 1000 - floor(cause * 1000) < 0.03 AND again IS FALSE AND final AND started THEN 8
        WHEN cause * 1000 - floor(cause * 1000) > 0.95 THEN 3 ELSE 5 END AS priority,
    status = 'succeeded' AND callback IS NULL AND later BETWEEN 0.6 AND 0.602 AND age > 7200 AND attempt = 1 AS emptied
FROM called
